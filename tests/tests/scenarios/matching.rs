//! Which requests carry the context.

use lab::{Agent, App, Developer, Intercept};

use crate::scene::{LOCAL, PORT, in_lab, intercepted, who_answers};

#[test]
fn a_header_matches_by_any_of_its_lines_and_in_any_case_of_its_name() {
    intercepted(|scene| {
        let lab = scene.lab;
        for header in ["X-DEV: alice", "x-dev:alice", "x-dev: \t alice \t", "x-dev: bob\r\nX-Dev: alice"] {
            assert_eq!(who_answers(lab, header), "alice", "{header:?}");
        }
        for header in
            ["x-dev: Alice", "x-dev: alice2", "x-dev: \"alice\"", "x-dev2: alice", "x-de: alice", "x-dev:"]
        {
            assert_eq!(who_answers(lab, header), "app", "{header:?}");
        }
    });
}

#[test]
fn all_headers_of_an_intercept_must_match() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        let both = Intercept::new(lab, &agent, PORT, LOCAL).header("x-dev", "alice").header("x-team", "red");
        let _alice = both.start(lab);
        assert_eq!(who_answers(lab, "x-team: red\r\nx-dev: alice"), "alice");
        assert_eq!(who_answers(lab, "x-dev: alice"), "app");
        assert_eq!(who_answers(lab, "x-team: red"), "app");
    });
}

#[test]
fn a_catch_all_takes_every_request() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        let alice = Intercept::new(lab, &agent, PORT, LOCAL).argument("--all").start(lab);
        assert_eq!(who_answers(lab, "x-any: thing"), "alice");
        assert!(alice.interrupt().success());
        assert_eq!(who_answers(lab, "x-any: thing"), "app");
    });
}

#[test]
fn an_intercept_without_a_matcher_gets_a_key_that_matches_three_ways() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        let mut alice = Intercept::new(lab, &agent, PORT, LOCAL).start(lab);
        let key = random_key(&mut alice);
        assert!(key.len() >= 8, "not to be guessed or hit by chance: {key:?}");

        let traceparent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for header in [
            format!("x-redirector-intercept: {key}"),
            format!("baggage: redirector={key}"),
            format!("baggage: a=b;p=q , redirector = {key} ;x"),
            format!("baggage: a=b\r\nbaggage: redirector={key}"),
            format!("{traceparent}\r\ntracestate: redirector={key}"),
            format!("{traceparent}\r\ntracestate: a=b,,redirector={key}"),
        ] {
            assert_eq!(who_answers(lab, &header), "alice", "{header:?}");
        }
        for header in [
            format!("x-redirector-intercept: {key}0"),
            format!("baggage: redirector={key}0"),
            format!("baggage: other={key}"),
            format!("{traceparent}\r\ntracestate: other={key}"),
        ] {
            assert_eq!(who_answers(lab, &header), "app", "{header:?}");
        }
    });
}

#[test]
fn every_random_key_is_another_one() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        let mut one = Intercept::new(lab, &agent, PORT, LOCAL).name("one").start(lab);
        let mut two = Intercept::new(lab, &agent, PORT, LOCAL).name("two").start(lab);
        assert_ne!(random_key(&mut one), random_key(&mut two));
    });
}

/// The key, from the curl line that the command prints.
#[track_caller]
fn random_key(developer: &mut Developer) -> String {
    const HEADER: &str = "x-redirector-intercept: ";
    let line = developer.wait_for_line(HEADER);
    assert!(line.contains("curl"), "a line to paste: {line:?}");
    let (_, rest) = line.split_once(HEADER).unwrap();
    rest.chars().take_while(char::is_ascii_alphanumeric).collect()
}
