//! Runs the release binary as root.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use crate::{build, process, workspace::Workspace};

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
    Err(command.args(arguments).exec()).with_context(|| format!("cannot start {}", binary.display()))
}
