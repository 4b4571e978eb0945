//! `redirector observe` on the node.

use std::thread;

use nix::sys::signal::Signal;

use crate::{
    agent::{Agent, redirector_binary},
    lab::{Host, Lab},
    process::Process,
};

/// A running observer. Dropping it ends it with Ctrl-C.
#[derive(Debug)]
pub struct Observer {
    process: Process,
}

impl Observer {
    /// Observes `port` of `host`; more arguments say how, and what.
    #[must_use]
    pub fn start(lab: &Lab, agent: &Agent, host: &Host, port: u16, arguments: &[&str]) -> Self {
        let mut command = lab.node.netns.command(&redirector_binary().to_string_lossy());
        command.args(["observe", &host.netns.target(), "--port", &port.to_string()]);
        command.args(["--agent", &agent.socket()]).args(arguments);
        let mut process = Process::spawn("observe", &mut command, lab.logs());
        process.wait_for_line("ready");
        Self { process }
    }

    /// SIGKILL: nobody tells the agent.
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if thread::panicking() || self.process.exited().is_some() {
            return;
        }
        self.process.signal(Signal::SIGINT);
        let status = self.process.wait();
        assert!(status.success(), "the observer ended with {status}:\n{}", self.process.log());
    }
}
