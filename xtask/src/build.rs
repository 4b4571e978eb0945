//! Builds the release binary.

use anyhow::Result;

use crate::{
    cargo,
    ebpf::{self, Warnings},
    process,
    step::step,
    workspace::Workspace,
};

/// Builds the eBPF half, then the binary that embeds it: [`Workspace::release_binary`].
pub fn build(workspace: &Workspace) -> Result<()> {
    // Other systems get the developer's half only.
    if cfg!(target_os = "linux") {
        ebpf::build(workspace, Warnings::Shown)?;
    }
    step("build the release binary", || {
        process::run(cargo::host(workspace).args([
            "build",
            "--locked",
            "--release",
            "--package",
            "redirector",
        ]))
    })
}
