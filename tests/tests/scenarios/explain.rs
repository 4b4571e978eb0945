//! `redirector explain`: which intercept would take a request, and why.

use lab::{Agent, App, Intercept, eventually};
use serde_json::Value;

use crate::scene::{ALICE, LOCAL, PORT, in_lab, intercepted, text, who_answers_curl};

const BOBS_LOCAL: u16 = 3001;

#[test]
fn explain_names_the_intercept_and_the_conditions_that_say_no() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        let _alice =
            Intercept::new(lab, &agent, PORT, LOCAL).name("alice").header("x-dev", "alice").start(lab);
        let bob = Intercept::new(lab, &agent, PORT, BOBS_LOCAL).name("bob").header("x-team", "red");
        let _bob = bob.argument("--path-prefix").argument("/api").start(lab);
        let target = lab.pod.netns.target();
        let port = PORT.to_string();
        let ask = |rest: &[&str]| agent.json(&[&["explain", &target, "--port", &port], rest].concat());
        let tell = |rest: &[&str]| agent.run(&[&["explain", &target, "--port", &port], rest].concat()).stdout;

        let bobs = ["--path", "/api/cart?x=1", "-H", "X-Team: red"];
        let answer = ask(&bobs);
        assert_eq!(answer["taken_by"], "bob", "{answer}");
        assert_eq!(
            verdicts(&answer),
            ["alice: no header x-dev=alice", "bob: yes header x-team=red, yes path prefix /api"]
        );
        assert_eq!(
            answer["intercepts"][1]["conditions"][1]["condition"],
            serde_json::json!({"path_prefix": "/api"})
        );
        let words = tell(&bobs);
        assert!(words.contains("Intercept \"bob\"") && words.contains("127.0.0.1:3001 answers"), "{words}");
        assert!(words.contains("no   header x-dev=alice"), "{words}");

        // The older wins, and the other one is told so.
        let both = ["--path", "/api", "-H", "x-team: red", "-H", ALICE];
        let answer = ask(&both);
        assert_eq!(answer["taken_by"], "alice", "{answer}");
        assert_eq!(answer["intercepts"][1]["matches"], true, "{answer}");
        assert!(tell(&both).contains("would take it, but an older one does"));

        let nobodys = ["--method", "POST", "--path", "/apix", "-H", "x-team: red"];
        let answer = ask(&nobodys);
        assert_eq!(answer["taken_by"], Value::Null, "{answer}");
        assert_eq!(verdicts(&answer)[1], "bob: yes header x-team=red, no path prefix /api");
        assert!(tell(&nobodys).starts_with("The live service answers"));

        // A port that nobody intercepts, and a target that is not there.
        let other = agent.json(&["explain", &target, "--port", "9"]);
        assert_eq!(other, serde_json::json!({"taken_by": null, "intercepts": []}));
        let missing = agent.run(&["explain", "netns:no-such-thing", "--port", "9"]);
        assert!(missing.code == Some(1) && missing.stderr.contains("no-such-thing"), "{missing:?}");
        for (arguments, reason) in [
            (["-H", "a b: c"], "header name"),
            (["-H", "a: b\r\nc: d"], "line break"),
            (["--path", "cart"], "start with `/`"),
        ] {
            let nonsense = agent.run(&[&["explain", &target, "--port", &port], &arguments[..]].concat());
            assert!(nonsense.code == Some(1) && nonsense.stderr.contains(reason), "{nonsense:?}");
        }
    });
}

#[test]
fn explain_says_what_then_happens() {
    in_lab(|lab| {
        let (_app, _alice_app, _bob_app) = (
            App::echo(lab, &lab.pod, "app", &[PORT]),
            App::echo(lab, &lab.dev, "alice", &[LOCAL]),
            App::echo(lab, &lab.dev, "bob", &[BOBS_LOCAL]),
        );
        let agent = Agent::start(lab);
        let alice =
            Intercept::new(lab, &agent, PORT, LOCAL).name("alice").argument("--baggage").argument("u=a b");
        let _alice = alice.argument("--method").argument("POST").start(lab);
        let bob = Intercept::new(lab, &agent, PORT, BOBS_LOCAL).name("bob");
        let _bob = bob.argument("--path-regex").argument("/v[0-9]/.*").start(lab);
        let target = lab.pod.netns.target();
        let headers = ["baggage: u=a%20b", "baggage: x=y, u = a%20b;p", "baggage: u=a", "x: y"];
        for method in ["GET", "POST"] {
            for path in ["/", "/v1/x?y", "/v1", "/x/../v2/%2e/"] {
                for header in headers {
                    let answer = agent.json(&[
                        "explain",
                        &target,
                        "--port",
                        &PORT.to_string(),
                        "--method",
                        method,
                        "--path",
                        path,
                        "-H",
                        header,
                    ]);
                    let server = who_answers_curl(lab, &["-X", method, "-H", header, "--path-as-is"], path);
                    let expected = answer["taken_by"].as_str().unwrap_or("app");
                    assert_eq!(server, expected, "{method} {path} {header}: {answer}");
                }
            }
        }
    });
}

#[test]
fn explain_says_whether_the_developer_is_there() {
    intercepted(|scene| {
        let target = scene.lab.pod.netns.target();
        let explain = ["explain", &target, "--port", &PORT.to_string(), "-H", ALICE];
        assert_eq!(scene.agent.json(&explain)["intercepts"][0]["connected"], true);

        scene.alice.freeze();
        eventually("the agent notices that alice is away", || {
            scene.agent.json(&explain)["intercepts"][0]["connected"] == false
        });
        let words = scene.agent.run(&explain).stdout;
        assert!(words.contains("away: the live service answers"), "{words}");
        assert_eq!(scene.agent.json(&explain)["taken_by"], "alice");
        scene.alice.thaw();
    });
}

/// Of each intercept, in a line: its name, and yes or no for each condition.
#[track_caller]
fn verdicts(explanation: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().unwrap_or_else(|| panic!("{explanation}")).clone();
    let intercepts = list(&explanation["intercepts"]);
    let line = |intercept: &Value| {
        let conditions: Vec<String> = list(&intercept["conditions"])
            .iter()
            .map(|condition| {
                let verdict = if condition["holds"] == true { "yes" } else { "no" };
                format!("{verdict} {}", text(condition, "text"))
            })
            .collect();
        format!("{}: {}", text(intercept, "name"), conditions.join(", "))
    };
    intercepts.iter().map(line).collect()
}
