//! The preview gateway under test, on the node, without any privileges.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    agent::{CommandOutput, redirector_binary},
    lab::{Host, Lab},
    log::Log,
    process::Process,
};

/// Where visitors and developers reach it.
const VISITORS: u16 = 8000;
const DEVELOPERS: u16 = 7466;

/// How a gateway is started.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The ingress: host and port as arguments.
    ingress: SocketAddr,
    arguments: Vec<String>,
}

impl GatewayOptions {
    #[must_use]
    pub fn new(ingress: SocketAddr) -> Self {
        Self { ingress, arguments: Vec::new() }
    }

    /// More arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }
}

/// A running gateway. Dropping it ends it as an operator would, with SIGTERM.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    node: Host,
    state: PathBuf,
}

impl Gateway {
    /// Starts a gateway and waits until it listens. Another one in the same lab is the same gateway, restarted.
    #[must_use]
    pub fn start(lab: &Lab, options: &GatewayOptions) -> Self {
        let state = lab.directory().join("gateway");
        let mut process = Process::spawn("gateway", &mut command(lab, &state, options), lab.logs());
        process.wait_for_line("listening");
        Self { process, node: lab.node.clone(), state }
    }

    /// One that must not start: its exit code and what it said.
    #[must_use]
    pub fn refused(lab: &Lab, options: &GatewayOptions) -> CommandOutput {
        CommandOutput::of(&mut command(lab, &lab.directory().join("gateway"), options))
    }

    /// Where visitors connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.node.at(VISITORS)
    }

    #[must_use]
    pub fn state_directory(&self) -> &Path {
        &self.state
    }

    /// What a developer's command needs to reach it.
    #[must_use]
    pub fn connection(&self) -> [String; 4] {
        let token = self.state.join("token").to_string_lossy().into_owned();
        [
            "--gateway".to_owned(),
            self.node.at(DEVELOPERS).to_string(),
            "--gateway-token-file".to_owned(),
            token,
        ]
    }

    /// `redirector preview ARGUMENTS` with the gateway's address and token.
    #[track_caller]
    pub fn preview(&self, from: &Host, arguments: &[&str]) -> CommandOutput {
        let mut command = from.netns.command(&redirector_binary().to_string_lossy());
        command.arg("preview").args(arguments).args(self.connection());
        command.env_remove("REDIRECTOR_GATEWAY").env_remove("REDIRECTOR_GATEWAY_TOKEN");
        CommandOutput::of(&mut command)
    }

    /// `preview create ARGUMENTS --output json`, which must work.
    #[track_caller]
    pub fn create(&self, from: &Host, arguments: &[&str]) -> Value {
        let arguments = [&["create"], arguments, &["--output", "json"]].concat();
        let output = self.preview(from, &arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output.json()
    }

    /// `preview list --output json`.
    #[track_caller]
    pub fn list(&self, from: &Host) -> Vec<Value> {
        let output = self.preview(from, &["list", "--output", "json"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        output.json().as_array().expect("a list").clone()
    }

    /// The unix socket, as an argument.
    #[must_use]
    pub fn socket(&self) -> String {
        format!("unix:{}", self.state.join("gateway.sock").display())
    }

    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }

    /// SIGTERM; gives the exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.process.signal(Signal::SIGTERM);
        self.process.wait()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() || self.process.exited().is_some() {
            return;
        }
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait();
        assert!(status.success(), "the gateway ended with {status} on SIGTERM:\n{}", self.process.log());
    }
}

fn command(lab: &Lab, state: &Path, options: &GatewayOptions) -> Command {
    let mut command = lab.node.netns.command("setpriv");
    // No capability at all, nor a way to get one.
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--"]);
    command.arg(redirector_binary()).arg("gateway");
    command.args([
        "--listen",
        &format!("0.0.0.0:{VISITORS}"),
        "--admin-listen",
        &format!("0.0.0.0:{DEVELOPERS}"),
    ]);
    command.arg("--state-dir").arg(state);
    command.args(["--ingress-host", &options.ingress.ip().to_string()]);
    command.args(["--ingress-port", &options.ingress.port().to_string()]);
    command.args(&options.arguments);
    command
}
