//! What stands between client and app.

use std::{
    fs,
    fs::File,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Agent, AgentOptions, Intercept, Lab, Process, eventually, redirector_binary};

use super::{
    config::{self, APP_PORT, HAPROXY_PORT, LARGE_LENGTH, LARGE_PATH, NGINX_PORT, SMALL_BODY, SMALL_PATH},
    cores, cpu,
    scenario::Scenario,
    wrk::{self, Load},
};

pub const DIRECT: &str = "direct";
pub const REDIRECTOR: &str = "redirector";
pub const BASELINE: &str = "baseline";
pub const NGINX: &str = "nginx";
pub const HAPROXY: &str = "haproxy";

/// The whole of what one turn gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub load: Load,
    /// Time of the proxy's processes; `None` when there is no proxy.
    pub cpu: Option<Duration>,
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
    /// On the node, attached to the pod while it is measured: the others do not pay for it.
    Agent(Box<Agent>),
}

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
            Proxy::Agent(agent) => Some(Intercept::new(lab, agent, APP_PORT, 9).start(lab)),
            Proxy::None | Proxy::Listening(_) => None,
        };
        self.check_answers(lab)?;
        let to = lab.pod.at(self.port);
        let before = self.cpu();
        let load = wrk::run(lab, scenario, to, seconds)?;
        let cpu = self.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        self.check_carried(load.requests)?;
        drop(intercept);
        Ok(Sample { load, cpu })
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
        let Proxy::Agent(agent) = &self.proxy else { return Ok(()) };
        let status = agent.json(&["status"]);
        let carried = status["targets"][0]["ports"][APP_PORT.to_string()]["requests"]["http/1.1"]["live"]
            .as_u64()
            .unwrap_or(0);
        ensure!(
            carried >= requests,
            "of {requests} requests only {carried} went through the agent: {status}"
        );
        Ok(())
    }

    fn cpu(&self) -> Option<Duration> {
        // The lab makes each process the leader of a group.
        let group = match &self.proxy {
            Proxy::None => return None,
            Proxy::Listening(process) => process.pid(),
            Proxy::Agent(agent) => agent.pid(),
        };
        Some(cpu::time_of_group(group))
    }
}

/// Starts the app.
pub fn start_app(lab: &Lab) -> Result<Process> {
    let directory = directory(lab, "app")?;
    File::create(directory.join(LARGE_PATH.trim_start_matches('/')))?.set_len(LARGE_LENGTH as u64)?;
    let text = config::app(&directory, cores());
    start_nginx(lab, "app", &directory, &text, APP_PORT)
}

/// Starts everything that has to run, in the order in which turns are taken.
pub fn start_all(lab: &Lab, baseline: Option<&Path>) -> Result<Vec<Contender>> {
    let mut contenders = vec![Contender { name: DIRECT, port: APP_PORT, proxy: Proxy::None }];
    if let Some(binary) = baseline {
        contenders.push(start_agent(lab, BASELINE, 7466, &binary.canonicalize()?));
    }
    contenders.push(start_agent(lab, REDIRECTOR, 7465, &redirector_binary()));

    let nginx = directory(lab, NGINX)?;
    let process = start_nginx(lab, NGINX, &nginx, &config::nginx_proxy(&nginx, cores()), NGINX_PORT)?;
    contenders.push(Contender { name: NGINX, port: NGINX_PORT, proxy: Proxy::Listening(process) });

    let haproxy = directory(lab, HAPROXY)?.join("haproxy.cfg");
    fs::write(&haproxy, config::haproxy(cores()))?;
    let mut command = lab.pod.netns.command("haproxy");
    command.arg("-db").arg("-f").arg(&haproxy);
    let process = Process::spawn(HAPROXY, &mut command, lab.logs());
    wait_for_port(lab, HAPROXY_PORT);
    contenders.push(Contender { name: HAPROXY, port: HAPROXY_PORT, proxy: Proxy::Listening(process) });
    Ok(contenders)
}

fn start_agent(lab: &Lab, name: &'static str, port: u16, binary: &Path) -> Contender {
    let options =
        AgentOptions { state: name.to_owned(), port, binary: binary.to_owned(), ..AgentOptions::default() };
    let agent = Box::new(Agent::start_with(lab, &options));
    Contender { name, port: APP_PORT, proxy: Proxy::Agent(agent) }
}

fn start_nginx(lab: &Lab, name: &str, directory: &Path, config: &str, port: u16) -> Result<Process> {
    let path = directory.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = lab.pod.netns.command("nginx");
    command.arg("-c").arg(&path).arg("-p").arg(directory).args(["-e", "stderr"]);
    let process = Process::spawn(name, &mut command, lab.logs());
    wait_for_port(lab, port);
    Ok(process)
}

fn directory(lab: &Lab, name: &str) -> Result<PathBuf> {
    let directory = lab.directory().join(format!("{name}-files"));
    fs::create_dir(&directory)?;
    Ok(directory)
}

fn wait_for_port(lab: &Lab, port: u16) {
    let address = lab.pod.at(port);
    eventually(&format!("somebody listens on {address}"), || {
        lab.client.netns.run(|| TcpStream::connect(address)).is_ok()
    });
}
