//! What the tests of HTTP/2 start from, and the client's connection as a whole: taken up, ended, drained.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
};

use lab::{Agent, App, Curl, Developer, Http2Answers, Lab, Server, eventually, http2_client};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::{ALICE, DIRECT, LOCAL, PORT, Route, assert_carried, for_alice, in_lab, text};

/// Node's HTTP/2 server in the pod and on alice's machine, the agent, and alice's intercept.
/// (Fields are dropped in this order.)
pub struct Http2Scene<'a> {
    pub alice: Developer,
    pub agent: Agent,
    pub alice_app: App,
    pub app: App,
    pub lab: &'a Lab,
}

impl<'a> Http2Scene<'a> {
    pub fn new(lab: &'a Lab) -> Self {
        let app = App::http2(lab, &lab.pod, "app", &[PORT, DIRECT]);
        let alice_app = App::http2(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let alice = for_alice(lab, &agent).start(lab);
        Self { alice, agent, alice_app, app, lab }
    }

    /// A client of the intercepted port.
    #[track_caller]
    pub fn ask(&self, plan: &Value) -> Http2Answers {
        http2_client(self.lab, &self.lab.client, self.lab.pod.at(PORT), plan)
    }

    /// A client of the server at the end of a route, with nothing on the way.
    #[track_caller]
    pub fn ask_directly(&self, route: Route, plan: &Value) -> Http2Answers {
        match route {
            Route::Live => http2_client(self.lab, &self.lab.client, self.lab.pod.at(DIRECT), plan),
            Route::Alice => {
                let local = SocketAddr::from(([127, 0, 0, 1], LOCAL));
                http2_client(self.lab, &self.lab.dev, local, plan)
            }
        }
    }

    /// Asks the same directly and through the agent, on both routes, and asserts that the answers are the same.
    #[track_caller]
    pub fn same_as_direct(&self, plan: impl Fn(Route) -> Value) {
        for route in Route::BOTH {
            let plan = plan(route);
            let direct = comparable(self.ask_directly(route, &plan));
            let through = comparable(self.ask(&plan));
            assert_eq!(through, direct, "{route:?}");
        }
    }
}

/// The answers without what says which connection they came by.
fn comparable(answers: Http2Answers) -> Value {
    let mut answers = answers.0["answers"].clone();
    for answer in answers.as_array_mut().expect("answers") {
        if let Some(headers) = answer["headers"].as_array_mut() {
            headers.retain(|header| !is_date(header));
        }
        let Ok(mut report) = serde_json::from_str::<Value>(answer["text"].as_str().unwrap_or_default())
        else {
            continue;
        };
        if let Some(report) = report.as_object_mut() {
            report.remove("connection");
            report.remove("peer");
            // Fields in front of the others whose order says nothing (RFC 9113 §8.3).
            if let Some(headers) = report["headers"].as_array_mut() {
                let pseudo = headers.iter().take_while(|header| is_pseudo(header)).count();
                headers[..pseudo].sort_by_key(Value::to_string);
            }
        }
        answer["text"] = report;
        // Of the text that was just changed.
        let answer = answer.as_object_mut().expect("an answer");
        answer.remove("length");
        answer.remove("sha256");
    }
    answers
}

fn is_pseudo(header: &Value) -> bool {
    header[0].as_str().is_some_and(|name| name.starts_with(':'))
}

fn is_date(header: &Value) -> bool {
    header.as_str().is_some_and(|text| text == "date" || text.ends_with(" GMT"))
}

/// A request of a plan for [`http2_client`], on a route.
pub fn request(route: Route, method: &str, path: &str, more: Value) -> Value {
    let (name, value) = route.header().split_once(": ").expect("a header");
    let mut request = json!({ "headers": {
        ":method": method, ":path": path, ":authority": "pod.test:8080", name: value,
    }});
    merge(&mut request, more);
    request
}

pub fn get(route: Route, path: &str) -> Value {
    request(route, "GET", path, json!({}))
}

/// What was counted at the intercepted port.
pub fn port_counts(agent: &Agent) -> Value {
    agent.json(&["status"])["targets"][0]["ports"][PORT.to_string()].clone()
}

/// The connections that were passed on unseen, for any reason.
pub fn uncovered(agent: &Agent) -> u64 {
    let counts = port_counts(agent);
    let reasons = counts["uncovered"].as_object().expect("the reasons");
    reasons.values().filter_map(Value::as_u64).sum()
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

#[test]
fn one_http2_connection_serves_everybody() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        // Not by curl: that of Debian 12 can't use a connection with prior knowledge twice.
        let routes = [Route::Live, Route::Alice, Route::Alice, Route::Live, Route::Alice, Route::Live];
        let answers = scene.ask(&json!({ "requests": routes.map(|route| get(route, "/x?a=b")) }));
        for (number, route) in routes.into_iter().enumerate() {
            let report = answers.report(number);
            assert_eq!(text(&report, "served_by"), route.server());
            if route == Route::Live {
                assert_eq!(text(&report, "peer").trim_start_matches("::ffff:"), lab.client.v4.to_string());
                assert_eq!(report["connection"], 0, "one connection to the app");
            }
        }
        let seen = &port_counts(&scene.agent)["requests"]["h2"];
        assert_eq!((seen["seen"].as_u64(), seen["live"].as_u64()), (Some(6), Some(3)));
        assert_eq!(uncovered(&scene.agent), 0);
        let counts = &scene.agent.list()[0]["counts"];
        assert_eq!((counts["matched"].as_u64(), counts["answered"].as_u64()), (Some(3), Some(3)));
    });
}

#[test]
fn settings_are_those_of_the_other_side() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        let plan = json!({ "requests": [get(Route::Live, "/settings"), get(Route::Alice, "/settings")] });
        let answers = scene.ask(&plan);
        let server = &answers.0["settings"];
        assert_eq!(server["maxConcurrentStreams"], 5000);
        assert_eq!(server["maxHeaderListSize"], 60000);
        assert_eq!(server["initialWindowSize"], 200_000);
        assert_eq!(server["enableConnectProtocol"], true);
        for number in 0..2 {
            let client = answers.report(number);
            assert_eq!(client["maxHeaderListSize"], 50000);
            assert_eq!(
                client["initialWindowSize"],
                256 << 10,
                "the client's own, cut to what one stream may cost"
            );
            assert_eq!(client["enablePush"], false);
        }
    });
}

#[test]
fn an_app_without_http2_answers_its_clients_as_ever() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT, DIRECT]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let exchange = |port: u16| {
            let mut connection = lab.client.connect(lab.pod.at(port));
            connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            connection.finish_sending();
            connection.rest()
        };
        let direct = exchange(DIRECT);
        assert!(direct.starts_with(b"HTTP/1.1 "), "{direct:?}");
        assert_eq!(exchange(PORT), direct);
        assert_eq!(port_counts(&agent)["uncovered"]["http2"], 1);
    });
}

#[test]
fn half_a_preface_reaches_the_app_as_it_is() {
    in_lab(|lab| {
        let app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        let raw = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nmore";
        connection.send(raw);
        assert_eq!(app.peer(0).wait_for(raw.len()), raw);
        assert_carried(lab);
    });
}

#[test]
fn goaway_of_the_app_reaches_the_client_while_streams_finish() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        // The hanging ones are cancelled later, so that the connection can end.
        let hang = |route| request(route, "GET", "/hang", json!({ "cancel": 8 }));
        let requests = [hang(Route::Alice), hang(Route::Live), get(Route::Live, "/goaway")];
        let answers = scene.ask(&json!({ "requests": requests, "together": true, "linger": 10000 }));
        assert_eq!(answers.answer(2)["status"], 200, "{answers:?}");
        for number in 0..2 {
            assert_eq!(answers.answer(number)["code"], 8, "the client's own: {answers:?}");
        }
        assert_eq!(answers.0["goaway"]["code"], 0, "{answers:?}");
        assert_eq!(answers.0["closed"], true, "{answers:?}");
    });
}

#[test]
fn an_app_that_ends_its_idle_connection_does_not_disturb_the_developer() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        // The app's GOAWAY comes some time after its answer, when the developer has the connection.
        let mut requests = vec![get(Route::Live, "/goaway-later")];
        requests.push(request(Route::Alice, "GET", "/hang", json!({ "cancel": 8 })));
        requests.push(request(Route::Alice, "GET", "/hang", json!({ "cancel": 8 })));
        requests.extend([Route::Alice, Route::Live].map(|route| get(route, "/after")));
        let answers = scene.ask(&json!({ "requests": requests, "linger": 1 }));
        let reports = [0, 3, 4].map(|number| answers.report(number));
        assert_eq!(reports.each_ref().map(|report| text(report, "served_by")), ["app", "alice", "app"]);
        assert_ne!(reports[2]["connection"], reports[0]["connection"], "the app had ended the first one");
        assert_eq!(answers.0["goaway"], Value::Null);
    });
}

#[test]
fn an_app_that_dies_takes_the_connections_of_its_clients_along() {
    in_lab(|lab| {
        let Http2Scene { alice: _alice, agent: _agent, alice_app: _alice_app, app, lab } =
            Http2Scene::new(lab);
        let plan = json!({ "requests": [get(Route::Live, "/hang")], "linger": 10000 });
        std::thread::scope(|scope| {
            let client = scope.spawn(|| http2_client(lab, &lab.client, lab.pod.at(PORT), &plan));
            eventually("the request has arrived", || app.log().contains("hangs /hang"));
            drop(app);
            let answers = client.join().unwrap();
            assert_eq!((&answers.0["closed"], &answers.answer(0)["status"]), (&true.into(), &Value::Null));
        });
        let _app = App::http2(lab, &lab.pod, "app", &[PORT]);
        let requests = Route::BOTH.map(|route| get(route, "/again"));
        let answers = http2_client(lab, &lab.client, lab.pod.at(PORT), &json!({ "requests": requests }));
        assert_eq!([0, 1].map(|number| text(&answers.report(number), "served_by")), ["app", "alice"]);
    });
}

#[test]
fn what_a_server_says_first_is_passed_on_when_its_client_speaks_no_http2() {
    // The first could become HTTP/2, the second is it.
    for greeting in [&b"\0\0"[..], b"\0\0\0\x04\0\0\0\0\0"] {
        in_lab(|lab| {
            let app = Server::start(&lab.pod.netns, lab.pod.at(PORT), move |mut stream: &TcpStream, peer| {
                stream.write_all(greeting)?;
                peer.wait_for_end();
                Ok(())
            });
            let agent = Agent::start(lab);
            let _alice = for_alice(lab, &agent).start(lab);
            let mut connection = lab.client.connect(lab.pod.at(PORT));
            let request = Route::Live.get("/");
            if greeting.len() > 2 {
                connection.send(&request);
            }
            assert_eq!(connection.exactly(greeting.len()), greeting);
            if greeting.len() > 2 {
                assert_eq!(app.peer(0).wait_for(request.len()), request);
            }
            assert_carried(lab);
        });
    }
}

#[test]
fn an_agent_that_ends_lets_streams_finish() {
    in_lab(|lab| {
        let scene = Http2Scene::new(lab);
        let plan = json!({
            "requests": [request(Route::Live, "GET", "/hang", json!({ "cancel": 8 }))], "linger": 10000,
        });
        let Http2Scene { alice: _alice, agent, alice_app: _alice_app, app, lab } = scene;
        std::thread::scope(|scope| {
            let client = scope.spawn(|| http2_client(lab, &lab.client, lab.pod.at(PORT), &plan));
            eventually("the request has arrived", || app.log().contains("hangs /hang"));
            assert!(agent.stop(Signal::SIGTERM).success());
            let answers = client.join().unwrap();
            assert_eq!(answers.0["goaway"]["code"], 0, "{answers:?}");
            assert_eq!(answers.answer(0)["code"], 8, "the client's own, not ours: {answers:?}");
        });
    });
}

#[test]
fn requests_that_switch_to_http2_take_their_connection_along() {
    in_lab(|lab| {
        let _app = App::upgrading(lab, &lab.pod, "app", PORT);
        let _alice_app = App::upgrading(lab, &lab.dev, "alice", LOCAL);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        for route in Route::BOTH {
            let url = |path: &str| format!("http://{}{path}", lab.pod.at(PORT));
            // The second request is inside of what is no longer HTTP/1.1: it goes where the connection has gone.
            let answers = Curl::on(&lab.client)
                .request(&url("/one"), &["--http2"], &[route.header()])
                .request(&url("/two"), &["--http2"], &[ALICE])
                .answers();
            let bodies: Vec<_> = answers.iter().map(|answer| answer.body.as_str()).collect();
            let server = route.server();
            assert_eq!(bodies, [format!("{server} /one 2\n"), format!("{server} /two 2\n")]);
            assert_eq!(answers[1].connects, 0);
        }
    });
}
