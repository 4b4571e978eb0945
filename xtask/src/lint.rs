//! Formatting, clippy, warnings of the eBPF half, licences.

use anyhow::{Result, bail};

use crate::{
    cargo,
    ebpf::{self, Warnings},
    process,
    step::{note, step},
    workspace::Workspace,
};

/// Finds everything wrong that can be found without running the product.
pub fn lint(workspace: &Workspace) -> Result<()> {
    require("fmt", "rustfmt", workspace)?;
    require("clippy", "clippy", workspace)?;
    step("formatting (`cargo fmt` repairs it)", || cargo(workspace, &["fmt", "--all", "--check"]))?;
    // First, because the agent embeds the object.
    if cfg!(target_os = "linux") {
        ebpf::build(workspace, Warnings::Denied)?;
    }
    step("clippy", || {
        let everything =
            ["clippy", "--quiet", "--locked", "--workspace", "--exclude", "redirector-ebpf", "--all-targets"];
        process::run(cargo::host(workspace).args(everything).args(["--", "-Dwarnings"]))
    })?;
    if has("deny", workspace) {
        // Advisories need the network, and change without a change of ours.
        step("dependencies", || {
            cargo(workspace, &["deny", "--offline", "check", "bans", "licenses", "sources"])
        })
    } else {
        note("dependencies not checked: `cargo install cargo-deny --locked` gets the tool");
        Ok(())
    }
}

fn require(subcommand: &str, component: &str, workspace: &Workspace) -> Result<()> {
    if !has(subcommand, workspace) {
        bail!("there is no `cargo {subcommand}` here. Get it with:\n    rustup component add {component}");
    }
    Ok(())
}

fn has(subcommand: &str, workspace: &Workspace) -> bool {
    process::run_quietly(cargo::host(workspace).args([subcommand, "--version"])).is_ok()
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    process::run(cargo::host(workspace).args(arguments))
}
