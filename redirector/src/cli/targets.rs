//! `redirector targets`

use super::{
    connection::ConnectionArgs,
    output::{OutputArgs, block_on, table},
};
use anyhow::Result;
use clap::Args;
use http::Method;
use serde_json::Value;
use std::process::ExitCode;

/// Show what can be intercepted on the agent's node
#[derive(Args, Debug)]
pub struct TargetsCommand {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl TargetsCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let targets: Value = block_on(async { Ok(agent.call(Method::GET, "/v1/targets").await?) })?;
        self.output.print(&targets, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(targets: &Value) -> String {
    let targets = targets.as_array().map_or(&[] as &[Value], Vec::as_slice);
    if targets.is_empty() {
        return "No network namespace but the host's is here: there is nothing to intercept.".to_owned();
    }
    let rows = targets.iter().map(|target| {
        let ports: Vec<String> =
            target["ports"].as_array().into_iter().flatten().map(ToString::to_string).collect();
        let process = &target["process"];
        [
            target["target"].as_str().unwrap_or_default().to_owned(),
            ports.join(","),
            match (process["pid"].as_i64(), process["command"].as_str()) {
                (Some(pid), Some(command)) => format!("{command} ({pid})"),
                _ => String::new(),
            },
        ]
    });
    table(["TARGET", "LISTENS ON", "PROCESS"], rows)
}
