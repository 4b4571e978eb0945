//! Measures live traffic through the agent against the same app without it, and behind ordinary proxies; and previews through
//! the gateway beside proxies that put the same headers in.
//!
//! | file | purpose |
//! | --- | --- |
//! | `scenario` | what the client does |
//! | `contender` | what stands between client and app |
//! | `gateways` | those of them that put context in |
//! | `config` | configurations of the app and of the proxies |
//! | `wrk` | runs the load and reads its result |
//! | `cpu` | processor time of a proxy |
//! | `programs` | time in the agent's eBPF programs |
//! | `first` | the first matched request of a connection |
//! | `report` | medians and ratios, as a table and as JSON |
//!
//! The numbers of one run are comparable with each other only: machine, kernel and neighbours decide the rest.
//! So contenders take turns, and ratios are between neighbours in time.

mod config;
mod contender;
mod cpu;
mod first;
mod gateways;
mod programs;
mod report;
mod scenario;
mod wrk;

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lab::Lab;
use signal_hook::consts::{SIGINT, SIGTERM};

use self::{
    contender::Contender,
    report::Report,
    scenario::{PREVIEWS, SCENARIOS, Scenario},
};
use crate::{
    apt, build, process,
    step::{note, step},
    workspace::Workspace,
};

const PACKAGES: [&str; 5] = ["haproxy", "iproute2", "nginx", "util-linux", "wrk"];

/// Says which binary is measured, as it says which one is tested.
const BINARY: &str = "REDIRECTOR_BIN";

#[derive(Args, Debug)]
pub struct BenchOptions {
    /// How often every contender takes its turn in every scenario
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a turn lasts
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only scenarios whose name contains TEXT, such as `latency`
    #[arg(long, value_name = "TEXT", default_value = "")]
    scenario: String,
    /// Another redirector binary that takes part as `baseline`: what did a change change?
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write all samples and the results to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Builds, unless `$REDIRECTOR_BIN` names a binary; measures; prints. Errors when an answer was not what the app
/// says, never because something was slow.
pub fn bench(workspace: &Workspace, options: &BenchOptions) -> Result<()> {
    ensure!(process::is_root(), "the bench makes network namespaces: run it as root");
    if env::var_os(BINARY).is_none() {
        build::build(workspace)?;
        // The lab reads the variable, and a process cannot safely change its own environment.
        let mut again = Command::new(env::current_exe()?);
        return Err(again.args(env::args_os().skip(1)).env(BINARY, workspace.release_binary()).exec().into());
    }
    let chosen = |scenarios: &[Scenario]| -> Vec<Scenario> {
        scenarios.iter().copied().filter(|scenario| scenario.name.contains(&options.scenario)).collect()
    };
    let (live, previews) = (chosen(&SCENARIOS), chosen(&PREVIEWS));
    let some = !(live.is_empty() && previews.is_empty()) || first::NAME.contains(&options.scenario);
    ensure!(some, "no scenario's name contains {:?}", options.scenario);
    install_packages()?;

    let interrupted = interrupted()?;
    let lab = Lab::new("bench");
    let report = measure(&lab, [live, previews], options, &interrupted)?;
    lab.assert_clean();
    println!("{report}");
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json())? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure(
    lab: &Lab,
    [live, previews]: [Vec<Scenario>; 2],
    options: &BenchOptions,
    interrupted: &AtomicBool,
) -> Result<Report> {
    forget_closed_connections(lab)?;
    let _app = contender::start_app(lab)?;
    let _local = contender::start_local_server(lab)?;
    let agent = contender::start_measured_agent(lab);
    let mut contests = vec![(live, contender::start_all(lab, &agent, options.baseline.as_deref())?)];
    if !previews.is_empty() {
        contests.push((previews, gateways::start_all(lab)?));
    }
    let mut report = Report::new(options.seconds);
    for round in 1..=options.rounds {
        step(format!("measure, round {round} of {}", options.rounds), || {
            for (scenarios, contenders) in &contests {
                for (scenario, contender) in turns(scenarios, contenders) {
                    // Signalled, wrk ends early: such a turn must not count.
                    let sample = contender.measure(lab, scenario, options.seconds);
                    if interrupted.load(Ordering::Relaxed) {
                        bail!("interrupted");
                    }
                    report.add(scenario, contender.name(), sample?);
                }
            }
            if first::NAME.contains(&options.scenario) {
                report.first_requests.measure(lab, &agent)?;
            }
            Ok(())
        })?;
    }
    Ok(report)
}

/// All contenders in one scenario, then in the next.
fn turns<'a>(
    scenarios: &'a [Scenario],
    contenders: &'a [Contender],
) -> impl Iterator<Item = (&'a Scenario, &'a Contender)> {
    scenarios.iter().flat_map(move |scenario| contenders.iter().map(move |contender| (scenario, contender)))
}

/// A new connection per request wears out the client's ports within seconds. They can be used again at once
/// when neither side remembers closed connections (TIME_WAIT).
fn forget_closed_connections(lab: &Lab) -> Result<()> {
    for host in [&lab.client, &lab.pod] {
        host.netns
            .run(|| fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0"))
            .context("cannot set tcp_max_tw_buckets in the lab")?;
    }
    Ok(())
}

fn install_packages() -> Result<()> {
    if apt::is_debian() {
        return apt::install(&PACKAGES);
    }
    note(format!("this is not Debian, so nothing is installed; needed: {}", PACKAGES.join(", ")));
    Ok(())
}

/// Turns true on Ctrl-C, which must not leave the lab behind.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// The processors of this machine; proxies get as many workers.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
