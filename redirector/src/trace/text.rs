//! The path of a request, for people: who was asked, on the way there; how they answered, on the way back.

use super::{
    observation::{Observation, Taken},
    tree::{Cause, Dropped, Tree},
};
use std::{collections::BTreeSet, fmt::Write as _};

/// One path, several lines.
#[must_use]
pub fn text(tree: &Tree) -> String {
    let mut text = String::new();
    match tree.seen.trace {
        Some(trace) => drop(writeln!(text, "trace {trace}, {}", tree.seen.started)),
        None => drop(writeln!(text, "no trace id, {}", tree.seen.started)),
    }
    branch(&mut text, tree, None, "", "");
    if !tree.reaches_developer() && !tree.drops() {
        text.push_str(
            "No developer was reached, and no hop was seen to drop the context. What `redirector observe` does not \
             see is not here: observe the hops on the way, and try again.\n",
        );
    }
    text
}

/// `first` is before the request's own line, `rest` before all others.
fn branch(text: &mut String, tree: &Tree, parent: Option<&Tree>, first: &str, rest: &str) {
    let Observation { hop, port, method, path, client, .. } = &tree.seen;
    let place = if hop == "gateway" { hop.clone() } else { format!("{hop} port {port}") };
    let from = if parent.is_none() { format!(" from {}", client.ip().to_canonical()) } else { String::new() };
    let _ = writeln!(text, "{first}{place}: {method} {path}{from}");
    let more = if tree.children.is_empty() { "" } else { "│" };
    let context = match tree.seen.carries() {
        true => format!("with {}", list(&tree.seen.headers)),
        false if tree.seen.headers.is_empty() => "no context".to_owned(),
        false => format!("no context (only {})", list(&tree.seen.headers)),
    };
    let _ = writeln!(text, "{rest}{more:<3}{context}");
    let taken = match &tree.seen.route {
        Taken::App => "the app".to_owned(),
        Taken::Ingress => "the ingress".to_owned(),
        Taken::Developer(name) => format!("the developer of \"{name}\""),
        Taken::Away(name) => format!("the app, for the developer of \"{name}\" was away"),
    };
    let answer = match tree.seen.status {
        Some(status) => format!("{status}"),
        None => "no answer".to_owned(),
    };
    let _ = writeln!(text, "{rest}{more:<3}{answer} by {taken}, {}", milliseconds(tree.seen.micros));
    for (at, child) in tree.children.iter().enumerate() {
        let is_last = at + 1 == tree.children.len();
        if let Some(line) = complaint(tree, child) {
            let _ = writeln!(text, "{rest}│  {line}");
        }
        let (first_of_child, rest_of_child) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(
            text,
            child,
            Some(tree),
            &format!("{rest}{first_of_child}"),
            &format!("{rest}{rest_of_child}"),
        );
    }
}

/// What went wrong between the two.
fn complaint(parent: &Tree, child: &Tree) -> Option<String> {
    let hop = &parent.seen.hop;
    let missing = list(child.missing.iter());
    let unseen = matches!(child.cause, Some(Cause::Trace | Cause::Context));
    let who = if unseen { format!("{hop}, or a hop behind it that is not observed,") } else { hop.clone() };
    Some(match child.dropped {
        Some(Dropped::Certainly) => format!("✗ {who} dropped the context: it did not pass on {missing}"),
        Some(Dropped::Probably) => {
            format!(
                "✗ {who} probably dropped the context: it did not pass on {missing}, and was seen serving nothing else"
            )
        }
        Some(Dropped::Perhaps { others: 0 }) => format!(
            "? {who} may have dropped the context: it did not pass on {missing}, and began another trace; or it did \
             this on nobody's behalf"
        ),
        Some(Dropped::Perhaps { others }) => format!(
            "? {who} may have dropped the context: it did not pass on {missing}, or did this for one of {others} other \
             requests"
        ),
        None if !child.missing.is_empty() => format!("! {who} did not pass on {missing}"),
        None => return None,
    })
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: BTreeSet<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() {
        return "it".to_owned();
    }
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
