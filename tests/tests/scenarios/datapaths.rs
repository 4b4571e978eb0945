//! `--datapath` says how requests are got at, and `auto` finds out which way is possible.

use lab::{Agent, App, Certificate, Family, Kind, Observer, eventually, eventually_some, http2_client};
use serde_json::json;

use crate::parking::{Waiting, ask, matching, request};
use crate::scene::{LOCAL, PORT, for_alice, in_lab, served_by, text};
use crate::tls::with_keys;

#[test]
fn with_auto_connections_stay_with_the_app_once_a_client_was_seen_to_speak_http1() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("auto");
        assert_eq!(text(&waiting.agent.list()[0], "datapath"), "proxy");
        let mut first = waiting.connect(Family::V4);
        for matching in [true, false, true] {
            ask(&mut first, matching);
        }
        eventually("new connections stay with the app", || waiting.agent.list()[0]["datapath"] == "inspect");
        // What is known takes a moment to be acted on: see what becomes of one connection after the other.
        let mut second = eventually_some("a connection that stays with the app", || {
            let before = waiting.assigned();
            let mut connection = waiting.connect(Family::V4);
            ask(&mut connection, false);
            (waiting.assigned() == before).then_some(connection)
        });
        let assigned = waiting.assigned();
        for family in Family::BOTH {
            let mut connection = waiting.connect(family);
            for matching in [false, true, false, true] {
                ask(&mut connection, matching);
            }
        }
        for connection in [&mut first, &mut second] {
            ask(connection, true);
        }
        assert_eq!(waiting.assigned(), assigned, "{}", waiting.agent.json(&["status"]));
        assert_eq!(waiting.counted("parked"), 3);
    });
}

#[test]
fn status_says_of_all_intercepts_of_a_port_when_another_needs_new_connections() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        let alice = || waiting.agent.list()[0].clone();
        assert_eq!(text(&alice(), "datapath"), "inspect");
        let observer = Observer::start(lab, &waiting.agent, &lab.pod, PORT, &["--header", "x-dev=alice"]);
        assert_eq!(text(&alice(), "datapath"), "proxy");
        let reason = text(&alice(), "datapath_reason");
        assert!(reason.starts_with("because of the observer \""), "{reason}");
        assert!(waiting.agent.run(&["status"]).stdout.contains(&format!("datapath proxy, {reason}")));
        ask(&mut waiting.connect(Family::V4), true);
        assert_eq!((waiting.assigned(), waiting.counted("parked")), (1, 0));
        drop(observer);
        eventually("new connections are left to the app", || text(&alice(), "datapath") == "inspect");
        ask(&mut waiting.connect(Family::V4), true);
        assert_eq!((waiting.assigned(), waiting.counted("parked")), (1, 1));
    });
}

#[test]
fn status_promises_nothing_that_another_intercept_prevents() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("auto");
        let reason = || text(&waiting.agent.list()[0], "datapath_reason");
        assert!(reason().starts_with("until one of them has made an HTTP/1.x request"), "{}", reason());
        let _observer = Observer::start(lab, &waiting.agent, &lab.pod, PORT, &["--header", "x-dev=alice"]);
        assert!(reason().starts_with("because of the observer \""), "{}", reason());
    });
}

#[test]
fn with_auto_clients_of_http2_pass_through_the_agent_and_status_says_why() {
    in_lab(|lab| {
        let _app = App::http2(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::http2(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        for _ in 0..3 {
            let headers = json!({ "x-dev": "alice", ":path": "/" });
            let plan = json!({ "requests": [{ "headers": headers }, { "headers": { ":path": "/" } }] });
            let answers = http2_client(lab, &lab.client, lab.pod.at(PORT), &plan);
            assert_eq!([0, 1].map(|number| text(&answers.report(number), "served_by")), ["alice", "app"]);
        }
        let intercept = &agent.list()[0];
        assert_eq!(intercept["datapath"], "proxy", "{intercept}");
        assert!(text(intercept, "datapath_reason").contains("clients speak HTTP/2"), "{intercept}");
    });
}

#[test]
fn auto_looks_into_tls_at_the_agent_and_inspect_refuses() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let _app = App::tls_echo(lab, &lab.pod, "app", &[PORT], &certificate, &[]);
        let agent = Agent::start(lab);
        let with_key = |datapath: &str| {
            with_keys(for_alice(lab, &agent), &[&certificate]).argument("--datapath").argument(datapath)
        };
        let refusal = with_key("inspect").refused();
        assert!(refusal.stderr.contains("inside TLS"), "{refusal:?}");
        let _alice = with_key("auto").start(lab);
        let intercept = &agent.list()[0];
        assert_eq!(intercept["datapath"], "proxy", "{intercept}");
        assert!(text(intercept, "datapath_reason").contains("inside TLS"), "{intercept}");
    });
}

#[test]
fn without_a_header_to_look_for_inspect_is_refused_and_auto_falls_back() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let all = |datapath: &str| {
            let intercept = lab::Intercept::new(lab, &waiting.agent, PORT, LOCAL).name("all");
            intercept.argument("--all").argument("--datapath").argument(datapath)
        };
        let refusal = all("inspect").refused();
        assert!(refusal.stderr.contains("no header to look for"), "{refusal:?}");
        assert_eq!(lab.attached(), Vec::<String>::new());
        let _old = waiting.connect(Family::V4);
        let everybody = all("auto").start(lab);
        // On another stream than that it is ready.
        eventually("the developer is warned", || {
            matching(everybody.log(), "1 connection that exists already can't be covered").len() == 1
        });
        let intercept = &waiting.agent.list()[0];
        assert_eq!(intercept["datapath"], "proxy");
        assert!(text(intercept, "datapath_reason").contains("no header to look for"), "{intercept}");
        assert_eq!(served_by(&waiting.connect(Family::V4).ask(request("/whoami", false))), "alice");
    });
}
