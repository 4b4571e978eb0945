//! Long-running processes of a lab: their output, their signals, and their end.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{
    log::{Log, Logs, Stream},
    wait::eventually_some,
};

/// A running process in a group of its own; dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
    collectors: Vec<JoinHandle<()>>,
}

impl Process {
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command, logs: &Logs) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {command:?}: {error}"));
        let log = logs.open(name);
        let stdout = child.stdout.take().map(|stdout| log.collect(Stream::Stdout, stdout));
        let stderr = child.stderr.take().map(|stderr| log.collect(Stream::Stderr, stderr));
        let collectors = stdout.into_iter().chain(stderr).collect();
        Self { name: name.to_owned(), child, log, collectors }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Waits for a line on stdout that contains `text`, and gives it.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let what = format!("{} prints a line with {text:?}", self.name);
        eventually_some(&what, || {
            // The last lines of a process that has ended may still be in its pipes.
            let ended = self.exited().filter(|_| self.collectors.iter().all(JoinHandle::is_finished));
            let line = self.log.lines(Stream::Stdout).into_iter().find(|line| line.contains(text));
            if let (None, Some(status)) = (&line, ended) {
                panic!(
                    "{} ended ({status}) before it printed a line with {text:?}:\n{}",
                    self.name, self.log
                );
            }
            line
        })
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.group(), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// The exit status, if the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("wait for {}: {error}", self.name))
    }

    /// Waits for the process to end by itself, or from a signal sent before.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually_some(&what, || self.exited())
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group outlives its leader when a server forked; ESRCH means that nobody is left.
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
