//! What `redirector intercept --output json` tells tools.

use lab::{Agent, App, Developer, eventually_some};
use serde_json::Value;

use crate::scene::{LOCAL, PORT, Route, Scene, for_alice, in_lab, served_by, text, who_answers};

#[test]
fn the_events_of_an_intercept_are_lines_of_json_for_tools() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let alice = for_alice(lab, &agent).argument("--output").argument("json").start(lab);

        let ready = event(&alice, "ready");
        assert_eq!(text(&ready, "intercept"), "alice");
        assert_eq!(text(&ready, "target"), lab.pod.netns.target());
        assert_eq!(text(&ready, "to"), format!("127.0.0.1:{LOCAL}"));
        assert_eq!(ready["port"], PORT);
        assert!(ready["matcher"].is_object() && text(&ready, "matches").contains("alice"), "{ready}");
        // The line works as it is, but for the address.
        let curl = text(&ready, "curl").replace("ADDRESS", &lab.pod.v4.to_string());
        let output = lab.client.netns.command("sh").args(["-c", &format!("{curl} -s")]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"alice\""), "{curl}: {output:?}");

        let mut connection = lab.client.connect(lab.pod.at(PORT));
        let sent = Route::Alice.request("POST", "/first?a=b", "Content-Length: 3\r\n", "abc");
        let answer = connection.ask(&sent);
        assert_eq!(served_by(&answer), "alice");
        let request = request(&alice, "/first?a=b");
        assert_eq!(text(&request, "method"), "POST");
        assert_eq!(text(&request, "protocol"), "http/1.1");
        assert_eq!(text(&request, "intercept"), "alice");
        assert_eq!(text(&request, "client"), connection.local_address().to_string());
        assert_eq!((&request["status"], &request["outcome"]), (&200.into(), &"ok".into()));
        assert_eq!(request["request_bytes"], sent.len());
        assert_eq!(request["response_bytes"], answer.raw.len());
        assert!(request["duration_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{request}");
        assert!(request["reason"].is_null() && text(&request, "time").ends_with('Z'), "{request}");

        drop(alice_app);
        assert_eq!(connection.ask(Route::Alice.get("/refused")).status, 502);
        let request = self::request(&alice, "/refused");
        assert!(text(&request, "outcome") == "refused" && request["status"].is_null(), "{request}");
        assert!(text(&request, "reason").contains("127.0.0.1:3000"), "{request}");
    });
}

#[test]
fn a_lost_tunnel_and_its_return_are_events() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        drop(alice);
        let alice = for_alice(lab, &agent).argument("--output").argument("json").start(lab);
        let options = lab::AgentOptions::default();
        agent.kill();
        let lost = event(&alice, "tunnel_lost");
        assert!(!text(&lost, "reason").is_empty() && text(&lost, "when_away") == "live", "{lost}");
        let _agent = Agent::start_with(lab, &options);
        assert_eq!(text(&event(&alice, "ready_again"), "intercept"), "alice");
        assert_eq!(who_answers(lab, Route::Alice.header()), "alice");
    });
}

#[test]
fn the_end_of_an_intercept_is_an_event_that_says_who_ended_it() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        drop(alice);
        let start = || for_alice(lab, &agent).argument("--output").argument("json").start(lab);
        let alice = start();
        let log = alice.log().clone();
        assert_eq!(agent.run(&["remove", "alice"]).code, Some(0));
        assert_eq!(alice.wait().code(), Some(1));
        let removed = last(&log.lines(lab::Stream::Stdout));
        assert!(
            text(&removed, "event") == "removed" && text(&removed, "reason").contains("removed"),
            "{removed}"
        );

        let alice = start();
        let log = alice.log().clone();
        assert_eq!(alice.interrupt().code(), Some(0));
        let removed = last(&log.lines(lab::Stream::Stdout));
        assert!(text(&removed, "event") == "removed" && removed["reason"].is_null(), "{removed}");
    });
}

#[test]
fn warnings_are_events() {
    in_lab(|lab| {
        // No app: nothing listens on the port.
        let agent = Agent::start(lab);
        let alice = for_alice(lab, &agent).argument("--output").argument("json").start(lab);
        assert!(text(&event(&alice, "warning"), "message").contains("nothing listens"));
        assert!(!alice.log().contains("warning: "), "for people only");
    });
}

/// Waits for an event of this kind; every line must be one.
#[track_caller]
fn event(developer: &Developer, kind: &str) -> Value {
    eventually_some(&format!("there is an event {kind:?}"), || {
        events(&developer.lines()).into_iter().find(|event| event["event"] == kind)
    })
}

/// Waits for the event of the request with this path.
#[track_caller]
fn request(developer: &Developer, path: &str) -> Value {
    eventually_some(&format!("there is an event of the request for {path:?}"), || {
        events(&developer.lines()).into_iter().find(|event| event["path"] == path)
    })
}

#[track_caller]
fn last(lines: &[String]) -> Value {
    events(lines).pop().expect("an event")
}

#[track_caller]
fn events(lines: &[String]) -> Vec<Value> {
    let events = lines.iter().map(|line| serde_json::from_str(line));
    events.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("not JSON ({error}): {lines:?}"))
}
