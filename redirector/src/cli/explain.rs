//! `redirector explain`

use super::{
    connection::ConnectionArgs,
    output::{OutputArgs, block_on},
};
use crate::{
    api::{Explain, ExplainedIntercept, Explanation, HeaderLine, WhenAway},
    context::parse_method,
    target::Target,
};
use anyhow::Result;
use clap::Args;
use http::Method;
use std::{fmt::Write as _, process::ExitCode};

/// Tell which intercept would take a request, and which of the conditions say no
///
/// Nothing is sent to anybody: the agent compares the request with its intercepts as it does when one comes in.
#[derive(Args, Debug)]
pub struct ExplainCommand {
    /// The target the request goes to: netns:NAME-or-path, pid:N or container:ID
    target: Target,

    /// The port it goes to
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Its method
    #[arg(long, default_value = "GET", value_parser = parse_method)]
    method: Method,

    /// Its path, with the query if there is one
    #[arg(long, default_value = "/", value_name = "PATH")]
    path: String,

    /// A line of its header, as curl takes it; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_line)]
    headers: Vec<HeaderLine>,

    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl ExplainCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let question = Explain {
            target: self.target,
            port: self.port,
            method: self.method.to_string(),
            path: self.path,
            headers: self.headers,
        };
        let explanation: Explanation = block_on(async { Ok(agent.post("/v1/explain", &question).await?) })?;
        self.output.print(&explanation, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn header_line(text: &str) -> Result<HeaderLine, String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => {
            Ok(HeaderLine { name: name.to_owned(), value: value.trim_matches([' ', '\t']).to_owned() })
        }
        _ => Err("give it as NAME: VALUE, such as 'x-dev: alice'".to_owned()),
    }
}

fn text(explanation: &Explanation) -> String {
    let mut text = verdict(explanation);
    for intercept in &explanation.intercepts {
        let _ = write!(
            text,
            "\n{}, of {}, developer {}: {}\n",
            intercept.name,
            intercept.owner,
            if intercept.connected { "connected" } else { "away" },
            match (intercept.matches, explanation.taken_by.as_deref() == Some(&*intercept.name)) {
                (_, true) => "takes it",
                (true, false) => "would take it, but an older one does",
                (false, _) => "does not take it",
            }
        );
        if intercept.conditions.is_empty() {
            text.push_str("  yes  all requests\n");
        }
        for condition in &intercept.conditions {
            let _ = writeln!(text, "  {}  {}", if condition.holds { "yes" } else { "no " }, condition.text);
        }
    }
    text
}

fn verdict(explanation: &Explanation) -> String {
    let taken_by = |intercept: &&ExplainedIntercept| Some(&intercept.name) == explanation.taken_by.as_ref();
    match explanation.intercepts.iter().find(taken_by) {
        None if explanation.intercepts.is_empty() => {
            "The live service answers: nothing is intercepted on this port.\n".to_owned()
        }
        None => "The live service answers: no intercept takes this request.\n".to_owned(),
        Some(ExplainedIntercept { name, owner, to, connected: true, .. }) => {
            format!("Intercept \"{name}\" of {owner} takes it: {to} answers.\n")
        }
        Some(ExplainedIntercept { name, owner, when_away: WhenAway::Live, .. }) => format!(
            "Intercept \"{name}\" of {owner} takes it, but the developer is away: the live service answers.\n"
        ),
        Some(ExplainedIntercept { name, owner, when_away: WhenAway::Error, .. }) => {
            format!(
                "Intercept \"{name}\" of {owner} takes it, but the developer is away: a 503 is the answer.\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::header_line;

    #[test]
    fn headers_are_given_as_curl_takes_them() {
        let parse = |text| header_line(text).map(|line| (line.name, line.value));
        assert_eq!(parse("x-dev: alice"), Ok(("x-dev".to_owned(), "alice".to_owned())));
        assert_eq!(parse("x-dev:a:b "), Ok(("x-dev".to_owned(), "a:b".to_owned())));
        assert_eq!(parse("x-dev:"), Ok(("x-dev".to_owned(), String::new())));
        assert!(parse("x-dev=alice").is_err() && parse(": alice").is_err());
    }
}
