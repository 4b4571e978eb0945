//! What `redirector status` tells: what came, and what is not covered and why.

use lab::{Agent, App, Connection, Curl, Nginx, Server, eventually};
use serde_json::Value;

use crate::scene::{PORT, Route, Scene, eventually_answers, for_alice, in_lab, intercepted, served_by, text};

#[test]
fn status_counts_connections_and_requests_by_port_and_protocol() {
    intercepted(|scene| {
        let mut connection = scene.connect();
        for route in [Route::Live, Route::Live, Route::Alice] {
            assert_eq!(served_by(&connection.ask(route.get("/"))), route.server());
        }
        let expected = serde_json::json!({
            "seen": 3, "live": 2, "matched": 1, "answered": 1, "away": 0, "failed": 0,
        });
        eventually("the requests are counted", || port(&scene.agent)["requests"]["http/1.1"] == expected);
        let port = port(&scene.agent);
        assert_eq!(port["connections"], serde_json::json!({ "assign": 1, "park": 0 }), "{port}");
        assert_eq!(port["open"], 1, "{port}");
        assert_eq!(port["requests"]["h2"]["seen"], 0, "{port}");
        let text = scene.agent.run(&["status"]).stdout;
        assert!(text.contains("3 requests, 2 of them to the app; 1 matched"), "{text}");
        assert!(
            text.contains("1 by assign, 0 by park, 1 open now") && !text.contains("not covered"),
            "{text}"
        );
    });
}

#[test]
fn status_says_who_intercepts_and_since_when_the_tunnel_is_there_or_away() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        let intercept = agent.json(&["status"])["intercepts"][0].clone();
        let connected_since = text(&intercept, "tunnel_since");
        assert_eq!(intercept["connected"], true, "{intercept}");
        assert!(!text(&intercept, "owner").is_empty() && text(&intercept, "token") == "default");
        let table = agent.run(&["status"]).stdout;
        assert!(table.contains("connected since 20"), "{table}");

        alice.kill();
        eventually_answers(lab, Route::Alice.header(), "app");
        eventually("she is away", || agent.list()[0]["connected"] == false);
        let intercept = agent.json(&["status"])["intercepts"][0].clone();
        // Both in UTC and of one form.
        assert!(text(&intercept, "tunnel_since") > connected_since, "{intercept}");
        assert!(intercept["counts"]["away"].as_u64() >= Some(1), "{intercept}");
        let table = agent.run(&["status"]).stdout;
        assert!(table.contains("away since 20"), "{table}");
    });
}

#[test]
fn tls_without_a_key_is_not_covered_and_status_says_what_to_do() {
    in_lab(|lab| {
        let nginx = Nginx::tls(lab, &lab.pod, &[PORT]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let certificate = nginx.certificate().to_string_lossy();
        let resolve = format!("pod.test:{PORT}:{}", lab.pod.v4);
        let url = format!("https://pod.test:{PORT}/who");
        let arguments = ["--cacert", &certificate, "--resolve", &resolve];
        assert_eq!(Curl::on(&lab.client).request(&url, &arguments, &[]).answer().status, 200);
        assert_uncovered(&agent, "tls", "--tls-cert");
    });
}

#[test]
fn a_server_that_speaks_first_is_not_covered_and_status_says_why() {
    in_lab(|lab| {
        let _smtp = App::smtp(lab, &lab.pod, PORT);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        assert!(connection.line().starts_with("220 "));
        assert_uncovered(&agent, "server-first", "server spoke first");
    });
}

#[test]
fn a_binary_protocol_is_not_covered_and_status_says_why() {
    in_lab(|lab| {
        let _redis = App::redis(lab, &lab.pod, PORT);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        connection.send("*1\r\n$4\r\nPING\r\n");
        assert_eq!(connection.line(), "+PONG\r\n");
        assert_uncovered(&agent, "not-http", "neither HTTP nor TLS");
    });
}

#[test]
fn http_that_could_be_read_differently_is_not_covered_and_status_says_why() {
    in_lab(|lab| {
        let app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection: Connection = lab.client.connect(lab.pod.at(PORT));
        let fields = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
        let request = Route::Live.request("POST", "/", fields, "0\r\n\r\n");
        connection.send(&request);
        assert_eq!(app.peer(0).wait_for(request.len()), request);
        assert_uncovered(&agent, "malformed", "read differently");
    });
}

/// Waits until one connection of the port is counted as not covered, for this reason only, and sees the text say so.
#[track_caller]
fn assert_uncovered(agent: &Agent, reason: &str, words: &str) {
    let count = |reason: &str| port(agent)["uncovered"][reason].as_u64().expect("a count");
    eventually(&format!("a connection is not covered: {reason}"), || count(reason) == 1);
    let all = port(agent)["uncovered"].as_object().expect("reasons").clone();
    assert_eq!(all.values().filter_map(Value::as_u64).sum::<u64>(), 1, "{all:?}");
    let text = agent.run(&["status"]).stdout;
    let line = text.lines().find(|line| line.contains("1 connections not covered")).unwrap_or_default();
    assert!(line.contains(words), "{text}");
}

/// What status says of the intercepted port.
#[track_caller]
fn port(agent: &Agent) -> Value {
    agent.json(&["status"])["targets"][0]["ports"][PORT.to_string()].clone()
}
