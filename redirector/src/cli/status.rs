//! `redirector status`

use super::{
    connection::ConnectionArgs,
    list,
    output::{OutputArgs, block_on},
};
use crate::api::{Status, TargetStatus};
use anyhow::Result;
use clap::Args;
use http::Method;
use std::{fmt::Write as _, process::ExitCode};

/// Show what an agent does: what is attached where, and what it has counted
#[derive(Args, Debug)]
pub struct StatusCommand {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl StatusCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let status: Status = block_on(async { Ok(agent.call(Method::GET, "/v1/status").await?) })?;
        self.output.print(&status, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(status: &Status) -> String {
    let mut text = format!("redirector {}, up for {} s\n", status.version, status.uptime);
    match &status.client_address_reason {
        None => text.push_str("apps see the client's address\n"),
        Some(reason) => {
            let _ = writeln!(text, "apps see the agent's address in place of the client's: {reason}");
        }
    }
    for target in &status.targets {
        text.push_str(&target_text(target));
    }
    for intercept in &status.intercepts {
        let datapath = format!("{:?}", intercept.datapath).to_lowercase();
        let _ = writeln!(text, "{}: datapath {datapath}, {}", intercept.name, intercept.datapath_reason);
    }
    text.push('\n');
    text.push_str(&list::text(&status.intercepts));
    text
}

fn target_text(target: &TargetStatus) -> String {
    let attached: Vec<String> =
        target.attached.iter().map(|(interface, kind)| format!("{interface} ({kind})")).collect();
    let mut text = format!("\n{}: attached to {}\n", target.target, attached.join(", "));
    for (port, counts) in &target.ports {
        let _ = writeln!(
            text,
            "  port {port}: {} connections ({} open, {} not understood), {} requests, {} of them live",
            counts.connections, counts.open, counts.raw, counts.requests, counts.live
        );
    }
    for (port, counts) in target.ports.iter().filter(|(_, counts)| counts.parked + counts.given_back > 0) {
        let _ = writeln!(
            text,
            "  port {port}: {} connections changed from the app to the agent ({} for a request that did not match, {} \
             ended when idle), {} stayed in doubt",
            counts.parked, counts.falsely_parked, counts.retired, counts.given_back
        );
    }
    let packets: Vec<String> = target
        .packets
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(outcome, count)| format!("{outcome} {count}"))
        .collect();
    if !packets.is_empty() {
        let _ = writeln!(text, "  packets: {}", packets.join(", "));
    }
    text
}
