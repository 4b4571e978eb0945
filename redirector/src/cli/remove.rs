//! `redirector remove`

use super::{connection::ConnectionArgs, output::block_on};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Remove an intercept; its developer's `redirector intercept` ends
#[derive(Args, Debug)]
pub struct RemoveCommand {
    /// The intercept's name, as `redirector list` shows it
    name: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl RemoveCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let path = format!("/v1/intercepts/{}", super::output::path_segment(&self.name));
        block_on(async { Ok(agent.delete(&path).await?) })?;
        println!("removed {}", self.name);
        Ok(ExitCode::SUCCESS)
    }
}
