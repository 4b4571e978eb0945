//! HTTP/2 on the developer's route: what the developer sees, and what clients get when something is wrong.

use lab::{Agent, App, Curl, Intercept, Nginx, eventually, http2_client};
use serde_json::json;

use crate::{
    http2::{Http2Scene, get, request},
    scene::{ALICE, LOCAL, PORT, Route, for_alice, in_lab, text},
};

const PRIOR: &str = "--http2-prior-knowledge";

#[test]
fn nginx_serves_http2_on_both_routes() {
    in_lab(|lab| {
        let _app = Nginx::http2(lab, &lab.pod, &[PORT]);
        let _alice_app = Nginx::http2(lab, &lab.dev, &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let url = format!("http://{}/who", lab.pod.at(PORT));
        for (route, host) in [(Route::Live, &lab.pod), (Route::Alice, &lab.dev)] {
            let answer = Curl::on(&lab.client).request(&url, &[PRIOR], &[route.header()]).answer();
            assert_eq!(answer.body, format!("nginx in {}\n", host.netns.name()));
        }
    });
}

#[test]
fn matchers_see_the_authority_as_host_and_crumbs_as_one_cookie() {
    in_lab(|lab| {
        let _app = App::http2(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::http2(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let intercept = Intercept::new(lab, &agent, PORT, LOCAL).name("alice");
        let _alice =
            intercept.header("host", "pod.test:8080").header("cookie", "a=1; dev=alice; b=2").start(lab);
        let crumbs =
            |crumbs: &[&str]| request(Route::Live, "GET", "/x", json!({ "headers": { "cookie": crumbs } }));
        let requests = [
            crumbs(&["a=1", "dev=alice; b=2"]),
            crumbs(&["dev=alice"]),
            crumbs(&["a=1", "dev=alice", "b=2"]),
        ];
        let answers = http2_client(lab, &lab.client, lab.pod.at(PORT), &json!({ "requests": requests }));
        let servers = [0, 1, 2].map(|number| text(&answers.report(number), "served_by"));
        assert_eq!(servers, ["alice", "app", "alice"]);
        let report = answers.report(0);
        let sent = report["headers"].as_array().unwrap();
        assert!(sent.contains(&json!(["cookie", "a=1"])), "the crumbs arrive as they were sent: {report}");
    });
}

#[test]
fn each_routed_stream_is_a_line_on_the_developers_screen() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        let post = request(Route::Alice, "POST", "/first?a=b", json!({ "body": "abc" }));
        let reset = get(Route::Alice, "/reset?code=7");
        scene.ask(&json!({ "requests": [post, reset, get(Route::Alice, "/trailers")] }));
        eventually("the requests are on the screen", || {
            let lines = scene.alice.lines();
            let has = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
            has(&["POST", "/first?a=b", "200", "3 B in"])
                && has(&["GET", "/trailers", "200", "0 B in 14 B out"])
                && has(&["/reset?code=7", "cut off"])
        });
    });
}

#[test]
fn a_local_server_that_refuses_gives_a_502_and_grpc_a_status() {
    in_lab(|lab| {
        let Http2Scene { alice: _alice, agent, alice_app, app: _app, lab } = Http2Scene::new(lab);
        drop(alice_app);
        let url = format!("http://{}/x", lab.pod.at(PORT));
        let ask = |arguments: &[&str], headers: &[&str]| {
            let arguments = [&[PRIOR], arguments].concat();
            Curl::on(&lab.client).request(&url, &arguments, headers).answer()
        };
        for arguments in [&[][..], &["--data", "abc"]] {
            let answer = ask(arguments, &[ALICE]);
            assert_eq!(answer.status, 502);
            assert!(
                answer.body.contains("\"alice\"") && answer.body.contains("127.0.0.1:3000"),
                "{answer:?}"
            );
        }
        let grpc =
            ask(&["--data", "abc", "--dump-header", "-"], &[ALICE, "content-type: application/grpc+proto"]);
        assert_eq!(grpc.status, 200);
        assert!(grpc.body.contains("grpc-status: 14") && grpc.body.contains("\"alice\""), "{grpc:?}");

        let requests = [get(Route::Alice, "/x"), get(Route::Live, "/x")];
        let answers = http2_client(lab, &lab.client, lab.pod.at(PORT), &json!({ "requests": requests }));
        assert_eq!(answers.answer(0)["status"], 502);
        assert_eq!(answers.answer(1)["status"], 200, "the connection stays usable");
        assert_eq!(agent.list()[0]["counts"]["failed"], 4);
    });
}

#[test]
fn a_local_server_without_http2_is_named_as_the_reason() {
    in_lab(|lab| {
        let _app = App::http2(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let url = format!("http://{}/x", lab.pod.at(PORT));
        let answer = Curl::on(&lab.client).request(&url, &[PRIOR], &[ALICE]).answer();
        assert_eq!(answer.status, 502);
        assert!(answer.body.contains("must speak HTTP/2 without TLS"), "{answer:?}");
    });
}

#[test]
fn a_local_server_that_dies_gives_a_502_for_what_it_has_not_answered() {
    in_lab(|lab| {
        let Http2Scene { alice: _alice, agent: _agent, alice_app, app: _app, lab } = Http2Scene::new(lab);
        let requests = [get(Route::Alice, "/hang"), get(Route::Live, "/x")];
        std::thread::scope(|scope| {
            let plan = json!({ "requests": requests });
            let client = scope.spawn(move || http2_client(lab, &lab.client, lab.pod.at(PORT), &plan));
            eventually("alice has the request", || alice_app.log().contains("hangs /hang"));
            drop(alice_app);
            let answers = client.join().unwrap();
            let said = answers.answer(0)["text"].as_str().unwrap();
            assert_eq!(answers.answer(0)["status"], 502, "{answers:?}");
            assert!(said.contains("\"alice\"") && said.contains("closed the connection"), "{said}");
            assert_eq!(answers.answer(1)["status"], 200, "others are not touched");
        });
    });
}

#[test]
fn a_tunnel_that_is_lost_in_the_middle_leaves_safe_requests_to_the_app() {
    in_lab(|lab| {
        let Http2Scene { alice, agent, alice_app, app, lab } = Http2Scene::new(lab);
        let hang = |method: &str| request(Route::Alice, method, "/hang", json!({ "cancel": 8 }));
        // The app hangs, too: which server has the request is known by what it prints.
        let plan = json!({ "requests": [hang("GET")] });
        std::thread::scope(|scope| {
            let client = scope.spawn(|| http2_client(lab, &lab.client, lab.pod.at(PORT), &plan));
            eventually("alice has the request", || alice_app.log().contains("hangs /hang"));
            alice.kill();
            client.join().unwrap();
        });
        assert!(app.log().contains("hangs /hang"), "the app got it");
        let counts = agent.list()[0]["counts"].clone();
        assert_eq!((counts["matched"].as_u64(), counts["away"].as_u64()), (Some(1), Some(1)));
    });
}

#[test]
fn while_the_developer_is_gone_the_app_answers_streams() {
    in_lab(|lab| {
        let Http2Scene { alice, agent: _agent, alice_app: _alice_app, app: _app, lab } = Http2Scene::new(lab);
        alice.kill();
        let url = format!("http://{}/x", lab.pod.at(PORT));
        eventually("the app answers", || {
            let answer = Curl::on(&lab.client).request(&url, &[PRIOR], &[ALICE]).answer();
            serde_json::from_str(&answer.body).is_ok_and(|report| text(&report, "served_by") == "app")
        });
    });
}
