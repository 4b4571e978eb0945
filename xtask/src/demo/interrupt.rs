//! Ctrl-C ends the demo between two checks, so that it can clean up.
//!
//! A terminal sends Ctrl-C to every process of the group, also to the `ip`, `curl` and nginx that are just being
//! started. So the show runs in a group of its own, below a process that hears Ctrl-C and holds the other end of the
//! show's standard input: when that ends, the show is over. It also ends when somebody kills that process.

use std::{
    env,
    ffi::OsStr,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

const PAUSE: Duration = Duration::from_millis(20);

/// Runs this program with `arguments`, in a group of its own, until it ends. Ctrl-C, SIGTERM and SIGHUP end its standard input.
pub fn supervise(arguments: &[&OsStr]) -> Result<ExitStatus> {
    let came = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(&came)).context("cannot listen for signals")?;
    }
    let xtask = env::current_exe().context("cannot tell where xtask is")?;
    let mut command = Command::new(&xtask);
    command.args(arguments).stdin(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", xtask.display()))?;
    let mut stdin = child.stdin.take();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the show")? {
            return Ok(status);
        }
        if came.load(Ordering::Relaxed) && stdin.take().is_some() {
            eprintln!("\ninterrupted: cleaning up");
        }
        thread::sleep(PAUSE);
    }
}

/// Whether somebody wants the show to end.
#[derive(Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Comes when standard input ends, see [`supervise`].
    pub fn listen() -> Self {
        let came = Arc::new(AtomicBool::new(false));
        let at_end = Arc::clone(&came);
        thread::spawn(move || {
            // An error is an end, too.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            at_end.store(true, Ordering::Relaxed);
        });
        Self(came)
    }

    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once it came.
    pub fn check(&self) -> Result<()> {
        if self.came() {
            bail!("interrupted");
        }
        Ok(())
    }
}
