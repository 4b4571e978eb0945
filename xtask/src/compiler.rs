//! Finds a Rust compiler that can build for BPF.
//!
//! rustup ships no `core` for BPF. Debian's compiler has it prebuilt; others build it from the component
//! rust-src.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{apt, cargo::without_cargo_environment, linker, process};

pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Debian 12's newer compiler (its `rustc` is too old), with a prebuilt BPF `core`.
pub const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Where Debian's packages put it. A cargo of rustup is never here.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// `rust-version` in Cargo.toml.
const OLDEST_RELEASE: (u32, u32) = (1, 88);

/// A Rust compiler that can build for BPF, and its cargo.
#[derive(Debug)]
pub struct Compiler {
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    pub release: String,
    pub core: Core,
}

/// Where the BPF `core` comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Core {
    Prebuilt,
    /// cargo builds it from this directory, the `library` of rust-src.
    Source(PathBuf),
}

/// The compiler `$EBPF_TOOLCHAIN` names, or the first of rustup nightly, rustup stable and Debian's with a
/// prebuilt core, or the first of these with rust-src, or Debian's, installed now.
pub fn find_or_install() -> Result<Compiler> {
    if let Some(chosen) = env::var_os("EBPF_TOOLCHAIN") {
        let chosen = chosen.to_string_lossy();
        return inspect(&chosen).with_context(|| format!("EBPF_TOOLCHAIN={chosen} cannot be used"));
    }
    let mut with_source = None;
    let mut unfit = String::new();
    for candidate in ["nightly", "stable", DEBIAN_RUSTC] {
        match inspect(candidate).and_then(refuse_newer_than_linker) {
            Ok(compiler) if compiler.core == Core::Prebuilt => return Ok(compiler),
            Ok(compiler) => with_source = with_source.or(Some(compiler)),
            Err(reason) => unfit += &format!("\n    {candidate}: {reason:#}"),
        }
    }
    match with_source {
        Some(compiler) => Ok(compiler),
        None if apt::is_debian() => {
            apt::install(&DEBIAN_PACKAGES)?;
            inspect(DEBIAN_RUSTC)
        }
        None => bail!("no Rust compiler here knows BPF:{unfit}"),
    }
}

/// What `name`, a path to a rustc or a rustup toolchain, can do for us. The error says why it does not fit.
fn inspect(name: &str) -> Result<Compiler> {
    let rustc = if name.contains('/') { name.into() } else { in_rustup(name)? };
    ensure!(rustc.is_file(), "there is no {}", rustc.display());
    let cargo = rustc.with_file_name("cargo");
    ensure!(cargo.is_file(), "there is no cargo beside {}", rustc.display());

    let release = verbose_version(&rustc, "release")?;
    ensure!(
        leading_numbers(&release) >= OLDEST_RELEASE,
        "Rust {release} is older than {}.{}",
        OLDEST_RELEASE.0,
        OLDEST_RELEASE.1
    );
    let core = find_core(&rustc)?;
    Ok(Compiler { rustc, cargo, release, core })
}

fn in_rustup(toolchain: &str) -> Result<PathBuf> {
    let rustc = process::read(
        without_cargo_environment(&mut Command::new("rustup"))
            .args(["which", "--toolchain", toolchain, "rustc"])
            // Looking for a toolchain must not install it.
            .env("RUSTUP_AUTO_INSTALL", "0"),
    );
    Ok(rustc.context("not there")?.trim().into())
}

fn find_core(rustc: &Path) -> Result<Core> {
    let libraries = print(rustc, &["target-libdir", "--target", BPF_TARGET])?;
    let is_core = |name: &str| name.starts_with("libcore-") && name.ends_with(".rlib");
    let prebuilt = fs::read_dir(libraries.trim()).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|e| e.file_name().to_str().is_some_and(is_core)))
    });
    if prebuilt {
        return Ok(Core::Prebuilt);
    }
    let library = Path::new(print(rustc, &["sysroot"])?.trim()).join("lib/rustlib/src/rust/library");
    ensure!(library.join("core/src/lib.rs").is_file(), "has neither a BPF core nor rust-src");
    Ok(Core::Source(library))
}

/// bpf-linker reads the bitcode of its own LLVM and older ones. One from elsewhere may carry a newer LLVM;
/// whoever has it names the compiler in `$EBPF_TOOLCHAIN`.
fn refuse_newer_than_linker(compiler: Compiler) -> Result<Compiler> {
    let llvm = verbose_version(&compiler.rustc, "LLVM version")?;
    ensure!(leading_numbers(&llvm).0 <= linker::LLVM_VERSION, "its LLVM {llvm} is newer than bpf-linker's");
    Ok(compiler)
}

fn print(rustc: &Path, what: &[&str]) -> Result<String> {
    process::read(without_cargo_environment(&mut Command::new(rustc)).arg("--print").args(what))
}

/// A line of `rustc -vV`.
fn verbose_version(rustc: &Path, key: &str) -> Result<String> {
    let text = process::read(without_cargo_environment(&mut Command::new(rustc)).arg("-vV"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    Ok(line.with_context(|| format!("`rustc -vV` does not say its {key}"))?.into())
}

/// The first two numbers of a version such as `1.97.0-nightly`.
fn leading_numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(leading_numbers("1.97.0-nightly"), (1, 97));
        assert!(leading_numbers("1.100.0") > OLDEST_RELEASE);
        assert!(leading_numbers("1.63.0") < OLDEST_RELEASE);
    }
}
