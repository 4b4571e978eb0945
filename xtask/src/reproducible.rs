//! Proves that the eBPF object does not depend on the directory it is built in.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    ebpf::{self, Warnings},
    process,
    step::{note, step},
    workspace::Workspace,
};

/// Builds the object here and in a copy of the checkout, and compares the bytes.
pub fn check(workspace: &Workspace) -> Result<()> {
    let here = ebpf::build(workspace, Warnings::Shown)?;
    let copy = tempfile::Builder::new().prefix("redirector-copy-").tempdir()?;
    step(format!("copy the checkout to {}", copy.path().display()), || copy_sources(workspace, copy.path()))?;
    let there = ebpf::build(&Workspace::at(copy.path()), Warnings::Shown)?;

    let checksums = process::read(Command::new("sha256sum").args([&here, &there]))?;
    for line in checksums.lines() {
        note(line);
    }
    ensure!(
        fs::read(&here)? == fs::read(&there)?,
        "the eBPF object depends on its directory: compare `llvm-dwarfdump` and `strings` of {} and of one built elsewhere",
        here.display()
    );
    Ok(())
}

/// Copies what git tracks or would track.
fn copy_sources(workspace: &Workspace, to: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(workspace.root());
    for name in process::read(&mut git)?.split_terminator('\0') {
        let (from, to) = (workspace.root().join(name), to.join(name));
        // A deleted file is tracked until the deletion is committed.
        if !from.is_file() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}
