//! Runs `redirector check` and the tests on other kernels: Debian's, each in a virtual machine that sees this machine's files.

mod accelerator;
mod alone;
mod debian;
mod guest;
mod kernel;
mod machine;
mod plan;
mod staged;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    apt, build,
    step::{note, step},
    test,
    vm::{
        accelerator::Accelerator,
        alone::Alone,
        debian::Archive,
        guest::{Outcome, Report},
        kernel::Kernel,
        machine::Machine,
        staged::Staged,
    },
    workspace::Workspace,
};

/// The oldest kernel that is supported, those of Debian 12, and the newest there is.
const DEFAULT: [&str; 4] = ["5.10", "6.1", "6.12", "newest"];

/// What makes and runs the machines.
const PACKAGES: [&str; 5] = ["busybox-static", "kmod", "qemu-system-x86", "util-linux", "xz-utils"];

#[derive(Args, Debug)]
pub struct VmOptions {
    /// Kernels: the beginning of a version, such as 6.1 or 6.12.107, of which the newest is taken; or `newest`
    #[arg(value_name = "KERNEL", default_values = DEFAULT)]
    kernels: Vec<String>,
    /// All scenarios that can be on the kernel, not only those in which it matters most
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Only tests whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// How long each kernel may take, in minutes [default: 15, or 60 where QEMU emulates]
    #[arg(long, value_name = "MINUTES")]
    limit: Option<u64>,
}

/// Installs QEMU, downloads the kernels, builds, boots one after the other. Errors when a test fails on one of them.
pub fn vm(workspace: &Workspace, options: &VmOptions) -> Result<()> {
    let start = Instant::now();
    if !cfg!(target_arch = "x86_64") || !apt::is_debian() {
        bail!("kernels come from Debian's archive, and run on x86-64 only: use Debian on such a machine");
    }
    let _alone = Alone::in_directory(&workspace.kernels())?;
    apt::install(&PACKAGES)?;
    let test_tools = test::prepare(workspace)?;
    let kernels = kernels(workspace, &options.kernels)?;
    build::build(workspace)?;
    let staged = step("build the tests", || Staged::build(workspace, &test_tools))?;
    let accelerator = Accelerator::find(workspace, &kernels[0])?;
    let limit = options.limit.map_or(accelerator.limit(), |minutes| Duration::from_secs(minutes * 60));
    let mut reports = Vec::new();
    for kernel in &kernels {
        let script = plan::script(&staged, kernel, &options.only, options.all, accelerator);
        let machine = Machine { workspace, kernel, accelerator, limit };
        let what = format!("boot Linux {}, check it and test on it", kernel.release);
        reports.push(step(what, || Report::of(&machine, &script))?);
    }
    println!();
    for report in &reports {
        println!("{report}");
    }
    if reports.iter().any(|report| report.outcome() != Outcome::Passed) {
        bail!("not all passed; below {} is what each machine printed", workspace.kernels().display());
    }
    println!("cargo xtask vm: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn kernels(workspace: &Workspace, wanted: &[String]) -> Result<Vec<Kernel>> {
    let archive =
        step("ask Debian which kernels there are", || Archive::open(&workspace.kernels().join("apt")))?;
    let mut kernels = Vec::new();
    for wanted in wanted {
        let release = archive.release(wanted)?;
        let kernel = Kernel::fetch(&archive, &workspace.kernels(), &release)?;
        note(format!("{wanted}: Linux {release}"));
        kernels.push(kernel);
    }
    Ok(kernels)
}
