//! What stands between client and app.

use std::{
    fs,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Agent, AgentOptions, Host, Intercept, Lab, Process, eventually, redirector_binary};

use super::{
    config::{self, APP_PORT, HAPROXY_PORT, LARGE_LENGTH, LARGE_PATH, NGINX_PORT, SMALL_BODY, SMALL_PATH},
    cores, cpu,
    first::LOCAL_PORT,
    programs::{self, Clock},
    scenario::Scenario,
    wrk::{self, Load},
};

pub const DIRECT: &str = "direct";
/// The agent with `--datapath inspect`, and with `--datapath proxy`.
pub const INSPECT: &str = "inspect";
pub const PROXY: &str = "proxy";
pub const BASELINE: &str = "baseline";
pub const NGINX: &str = "nginx";
pub const HAPROXY: &str = "haproxy";

/// The whole of what one turn gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub load: Load,
    /// Time of the proxy's processes; `None` when there is no proxy.
    pub cpu: Option<Duration>,
    /// Time in the agent's eBPF programs per request, taken in a turn of its own.
    pub programs: Option<Duration>,
}

/// One way from the client to the app.
#[derive(Debug)]
pub struct Contender {
    name: &'static str,
    port: u16,
    proxy: Proxy,
}

#[derive(Debug)]
enum Proxy {
    None,
    /// In the pod, always there.
    Listening(Process),
    /// On the node, attached to the pod while it is measured: the others do not pay for it. With its datapath.
    Agent(Rc<Agent>, &'static str),
}

/// Seconds of a turn that only tells the time in the programs.
const PROGRAMS_SECONDS: u32 = 1;

impl Contender {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Takes a turn of so many seconds.
    pub fn measure(&self, lab: &Lab, scenario: &Scenario, seconds: u32) -> Result<Sample> {
        self.measure_one(lab, scenario, seconds).with_context(|| format!("{}: {}", self.name, scenario.name))
    }

    fn measure_one(&self, lab: &Lab, scenario: &Scenario, seconds: u32) -> Result<Sample> {
        // With a key made up for it, as most intercepts have: headers, baggage and trace state are looked at, and no
        // request matches.
        let intercept = match &self.proxy {
            Proxy::Agent(agent, datapath) => Some(
                Intercept::new(lab, agent, APP_PORT, 9).argument("--datapath").argument(datapath).start(lab),
            ),
            Proxy::None | Proxy::Listening(_) => None,
        };
        self.check_answers(lab)?;
        let to = lab.pod.at(self.port);
        let before = self.cpu();
        let load = wrk::run(lab, scenario, to, seconds)?;
        let cpu = self.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        self.check_carried(load.requests)?;
        let programs = match &self.proxy {
            Proxy::Agent(agent, _) => Some(time_in_programs(lab, scenario, to, agent)?),
            Proxy::None | Proxy::Listening(_) => None,
        };
        drop(intercept);
        Ok(Sample { load, cpu, programs })
    }

    /// What a contender says must be what the app says: else it is fast at something else.
    fn check_answers(&self, lab: &Lab) -> Result<()> {
        for (path, expected) in [(SMALL_PATH, SMALL_BODY.as_bytes()), (LARGE_PATH, &[0; LARGE_LENGTH])] {
            let mut connection = lab.client.connect(lab.pod.at(self.port));
            let answer = connection.ask(format!("GET {path} HTTP/1.1\r\nHost: pod.test\r\n\r\n"));
            ensure!(
                answer.status == 200 && answer.body == expected,
                "GET {path}: {} with {} bytes",
                answer.status,
                answer.body.len()
            );
        }
        Ok(())
    }

    /// Connections past the agent would be measured as its own.
    fn check_carried(&self, requests: u64) -> Result<()> {
        let Proxy::Agent(agent, datapath) = &self.proxy else { return Ok(()) };
        let status = agent.json(&["status"]);
        let target = &status["targets"][0];
        let carried = if *datapath == INSPECT {
            &target["packets"]["heads"]
        } else {
            &target["ports"][APP_PORT.to_string()]["requests"]["http/1.1"]["live"]
        };
        let carried = carried.as_u64().unwrap_or(0);
        ensure!(carried >= requests, "of {requests} requests the agent saw only {carried}: {status}");
        Ok(())
    }

    fn cpu(&self) -> Option<Duration> {
        // The lab makes each process the leader of a group.
        let group = match &self.proxy {
            Proxy::None => return None,
            Proxy::Listening(process) => process.pid(),
            Proxy::Agent(agent, _) => agent.pid(),
        };
        Some(cpu::time_of_group(group))
    }
}

/// Per request, while the kernel keeps it.
fn time_in_programs(lab: &Lab, scenario: &Scenario, to: SocketAddr, agent: &Agent) -> Result<Duration> {
    let _clock = Clock::start()?;
    let before = programs::time_of(agent.pid());
    let load = wrk::run(lab, scenario, to, PROGRAMS_SECONDS)?;
    let time = programs::time_of(agent.pid()).saturating_sub(before);
    Ok(time.div_f64(load.requests as f64))
}

/// Starts the app.
pub fn start_app(lab: &Lab) -> Result<Process> {
    start_server(lab, &lab.pod, "app", APP_PORT)
}

/// Starts the developer's own copy of it.
pub fn start_local_server(lab: &Lab) -> Result<Process> {
    start_server(lab, &lab.dev, "local", LOCAL_PORT)
}

fn start_server(lab: &Lab, host: &Host, name: &str, port: u16) -> Result<Process> {
    let directory = directory(lab, name)?;
    File::create(directory.join(LARGE_PATH.trim_start_matches('/')))?.set_len(LARGE_LENGTH as u64)?;
    let text = config::app(&directory, cores(), port);
    start_nginx(lab, host, name, &directory, &text, port)
}

/// Waits until a live request gets the app's answer.
pub fn await_live(lab: &Lab) -> Result<()> {
    let mut connection = lab.client.connect(lab.pod.at(APP_PORT));
    let answer = connection.ask(format!("GET {SMALL_PATH} HTTP/1.1\r\nHost: pod.test\r\n\r\n"));
    ensure!(answer.status == 200, "GET {SMALL_PATH}: {}", answer.status);
    Ok(())
}

/// Starts everything that has to run, in the order in which turns are taken.
pub fn start_all(lab: &Lab, agent: &Rc<Agent>, baseline: Option<&Path>) -> Result<Vec<Contender>> {
    let with_agent = |name, agent: &Rc<Agent>, datapath| Contender {
        name,
        port: APP_PORT,
        proxy: Proxy::Agent(Rc::clone(agent), datapath),
    };
    let mut contenders = vec![Contender { name: DIRECT, port: APP_PORT, proxy: Proxy::None }];
    if let Some(binary) = baseline {
        let old = start_agent(lab, BASELINE, 7466, &binary.canonicalize()?);
        contenders.push(with_agent(BASELINE, &old, INSPECT));
    }
    contenders.push(with_agent(INSPECT, agent, INSPECT));
    contenders.push(with_agent(PROXY, agent, PROXY));

    let nginx = directory(lab, NGINX)?;
    let process =
        start_nginx(lab, &lab.pod, NGINX, &nginx, &config::nginx_proxy(&nginx, cores()), NGINX_PORT)?;
    contenders.push(Contender { name: NGINX, port: NGINX_PORT, proxy: Proxy::Listening(process) });

    let haproxy = directory(lab, HAPROXY)?.join("haproxy.cfg");
    fs::write(&haproxy, config::haproxy(cores()))?;
    let mut command = lab.pod.netns.command("haproxy");
    command.arg("-db").arg("-f").arg(&haproxy);
    let process = Process::spawn(HAPROXY, &mut command, lab.logs());
    wait_for_port(&lab.pod, HAPROXY_PORT);
    contenders.push(Contender { name: HAPROXY, port: HAPROXY_PORT, proxy: Proxy::Listening(process) });
    Ok(contenders)
}

/// The agent that is measured.
pub fn start_measured_agent(lab: &Lab) -> Rc<Agent> {
    start_agent(lab, "redirector", 7465, &redirector_binary())
}

fn start_agent(lab: &Lab, name: &'static str, port: u16, binary: &Path) -> Rc<Agent> {
    let options =
        AgentOptions { state: name.to_owned(), port, binary: binary.to_owned(), ..AgentOptions::default() };
    Rc::new(Agent::start_with(lab, &options))
}

fn start_nginx(
    lab: &Lab,
    host: &Host,
    name: &str,
    directory: &Path,
    config: &str,
    port: u16,
) -> Result<Process> {
    let path = directory.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = host.netns.command("nginx");
    command.arg("-c").arg(&path).arg("-p").arg(directory).args(["-e", "stderr"]);
    let process = Process::spawn(name, &mut command, lab.logs());
    wait_for_port(host, port);
    Ok(process)
}

fn directory(lab: &Lab, name: &str) -> Result<PathBuf> {
    let directory = lab.directory().join(format!("{name}-files"));
    fs::create_dir(&directory)?;
    Ok(directory)
}

fn wait_for_port(host: &Host, port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually(&format!("somebody listens on {address}"), || {
        host.netns.run(|| TcpStream::connect(address)).is_ok()
    });
}
