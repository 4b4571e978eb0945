//! Who may intercept what.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Output};

use lab::{Agent, AgentOptions, Intercept, Lab, redirector_binary};
use serde_json::Value;

use crate::scene::{ALICE, PORT, for_alice, in_lab, intercepted};

#[test]
fn no_token_no_intercept() {
    intercepted(|scene| {
        let refusal = bobs(scene.lab, &scene.agent).without_token().refused();
        assert!(refusal.stderr.contains("token"), "{refusal:?}");
        scene.assert_routing();
    });
}

#[test]
fn a_wrong_token_is_refused() {
    intercepted(|scene| {
        let token = scene.agent.token();
        // Another secret of the same form: the last characters exchanged for others.
        let (kept, last) = token.split_at(token.len() - 6);
        let changed: String = last.chars().map(|letter| if letter == 'a' { 'b' } else { 'a' }).collect();
        for wrong in [format!("{kept}{changed}"), kept.to_owned(), String::new(), "nonsense".to_owned()] {
            let file = token_file(scene.lab, &wrong);
            let refusal = bobs(scene.lab, &scene.agent).token_file(&file).refused();
            assert!(refusal.stderr.contains("token"), "{wrong:?}: {refusal:?}");
            assert!(!refusal.stderr.contains(&token), "the token is a secret");
        }
        assert_eq!(scene.agent.list().len(), 1);
        scene.assert_routing();
    });
}

#[test]
fn a_token_of_another_agent_is_refused() {
    intercepted(|scene| {
        let options = AgentOptions { state: "other".to_owned(), port: 7466, ..AgentOptions::default() };
        let other = Agent::start_with(scene.lab, &options);
        assert_ne!(other.token(), scene.agent.token());
        let _refusal = bobs(scene.lab, &scene.agent).token_file(&other.token_file()).refused();
        assert_eq!(scene.agent.list().len(), 1);
        scene.assert_routing();
    });
}

#[test]
fn the_state_and_the_token_are_for_root_only() {
    intercepted(|scene| {
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(scene.agent.state_directory().to_owned()), 0o700);
        assert_eq!(mode(scene.agent.token_file()), 0o600);
        assert_eq!(mode(scene.agent.state_directory().join("agent.sock")) & 0o077, 0);
    });
}

#[test]
fn a_revoked_token_is_refused_and_others_keep_working() {
    intercepted(|scene| {
        let bob = token_file(scene.lab, &created(&scene.agent, &["token", "create", "bob"]));
        let intercept = bobs(scene.lab, &scene.agent).token_file(&bob);
        assert!(intercept.start(scene.lab).interrupt().success());
        let tokens = scene.agent.json(&["token", "list"]);
        assert!(names(&tokens).contains(&"bob"), "{tokens}");

        assert_eq!(scene.agent.run(&["token", "revoke", "bob"]).code, Some(0));
        let refusal = intercept.refused();
        assert!(refusal.stderr.contains("token"), "{refusal:?}");
        let tokens = scene.agent.json(&["token", "list"]);
        assert!(!names(&tokens).contains(&"bob"), "{tokens}");
        scene.assert_routing();
    });
}

#[test]
fn revoking_a_token_ends_its_intercepts() {
    intercepted(|scene| {
        let file = token_file(scene.lab, &created(&scene.agent, &["token", "create", "bob"]));
        let bob = bobs(scene.lab, &scene.agent).token_file(&file).start(scene.lab);
        assert_eq!(scene.agent.list().len(), 2);
        assert_eq!(scene.agent.run(&["token", "revoke", "bob"]).code, Some(0));
        assert_eq!(bob.wait().code(), Some(1));
        assert_eq!(scene.agent.list().len(), 1);
        scene.assert_routing();
    });
}

#[test]
fn a_token_limited_to_targets_is_for_these_only() {
    intercepted(|scene| {
        let (lab, agent) = (scene.lab, &scene.agent);
        let here = created(agent, &["token", "create", "here", "--target", &lab.pod.netns.target()]);
        let elsewhere = created(agent, &["token", "create", "elsewhere", "--target", "netns:some-other"]);

        let refusal = bobs(lab, agent).token_file(&token_file(lab, &elsewhere)).refused();
        assert!(refusal.stderr.contains("target"), "{refusal:?}");
        let _bob = bobs(lab, agent).token_file(&token_file(lab, &here)).start(lab);
        assert_eq!(agent.list().len(), 2);
    });
}

#[test]
fn a_token_limited_to_other_targets_explains_nothing() {
    intercepted(|scene| {
        let (lab, agent) = (scene.lab, &scene.agent);
        let pod = lab.pod.netns.target();
        let here = created(agent, &["token", "create", "here", "--target", &pod]);
        let elsewhere = created(agent, &["token", "create", "elsewhere", "--target", "netns:some-other"]);
        let explain = |token: &str| -> Output {
            let mut command = lab.dev.netns.command(&redirector_binary().to_string_lossy());
            command.args(["explain", &pod, "--port", &PORT.to_string(), "-H", ALICE]);
            command
                .args(["--agent", &agent.address().to_string(), "--token-file"])
                .arg(token_file(lab, token));
            command.output().unwrap()
        };
        let refusal = explain(&elsewhere);
        let message = String::from_utf8_lossy(&refusal.stderr);
        assert!(refusal.status.code() == Some(1) && message.contains("token is limited"), "{refusal:?}");
        assert!(refusal.stdout.is_empty(), "nothing is told: {refusal:?}");
        let answer = explain(&here);
        assert!(answer.status.success(), "{answer:?}");
        assert!(String::from_utf8_lossy(&answer.stdout).contains("alice"), "{answer:?}");
    });
}

#[test]
fn a_restarted_agent_keeps_its_token() {
    in_lab(|lab| {
        let first = Agent::start(lab);
        let token = first.token();
        first.kill();
        let second = Agent::start(lab);
        assert_eq!(second.token(), token);
        let _alice = for_alice(lab, &second).start(lab);
    });
}

/// An intercept that does not collide with alice's.
fn bobs(lab: &Lab, agent: &Agent) -> Intercept {
    Intercept::new(lab, agent, PORT, 3001).header("x-dev", "bob").name("bob")
}

fn token_file(lab: &Lab, token: &str) -> PathBuf {
    let file = tempfile::Builder::new().prefix("token-").tempfile_in(lab.directory()).unwrap();
    fs::write(file.path(), format!("{token}\n")).unwrap();
    file.into_temp_path().keep().unwrap()
}

/// The token that `token create` prints: the last line of its output.
#[track_caller]
fn created(agent: &Agent, arguments: &[&str]) -> String {
    let output = agent.run(arguments);
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout.lines().last().expect("a token").trim().to_owned()
}

fn names(tokens: &Value) -> Vec<&str> {
    tokens.as_array().expect("an array").iter().filter_map(|token| token["name"].as_str()).collect()
}
