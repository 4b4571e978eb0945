//! `redirector list`

use super::{
    connection::ConnectionArgs,
    output::{OutputArgs, block_on, table},
};
use crate::api::InterceptInfo;
use anyhow::Result;
use clap::Args;
use http::Method;
use std::process::ExitCode;

/// Show the intercepts of an agent
#[derive(Args, Debug)]
pub struct ListCommand {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl ListCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let intercepts: Vec<InterceptInfo> =
            block_on(async { Ok(agent.call(Method::GET, "/v1/intercepts").await?) })?;
        self.output.print(&intercepts, |intercepts| text(intercepts))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where there are no intercepts.
pub const NOTHING: &str = "Nothing is intercepted: all traffic goes to the live services.";

/// Whether its developer is there.
pub fn tunnel(intercept: &InterceptInfo) -> &'static str {
    match intercept {
        InterceptInfo { observes: true, .. } => "observes",
        InterceptInfo { connected: true, .. } => "connected",
        _ => "away",
    }
}

/// A table of intercepts, or a sentence where there are none.
fn text(intercepts: &[InterceptInfo]) -> String {
    if intercepts.is_empty() {
        return NOTHING.to_owned();
    }
    let rows = intercepts.iter().map(|intercept| {
        [
            intercept.name.clone(),
            intercept.target.to_string(),
            intercept.port.to_string(),
            intercept.matcher.to_string(),
            intercept.owner.clone(),
            tunnel(intercept).to_owned(),
            format!("{} of {}", intercept.counts.answered, intercept.counts.matched),
        ]
    });
    table(["NAME", "TARGET", "PORT", "MATCHES", "OWNER", "DEVELOPER", "ANSWERED"], rows)
}
