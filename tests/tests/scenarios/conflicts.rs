//! Intercepts that could claim the same requests.

use lab::{Agent, AgentOptions, App, Curl, Intercept, Lab, Refusal};

use crate::scene::{
    ALICE, LOCAL, PORT, assert_routing, for_alice, in_lab, intercepted, text, who_answers, who_answers_curl,
};

const BOBS_LOCAL: u16 = 3001;

#[test]
fn the_same_value_is_refused_and_its_owner_named() {
    intercepted(|scene| {
        let refusal = bobs(scene.lab, &scene.agent, &["--header", "X-Dev=alice"]).refused();
        assert_names(&refusal, &scene.agent, &["\"alice\"", "header x-dev=alice"]);
        assert_eq!(scene.agent.list().len(), 1);
        scene.assert_routing();
    });
}

#[test]
fn a_narrower_intercept_is_refused_and_both_matchers_named() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        for (alices, bobs_flags, named) in [
            (
                &["--path-prefix", "/api"][..],
                &["--path", "/api/cart", "--header", "x-dev=bob"][..],
                &["path prefix /api", "header x-dev=bob and path /api/cart"][..],
            ),
            (&["--header-regex", "x-dev=.*"], &["--header", "x-dev=bob"], &["x-dev=.*", "header x-dev=bob"]),
            (
                &["--method", "GET", "--method", "PUT"],
                &["--method", "PUT"],
                &["method GET or PUT", "method PUT"],
            ),
            (
                &["--preset", "signadot=k1"],
                &["--baggage", "sd-routing-key=k1"],
                &["preset signadot=k1", "baggage sd-routing-key=k1"],
            ),
        ] {
            let alice = with(Intercept::new(lab, &agent, PORT, LOCAL).name("alice"), alices).start(lab);
            let refusal = bobs(lab, &agent, bobs_flags).refused();
            assert_names(&refusal, &agent, named);
            assert_eq!(agent.list().len(), 1);
            assert!(alice.interrupt().success());
            // And the other way round: the wider one would take all of the narrower one.
            let bob = bobs(lab, &agent, bobs_flags).start(lab);
            let refusal = with(Intercept::new(lab, &agent, PORT, LOCAL).name("alice"), alices).refused();
            assert_names(&refusal, &agent, named);
            assert!(bob.interrupt().success());
        }
    });
}

#[test]
fn the_older_of_two_that_overlap_wins_always() {
    in_lab(|lab| {
        let (_app, _alice_app, _bob_app) = (
            App::echo(lab, &lab.pod, "app", &[PORT]),
            App::echo(lab, &lab.dev, "alice", &[LOCAL]),
            App::echo(lab, &lab.dev, "bob", &[BOBS_LOCAL]),
        );
        let agent = Agent::start(lab);
        let alices = with(Intercept::new(lab, &agent, PORT, LOCAL).name("alice"), &["--path-prefix", "/api"]);
        let bob_asks = |path: &str| who_answers_curl(lab, &["-H", "x-dev: bob"], path);
        let alice = alices.start(lab);
        let bob = bobs(lab, &agent, &["--header", "x-dev=bob"]).start(lab);
        assert_eq!((bob_asks("/api").as_str(), bob_asks("/").as_str()), ("alice", "bob"));

        // Who comes back is the younger one.
        assert!(alice.interrupt().success());
        assert_eq!(bob_asks("/api"), "bob");
        let _alice = alices.start(lab);
        assert_eq!(bob_asks("/api"), "bob");
        assert_eq!(who_answers_curl(lab, &[], "/api"), "alice");
        assert!(bob.interrupt().success());
        assert_eq!(bob_asks("/api"), "alice");
    });
}

#[test]
fn a_catch_all_beside_another_intercept_is_refused_and_its_owner_named() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start_with(lab, &AgentOptions::allow_all());
        let _alice = for_alice(lab, &agent).start(lab);
        for flags in [&["--all"][..], &["--path-prefix", "/"]] {
            let refusal = bobs(lab, &agent, flags).refused();
            assert_names(&refusal, &agent, &["\"alice\"", "header x-dev=alice"]);
        }
        assert_routing(lab);
    });
}

#[test]
fn all_requests_are_taken_only_where_the_agent_allows_it() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let everything: [&[&str]; 3] = [&["--all"], &["--path-prefix", "/"], &["--path-regex", "/.*"]];
        let alices = |agent: &Agent, flags: &[&str]| with(Intercept::new(lab, agent, PORT, LOCAL), flags);

        let agent = Agent::start(lab);
        for flags in everything {
            let refusal = alices(&agent, flags).refused();
            assert!(refusal.stderr.contains("--allow-all"), "says how to allow it: {refusal:?}");
        }
        // Nor by a call that the command line would not make.
        let request = format!(
            r#"{{"target": "{}", "port": {PORT}, "matcher": {{"conditions": []}}, "owner": "o", "instance": "i", "to": "t"}}"#,
            lab.pod.netns.target()
        );
        let socket = agent.state_directory().join("agent.sock");
        let arguments = ["--unix-socket", &socket.to_string_lossy(), "--data", &request];
        let url = "http://redirector/v1/intercepts";
        let answer = Curl::on(&lab.node).request(url, &arguments, &[]).answer();
        assert!(answer.status == 403 && answer.body.contains("--allow-all"), "{answer:?}");
        assert_eq!(agent.list().len(), 0);
        assert_eq!(who_answers(lab, ALICE), "app");
        drop(agent);

        let agent = Agent::start_with(lab, &AgentOptions::allow_all());
        for flags in everything {
            let alice = alices(&agent, flags).start(lab);
            assert_eq!(who_answers(lab, "x-any: thing"), "alice", "{flags:?}");
            assert!(alice.interrupt().success());
        }
    });
}

/// An intercept for bob with these flags.
fn bobs(lab: &Lab, agent: &Agent, flags: &[&str]) -> Intercept {
    with(Intercept::new(lab, agent, PORT, BOBS_LOCAL).name("bob"), flags)
}

fn with(intercept: Intercept, flags: &[&str]) -> Intercept {
    flags.iter().fold(intercept, |intercept, flag| intercept.argument(flag))
}

/// The refusal names the owner of the only intercept that there is, and these texts.
#[track_caller]
fn assert_names(refusal: &Refusal, agent: &Agent, texts: &[&str]) {
    let owner = text(&agent.list()[0], "owner");
    assert!(!owner.is_empty());
    for text in [&[owner.as_str()], texts].concat() {
        assert!(refusal.stderr.contains(text), "names {text:?}: {refusal:?}");
    }
}
