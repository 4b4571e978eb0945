//! Clients that keep one connection, as the pools of real programs do, and make a new one when it ends.

use std::{net::SocketAddr, path::Path};

use super::{node, python};
use crate::{
    lab::{Host, Lab},
    log::Stream,
    process::Process,
    wait::eventually,
};

use nix::sys::signal::Signal;

/// A client that asks `/whoami` in turns without and with a header. Dropping it ends it.
#[derive(Debug)]
pub struct PoolClient(Process);

impl PoolClient {
    /// Python's HTTP/1.1 client.
    #[must_use]
    pub fn http1(lab: &Lab, from: &Host, to: SocketAddr, header: (&str, &str)) -> Self {
        Self::python(lab, from, to, header, None)
    }

    /// The same over TLS, to `pod.test`, whose certificate is given.
    #[must_use]
    pub fn tls(lab: &Lab, from: &Host, to: SocketAddr, header: (&str, &str), certificate: &Path) -> Self {
        Self::python(lab, from, to, header, Some(certificate))
    }

    /// Node's HTTP/2 client, without TLS.
    #[must_use]
    pub fn http2(lab: &Lab, from: &Host, to: SocketAddr, header: (&str, &str)) -> Self {
        let script = include_str!("pool_client_http2.js");
        let mut command = node(lab, &from.netns, "pool_client_http2.js", script);
        command.arg(to.ip().to_string()).arg(to.port().to_string()).args([header.0, header.1]);
        Self(Process::spawn("pool client", &mut command, lab.logs()))
    }

    fn python(
        lab: &Lab,
        from: &Host,
        to: SocketAddr,
        header: (&str, &str),
        certificate: Option<&Path>,
    ) -> Self {
        let mut command = python(lab, &from.netns, "pool_client.py", include_str!("pool_client.py"));
        command.arg(to.ip().to_string()).arg(to.port().to_string()).args([header.0, header.1]);
        command.args(certificate);
        Self(Process::spawn("pool client", &mut command, lab.logs()))
    }

    /// What it printed so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.log().lines(Stream::Stdout)
    }

    /// How often its connection ended.
    #[must_use]
    pub fn ends(&self) -> usize {
        self.lines().iter().filter(|line| *line == "ended").count()
    }

    /// Waits until `server` answers its requests of this kind, `matching` or `plain`.
    #[track_caller]
    pub fn wait_for(&mut self, kind: &str, server: &str) {
        self.0.wait_for_line(&format!("{kind} {server}"));
    }

    /// Waits for so many more answers.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let seen = self.lines().len();
        eventually("the client goes on", || self.lines().len() >= seen + count);
    }

    /// It makes no requests for now; its connection stays.
    pub fn pause(&self) {
        self.0.signal(Signal::SIGSTOP);
    }

    pub fn go_on(&self) {
        self.0.signal(Signal::SIGCONT);
    }
}
