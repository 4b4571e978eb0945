//! Runs the release binary as root.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use crate::{build, process, workspace::Workspace};

/// An agent started here is there to try things: it lets developers take all requests of a service.
const ALLOW_ALL: &str = "--allow-all";

/// Builds, then becomes `redirector ARGUMENTS`, as root. Returns only when that fails.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    build::build(workspace)?;
    let binary = workspace.release_binary();
    let mut command = if process::is_root() {
        Command::new(&binary)
    } else if process::in_path("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg("--preserve-env=REDIRECTOR_AGENT,REDIRECTOR_TOKEN,RUST_LOG,RUST_BACKTRACE").arg(&binary);
        sudo
    } else {
        bail!("needs root, and there is no sudo here: run {} as root", binary.display());
    };
    command.args(arguments);
    if is_agent(arguments) {
        command.arg(ALLOW_ALL);
    }
    Err(command.exec()).with_context(|| format!("cannot start {}", binary.display()))
}

/// Is it an agent that is not told yet what it allows?
fn is_agent(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|command| command == "agent")
        && !arguments.iter().any(|argument| argument == ALLOW_ALL)
}
