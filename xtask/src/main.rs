//! Builds, shows, tests, lints and measures redirector: `cargo xtask --help`.

mod apt;
mod bench;
mod build;
mod cargo;
mod compiler;
mod demo;
mod ebpf;
mod linker;
mod lint;
mod process;
mod reproducible;
mod run;
mod soak;
mod step;
mod test;
mod test_tools;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    bench::BenchOptions, demo::DemoOptions, ebpf::Warnings, soak::SoakOptions, vm::VmOptions,
    workspace::Workspace,
};

/// Builds, shows, tests, lints and measures redirector.
///
/// New here? `cargo xtask demo` shows what redirector does, `cargo xtask build` makes
/// target/release/redirector. On Debian every command installs what it needs
/// and misses (by sudo, if need be); elsewhere it says what to install and how.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build, then see it work on this machine: nginx, a client, an agent and a developer (uses sudo)
    ///
    /// Makes four machines out of network namespaces, and sends requests with curl: with and without
    /// the developer's header, on one connection, while the developer leaves and the agent is
    /// killed. Then opens a shop of three hops in Chromium, with and without the link of a preview, and
    /// takes pictures. Says for each what was expected and what was seen; fails when they differ. Leaves
    /// nothing behind but the pictures. Needs no Kubernetes.
    Demo(DemoOptions),
    /// Build the release binary: target/release/redirector
    Build,
    /// Build, then run redirector as root with ARGS, such as `run -- agent`
    ///
    /// An agent gets --allow-all: here is where things are tried.
    Run {
        /// What to pass to redirector
        #[arg(last = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Build and run all tests (as root: they make network namespaces)
    Test {
        /// What to pass to `cargo test`, such as `-- --test scenarios keep_alive`
        #[arg(last = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Build and run the large runs: many apps, an agent that dies, a bad wire (as root)
    ///
    /// The tests of tests/tests/soak with their full numbers, one after the other, with their
    /// figures. `test` runs them with small numbers.
    Soak(SoakOptions),
    /// Build and measure live traffic: direct, through the agent, through nginx and HAProxy (as root)
    Bench(BenchOptions),
    /// Build and test on other kernels, from Debian, in virtual machines: 5.10, 6.1, 6.12 and the newest (as root)
    ///
    /// Each machine sees this one's files, which it can't change, and no network. It runs `redirector check`, then
    /// the tests that show what this says: inspection where the kernel has it, else that new connections pass
    /// through the agent. Uses KVM where it works; without, it takes some minutes for each kernel. Kernels
    /// are unpacked below target; none is installed.
    Vm(VmOptions),
    /// Check formatting, clippy, warnings of the eBPF half and, where cargo-deny is there, licences
    Lint,
    /// Build only the eBPF half: target/ebpf/redirector.o
    Ebpf,
    /// Build the eBPF half in two directories and compare the bytes
    Reproducible,
    /// Find, or install, what the eBPF half is built with: a compiler that knows BPF, and bpf-linker
    ///
    /// Looks for a prebuilt BPF core, then for rust-src, in rustup's nightly and stable and in
    /// /usr/bin, or only in EBPF_TOOLCHAIN (a rustup toolchain, or the path of a rustc).
    Toolchain,
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command, &Workspace::current()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not anyhow's own form, which adds a backtrace where the environment asks for those of panics.
            let causes: Vec<_> = error.chain().map(ToString::to_string).collect();
            eprintln!("\nerror: {}", causes.join("\n\ncaused by: "));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, workspace: &Workspace) -> Result<()> {
    match command {
        Command::Demo(options) => demo::demo(&options, workspace)?,
        Command::Build => {
            build::build(workspace)?;
            println!("{}", workspace.release_binary().display());
        }
        Command::Run { arguments } => run::run(workspace, &arguments)?,
        Command::Test { arguments } => test::test(workspace, &arguments)?,
        Command::Soak(options) => soak::soak(workspace, &options)?,
        Command::Bench(options) => bench::bench(workspace, &options)?,
        Command::Vm(options) => vm::vm(workspace, &options)?,
        Command::Lint => lint::lint(workspace)?,
        Command::Ebpf => println!("{}", ebpf::build(workspace, Warnings::Shown)?.display()),
        Command::Reproducible => reproducible::check(workspace)?,
        Command::Toolchain => toolchain::show(workspace)?,
    }
    Ok(())
}
