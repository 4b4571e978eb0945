//! The agent under test, on the node.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    frozen_threads::FrozenThreads,
    lab::{Host, Lab},
    log::Log,
    process::Process,
    wait::eventually,
};

/// The binary under test, from `$REDIRECTOR_BIN`.
#[must_use]
pub fn redirector_binary() -> PathBuf {
    let Some(path) = env::var_os("REDIRECTOR_BIN") else {
        panic!("REDIRECTOR_BIN is not set: run `cargo xtask test`, or set it to target/release/redirector");
    };
    let path = PathBuf::from(path);
    assert!(path.is_file(), "REDIRECTOR_BIN={} is not a file: run `cargo xtask build`", path.display());
    path.canonicalize().expect("the path of the binary")
}

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The name of the state directory; agents with the same one are the same agent, restarted.
    pub state: String,
    /// The port for developers.
    pub port: u16,
    /// More arguments, as `--attach clsact`.
    pub arguments: Vec<String>,
    /// What is run as the agent. Commands to it are always [`redirector_binary`].
    pub binary: PathBuf,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { state: "agent".to_owned(), port: 7465, arguments: Vec::new(), binary: redirector_binary() }
    }
}

impl AgentOptions {
    #[must_use]
    pub fn attach(mode: &str) -> Self {
        Self { arguments: vec!["--attach".to_owned(), mode.to_owned()], ..Self::default() }
    }

    /// Developers may take all requests of a service.
    #[must_use]
    pub fn allow_all() -> Self {
        Self { arguments: vec!["--allow-all".to_owned()], ..Self::default() }
    }

    /// With metrics on this port of the node.
    #[must_use]
    pub fn metrics(port: u16) -> Self {
        Self { arguments: vec!["--metrics".to_owned(), format!("0.0.0.0:{port}")], ..Self::default() }
    }
}

/// No command of a test takes this long, not even a curl that moves 100 MiB on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// Runs the command to its end; panics when that takes too long.
    #[track_caller]
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        let mut limited = Command::new("timeout");
        limited.args(["--kill-after=1", &LIMIT.as_secs().to_string()]);
        limited.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        let output = limited.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let timed_out = matches!(output.status.code(), Some(124 | 137));
        assert!(!timed_out, "does not end: {command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}) in {self:?}"))
    }
}

/// A running agent. Dropping it ends it as an operator would, with SIGTERM.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    node: Host,
    address: SocketAddr,
    state: PathBuf,
}

impl Agent {
    /// Starts an agent with the default options, and waits until it listens.
    #[must_use]
    pub fn start(lab: &Lab) -> Self {
        Self::start_with(lab, &AgentOptions::default())
    }

    /// Starts an agent and waits until it listens.
    #[must_use]
    pub fn start_with(lab: &Lab, options: &AgentOptions) -> Self {
        let state = lab.directory().join(&options.state);
        let mut command = lab.node.netns.command("prlimit");
        // The soft limit that services get; the lab's own is higher.
        command.args(["--nofile=1024:", "--"]).arg(&options.binary);
        command.args(["agent", "--listen", &format!("0.0.0.0:{}", options.port), "--state-dir"]).arg(&state);
        command.args(&options.arguments);
        let mut process = Process::spawn(&options.state, &mut command, lab.logs());
        process.wait_for_line("listening");
        Self { process, node: lab.node.clone(), address: lab.node.at(options.port), state }
    }

    /// Where developers reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn state_directory(&self) -> &Path {
        &self.state
    }

    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.state.join("token")
    }

    /// The join token that the agent wrote at its first start.
    #[must_use]
    pub fn token(&self) -> String {
        fs::read_to_string(self.token_file()).expect("the token file").trim().to_owned()
    }

    /// The unix socket, as the argument of `--agent`.
    #[must_use]
    pub fn socket(&self) -> String {
        format!("unix:{}", self.state.join("agent.sock").display())
    }

    /// `redirector ARGUMENTS --agent unix:…` on the node.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = self.node.netns.command(&redirector_binary().to_string_lossy());
        CommandOutput::of(command.args(arguments).args(["--agent", &self.socket()]))
    }

    /// What `redirector ARGUMENTS --output json` says on the node.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output.json()
    }

    /// The intercepts, as `list` gives them.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        let list = self.json(&["list"]);
        list.as_array().unwrap_or_else(|| panic!("not an array: {list}")).clone()
    }

    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Makes the kernel forget how much memory it has had at most; gives how much it has now. Bytes.
    #[must_use]
    pub fn reset_peak_memory(&self) -> u64 {
        // proc(5): 5 resets the peak resident set size to the current one.
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("reset the peak");
        self.memory("VmRSS:")
    }

    /// The most memory it has had since. Bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the agent's status");
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field of the status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    }

    #[track_caller]
    pub fn assert_running(&mut self) {
        let exited = self.process.exited();
        assert!(exited.is_none(), "the agent ended: {exited:?}");
    }

    /// SIGKILL, as the kernel's out-of-memory killer does it.
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }

    /// The same, without its threads doing a step more.
    pub fn kill_frozen(self, threads: FrozenThreads) {
        self.process.signal(Signal::SIGKILL);
        // A process is not gone before those who trace its threads let go of them.
        drop(threads);
        self.kill();
    }

    /// Ends it with SIGTERM or SIGINT and gives its exit status.
    pub fn stop(mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        self.process.wait()
    }

    /// SIGSTOP: the process is there and does nothing. Returns when the last of its threads has stopped.
    #[track_caller]
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
        eventually("the agent has stopped", || {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
            threads.into_iter().all(|thread| {
                let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
            })
        });
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() || self.process.exited().is_some() {
            return;
        }
        self.process.signal(Signal::SIGCONT);
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait();
        assert!(status.success(), "the agent ended with {status} on SIGTERM:\n{}", self.process.log());
    }
}
