//! Requests that carry the headers of other tools.

use lab::{Agent, App, Intercept};

use crate::scene::{LOCAL, PORT, in_lab, who_answers};

#[test]
fn each_preset_takes_the_headers_of_its_tool() {
    const UUID: &str = "5c9b2f04-13ab-4d3e-9e43-c1a5e0b6a7d2";
    const TRACEPARENT: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let telepresence = format!("{UUID}:shop");
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        for (tool, key, forms) in [
            ("telepresence", telepresence.as_str(), &["X-Telepresence-Intercept-Id: KEY"][..]),
            (
                "signadot",
                "abc12",
                &[
                    "baggage: a=b,sd-routing-key=KEY",
                    "TRACEPARENT\r\ntracestate: sd-routing-key=KEY,a=b",
                    "ot-baggage-sd-routing-key: KEY",
                    "uberctx-sd-routing-key: KEY",
                ],
            ),
            ("okteto", "cindy", &["baggage: okteto-divert=KEY"]),
            ("mirrord", "session-1", &["baggage: mirrord-session=KEY, a=b"]),
            ("lapdev", UUID, &["TRACEPARENT\r\ntracestate: lapdev-env-id=KEY"]),
        ] {
            let preset = format!("{tool}={key}");
            let intercept = Intercept::new(lab, &agent, PORT, LOCAL).argument("--preset").argument(&preset);
            let alice = intercept.start(lab);
            for form in forms {
                let header = form.replace("KEY", key).replace("TRACEPARENT", TRACEPARENT);
                assert_eq!(who_answers(lab, &header), "alice", "{tool}: {header:?}");
                let other = form.replace("KEY", &format!("{key}2")).replace("TRACEPARENT", TRACEPARENT);
                assert_eq!(who_answers(lab, &other), "app", "{tool}: {other:?}");
            }
            assert!(alice.interrupt().success());
        }
    });
}
