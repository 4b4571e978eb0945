//! Connections that the app has and that nobody looks into: `status` lists them with the reason, and `--close-existing` ends them.

use std::net::SocketAddr;

use lab::{
    Agent, App, Certificate, Connection, Developer, Family, Intercept, Kind, Lab, PoolClient, WebSockets,
    datapaths, eventually,
};
use serde_json::Value;

use crate::scene::{ALICE, LOCAL, PORT, for_alice, in_lab, served_by};
use crate::tls::with_keys;

const HEADER: (&str, &str) = ("x-dev", "alice");

/// The connections of the intercepted port that are not covered, by reason.
#[track_caller]
fn unseen(agent: &Agent) -> Value {
    agent.json(&["status"])["targets"][0]["unseen"][PORT.to_string()]["counts"].clone()
}

fn with_datapath(lab: &Lab, agent: &Agent, datapath: &str) -> Intercept {
    for_alice(lab, agent).argument("--datapath").argument(datapath)
}

fn closing(lab: &Lab, agent: &Agent, datapath: &str) -> Intercept {
    with_datapath(lab, agent, datapath).argument("--close-existing")
}

/// How many connections the intercept said it closed.
#[track_caller]
fn closed(alice: &Developer) -> String {
    let lines = alice.lines();
    let line = lines.iter().find(|line| line.starts_with("closed "));
    line.unwrap_or_else(|| panic!("no count in {lines:?}")).clone()
}

#[track_caller]
fn ask(connection: &mut Connection, header: &str) -> String {
    served_by(&connection.ask(format!("GET /whoami HTTP/1.1\r\nHost: pod.test\r\n{header}\r\n\r\n")))
}

#[test]
fn status_lists_the_connections_that_are_older_than_a_proxy() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let mut old =
            Family::BOTH.map(|family| lab.client.connect(SocketAddr::new(lab.pod.ip(family), PORT)));
        let _inside = lab.pod.connect(lab.pod.at(PORT));
        let _alice = with_datapath(lab, &agent, "proxy").start(lab);
        let mut new = lab.client.connect(lab.pod.at(PORT));
        assert_eq!(ask(&mut new, ALICE), "alice");
        assert_eq!(ask(&mut new, "x-other: nobody"), "app");

        assert_eq!(
            unseen(&agent),
            serde_json::json!({ "older": 2 }),
            "neither the agent's, nor those inside"
        );
        let status = agent.json(&["status"]);
        let listed =
            status["targets"][0]["unseen"][PORT.to_string()]["connections"].as_array().unwrap().clone();
        for connection in &old {
            let client = connection.local_address().to_string();
            assert!(listed.iter().any(|listed| listed["client"] == client.as_str()), "{client}: {listed:?}");
        }
        let text = agent.run(&["status"]).stdout;
        assert!(text.contains("2 open connections not covered: older than the intercept"), "{text}");
        for connection in &mut old {
            assert_eq!(ask(connection, ALICE), "app");
        }
        drop(old);
        eventually("they have ended", || unseen(&agent) == serde_json::json!({}));
    });
}

#[test]
fn status_names_what_inspection_can_not_cover() {
    in_lab(|lab| {
        let _redis = App::redis(lab, &lab.pod, PORT);
        let agent = Agent::start(lab);
        let _alice = with_datapath(lab, &agent, "inspect").start(lab);
        let mut other: Connection = lab.client.connect(lab.pod.at(PORT));
        other.send("*1\r\n$4\r\nPING\r\n");
        assert_eq!(other.line(), "+PONG\r\n");
        assert_eq!(unseen(&agent), serde_json::json!({ "not-http": 1 }));
    });
    in_lab(|lab| {
        let _app = App::websocket(lab, &lab.pod, WebSockets::Python, "app", &[PORT]);
        let agent = Agent::start(lab);
        let _alice = with_datapath(lab, &agent, "inspect").start(lab);
        let mut socket: Connection = lab.client.connect(lab.pod.at(PORT));
        let upgrade = "GET / HTTP/1.1\r\nHost: pod.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.send(upgrade);
        assert_eq!(socket.line(), "HTTP/1.1 101 Switching Protocols\r\n");
        eventually("it has switched", || unseen(&agent)["switched"] == 1);
        let text = agent.run(&["status"]).stdout;
        assert!(text.contains("switched to another protocol"), "{text}");
    });
}

#[test]
fn without_the_flag_no_connection_is_ever_closed() {
    for datapath in datapaths(&["proxy", "inspect", "auto"]) {
        in_lab(|lab| {
            let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
            let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
            let agent = Agent::start(lab);
            let mut client = PoolClient::http1(lab, &lab.client, lab.pod.at(PORT), HEADER);
            client.wait_for("plain", "app");
            let alice = with_datapath(lab, &agent, datapath).start(lab);
            client.wait_for_more(20);
            assert_eq!(client.ends(), 0);
            assert!(!alice.lines().iter().any(|line| line.starts_with("closed")));
        });
    }
}

#[test]
fn an_older_connection_is_closed_when_asked_and_its_clients_next_one_is_covered() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let mut inside: Connection = lab.pod.connect(lab.pod.at(PORT));
        let mut client = PoolClient::http1(lab, &lab.client, lab.pod.at(PORT), HEADER);
        client.wait_for("plain", "app");
        let alice = closing(lab, &agent, "proxy").start(lab);
        assert_eq!(closed(&alice), "closed 1 connection that could not be covered");
        client.wait_for("matching", "alice");
        assert_eq!(client.ends(), 1);
        assert_eq!(ask(&mut inside, ALICE), "app", "who is inside the pod is left alone");

        // What the agent carries is nobody's leftover.
        let bob = Intercept::new(lab, &agent, PORT, LOCAL).header("x-dev", "bob").name("bob");
        let bob = bob.argument("--datapath").argument("proxy").argument("--close-existing").start(lab);
        assert_eq!(closed(&bob), "closed 0 connections that could not be covered");
        client.wait_for_more(20);
        assert_eq!(client.ends(), 1);
    });
}

#[test]
fn a_connection_that_inspection_covers_is_not_closed() {
    for datapath in ["inspect", "auto"] {
        in_lab(|lab| {
            let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
            let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
            let agent = Agent::start(lab);
            let mut client = PoolClient::http1(lab, &lab.client, lab.pod.at(PORT), HEADER);
            let mut idle = lab.client.connect(lab.pod.at(PORT));
            client.wait_for("plain", "app");
            let alice = closing(lab, &agent, datapath).start(lab);
            assert_eq!(closed(&alice), "closed 0 connections that could not be covered");
            client.wait_for("matching", "alice");
            assert_eq!(client.ends(), 0);
            assert_eq!(ask(&mut idle, ALICE), "alice");

            // Nor is one that is parked.
            let bob = Intercept::new(lab, &agent, PORT, LOCAL).header("x-dev", "bob").name("bob");
            let bob = bob.argument("--close-existing").start(lab);
            assert_eq!(closed(&bob), "closed 0 connections that could not be covered");
            client.wait_for_more(20);
            assert_eq!(client.ends(), 0);
        });
    }
}

#[test]
fn an_older_connection_in_tls_is_closed_when_asked_and_its_clients_next_one_is_covered() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let _app = App::tls_echo(lab, &lab.pod, "app", &[PORT], &certificate, &[]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let mut client = PoolClient::tls(lab, &lab.client, lab.pod.at(PORT), HEADER, certificate.path());
        client.wait_for("plain", "app");
        let alice = with_keys(closing(lab, &agent, "auto"), &[&certificate]).start(lab);
        assert_eq!(closed(&alice), "closed 1 connection that could not be covered");
        client.wait_for("matching", "alice");
        assert_eq!(client.ends(), 1);
    });
}

#[test]
fn an_older_connection_of_http2_is_closed_when_asked_and_its_clients_next_one_is_covered() {
    for pause in [false, true] {
        in_lab(|lab| {
            let _app = App::http2(lab, &lab.pod, "app", &[PORT]);
            let _alice_app = App::http2(lab, &lab.dev, "alice", &[LOCAL]);
            let agent = Agent::start(lab);
            let mut client = PoolClient::http2(lab, &lab.client, lab.pod.at(PORT), HEADER);
            client.wait_for("matching", "app");
            if pause {
                client.pause();
            }
            let alice = closing(lab, &agent, "auto").start(lab);
            assert_eq!(closed(&alice), "closed 1 connection that could not be covered");
            client.go_on();
            client.wait_for("matching", "alice");
            assert_eq!(client.ends(), 1);
        });
    }
}

#[test]
fn an_older_connection_of_http2_is_listed_and_stays() {
    in_lab(|lab| {
        let _app = App::http2(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::http2(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let mut client = PoolClient::http2(lab, &lab.client, lab.pod.at(PORT), HEADER);
        client.wait_for("plain", "app");
        let _alice = with_datapath(lab, &agent, "auto").start(lab);
        eventually("it is listed", || unseen(&agent)["http2"] == 1);
        client.wait_for_more(20);
        assert_eq!(client.ends(), 0);
    });
}
