//! What can be intercepted on this node, for `redirector targets`.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::listening::ListeningSockets;
use super::name::Target;
use super::netns::{Netns, NetnsId};
use super::presence::named_netns;
use super::process;
use super::resolve::host_netns;

/// The first process of a pod sandbox. It holds the namespace and is never what somebody looks for.
const SANDBOX_COMMAND: &str = "pause";

/// All that was found, and whether something was hidden from us.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Discovery {
    pub targets: Vec<TargetInfo>,
    /// Processes that we were not allowed to look into: when not 0, targets may be missing (run as root).
    pub hidden_processes: usize,
}

/// One network namespace other than the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetInfo {
    /// The form to type: by container, else by name, else by process.
    pub target: Target,
    pub netns: NetnsId,
    /// Its names in the directories of named namespaces.
    pub names: Vec<String>,
    pub containers: Vec<ContainerInfo>,
    /// One process of those in no container.
    pub process: Option<ProcessInfo>,
    /// TCP ports listened on that can be reached from outside, ascending.
    pub ports: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerInfo {
    /// 64 hex digits.
    pub id: String,
    pub runtime: Option<&'static str>,
    /// The container's first process.
    pub process: ProcessInfo,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessInfo {
    pub pid: i32,
    pub command: String,
}

/// What is known of a namespace while looking.
#[derive(Default)]
struct Found {
    paths: Vec<PathBuf>,
    containers: Vec<ContainerInfo>,
    process: Option<ProcessInfo>,
}

/// Lists every network namespace other than the host's that has a name or a process.
///
/// # Errors
/// When `/proc` cannot be read. What ends or appears meanwhile is no error.
pub fn discover() -> io::Result<Discovery> {
    let mut by_netns = BTreeMap::<NetnsId, Found>::new();
    for path in named_netns() {
        if let Ok(id) = NetnsId::of_path(&path)
            && Netns::open(&path).is_ok()
        {
            by_netns.entry(id).or_default().paths.push(path);
        }
    }
    let mut hidden_processes = 0;
    for pid in process::pids()? {
        match process::netns_id(pid) {
            Ok(id) => by_netns.entry(id).or_default().add_process(pid),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden_processes += 1,
            Err(_) => {}
        }
    }
    for host in host_netns() {
        by_netns.remove(&host);
    }
    let mut targets: Vec<TargetInfo> =
        by_netns.into_iter().filter_map(|(id, found)| found.into_info(id)).collect();
    targets.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(Discovery { targets, hidden_processes })
}

impl Found {
    fn add_process(&mut self, pid: i32) {
        let Ok(command) = process::command(pid) else { return };
        let process = ProcessInfo { pid, command };
        match process::container(pid) {
            None => self.process = self.process.take().or(Some(process)),
            Some(container) if self.containers.iter().all(|known| known.id != container.id) => {
                self.containers.push(ContainerInfo { id: container.id, runtime: container.runtime, process });
            }
            Some(_) => {}
        }
    }

    /// `None` when it ended before we could look into it.
    fn into_info(mut self, netns: NetnsId) -> Option<TargetInfo> {
        self.containers.sort_by_key(|container| container.process.command == SANDBOX_COMMAND);
        let ports = self.ports();
        let mut names: Vec<String> = self.paths.iter().filter_map(|path| name_of(path)).collect();
        names.sort();
        names.dedup();
        let target = match (names.first(), self.containers.first(), &self.process) {
            (_, Some(container), _) => Target::Container(container.id.clone()),
            (Some(name), None, _) => Target::Netns(name.clone()),
            (None, None, Some(process)) => Target::Pid(process.pid),
            (None, None, None) => return None,
        };
        Some(TargetInfo { target, netns, names, containers: self.containers, process: self.process, ports })
    }

    fn ports(&self) -> Vec<u16> {
        let containers = self.containers.iter().map(|container| &container.process);
        let by_process = containers
            .chain(&self.process)
            .find_map(|process| ListeningSockets::of_process(process.pid).ok());
        let by_name = || {
            let netns = self.paths.iter().find_map(|path| Netns::open(path).ok())?;
            netns.run_inside(ListeningSockets::of_current_netns).ok()?.ok()
        };
        by_process.or_else(by_name).map(|sockets| sockets.ports()).unwrap_or_default()
    }
}

fn name_of(path: &std::path::Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}
