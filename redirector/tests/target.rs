//! Targets against real namespaces, processes and cgroups. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redirector::check::cgroup2_root;
use redirector::target::discover::{TargetInfo, discover};
use redirector::target::netns::Netns;
use redirector::target::presence::{Gone, Presence};
use redirector::target::resolve::{ResolveError, ResolvedTarget, resolve};

fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
}

fn resolved(target: &str) -> ResolvedTarget {
    resolve(&target.parse().unwrap()).unwrap()
}

fn refused(target: &str) -> ResolveError {
    resolve(&target.parse().unwrap()).unwrap_err()
}

/// A named network namespace, removed at the end.
struct NamedNetns(String);

impl NamedNetns {
    fn new(purpose: &str) -> Self {
        let name = format!("rdr{}{purpose}", std::process::id());
        ip(&["netns", "add", &name]);
        Self(name)
    }

    fn recreate(&self) {
        ip(&["netns", "del", &self.0]);
        ip(&["netns", "add", &self.0]);
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

/// A process that does nothing, killed at the end.
struct Idle(Child);

impl Idle {
    /// In a new network namespace.
    fn in_new_netns() -> Self {
        Self::start(Command::new("unshare").args(["--net", "sh", "-c"]))
    }

    /// In the network namespace of another process.
    fn beside(other: &Self) -> Self {
        let netns = format!("--net=/proc/{}/ns/net", other.pid());
        Self::start(Command::new("nsenter").args([&netns, "sh", "-c"]))
    }

    /// Returns when the shell runs, which is when the namespace is as it will be.
    fn start(shell: &mut Command) -> Self {
        let mut child = shell
            .arg("echo ready; exec sleep 1000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup as Docker would make it, removed at the end.
struct ContainerCgroup {
    id: String,
    path: PathBuf,
}

impl ContainerCgroup {
    /// Those of the same `test` share their first twelve digits, which those of no other test have.
    fn new(test: u8, last_digits: &str) -> Self {
        let id = format!("{:0<32}{:0>32}", format!("{test:04x}{:08x}", std::process::id()), last_digits);
        let path = cgroup2_root().unwrap().join(format!("docker-{id}.scope"));
        fs::create_dir(&path).unwrap();
        Self { id, path }
    }

    fn adopt(&self, process: &Idle) {
        fs::write(self.path.join("cgroup.procs"), process.pid().to_string()).unwrap();
    }
}

impl Drop for ContainerCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn a_named_namespace_is_found_by_name_and_by_path() {
    require_root();
    let netns = NamedNetns::new("name");
    let by_name = resolved(&format!("netns:{}", netns.0));
    let by_path = resolved(&format!("netns:/run/netns/{}", netns.0));
    assert_eq!(by_name.netns.id(), by_path.netns.id());
    assert_ne!(by_name.netns.id(), Netns::current().unwrap().id());
}

#[test]
fn work_inside_a_namespace_leaves_the_caller_outside() {
    require_root();
    let pod = Idle::in_new_netns();
    let outside = Netns::current().unwrap().id();
    let netns = resolved(&format!("pid:{}", pod.pid())).netns;
    let inside = netns.run_inside(|| Netns::current().unwrap().id()).unwrap();
    assert_eq!(inside, netns.id());
    assert_eq!(Netns::current().unwrap().id(), outside);
}

#[test]
fn removing_or_replacing_a_name_ends_the_target() {
    require_root();
    let netns = NamedNetns::new("gone");
    let path = PathBuf::from(format!("/run/netns/{}", netns.0));
    let mut presence = Presence::of(&resolved(&format!("netns:{}", netns.0)));
    assert_eq!(presence.check(), Ok(()));
    netns.recreate();
    assert_eq!(presence.check(), Err(Gone::PathReplaced(path.clone())));
    drop(netns);
    assert_eq!(presence.check(), Err(Gone::PathRemoved(path)));
}

#[test]
fn a_target_lives_until_the_last_process_of_its_namespace_ends() {
    require_root();
    let first = Idle::in_new_netns();
    let second = Idle::beside(&first);
    let mut presence = Presence::of(&resolved(&format!("pid:{}", first.pid())));
    let second_pid = i32::try_from(second.pid()).unwrap();
    assert_eq!(presence.check(), Ok(()));
    drop(first);
    assert_eq!(presence.check(), Ok(()), "another process is left");
    drop(second);
    assert_eq!(presence.check(), Err(Gone::LastProcessEnded(second_pid)));
}

#[test]
fn a_zombie_does_not_keep_a_target() {
    require_root();
    let mut process = Idle::in_new_netns();
    let pid = i32::try_from(process.pid()).unwrap();
    let mut presence = Presence::of(&resolved(&format!("pid:{pid}")));
    process.0.kill().unwrap();
    // WNOWAIT leaves the zombie for Drop to collect.
    let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid)), flags).unwrap();
    assert_eq!(presence.check(), Err(Gone::LastProcessEnded(pid)));
    assert!(matches!(refused(&format!("pid:{pid}")), ResolveError::NoSuchProcess(_)));
}

#[test]
fn a_container_is_found_by_a_prefix_of_its_id_and_on_the_host_network_refused() {
    require_root();
    let own = ContainerCgroup::new(1, "aaaa");
    let other = ContainerCgroup::new(1, "bbbb");
    let pod = Idle::in_new_netns();
    let host_network = Idle::start(Command::new("sh").arg("-c"));
    own.adopt(&pod);
    let found = resolved(&format!("container:docker://{}", own.id));
    assert_eq!(found.netns.id(), resolved(&format!("pid:{}", pod.pid())).netns.id());
    let prefix = format!("container:{}", &own.id[..12]);
    assert_eq!(resolved(&prefix).netns.id(), found.netns.id());

    other.adopt(&host_network);
    let ambiguous = refused(&prefix);
    assert!(
        matches!(&ambiguous, ResolveError::AmbiguousContainer { ids, .. } if *ids == [own.id.clone(), other.id.clone()]),
        "{ambiguous}"
    );
    let host = refused(&format!("container:{}", other.id));
    assert!(matches!(host, ResolveError::HostNetns { .. }), "{host}");
    drop((pod, host_network));
    assert!(matches!(refused(&format!("container:{}", own.id)), ResolveError::NoSuchContainer(_)));
}

#[test]
fn discovery_shows_names_containers_processes_and_their_ports() {
    require_root();
    let named = NamedNetns::new("found");
    let netns = resolved(&format!("netns:{}", named.0)).netns;
    let listener = netns.run_inside(|| std::net::TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
    let process = Idle::in_new_netns();
    let container = ContainerCgroup::new(2, "cccc");
    let pod = Idle::in_new_netns();
    container.adopt(&pod);

    let discovery = discover().unwrap();
    let find = |target: String| -> TargetInfo {
        let found = discovery.targets.iter().find(|info| info.target.to_string() == target);
        found.unwrap_or_else(|| panic!("{target} is not in {discovery:#?}")).clone()
    };
    let by_name = find(format!("netns:{}", named.0));
    assert_eq!((by_name.names, by_name.ports), (vec![named.0.clone()], vec![8080]));
    let by_pid = find(format!("pid:{}", process.pid()));
    assert_eq!(by_pid.process.unwrap().pid.cast_unsigned(), process.pid());
    let by_container = find(format!("container:{}", container.id));
    assert_eq!(by_container.containers[0].runtime, Some("docker"));
    let own = Netns::current().unwrap().id();
    assert!(discovery.targets.iter().all(|info| info.netns != own), "the host is no target");
    drop((listener, pod));
}
