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
use lab::{
    Agent, AgentOptions, Gateway, Host, Intercept, Lab, Process, Response, eventually, redirector_binary,
};

use super::{
    config::{
        self, APP_PORT, CONTEXT_PATH, HAPROXY_PORT, LARGE_LENGTH, LARGE_PATH, NGINX_PORT, SMALL_BODY,
        SMALL_PATH,
    },
    cores, cpu,
    first::LOCAL_PORT,
    programs::{self, Clock},
    scenario::{COOKIE, Scenario},
    wrk::{self, Load},
};

pub const DIRECT: &str = "direct";
/// The agent with `--datapath inspect`, and with `--datapath proxy`.
pub const INSPECT: &str = "inspect";
pub const PROXY: &str = "proxy";
pub const BASELINE: &str = "baseline";
/// The preview gateway.
pub const GATEWAY: &str = "gateway";
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
    to: SocketAddr,
    cookie: String,
    proxy: Proxy,
}

#[derive(Debug)]
enum Proxy {
    None,
    /// Always there.
    Listening(Process),
    Gateway(Gateway),
    /// On the node, attached to the pod while it is measured: the others do not pay for it. With its datapath.
    Agent(Rc<Agent>, &'static str),
}

/// Seconds of a turn that only tells the time in the programs.
const PROGRAMS_SECONDS: u32 = 1;

impl Contender {
    fn new(name: &'static str, to: SocketAddr, proxy: Proxy) -> Self {
        Self { name, to, cookie: COOKIE.to_owned(), proxy }
    }

    pub fn direct(lab: &Lab) -> Self {
        Self::new(DIRECT, lab.pod.at(APP_PORT), Proxy::None)
    }

    fn with_agent(lab: &Lab, name: &'static str, agent: &Rc<Agent>, datapath: &'static str) -> Self {
        Self::new(name, lab.pod.at(APP_PORT), Proxy::Agent(Rc::clone(agent), datapath))
    }

    /// A gateway, and the cookie of a preview.
    pub fn gateway(gateway: Gateway, preview: &str) -> Self {
        let cookie = format!("{COOKIE}; {preview}");
        Self { cookie, ..Self::new(GATEWAY, gateway.address(), Proxy::Gateway(gateway)) }
    }

    /// nginx with such a configuration. `place` tells several apart.
    pub fn nginx(lab: &Lab, host: &Host, place: &str, config: impl Fn(&Path) -> String) -> Result<Self> {
        let directory = directory(lab, place)?;
        let process = start_nginx(lab, host, place, &directory, &config(&directory), NGINX_PORT)?;
        Ok(Self::new(NGINX, host.at(NGINX_PORT), Proxy::Listening(process)))
    }

    /// HAProxy, likewise.
    pub fn haproxy(lab: &Lab, host: &Host, place: &str, config: &str) -> Result<Self> {
        let path = directory(lab, place)?.join("haproxy.cfg");
        fs::write(&path, config)?;
        let mut command = host.netns.command("haproxy");
        command.arg("-db").arg("-f").arg(&path);
        let process = Process::spawn(place, &mut command, lab.logs());
        wait_for_port(host, HAPROXY_PORT);
        Ok(Self::new(HAPROXY, host.at(HAPROXY_PORT), Proxy::Listening(process)))
    }

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
            Proxy::None | Proxy::Listening(_) | Proxy::Gateway(_) => None,
        };
        self.check_answers(lab)?;
        let before = self.cpu();
        let load = wrk::run(lab, scenario, self.to, &self.cookie, seconds)?;
        let cpu = self.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        self.check_carried(load.requests)?;
        let programs = match &self.proxy {
            Proxy::Agent(agent, _) => Some(time_in_programs(lab, scenario, self.to, agent)?),
            Proxy::None | Proxy::Listening(_) | Proxy::Gateway(_) => None,
        };
        drop(intercept);
        Ok(Sample { load, cpu, programs })
    }

    /// What a contender says must be what the app says: else it is fast at something else.
    fn check_answers(&self, lab: &Lab) -> Result<()> {
        for (path, expected) in [(SMALL_PATH, SMALL_BODY.as_bytes()), (LARGE_PATH, &[0; LARGE_LENGTH])] {
            let answer = self.ask(lab, path);
            ensure!(
                answer.status == 200 && answer.body == expected,
                "GET {path}: {} with {} bytes",
                answer.status,
                answer.body.len()
            );
        }
        Ok(())
    }

    /// What the app was sent: for gateways, the context must be in there.
    pub fn check_context(&self, lab: &Lab) -> Result<()> {
        let answer = self.ask(lab, CONTEXT_PATH);
        let seen = String::from_utf8_lossy(&answer.body).into_owned();
        let expected = if matches!(self.proxy, Proxy::None) { "||" } else { config::INJECTED };
        ensure!(seen == expected, "{}: the app was sent {seen:?}, not {expected:?}", self.name);
        Ok(())
    }

    fn ask(&self, lab: &Lab, path: &str) -> Response {
        let cookie = &self.cookie;
        let request = format!("GET {path} HTTP/1.1\r\nHost: pod.test\r\nCookie: {cookie}\r\n\r\n");
        lab.client.connect(self.to).ask(request)
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
            Proxy::Gateway(gateway) => gateway.pid(),
            Proxy::Agent(agent, _) => agent.pid(),
        };
        Some(cpu::time_of_group(group))
    }
}

/// Per request, while the kernel keeps it.
fn time_in_programs(lab: &Lab, scenario: &Scenario, to: SocketAddr, agent: &Agent) -> Result<Duration> {
    let _clock = Clock::start()?;
    let before = programs::time_of(agent.pid());
    let load = wrk::run(lab, scenario, to, COOKIE, PROGRAMS_SECONDS)?;
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

/// Starts everything that stands before live traffic, in the order in which turns are taken.
pub fn start_all(lab: &Lab, agent: &Rc<Agent>, baseline: Option<&Path>) -> Result<Vec<Contender>> {
    let mut contenders = vec![Contender::direct(lab)];
    if let Some(binary) = baseline {
        let old = start_agent(lab, BASELINE, 7467, &binary.canonicalize()?);
        contenders.push(Contender::with_agent(lab, BASELINE, &old, INSPECT));
    }
    contenders.push(Contender::with_agent(lab, INSPECT, agent, INSPECT));
    contenders.push(Contender::with_agent(lab, PROXY, agent, PROXY));
    let app = SocketAddr::from((Ipv4Addr::LOCALHOST, APP_PORT));
    contenders.push(Contender::nginx(lab, &lab.pod, NGINX, |directory| {
        config::nginx_proxy(directory, cores(), app, "")
    })?);
    contenders.push(Contender::haproxy(lab, &lab.pod, HAPROXY, &config::haproxy(cores(), app, ""))?);
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
