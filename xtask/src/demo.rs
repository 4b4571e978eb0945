//! Shows the main job on one machine, without Kubernetes: `cargo xtask demo`.

mod client;
mod interrupt;
mod preview;
mod report;
mod stage;
mod story;

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::exit,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use lab::{Lab, PACKAGES};

use self::{interrupt::Interrupt, preview::PreviewStory, report::Report, story::Story};
use crate::{
    apt, build, process,
    step::{note, step},
    workspace::Workspace,
};

/// Those of the lab's packages that the demo uses.
const NEEDED: [&str; 10] = [
    "chromium",
    "chromium-driver",
    "curl",
    "fonts-dejavu-core",
    "iproute2",
    "nginx",
    "node-ws",
    "nodejs",
    "python3",
    "util-linux",
];

/// What these packages are needed for. (`/usr/bin/python3` is started by its path.)
const PROGRAMS: [&str; 12] = [
    "chromedriver",
    "curl",
    "ip",
    "nginx",
    "node",
    "nsenter",
    "prlimit",
    "setpriv",
    "ss",
    "tc",
    "timeout",
    "unshare",
];

/// The processes in which the demo runs, one started by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// As the user: installs what is missing, builds, and becomes the next one, by sudo if need be.
    Prepare,
    /// As root: starts the next one, and hears Ctrl-C for it.
    Supervise,
    /// Shows the binary that `$REDIRECTOR_BIN` names.
    Show,
}

/// What to show, and how far it has come.
#[derive(Args, Debug)]
pub struct DemoOptions {
    /// Where pictures of the shop go, live and as a preview [default: target/demo]
    #[arg(long, value_name = "DIRECTORY")]
    pictures: Option<PathBuf>,

    #[arg(long, hide = true, value_enum, default_value = "prepare")]
    stage: Stage,
}

/// Does a stage and those that follow. Fails when anything seen is not what was expected, or is left behind.
pub fn demo(options: &DemoOptions, workspace: &Workspace) -> Result<()> {
    let pictures = options.pictures.clone().unwrap_or_else(|| workspace.demo_pictures());
    match options.stage {
        Stage::Prepare => prepare(workspace, &pictures),
        Stage::Supervise => {
            let status = interrupt::supervise(&[
                "demo".as_ref(),
                "--stage".as_ref(),
                "show".as_ref(),
                "--pictures".as_ref(),
                pictures.as_os_str(),
            ])?;
            // It has said what was wrong.
            exit(status.code().unwrap_or(1))
        }
        Stage::Show => show(&pictures),
    }
}

/// Returns only when it fails.
fn prepare(workspace: &Workspace, pictures: &Path) -> Result<()> {
    // Asked now: nobody wants to hear it after a build of minutes.
    process::as_root("env").context("the demo makes network namespaces")?;
    install_packages()?;
    build::build(workspace)?;

    // Made here, it is the user's.
    fs::create_dir_all(pictures).with_context(|| format!("cannot make {}", pictures.display()))?;
    let pictures = pictures.canonicalize().with_context(|| format!("cannot find {}", pictures.display()))?;
    let xtask = env::current_exe().context("cannot tell where xtask is")?;
    // The lab asks the environment for the binary, and sudo lets no variables through.
    let mut binary = OsString::from("REDIRECTOR_BIN=");
    binary.push(workspace.release_binary());
    let mut command = process::as_root("env")?;
    command.arg(binary).arg(&xtask).args(["demo", "--stage", "supervise", "--pictures"]).arg(pictures);
    Err(command.exec()).with_context(|| format!("cannot start {} as root", xtask.display()))
}

fn show(pictures: &Path) -> Result<()> {
    require_programs()?;
    let interrupt = Interrupt::listen();
    let start = Instant::now();
    let mut report = Report::default();
    let mut lab = step("make the machines: node, pod, client, dev", || caught(|| Ok(Lab::new("demo"))))?;

    let told = caught(|| {
        Story::new(&lab, &mut report, &interrupt).tell()?;
        PreviewStory::new(&mut lab, &mut report, &interrupt, pictures).tell()
    });
    report.step("Nothing is left behind");
    report.check("processes, programs, listeners, routes", "none", &listed(&lab.leftovers()));
    if !interrupt.came() && (told.is_err() || report.differences() > 0) {
        eprintln!("\nWhat the processes said:\n{}", lab.logs());
    }
    let paths = paths(&lab);
    drop(lab);
    let left: Vec<_> =
        paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
    report.check("network namespaces, files", "none", &listed(&left));

    told?;
    let (checks, differences) = (report.checks(), report.differences());
    if differences > 0 {
        bail!("{differences} of {checks} checks saw something else than expected: look for DIFFERS above");
    }
    println!("\nAll {checks} checks saw what was expected, in {:.1} s.", start.elapsed().as_secs_f64());
    Ok(())
}

fn install_packages() -> Result<()> {
    let packages = || PACKAGES.iter().filter(|package| NEEDED.contains(&package.name));
    if apt::is_debian() {
        if process::in_path("chromedriver").is_none() {
            note("a browser is to open a preview: Chromium, about 110 MB to fetch, 350 MB on the disk");
        }
        return apt::install(&packages().map(|package| package.name).collect::<Vec<_>>());
    }
    note("this is not Debian, so nothing is installed; the demo needs what these Debian packages hold:");
    packages().for_each(|package| note(package.name));
    Ok(())
}

fn require_programs() -> Result<()> {
    let missing: Vec<_> =
        PROGRAMS.into_iter().filter(|program| process::in_path(program).is_none()).collect();
    if !missing.is_empty() {
        bail!("not in PATH: {}. Install them and try again", missing.join(", "));
    }
    Ok(())
}

/// Runs `work`; a panic, by which the lab says that something does not work, becomes an error. Its text is on the
/// screen by then, and what `work` had started has ended.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(anyhow!("the demo cannot go on: the panic above says why")))
}

/// What the lab has outside of itself.
fn paths(lab: &Lab) -> Vec<PathBuf> {
    lab.hosts().map(|host| host.netns.path()).chain([lab.directory().to_owned()]).collect()
}

fn listed(left: &[String]) -> String {
    if left.is_empty() { "none".to_owned() } else { left.join("; ") }
}
