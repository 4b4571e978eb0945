//! What one stream of HTTP/2 carries, and that streams do not disturb each other: the same as without the agent.

use lab::{Agent, CommandOutput, Nginx, eventually, http2_client};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    http2::{Http2Scene, get, request},
    scene::{DIRECT, LOCAL, PORT, Route, for_alice, in_lab},
};

/// What 90 stalled streams may cost the agent, which would have to hold 720 MiB if it took what comes. Bytes.
const MORE_MEMORY: u64 = 96 << 20;

#[test]
fn a_head_arrives_as_it_was_sent() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        scene.same_as_direct(|route| {
            let headers = json!({ "headers": {
                "te": "trailers", "cookie": ["a=1", "b=2; c=3", "d=4"], "x-many": ["one", "two", "one"],
                "x-empty": "", "accept-encoding": "gzip, br", "x-bin": "AAEC/w==",
            }});
            let no_host = request(route, "GET", "/a%20b?c=%C3%BC&d={}|^`~", headers);
            let options = request(route, "OPTIONS", "*", json!({}));
            let secure = request(route, "GET", "/s", json!({ "headers": { ":scheme": "https" } }));
            let head = request(route, "HEAD", "/head", json!({}));
            json!({ "requests": [no_host, options, secure, head] })
        });
    });
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        scene.same_as_direct(|route| {
            let post = |more: Value| request(route, "POST", "/x", more);
            json!({ "requests": [
                post(json!({ "body": "abc", "trailers": { "x-sum": "7", "x-more": "y" } })),
                post(json!({ "body": "" })),
                post(json!({ "body_mib": 9 })),
                get(route, "/trailers"),
                get(route, "/big?mib=9"),
            ]})
        });
    });
}

#[test]
fn interim_answers_pass() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        scene.same_as_direct(|route| json!({ "requests": [get(route, "/interim")] }));
        let answers = scene.ask(&json!({ "requests": [get(Route::Live, "/interim")] }));
        assert_eq!(answers.answer(0)["interim"], json!([[103, "</a>"]]));
    });
}

#[test]
fn resets_of_the_server_reach_the_client_with_their_codes() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        scene.same_as_direct(|route| {
            let codes = [1, 2, 7, 8, 11, 13, 4711];
            let resets = codes.map(|code| get(route, &format!("/reset?code={code}")));
            let begun = codes.map(|code| get(route, &format!("/reset?code={code}&begun=100")));
            let requests = [resets, begun].concat();
            json!({ "requests": requests })
        });
    });
}

#[test]
fn cancellation_reaches_the_server_with_its_code() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        for (route, server) in [(Route::Live, &scene.app), (Route::Alice, &scene.alice_app)] {
            for code in [8, 2, 13] {
                let path = format!("/hang?{code}");
                scene.ask(&json!({ "requests": [request(route, "GET", &path, json!({ "cancel": code }))] }));
                let line = format!("stream of {path} ended with {code}");
                eventually(&format!("{route:?}: {line}"), || server.log().contains(&line));
            }
        }
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_is_complete() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        for route in Route::BOTH {
            let early = request(route, "POST", "/early", json!({ "open": true }));
            let answers = scene.ask(&json!({ "requests": [early] }));
            let answer = answers.answer(0);
            assert_eq!(
                (&answer["status"], &answer["text"], &answer["code"]),
                (&200.into(), &"early\n".into(), &0.into()),
                "{route:?}"
            );
            assert_eq!(answer["error"], Value::Null);
        }
    });
}

#[test]
fn websockets_over_http2_work_on_both_routes() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        scene.same_as_direct(|route| {
            let headers = json!({ "headers": { ":protocol": "websocket", ":scheme": "http", "sec-websocket-version": "13" } });
            let mut websocket = request(route, "CONNECT", "/socket", headers);
            websocket["body"] = "a masked frame, as far as anybody here knows".into();
            let connect = json!({ "headers": { ":method": "CONNECT", ":authority": "other.test:80", "x-dev": route.header().split_once(": ").unwrap().1 }, "body": "bytes" });
            json!({ "requests": [websocket, connect] })
        });
        let headers = json!({ "headers": { ":protocol": "websocket", ":scheme": "http" }, "body": "x" });
        let answers =
            scene.ask(&json!({ "requests": [request(Route::Alice, "CONNECT", "/socket", headers)] }));
        assert_eq!(answers.answer(0)["text"], "xbye alice\n", "{answers:?}");
    });
}

#[test]
fn a_storm_of_cancelled_streams_keeps_the_connection() {
    in_lab(|lab| {
        // Servers have guards against such storms. This one's is as wide as the storm.
        let wide = "http2_max_concurrent_streams 100000;";
        let _app = Nginx::http2_with(lab, &lab.pod, &[PORT, DIRECT], wide);
        let _alice_app = Nginx::http2(lab, &lab.dev, &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let storm = |port: u16, route: Route| {
            let headers = get(route, "/who")["headers"].clone();
            let plan = json!({
                "storm": { "count": 5000, "headers": headers },
                "requests": [get(Route::Live, "/who"), get(Route::Alice, "/who")],
            });
            http2_client(lab, &lab.client, lab.pod.at(port), &plan)
        };
        let direct = storm(DIRECT, Route::Live);
        assert_eq!(direct.0["closed"], false, "the server withstands it: {direct:?}");
        for route in Route::BOTH {
            let answers = storm(PORT, route);
            let texts = [0, 1].map(|number| answers.answer(number)["text"].clone());
            let names = [&lab.pod, &lab.dev].map(|host| format!("nginx in {}\n", host.netns.name()));
            assert_eq!(texts, names, "{route:?}: {answers:?}");
            assert_eq!((&answers.0["goaway"], &answers.0["error"]), (&Value::Null, &Value::Null));
        }
    });
}

#[test]
fn streams_that_nobody_reads_do_not_stall_the_others() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        let stalled = |route, path: &str| {
            let mut request = get(route, path);
            request["stall"] = true.into();
            request
        };
        // More than all windows of the connections on the way would hold, were they shared.
        let mut requests = Vec::new();
        for _ in 0..30 {
            requests.extend(Route::BOTH.map(|route| stalled(route, "/big?mib=8")));
            let mut upload = request(Route::Alice, "POST", "/hang", json!({ "body_mib": 8 }));
            upload["stall"] = true.into();
            requests.push(upload);
        }
        let first = requests.len();
        for route in Route::BOTH {
            let mut late = get(route, "/big?mib=3");
            late["late"] = true.into();
            requests.push(late);
        }
        let before = scene.agent.reset_peak_memory();
        let answers = scene.ask(&json!({ "requests": requests, "together": true }));
        let more = scene.agent.peak_memory().saturating_sub(before);
        assert!(more < MORE_MEMORY, "{more} bytes more for {first} stalled streams");
        for number in first..first + 2 {
            assert_eq!(answers.answer(number)["length"], 3 << 20, "{:?}", answers.answer(number));
        }
    });
}

#[test]
fn a_developer_who_takes_nothing_does_not_stall_the_others() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        // The tunnel lives, so nobody finds out that there is nobody to wait for.
        scene.alice_app.process().signal(Signal::SIGSTOP);
        let mut upload = request(Route::Alice, "POST", "/x", json!({ "body_mib": 50 }));
        upload["stall"] = true.into();
        let mut late = request(Route::Live, "POST", "/x", json!({ "body_mib": 3 }));
        late["late"] = true.into();
        let mut requests = vec![upload; 12];
        requests.push(late);
        let answers = scene.ask(&json!({ "requests": requests, "together": true }));
        assert_eq!(scene.agent.list()[0]["counts"]["matched"], 12);
        assert_eq!(answers.report(12)["body_length"], 3 << 20, "{answers:?}");
        scene.alice_app.process().signal(Signal::SIGCONT);
    });
}

#[test]
fn h2load_sees_no_failed_request_on_either_route() {
    in_lab(|lab| {
        let _app = Nginx::http2(lab, &lab.pod, &[PORT]);
        let _alice_app = Nginx::http2(lab, &lab.dev, &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        for (route, count) in [(Route::Live, 20000), (Route::Alice, 4000)] {
            let output = h2load(lab, count, route);
            let all = format!(
                "{count} total, {count} started, {count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout"
            );
            assert!(output.stdout.contains(&all), "{route:?}: {output:?}");
            assert!(output.stdout.contains(&format!("status codes: {count} 2xx")), "{route:?}: {output:?}");
        }
        let counts = &agent.list()[0]["counts"];
        assert_eq!((counts["answered"].as_u64(), counts["failed"].as_u64()), (Some(4000), Some(0)));
    });
}

fn h2load(lab: &lab::Lab, count: u32, route: Route) -> CommandOutput {
    let url = format!("http://{}/who", lab.pod.at(PORT));
    let mut command = lab.client.netns.command("h2load");
    command.args(["-n", &count.to_string(), "-c", "8", "-m", "25", "-H", route.header(), &url]);
    CommandOutput::of(&mut command)
}
