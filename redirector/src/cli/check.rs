//! `redirector check`

use super::output::OutputArgs;
use crate::check;
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Find out what this kernel and machine can do for the agent, and what to do about the rest
///
/// Tries everything for real and leaves nothing behind. Run it as root, as the agent would run. Exit code 1: the
/// agent can't work here.
#[derive(Args, Debug)]
pub struct CheckCommand {
    #[command(flatten)]
    output: OutputArgs,
}

impl CheckCommand {
    pub fn run(self) -> Result<ExitCode> {
        let report = check::run();
        self.output.print(&report, ToString::to_string)?;
        Ok(if report.usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
