//! The command line: one file per command.

#[cfg(target_os = "linux")]
mod agent;
#[cfg(target_os = "linux")]
mod check;
mod connection;
mod curl_line;
mod explain;
mod gateway;
mod intercept;
mod intercept_output;
mod intercept_preview;
mod list;
mod matcher_args;
mod observe;
mod otlp;
mod output;
mod owner;
mod preview;
mod qr_code;
mod remove;
mod status;
mod targets;
mod tls;
mod token;
mod trace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Run one service of a cluster on your own machine.
///
/// Requests that carry your context reach your machine; all others stay with the live service, which is neither
/// changed nor restarted. `redirector agent` runs on the node of the service, `redirector intercept` on your
/// machine.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(target_os = "linux")]
    Agent(agent::AgentCommand),
    Intercept(Box<intercept::InterceptCommand>),
    List(list::ListCommand),
    Explain(explain::ExplainCommand),
    Observe(observe::ObserveCommand),
    Trace(trace::TraceCommand),
    Status(status::StatusCommand),
    Remove(remove::RemoveCommand),
    Targets(targets::TargetsCommand),
    Token(token::TokenCommand),
    Gateway(Box<gateway::GatewayCommand>),
    Preview(preview::PreviewCommand),
    #[cfg(target_os = "linux")]
    Check(check::CheckCommand),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            #[cfg(target_os = "linux")]
            Command::Agent(command) => command.run(),
            Command::Intercept(command) => command.run(),
            Command::List(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Observe(command) => command.run(),
            Command::Trace(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Remove(command) => command.run(),
            Command::Targets(command) => command.run(),
            Command::Token(command) => command.run(),
            Command::Gateway(command) => command.run(),
            Command::Preview(command) => command.run(),
            #[cfg(target_os = "linux")]
            Command::Check(command) => command.run(),
        }
    }
}
