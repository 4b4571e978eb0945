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
    step(format!("copy the checkout to {}", copy.path().display()), || {
        copy_sources(workspace.root(), copy.path())
    })?;
    let there = ebpf::build(&Workspace::at(copy.path()), Warnings::Shown)?;

    let checksums = process::read(Command::new("sha256sum").args([&here, &there]))?;
    for line in checksums.lines() {
        note(line);
    }
    ensure!(
        fs::read(&here)? == fs::read(&there)?,
        "the eBPF object is not the same each time: compare `readelf --hex-dump` of the sections (`.text`, `.BTF`, `.debug_str`) of {} and of one built elsewhere",
        here.display()
    );
    Ok(())
}

/// Copies the checkout without what builds and git keep in it. Not `git ls-files`: an unpacked archive builds too.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        // cargo marks the directories it builds in.
        let is_kept = entry.file_name() != ".git" && !from.join("CACHEDIR.TAG").exists();
        if from.is_dir() && is_kept {
            copy_sources(&from, &to)?;
        } else if from.is_file() && is_kept {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}
