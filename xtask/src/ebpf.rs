//! Builds the eBPF half into one object, the same bytes wherever the checkout is.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    cargo::{self, without_cargo_environment},
    compiler::{BPF_TARGET, Core},
    process,
    step::step,
    toolchain::Toolchain,
    workspace::Workspace,
};

/// What becomes of the compiler's warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warnings {
    Shown,
    Denied,
}

/// Builds the object and returns its path, [`Workspace::ebpf_object`]. The file is touched only when its bytes change, so that
/// nothing which embeds it is built again without need.
pub fn build(workspace: &Workspace, warnings: Warnings) -> Result<PathBuf> {
    let toolchain = Toolchain::find_or_install(workspace)?;
    let object = workspace.ebpf_object();
    step("build the eBPF object", || {
        process::run(&mut fetch_command(workspace, &toolchain))?;
        process::run(&mut build_command(workspace, &toolchain, warnings)?)?;
        let built = workspace.ebpf_target().join(BPF_TARGET).join("release/redirector-ebpf");
        copy_if_different(&built, &object)
    })?;
    Ok(object)
}

/// Unpacks the sources, because their directories must be known for [`remapped_directories`].
fn fetch_command(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    let mut cargo = ebpf_cargo(workspace, toolchain);
    cargo.args(["fetch", "--quiet", "--locked", "--target", BPF_TARGET]);
    cargo
}

fn build_command(workspace: &Workspace, toolchain: &Toolchain, warnings: Warnings) -> Result<Command> {
    let mut cargo = ebpf_cargo(workspace, toolchain);
    cargo.args(["rustc", "--quiet", "--locked", "--package", "redirector-ebpf", "--release"]);
    cargo.args(["--target", BPF_TARGET]).arg("--target-dir").arg(workspace.ebpf_target());
    if matches!(toolchain.compiler.core, Core::Source(_)) {
        cargo.args(["-Z", "build-std=core"]);
    }
    if warnings == Warnings::Denied {
        // For this crate only: as a flag for all, it would build all of them again.
        cargo.args(["--", "-Dwarnings"]);
    }
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(workspace, toolchain)?);
    Ok(cargo)
}

fn ebpf_cargo(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    let mut cargo = Command::new(&toolchain.compiler.cargo);
    without_cargo_environment(&mut cargo);
    // Without RUSTC, Debian's cargo takes the rustc of rustup when that comes first in PATH. aya-ebpf uses unstable
    // features of the compiler, and `-Z` one of cargo, which a stable release has only in bootstrap mode.
    cargo.env("RUSTC", &toolchain.compiler.rustc).env("RUSTC_BOOTSTRAP", "1").current_dir(workspace.root());
    cargo
}

/// In the form of `CARGO_ENCODED_RUSTFLAGS`: flags may contain spaces.
fn rustflags(workspace: &Workspace, toolchain: &Toolchain) -> Result<OsString> {
    let mut flags: Vec<OsString> = vec![
        // The kernel's registers, as aya-ebpf reads them in probes, are those of the machine.
        format!("--cfg=bpf_target_arch=\"{ARCH}\"").into(),
        // bpf-linker makes BTF out of debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // With 32-bit arithmetic and comparisons, which kernels have since 5.1.
        "-Ctarget-cpu=v3".into(),
    ];
    for (from, to) in remapped_directories(workspace, toolchain)? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join("\u{1f}".as_ref()))
}

/// Directories whose names would get into the debug information, and what they are called there. Where
/// several match, rustc takes the last.
fn remapped_directories(
    workspace: &Workspace,
    toolchain: &Toolchain,
) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = cargo::home().context("cannot tell cargo's home: set HOME or CARGO_HOME")?;
    let registries = home.join("registry/src");
    let mut directories = vec![(workspace.root().into(), "/redirector"), (home, "/cargo")];
    // One for each registry, with a hash in its name that depends on the version of cargo.
    if let Ok(entries) = fs::read_dir(registries) {
        directories.extend(entries.filter_map(|entry| Some((entry.ok()?.path(), "/registry"))));
    }
    if let Core::Source(library) = &toolchain.compiler.core {
        directories.push((library.clone(), "/rust/library"));
    }
    Ok(directories)
}

fn copy_if_different(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    // Renamed into place: another process may be reading the old one.
    let partial = to.with_extension("partial");
    fs::write(&partial, new).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_the_same_bytes_keeps_its_modification_time() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "one").unwrap();
        copy_if_different(&from, &to).unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&to).unwrap().set_modified(long_ago).unwrap();

        copy_if_different(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), long_ago);

        fs::write(&from, "two").unwrap();
        copy_if_different(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
        assert_ne!(fs::metadata(&to).unwrap().modified().unwrap(), long_ago);
    }
}
