//! From a target's name to its network namespace.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::name::Target;
use super::netns::{Netns, NetnsId, OpenNetnsError};
use super::process;

/// Where `ip netns` and the container runtimes bind namespaces by name. The second is a link to the first on most
/// systems, but not on all.
pub const NETNS_DIRS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A target that exists: its network namespace, and where that was found.
#[derive(Debug, Clone)]
pub struct ResolvedTarget {
    pub target: Target,
    pub netns: Netns,
    pub found_at: FoundAt,
}

/// What a namespace was found by, and is watched by ([`super::presence`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundAt {
    /// A namespace file: the target lives as long as this path leads to the namespace.
    Path(PathBuf),
    /// A process: the target lives as long as anything is in the namespace.
    Process(i32),
}

/// The first process of the node.
const INIT: i32 = 1;

/// Why a target has no network namespace that can be intercepted, and what to do.
#[derive(Debug, Error)]
pub enum ResolveError {
    #[error(
        "no network namespace is named `{0}`: look at `redirector targets` or `ip netns list`; an agent in a container needs the host's /run/netns mounted (with mountPropagation HostToContainer)"
    )]
    NoSuchNetns(String),
    #[error(
        "{target} is in the host's own network namespace, where an intercept would catch the whole node: host-network \
         pods and processes outside of containers cannot be intercepted; run the service in a pod or a network namespace of its own"
    )]
    HostNetns { target: Target },
    #[error(
        "no process {0} is running: look at `redirector targets`; an agent in a container sees the node's processes only with `hostPID: true` (docker: `--pid=host`)"
    )]
    NoSuchProcess(i32),
    #[error(
        "no running container has the id {0}: look at `redirector targets`; an agent in a container sees the node's containers only with `hostPID: true` (docker: `--pid=host`)"
    )]
    NoSuchContainer(String),
    #[error("container id {prefix} fits {}: give more digits", ids.join(" and "))]
    AmbiguousContainer { prefix: String, ids: Vec<String> },
    #[error(
        "not allowed to open the network namespace of {target}: run the agent as root (CAP_SYS_ADMIN and CAP_SYS_PTRACE)"
    )]
    NotPermitted { target: Target },
    #[error(transparent)]
    Netns(#[from] OpenNetnsError),
    #[error(
        "cannot tell the host's network namespace from others: {0}; run the agent as root (CAP_SYS_PTRACE)"
    )]
    HostUnknown(#[source] io::Error),
    #[error("cannot list /proc: {0}")]
    Proc(#[source] io::Error),
}

/// Finds and opens the network namespace of a target.
///
/// # Errors
/// See [`ResolveError`]; the host's own namespace is refused in every form.
pub fn resolve(target: &Target) -> Result<ResolvedTarget, ResolveError> {
    let (netns, found_at) = match target {
        Target::Netns(name) => by_name(target, name)?,
        Target::Pid(pid) => by_pid(target, *pid)?,
        Target::Container(prefix) => by_container(target, prefix)?,
    };
    refuse_host(target, netns.id())?;
    Ok(ResolvedTarget { target: target.clone(), netns, found_at })
}

/// When the host's namespace cannot be told apart nothing is intercepted: it could be the host's.
fn refuse_host(target: &Target, netns: NetnsId) -> Result<(), ResolveError> {
    let own = own_netns().map_err(ResolveError::HostUnknown)?;
    if netns == own || netns == node_netns().map_err(ResolveError::HostUnknown)? {
        return Err(ResolveError::HostNetns { target: target.clone() });
    }
    Ok(())
}

/// The namespaces that are never a target, as far as they can be seen: the agent's own and the node's.
#[must_use]
pub fn host_netns() -> Vec<NetnsId> {
    [own_netns(), node_netns()].into_iter().filter_map(Result::ok).collect()
}

/// That of the node's first process. Where a security module hides it even from root, that of the first kernel thread.
fn node_netns() -> io::Result<NetnsId> {
    const KTHREADD: i32 = 2;
    process::netns_id(INIT).or_else(|error| {
        if process::is_kernel_thread(KTHREADD) { process::netns_id(KTHREADD) } else { Err(error) }
    })
}

/// Of the process, not the calling thread: the latter may have entered a target.
fn own_netns() -> io::Result<NetnsId> {
    NetnsId::of_path(Path::new("/proc/self/ns/net"))
}

fn by_name(target: &Target, name: &str) -> Result<(Netns, FoundAt), ResolveError> {
    let paths: Vec<PathBuf> = if name.starts_with('/') {
        vec![name.into()]
    } else {
        NETNS_DIRS.iter().map(|dir| Path::new(dir).join(name)).collect()
    };
    for path in paths {
        match open(target, &path) {
            Err(ResolveError::Netns(OpenNetnsError::Io { source, .. }))
                if source.kind() == io::ErrorKind::NotFound => {}
            opened => return Ok((opened?, FoundAt::Path(path))),
        }
    }
    Err(ResolveError::NoSuchNetns(name.to_owned()))
}

fn by_pid(target: &Target, pid: i32) -> Result<(Netns, FoundAt), ResolveError> {
    match open(target, &process::netns_path(pid)) {
        Err(ResolveError::Netns(OpenNetnsError::Io { source, .. }))
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Err(ResolveError::NoSuchProcess(pid))
        }
        opened => Ok((opened?, FoundAt::Process(pid))),
    }
}

fn by_container(target: &Target, prefix: &str) -> Result<(Netns, FoundAt), ResolveError> {
    let mut pids_by_container = BTreeMap::<String, Vec<i32>>::new();
    for pid in process::pids().map_err(ResolveError::Proc)? {
        if let Some(container) = process::container(pid)
            && container.id.starts_with(prefix)
        {
            pids_by_container.entry(container.id).or_default().push(pid);
        }
    }
    if pids_by_container.len() > 1 {
        let ids = pids_by_container.into_keys().collect();
        return Err(ResolveError::AmbiguousContainer { prefix: prefix.to_owned(), ids });
    }
    let pids = pids_by_container.into_values().next().unwrap_or_default();
    first_outside_host(target, &pids)?.ok_or_else(|| ResolveError::NoSuchContainer(prefix.to_owned()))
}

/// The lowest pid is the container's first process; processes that ended meanwhile or that joined the host's
/// namespace are passed over. When all are in the host's, that is the answer (and refused by the caller).
fn first_outside_host(target: &Target, pids: &[i32]) -> Result<Option<(Netns, FoundAt)>, ResolveError> {
    let host = host_netns();
    let mut in_host = None;
    for &pid in pids {
        match by_pid(target, pid) {
            Err(ResolveError::NoSuchProcess(_)) => {}
            Err(error) => return Err(error),
            Ok(found) if host.contains(&found.0.id()) => in_host = in_host.or(Some(found)),
            Ok(found) => return Ok(Some(found)),
        }
    }
    Ok(in_host)
}

fn open(target: &Target, path: &Path) -> Result<Netns, ResolveError> {
    Netns::open(path).map_err(|error| match error {
        // Some security modules close it even to root. Whose it is needs no look inside.
        OpenNetnsError::Io { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied && path == process::netns_path(INIT) =>
        {
            ResolveError::HostNetns { target: target.clone() }
        }
        OpenNetnsError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            ResolveError::NotPermitted { target: target.clone() }
        }
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(target: &str) -> ResolveError {
        resolve(&target.parse().unwrap()).unwrap_err()
    }

    #[test]
    fn the_hosts_own_namespace_is_refused_in_every_form() {
        for target in [format!("pid:{}", std::process::id()), "netns:/proc/self/ns/net".into()] {
            let refused = refusal(&target);
            assert!(matches!(refused, ResolveError::HostNetns { .. }), "{target}: {refused}");
        }
    }

    #[test]
    fn what_does_not_exist_is_named_in_the_error() {
        assert!(
            matches!(refusal("netns:no-such-netns"), ResolveError::NoSuchNetns(name) if name == "no-such-netns")
        );
        assert!(
            matches!(refusal("netns:/no/such/path"), ResolveError::NoSuchNetns(path) if path == "/no/such/path")
        );
        // Above the largest pid the kernel ever gives (PID_MAX_LIMIT, 4 Mi).
        assert!(matches!(refusal("pid:2147483647"), ResolveError::NoSuchProcess(i32::MAX)));
        assert!(matches!(refusal("container:0123456789ab"), ResolveError::NoSuchContainer(_)));
    }

    #[test]
    fn a_path_to_something_else_is_refused() {
        assert!(matches!(
            refusal("netns:/proc/self/stat"),
            ResolveError::Netns(OpenNetnsError::NotNetns { .. })
        ));
    }
}
