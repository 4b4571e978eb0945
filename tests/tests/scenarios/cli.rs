//! What the commands print and how they end.

use std::process::Command;

use lab::{Agent, redirector_binary};

use crate::scene::{ALICE, Scene, assert_routing, in_lab, intercepted, text, who_answers};

#[test]
fn list_says_who_intercepts_what() {
    intercepted(|scene| {
        let list = scene.agent.list();
        assert_eq!(list.len(), 1);
        assert_eq!(text(&list[0], "name"), "alice");
        assert_eq!(text(&list[0], "target"), scene.lab.pod.netns.target());
        assert_eq!(list[0]["port"], 8080);
        assert_eq!(list[0]["connected"], true);
        assert!(!text(&list[0], "owner").is_empty());
        let table = scene.agent.run(&["list"]);
        assert!(
            table.code == Some(0) && table.stdout.contains("alice") && table.stdout.contains("8080"),
            "{table:?}"
        );
    });
}

#[test]
fn an_empty_list_is_an_empty_array_and_a_sentence() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        assert_eq!(agent.list().len(), 0);
        assert!(!agent.run(&["list"]).stdout.trim().is_empty());
    });
}

#[test]
fn status_is_an_object_and_a_text() {
    intercepted(|scene| {
        assert!(scene.agent.json(&["status"]).is_object());
        let status = scene.agent.run(&["status"]);
        assert!(status.code == Some(0) && !status.stdout.is_empty(), "{status:?}");
    });
}

#[test]
fn remove_ends_an_intercept() {
    in_lab(|lab| {
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        assert_routing(lab);
        let unknown = agent.run(&["remove", "nobody"]);
        assert!(unknown.code == Some(1) && unknown.stderr.contains("nobody"), "{unknown:?}");
        assert_routing(lab);

        assert_eq!(agent.run(&["remove", "alice"]).code, Some(0));
        assert_eq!(agent.list().len(), 0);
        assert_eq!(who_answers(lab, ALICE), "app");
        assert_eq!(alice.wait().code(), Some(1), "the developer is told, and does not come back by itself");
    });
}

#[test]
fn check_says_what_this_machine_can_do() {
    in_lab(|_| {
        let output = Command::new(redirector_binary()).args(["check", "--output", "json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(report.to_string().contains("sk_assign"), "{report}");
        let output = Command::new(redirector_binary()).arg("check").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("sk_assign"), "{output:?}");
    });
}

#[test]
fn check_without_privileges_says_what_is_missing_and_fails() {
    // setpriv keeps uid 0 and takes all capabilities, as an unprivileged container does.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(redirector_binary()).arg("check");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(text.contains("cap_"), "names the capabilities: {text}");
}

#[test]
fn wrong_usage_is_exit_code_2_and_a_hint() {
    for arguments in [
        vec!["no-such-command"],
        vec!["intercept"],
        vec!["intercept", "netns:a", "--to", "127.0.0.1:1"],
        vec!["intercept", "nonsense:a", "--port", "1", "--to", "127.0.0.1:1"],
        vec!["intercept", "netns:a", "--port", "70000", "--to", "127.0.0.1:1"],
        vec!["intercept", "netns:a", "--port", "1", "--to", "127.0.0.1:1", "--header", "no-equals-sign"],
        vec!["intercept", "netns:a", "--port", "1", "--to", "127.0.0.1:1", "--header", "a b=c"],
        vec!["intercept", "netns:a", "--port", "1", "--to", "127.0.0.1:1", "--all", "--header", "a=b"],
        vec!["intercept", "netns:a", "--port", "1", "--to", "127.0.0.1:1", "--header-regex", "a=("],
        vec!["intercept", "netns:a", "--port", "1", "--to", "127.0.0.1:1", "--path", "no-slash"],
        vec![
            "intercept",
            "netns:a",
            "--port",
            "1",
            "--to",
            "127.0.0.1:1",
            "--path",
            "/a",
            "--path-prefix",
            "/a",
        ],
        vec!["intercept", "netns:a", "--port", "1", "--to", "127.0.0.1:1", "--method", "get"],
        vec!["intercept", "netns:a", "--port", "1", "--to", "127.0.0.1:1", "--preset", "no-such-tool=a"],
        vec!["explain", "netns:a"],
        vec!["explain", "netns:a", "--port", "1", "--header", "x-dev=alice"],
        vec!["list", "--output", "no-such-format"],
    ] {
        let output = Command::new(redirector_binary()).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn help_is_printed_for_every_command() {
    for command in [
        "agent",
        "intercept",
        "list",
        "explain",
        "status",
        "remove",
        "targets",
        "check",
        "token",
        "gateway",
        "preview",
    ] {
        let output = Command::new(redirector_binary()).args([command, "--help"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage"), "{command}");
    }
}

#[test]
fn a_command_without_an_agent_fails_and_says_where_it_looked() {
    let mut command = Command::new(redirector_binary());
    let output = command.args(["list", "--agent", "unix:/nonexistent/agent.sock"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/agent.sock"), "{output:?}");
}

#[test]
fn a_second_agent_on_the_same_state_is_refused() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        let mut second = lab.node.netns.command(&redirector_binary().to_string_lossy());
        second.args(["agent", "--listen", "0.0.0.0:7466", "--state-dir"]).arg(agent.state_directory());
        let mut second = lab::Process::spawn("second agent", &mut second, lab.logs());
        assert_eq!(second.wait().code(), Some(1));
        assert_eq!(agent.list().len(), 0, "the first one still answers on its socket");
    });
}
