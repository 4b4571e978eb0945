//! A developer: `redirector intercept` on the developer's machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
};

use nix::sys::signal::Signal;

use crate::{
    agent::{Agent, CommandOutput, redirector_binary},
    lab::{Host, Lab},
    log::{Log, Stream},
    netns::Netns,
    process::Process,
};

/// The command line of an intercept, to be started or refused.
#[derive(Clone, Debug)]
pub struct Intercept {
    dev: Host,
    agent: SocketAddr,
    token_file: Option<PathBuf>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// An intercept that ended instead of becoming ready.
pub type Refusal = CommandOutput;

impl Intercept {
    /// Intercepts `port` of the lab's pod for the developer's `127.0.0.1:to`. Says nothing yet about what to match.
    #[must_use]
    pub fn new(lab: &Lab, agent: &Agent, port: u16, to: u16) -> Self {
        let arguments = [
            "intercept",
            &lab.pod.netns.target(),
            "--port",
            &port.to_string(),
            "--to",
            &format!("127.0.0.1:{to}"),
        ];
        Self {
            dev: lab.dev.clone(),
            agent: agent.address(),
            token_file: Some(agent.token_file()),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: Vec::new(),
        }
    }

    /// Another local server.
    #[must_use]
    pub fn to(mut self, to: &str) -> Self {
        to.clone_into(&mut self.arguments[5]);
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another target than the pod.
    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.arguments[1]);
        self
    }

    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.argument("--header").argument(&format!("{name}={value}"))
    }

    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.argument("--name").argument(name)
    }

    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    #[must_use]
    pub fn token_file(self, path: &Path) -> Self {
        Self { token_file: Some(path.to_owned()), ..self }
    }

    #[must_use]
    pub fn without_token(self) -> Self {
        Self { token_file: None, ..self }
    }

    /// Runs it until it is ready.
    #[must_use]
    #[track_caller]
    pub fn start(&self, lab: &Lab) -> Developer {
        let mut process = Process::spawn("intercept", &mut self.command(), lab.logs());
        process.wait_for_line("ready");
        Developer { process, dev: self.dev.netns.clone() }
    }

    /// Runs it to its end, which must be a refusal: exit code 1 and a message.
    #[must_use]
    #[track_caller]
    pub fn refused(&self) -> Refusal {
        let refusal = CommandOutput::of(&mut self.command());
        assert_eq!(refusal.code, Some(1), "{refusal:?}");
        assert!(!refusal.stdout.contains("ready"), "{refusal:?}");
        refusal
    }

    fn command(&self) -> Command {
        let mut command = self.dev.netns.command(&redirector_binary().to_string_lossy());
        command.args(&self.arguments).args(["--agent", &self.agent.to_string()]);
        if let Some(path) = &self.token_file {
            command.arg("--token-file").arg(path);
        }
        command.env_remove("REDIRECTOR_AGENT").env_remove("REDIRECTOR_TOKEN");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running intercept. Dropping it ends it as a developer would, with Ctrl-C.
#[derive(Debug)]
pub struct Developer {
    process: Process,
    dev: Netns,
}

impl Developer {
    /// What it printed on stdout so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.process.log().lines(Stream::Stdout)
    }

    /// All that it printed.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// Waits for a line on stdout that contains `text`.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str) -> String {
        self.process.wait_for_line(text)
    }

    /// The namespace of the developer's machine.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.dev
    }

    /// Ctrl-C; gives the exit status.
    pub fn interrupt(mut self) -> ExitStatus {
        self.process.signal(Signal::SIGINT);
        self.process.wait()
    }

    /// SIGKILL: the machine is gone without a word, as far as the process can tell.
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait()
    }

    /// SIGSTOP: a laptop that fell asleep.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}

impl Drop for Developer {
    fn drop(&mut self) {
        if thread::panicking() || self.process.exited().is_some() {
            return;
        }
        self.process.signal(Signal::SIGCONT);
        self.process.signal(Signal::SIGINT);
        self.process.wait();
    }
}
