//! The promises of context matching, on heads parsed as the router parses them. One module per kind of condition.
#![allow(clippy::unwrap_used, reason = "test code, though not all within test functions")]

mod baggage;
mod headers;
mod keys;
mod matcher;
mod methods;
mod paths;
mod subsume;
mod tracestate;
mod whole_values;

use std::str::FromStr;

use redirector::context::{Condition, Matcher};
use redirector::http1::{RequestFramer, RequestStep, RequestView};

/// The answer of `question` about a request with these header lines.
#[track_caller]
fn ask(lines: &[&str], question: impl FnOnce(&RequestView<'_>) -> bool) -> bool {
    ask_for("GET", "/", lines, question)
}

/// The same for a request with this method and target.
#[track_caller]
fn ask_for(
    method: &str,
    target: &str,
    lines: &[&str],
    question: impl FnOnce(&RequestView<'_>) -> bool,
) -> bool {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: app\r\n").into_bytes();
    for line in lines {
        request.extend(line.bytes());
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    match RequestFramer::new().next(&request, question) {
        RequestStep::Head { decision, .. } => decision,
        other => panic!("{other:?} for {method} {target} {lines:?}"),
    }
}

/// A condition as it is typed.
#[track_caller]
fn typed<C: FromStr<Err: std::fmt::Debug>>(text: &str, kind: impl FnOnce(C) -> Condition) -> Condition {
    kind(text.parse().unwrap())
}

fn methods(methods: &[&str]) -> Condition {
    let methods: Vec<String> = methods.iter().map(|&method| method.to_owned()).collect();
    Condition::Methods(methods.try_into().unwrap())
}

fn matcher(conditions: &[Condition]) -> Matcher {
    Matcher { conditions: conditions.to_vec() }
}
