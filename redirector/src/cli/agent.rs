//! `redirector agent`

use super::otlp::OtlpArgs;
use crate::{
    agent::{self, AgentOptions},
    datapath::AttachKind,
};
use anyhow::{Result, bail};
use clap::Args;
use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};
use tracing_subscriber::EnvFilter;

/// Run the node agent (root, Linux)
///
/// It waits for developers, and attaches to a target's network namespace only while somebody intercepts it. Ready
/// when it prints a line with "listening". RUST_LOG sets what it logs to stderr (default: info).
#[derive(Args, Debug)]
pub struct AgentCommand {
    /// Where developers connect
    #[arg(long, default_value = "0.0.0.0:7465", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// Serve metrics for Prometheus at http://ADDRESS:PORT/metrics, to whoever can connect [default: no such port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,

    /// Identity, join tokens and the socket for root
    #[arg(long, default_value = "/var/lib/redirector", value_name = "DIR")]
    state_dir: PathBuf,

    /// How to attach to interfaces
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    attach: AttachKind,

    /// How long an intercept waits for a developer who was cut off, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    grace: u64,

    /// Let developers intercept all requests of a service (`intercept --all`), everybody's
    #[arg(long)]
    allow_all: bool,

    #[command(flatten)]
    otlp: OtlpArgs,

    /// Log what the eBPF program does with each packet that could open a connection to an intercepted port
    #[arg(long)]
    log_packets: bool,
}

impl AgentCommand {
    pub fn run(self) -> Result<ExitCode> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the agent must run as root; `redirector check` says what it needs");
        }
        let default = if self.log_packets { "info,redirector_ebpf=debug" } else { "info" };
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default)))
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init();
        let options = AgentOptions {
            listen: self.listen,
            metrics: self.metrics,
            state_dir: self.state_dir,
            attach: self.attach,
            log_packets: self.log_packets,
            grace: Duration::from_secs(self.grace),
            allow_all: self.allow_all,
            otlp: self.otlp.endpoint,
        };
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(agent::run(options))?;
        Ok(ExitCode::SUCCESS)
    }
}
