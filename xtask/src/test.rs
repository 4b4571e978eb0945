//! Runs all tests: unit, property and namespace tests.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};
use lab::{PACKAGES, Package};

use crate::{
    apt, build, cargo, process, reproducible,
    step::{note, step},
    test_tools,
    workspace::Workspace,
};

/// Installs what the tests need, builds, proves the build reproducible, runs the tests. With `arguments`, which go to
/// `cargo test`, only the tests they choose.
pub fn test(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let start = Instant::now();
    let tools = prepare(workspace)?;
    build::build(workspace)?;
    if arguments.is_empty() {
        reproducible::check(workspace)?;
    }
    step("run the tests", || {
        process::run(
            cargo::host(workspace)
                .args(["test", "--locked", "--workspace", "--exclude", "redirector-ebpf"])
                .args(arguments)
                .env("REDIRECTOR_BIN", workspace.release_binary())
                .env("REDIRECTOR_TEST_TOOLS", &tools),
        )
    })?;
    let what = if arguments.is_empty() { "all".into() } else { format!("`{}`", arguments.join(" ")) };
    println!("cargo xtask test: {what} passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Installs what the namespace tests need; gives the directory of what is not from Debian. Errors when this is not root.
pub fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    if !process::is_root() {
        bail!(
            "the namespace tests need root: run `sudo -E env \"PATH=$PATH\" cargo xtask test`.\n\
             Without root, `cargo xtask build && cargo test --lib` runs the others"
        );
    }
    install_packages()?;
    test_tools::install(workspace)
}

fn install_packages() -> Result<()> {
    if apt::is_debian() {
        let names: Vec<_> = PACKAGES.iter().map(|package| package.name).collect();
        return apt::install(&names);
    }
    note("this is not Debian, so nothing is installed; the tests need what these Debian packages hold:");
    for Package { name, reason } in PACKAGES {
        note(format!("{name}: {reason}"));
    }
    Ok(())
}
