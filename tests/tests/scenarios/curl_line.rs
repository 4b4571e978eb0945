//! The curl line that `intercept` prints.

use lab::{Agent, App, Intercept, Lab};
use serde_json::Value;

use crate::scene::{LOCAL, PORT, in_lab, text};

#[test]
fn the_printed_curl_line_reaches_the_developer() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        for flags in [
            &[][..],
            &["--header", "x-dev=it's \"alice\" & $HOME"],
            &["--baggage", "user=Am\u{e9}lie, 100%;", "--baggage", "team=red"],
            &["--tracestate", "vendor=a b"],
            &["--path", "/caf\u{e9}/[a]{b}/it's"],
            &["--path-prefix", "/api/v1/"],
            &["--method", "PUT"],
            &["--method", "DELETE", "--method", "GET"],
            &["--preset", "signadot=abc12"],
            &["--preset", "lapdev=abc12"],
            &["--header", "x-dev=alice", "--path", "/cart", "--method", "POST", "--preset", "okteto=ns"],
        ] {
            let mut alice = intercept(lab, &agent, flags).start(lab);
            let line = alice.wait_for_line("try: ");
            let (_, line) = line.split_once("try: ").unwrap();
            let report = run(lab, line);
            assert_eq!(text(&report, "served_by"), "alice", "{line}");
            if line.contains("tracestate") {
                assert!(report["headers"].to_string().to_lowercase().contains("traceparent"), "{line}");
            }
            assert!(alice.interrupt().success());
        }
    });
}

#[test]
fn no_curl_line_is_printed_where_none_can_be_made() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        for flags in [["--header-regex", "x-dev=al.*"], ["--path-regex", "/v[12]/.*"]] {
            let alice = intercept(lab, &agent, &flags).start(lab);
            let lines = alice.lines().join("\n");
            assert!(lines.contains("ready") && !lines.contains("curl"), "{lines}");
        }
    });
}

fn intercept(lab: &Lab, agent: &Agent, flags: &[&str]) -> Intercept {
    flags.iter().fold(Intercept::new(lab, agent, PORT, LOCAL), |intercept, flag| intercept.argument(flag))
}

/// Runs the line in the client's shell, as somebody who pastes it and puts in the address.
#[track_caller]
fn run(lab: &Lab, line: &str) -> Value {
    let line = line.replace("ADDRESS", &lab.pod.v4.to_string());
    let output = lab.client.netns.command("timeout").args(["60", "sh", "-c", &line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {line}: {output:?}"))
}
