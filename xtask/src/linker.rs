//! Finds or installs bpf-linker.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{apt, cargo, process, step::step, workspace::Workspace};

pub const VERSION: &str = "0.13.0";

/// The major version of the LLVM that [`INSTALL`] links: the one of Debian's newest Rust compiler.
pub const LLVM_VERSION: u32 = 22;
pub const LLVM_PACKAGE: &str = "llvm-22-dev";
pub const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// What cargo is asked for.
pub const INSTALL: [&str; 8] = [
    "install",
    "bpf-linker",
    "--version",
    VERSION,
    "--locked",
    "--no-default-features",
    "--features",
    "llvm-22",
];

/// The bpf-linker of version [`VERSION`] in `$PATH` or cargo's home; built now if there is none.
pub fn find_or_install(workspace: &Workspace) -> Result<PathBuf> {
    match find() {
        Some(linker) => Ok(linker),
        None if apt::is_debian() => install(workspace),
        None => bail!("no bpf-linker {VERSION} in PATH"),
    }
}

fn find() -> Option<PathBuf> {
    let in_cargo_home = cargo::home()?.join("bin/bpf-linker");
    [process::in_path("bpf-linker"), Some(in_cargo_home)]
        .into_iter()
        .flatten()
        .find(|linker| is_right_version(linker))
}

fn install(workspace: &Workspace) -> Result<PathBuf> {
    // Its library is also needed to run bpf-linker; the package brings it along.
    apt::install(&[LLVM_PACKAGE])?;
    step(format!("build bpf-linker {VERSION} (1 to 2 minutes, once)"), || {
        let mut cargo = cargo::host(workspace);
        // Outside of the checkout, so that none of its settings apply.
        cargo.args(INSTALL).env("LLVM_PREFIX", LLVM_PREFIX).current_dir("/");
        process::run_quietly(&mut cargo)
    })?;
    find().context("cargo has installed bpf-linker, which does not start")
}

/// Also false when it does not start, for want of its LLVM library.
fn is_right_version(linker: &Path) -> bool {
    process::read(Command::new(linker).arg("--version"))
        .is_ok_and(|version| version.trim() == format!("bpf-linker {VERSION}"))
}
