//! The real curl, as a client of the lab.

use std::{net::SocketAddr, process::Command};

use crate::{agent::CommandOutput, lab::Host};

/// One curl command: several requests, which share a connection when they go to the same address.
#[derive(Debug)]
pub struct Curl {
    command: Command,
    requests: usize,
}

/// What curl got for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// New connections that curl made for this request: 0 when it kept using the one it had.
    pub connects: u32,
    /// The local port of the connection.
    pub port: u16,
    pub body: String,
}

/// Separates body and facts in the output; no body of the lab contains it.
const MARK: &str = "\u{1}";

impl Curl {
    #[must_use]
    pub fn on(host: &Host) -> Self {
        Self { command: host.netns.command("curl"), requests: 0 }
    }

    /// `GET http://ADDRESS/PATH` with headers (`name: value`).
    #[must_use]
    pub fn get(self, address: SocketAddr, path: &str, headers: &[&str]) -> Self {
        self.request(&format!("http://{address}{path}"), &[], headers)
    }

    /// Any URL, with more arguments and headers.
    #[must_use]
    pub fn request(mut self, url: &str, arguments: &[&str], headers: &[&str]) -> Self {
        if self.requests > 0 {
            self.command.arg("--next");
        }
        let facts = format!("{MARK}%{{http_code}} %{{num_connects}} %{{local_port}}{MARK}");
        self.command.args(["--silent", "--show-error", "--max-time", "120", "--write-out", &facts]);
        self.command.args(arguments);
        for header in headers {
            self.command.args(["--header", header]);
        }
        self.command.arg(url);
        self.requests += 1;
        self
    }

    /// Runs it; one answer per request. Panics when curl fails.
    #[track_caller]
    #[must_use]
    pub fn answers(self) -> Vec<Answer> {
        let (requests, output) = (self.requests, self.output());
        assert_eq!(output.code, Some(0), "curl: {output:?}");
        let parts: Vec<&str> = output.stdout.split(MARK).collect();
        let answers: Vec<Answer> = parts
            .chunks_exact(2)
            .map(|part| Answer::parse(part[0], part[1]).expect("curl's facts"))
            .collect();
        assert_eq!(answers.len(), requests, "curl: {output:?}");
        answers
    }

    /// Runs it; the answer of its only request.
    #[track_caller]
    #[must_use]
    pub fn answer(self) -> Answer {
        assert_eq!(self.requests, 1, "one request");
        self.answers().remove(0)
    }

    /// Runs it; the exit code and all it printed.
    #[track_caller]
    #[must_use]
    pub fn output(mut self) -> CommandOutput {
        CommandOutput::of(&mut self.command)
    }
}

impl Answer {
    fn parse(body: &str, facts: &str) -> Option<Self> {
        let mut facts = facts.split(' ');
        Some(Self {
            status: facts.next()?.parse().ok()?,
            connects: facts.next()?.parse().ok()?,
            port: facts.next()?.parse().ok()?,
            body: body.to_owned(),
        })
    }
}
