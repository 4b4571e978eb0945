//! What the eBPF half is built with: a Rust compiler that knows BPF, and bpf-linker.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    compiler::{self, Compiler, Core},
    linker,
    workspace::Workspace,
};

#[derive(Debug)]
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

impl Toolchain {
    /// Finds it; installs what is missing on Debian, says how to elsewhere.
    pub fn find_or_install(workspace: &Workspace) -> Result<Self> {
        Self::assemble(workspace).with_context(how_to_install)
    }

    fn assemble(workspace: &Workspace) -> Result<Self> {
        let compiler = compiler::find_or_install()?;
        let linker = linker::find_or_install(workspace)?;
        Ok(Self { compiler, linker })
    }
}

/// `cargo xtask toolchain`.
pub fn show(workspace: &Workspace) -> Result<()> {
    let Toolchain { compiler, linker } = Toolchain::find_or_install(workspace)?;
    let core = match &compiler.core {
        Core::Prebuilt => "has a BPF core".into(),
        Core::Source(library) => format!("builds the BPF core from {}", library.display()),
    };
    println!("rustc {}  {}, {core}", compiler.release, compiler.rustc.display());
    println!("bpf-linker {}  {}", linker::VERSION, linker.display());
    Ok(())
}

fn how_to_install() -> String {
    let packages = compiler::DEBIAN_PACKAGES.join(" ");
    let (llvm_package, llvm_prefix) = (linker::LLVM_PACKAGE, linker::LLVM_PREFIX);
    let install_linker = linker::INSTALL.join(" ");
    let version = linker::VERSION;
    format!(
        "the eBPF half needs a Rust compiler that knows BPF, and bpf-linker {version}

To install them on Debian 12, run `cargo xtask toolchain`, which does this as root or by sudo:
    apt-get update
    apt-get install -y --no-install-recommends {packages} {llvm_package}
    LLVM_PREFIX={llvm_prefix} cargo {install_linker}

With rustup, on any Linux:
    rustup toolchain install nightly --profile minimal --component rust-src
    cargo install cargo-binstall --locked
    cargo binstall --no-confirm bpf-linker@{version}

To choose the compiler, set EBPF_TOOLCHAIN to a rustup toolchain or to the path of a rustc"
    )
}
