//! The machines of a lab, four and those that a test adds, and what must not be left in them.

use std::{
    env, fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

use crate::{
    attached::{Direction, tcx_programs},
    http::Connection,
    log::Logs,
    netns::Netns,
    wait::eventually,
};

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// A machine of the lab: a network namespace with `eth0` (on the node: `br0`) in the lab's one network.
#[derive(Clone, Debug)]
pub struct Host {
    pub netns: Netns,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Host {
    fn create(netns: Netns, number: u8) -> Self {
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into());
        Self { netns, v4: Ipv4Addr::new(10, 77, 0, number), v6 }
    }

    #[must_use]
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4.into(), port)
    }

    /// A connection from this machine; panics when it is refused.
    #[track_caller]
    pub fn connect(&self, to: SocketAddr) -> Connection {
        self.netns.run(|| Connection::open(to)).unwrap_or_else(|error| panic!("connect to {to}: {error}"))
    }

    /// How this machine looks to `ip`: devices, addresses, rules and routes.
    fn network(&self) -> String {
        ["-o link", "-o address", "rule", "-6 rule", "route show table all", "-6 route show table all"]
            .map(|what| self.netns.ip(what))
            .concat()
    }
}

/// Four machines or more on one network, and the processes in them. Any number of labs can run side by side: each has its
/// bridge in its own node. Dropping the lab removes it, also while panicking, and then prints the logs.
#[derive(Debug)]
pub struct Lab {
    pub node: Host,
    pub pod: Host,
    pub client: Host,
    pub dev: Host,
    added: Vec<Host>,
    label: String,
    prefix: String,
    pod_network: String,
    logs: Logs,
    directory: TempDir,
}

impl Lab {
    /// Builds the lab; panics when not root.
    #[must_use]
    pub fn new(label: &str) -> Self {
        assert!(
            geteuid().is_root(),
            "the lab makes network namespaces: run it as root (sudo -E cargo test …)"
        );
        SWEEP.call_once(sweep_labs_of_dead_processes);
        let prefix = format!("rdr{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory");

        let node = Host::create(Netns::create(format!("{prefix}-node")), 1);
        node.netns.ip("link add br0 type bridge mcast_snooping 0");
        node.netns.ip("link set br0 up");
        give_addresses(&node, "br0");
        let pod = join(&node, &prefix, "pod", 2);
        let client = join(&node, &prefix, "client", 3);
        let dev = join(&node, &prefix, "dev", 4);

        let pod_network = settled_network(&pod);
        Self {
            node,
            pod,
            client,
            dev,
            added: Vec::new(),
            label: label.to_owned(),
            prefix,
            pod_network,
            logs: Logs::default(),
            directory,
        }
    }

    /// One more machine on the network.
    pub fn add_machine(&mut self, role: &str) -> Host {
        let number = self.hosts().count() + 1;
        let host = join(&self.node, &self.prefix, role, u8::try_from(number).expect("few machines"));
        settled_network(&host);
        self.added.push(host.clone());
        host
    }

    /// Takes the pod's namespace away while whatever holds it keeps it alive.
    pub fn delete_pod(&self) {
        self.pod.netns.delete();
    }

    /// Makes the pod again, under the same name and addresses, after [`Lab::delete_pod`] and once it is gone.
    pub fn recreate_pod(&mut self) {
        self.pod = join(&self.node, &self.prefix, "pod", 2);
        self.pod_network = settled_network(&self.pod);
        // The new pod has the addresses of the old one on another card, which the others would find out slowly.
        for host in [&self.node, &self.client, &self.dev] {
            host.netns.ip("neigh flush all");
        }
    }

    /// Whether the kernel still has the pod's namespace: its end of the veth pair goes with it, from the node as well.
    #[must_use]
    pub fn pod_exists(&self) -> bool {
        self.node.netns.ip("-o link").contains("veth-pod")
    }

    /// A directory for files of this lab, removed with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// BPF programs on the pod's devices, one line each.
    #[must_use]
    pub fn attached(&self) -> Vec<String> {
        programs(&self.pod)
    }

    /// How many connections within the pod lead to `port`: the agent's, when it carries a client's to the app.
    #[must_use]
    pub fn connections_inside_pod(&self, port: u16) -> usize {
        let sockets = self.pod.netns.sh("ss -Htn state established");
        let peers = sockets.lines().filter_map(|line| line.split_whitespace().nth(3));
        peers.filter(|peer| peer.ends_with(&format!(":{port}"))).count()
    }

    /// What is in the lab that was not there when it was new; call it when all handles are dropped.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for host in self.hosts().filter(|host| host.netns.path().exists()) {
            left.extend(programs(host));
            left.extend(processes(host).map(|pid| format!("{}: process {pid}", host.netns.name())));
            let listeners = host.netns.sh("ss -Hltn");
            left.extend(listeners.lines().map(|line| format!("{}: {line}", host.netns.name())));
        }
        if self.pod.netns.path().exists() && self.pod.network() != self.pod_network {
            left.push(format!("network of the pod: was\n{}is\n{}", self.pod_network, self.pod.network()));
        }
        left
    }

    /// Panics when anything is left in the lab, or when a process of the lab panicked while it ran.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        let panics = self.logs.matching("panicked at");
        assert!(panics.is_empty(), "a process panicked:\n{}", panics.join("\n"));
    }

    /// All machines.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.node, &self.pod, &self.client, &self.dev].into_iter().chain(&self.added)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() || env::var_os("REDIRECTOR_LAB_LOGS").is_some() {
            eprintln!("=== {}: logs of {}\n{}", self.prefix, self.label, self.logs);
        }
        for host in self.hosts() {
            remove(&host.netns);
        }
    }
}

impl fmt::Display for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hosts().try_for_each(|host| writeln!(f, "{:<20} {} {}", host.netns.name(), host.v4, host.v6))
    }
}

fn join(node: &Host, prefix: &str, role: &str, number: u8) -> Host {
    let host = Host::create(Netns::create(format!("{prefix}-{role}")), number);
    node.netns.ip(&format!("link add veth-{role} type veth peer name eth0 netns {}", host.netns.name()));
    node.netns.ip(&format!("link set veth-{role} master br0 up"));
    give_addresses(&host, "eth0");
    host.netns.ip("link set eth0 up");
    host
}

fn give_addresses(host: &Host, device: &str) {
    host.netns.ip(&format!("address add {}/24 dev {device}", host.v4));
    host.netns.ip(&format!("address add {}/64 dev {device} nodad", host.v6));
}

/// The network once the link is up and has the routes that come with it.
fn settled_network(host: &Host) -> String {
    eventually("the network is up", || {
        host.netns.ip("-o link").contains("state UP") && !host.netns.ip("-o address").contains("tentative")
    });
    host.network()
}

/// BPF programs on any device of the host, in either way of attaching them.
fn programs(host: &Host) -> Vec<String> {
    let name = host.netns.name();
    let mut found: Vec<String> = host
        .netns
        .sh("tc qdisc show")
        .lines()
        .filter(|line| line.contains("clsact") || line.contains("ingress"))
        .map(|line| format!("{name}: {line}"))
        .collect();
    for direction in [Direction::Ingress, Direction::Egress] {
        for (device, count) in tcx_programs(&host.netns, direction) {
            found.push(format!("{name}: {count} TCX programs on {device}, {direction:?}"));
        }
    }
    found
}

fn processes(host: &Host) -> impl Iterator<Item = i32> {
    let pids = process::Command::new("ip").args(["netns", "pids", host.netns.name()]).output();
    let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    pids.lines().filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<_>>().into_iter()
}

/// Removes a namespace, and first whoever still runs in it: a process that outlived its handle.
fn remove(netns: &Netns) {
    if !netns.path().exists() {
        return;
    }
    let host = Host::create(netns.clone(), 0);
    for pid in processes(&host) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // Not `Netns::delete`, which panics: this runs while panicking.
    let _ = process::Command::new("ip").args(["netns", "delete", netns.name()]).status();
}

/// Labs whose process was killed before it could clean up.
fn sweep_labs_of_dead_processes() {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let parts: Vec<&str> = name.split('-').collect();
        let [maker, number, "node" | "pod" | "client" | "dev"] = parts[..] else { continue };
        let pid = maker.strip_prefix("rdr").and_then(|pid| pid.parse::<u32>().ok());
        if let (Some(pid), Ok(_)) = (pid, number.parse::<u32>())
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            remove(&Netns::named(name));
        }
    }
}
