//! A value is compared as a whole, whatever the kind of the condition.

use redirector::context::Condition;

use crate::{ask_for, methods, typed};

#[test]
fn al_never_matches_alice_nor_alice_al() {
    type Kind = (fn(&str) -> Condition, fn(&str) -> (String, String, String));
    let kinds: [Kind; 11] = [
        (|value| typed(&format!("x={value}"), Condition::Header), |value| line(format!("x: {value}"))),
        (|value| typed(&format!("x={value}"), Condition::HeaderRegex), |value| line(format!("x: {value}"))),
        (
            |value| typed(&format!("u={value}"), Condition::Baggage),
            |value| line(format!("baggage: u={value};p")),
        ),
        (
            |value| typed(&format!("u={value}"), Condition::Tracestate),
            |value| line(format!("tracestate: u={value}")),
        ),
        (|value| typed(&format!("/{value}"), Condition::Path), |value| path(format!("/{value}?q"))),
        (|value| typed(&format!("/{value}"), Condition::PathPrefix), |value| path(format!("/{value}/x"))),
        (|value| typed(&format!("/{value}"), Condition::PathRegex), |value| path(format!("/{value}"))),
        (|value| methods(&[value]), |value| (value.to_owned(), "/".to_owned(), "x: y".to_owned())),
        (
            |value| typed(&format!("signadot={value}"), Condition::Preset),
            |value| line(format!("uberctx-sd-routing-key: {value}")),
        ),
        (
            |value| typed(&format!("okteto={value}"), Condition::Preset),
            |value| line(format!("baggage: okteto-divert={value}")),
        ),
        (
            |value| typed(&format!("{value:0<16}"), Condition::Key),
            |value| line(format!("baggage: redirector={value:0<16}")),
        ),
    ];
    for (condition, request) in kinds {
        for (wanted, sent) in [("al", "alice"), ("alice", "al"), ("alice", "alic"), ("lice", "alice")] {
            let (condition, (method, target, line)) = (condition(wanted), request(sent));
            let matches = ask_for(&method, &target, &[&line], |request| condition.matches(request));
            assert!(!matches, "{condition}: {method} {target} {line}");
            // And it can match at all.
            let (method, target, line) = request(wanted);
            assert!(ask_for(&method, &target, &[&line], |request| condition.matches(request)), "{condition}");
        }
    }
}

fn line(line: String) -> (String, String, String) {
    ("GET".to_owned(), "/".to_owned(), line)
}

fn path(path: String) -> (String, String, String) {
    ("GET".to_owned(), path, "x: y".to_owned())
}
