//! What `/proc` says of other processes: their network namespace, container and command.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::netns::NetnsId;

/// The container a process belongs to, as its cgroup path names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId {
    /// 64 lowercase hex digits.
    pub id: String,
    /// `docker`, `containerd`, `cri-o` or `podman`, when the path tells.
    pub runtime: Option<&'static str>,
}

/// The pids that `/proc` lists, ascending. Without the host's pid namespace that is only our own container.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn pids() -> io::Result<Vec<i32>> {
    let mut pids: Vec<i32> = fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

#[must_use]
pub fn netns_path(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// # Errors
/// `NotFound` when there is no such process or only its zombie is left; `PermissionDenied` without ptrace rights.
pub fn netns_id(pid: i32) -> io::Result<NetnsId> {
    NetnsId::of_path(&netns_path(pid))
}

/// The container of a process, `None` for one of the host or one that is gone.
#[must_use]
pub fn container(pid: i32) -> Option<ContainerId> {
    container_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The short command name of a process, at most 15 bytes.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn command(pid: i32) -> io::Result<String> {
    fs::read(format!("/proc/{pid}/comm")).map(|comm| String::from_utf8_lossy(&comm).trim_end().to_owned())
}

/// Whether a process is a thread of the kernel, which is always in the machine's first namespaces.
#[must_use]
pub fn is_kernel_thread(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_kernel_thread_in(&stat))
}

/// Reads the flags in `/proc/PID/stat` (proc(5)): the seventh field after the command, which may hold anything.
fn is_kernel_thread_in(stat: &str) -> bool {
    /// `PF_KTHREAD` of <linux/sched.h>
    const KERNEL_THREAD: u32 = 0x0020_0000;
    let flags = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_ascii_whitespace().nth(6));
    flags.and_then(|flags| flags.parse().ok()).is_some_and(|flags: u32| flags & KERNEL_THREAD != 0)
}

/// Finds the container in the text of `/proc/PID/cgroup` (cgroups(7)): the innermost path component that carries a
/// 64-digit hex id, as Docker, containerd, CRI-O and Podman write it with either cgroup driver. The monitor processes
/// (`conmon`) of the latter two have the id in their path too, but live on the host.
#[must_use]
pub fn container_in(cgroup: &str) -> Option<ContainerId> {
    cgroup.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        let component = path.rsplit('/').find(|component| id_in(component).is_some())?;
        if component.contains("conmon") {
            return None;
        }
        Some(ContainerId { id: id_in(component)?.to_owned(), runtime: runtime_of(component, path) })
    })
}

fn id_in(component: &str) -> Option<&str> {
    component
        .split(['-', ':', '.'])
        .rfind(|part| part.len() == 64 && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn runtime_of(component: &str, path: &str) -> Option<&'static str> {
    const BY_COMPONENT: [(&str, &str); 4] =
        [("docker", "docker"), ("containerd", "containerd"), ("crio", "cri-o"), ("libpod", "podman")];
    let named = BY_COMPONENT.iter().find(|(mark, _)| component.contains(mark)).map(|(_, name)| *name);
    // With the cgroupfs driver the component is the bare id; only Docker then leaves its name in the path.
    named.or_else(|| path.starts_with("/docker/").then_some("docker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5d1f2f0c6a4e0b2d9a8c7b6e5f4d3c2b1a0f9e8d7c6b5a493827161504f3e2d1";

    fn found(cgroup: &str) -> Option<(String, Option<&'static str>)> {
        container_in(&cgroup.replace("ID", ID)).map(|container| (container.id, container.runtime))
    }

    #[test]
    fn the_id_is_found_in_the_paths_of_every_runtime() {
        let cases = [
            ("0::/system.slice/docker-ID.scope\n", Some("docker")),
            ("12:pids:/docker/ID\n0::/docker/ID\n", Some("docker")),
            (
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8c0c.slice/cri-containerd-ID.scope\n",
                Some("containerd"),
            ),
            ("0::/kubepods/besteffort/pod1b3f7a0e-3f4e-4a43-8c55-1e3f6bb0ab3b/ID\n", None),
            ("1:name=systemd:/kubepods-besteffort-podx.slice:cri-containerd:ID\n", Some("containerd")),
            ("0::/../../cri-containerd-ID.scope\n", Some("containerd")),
            ("0::/kubepods.slice/crio-ID.scope/container\n", Some("cri-o")),
            ("0::/machine.slice/libpod-ID.scope/container\n", Some("podman")),
            ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope\n", Some("podman")),
        ];
        for (cgroup, runtime) in cases {
            assert_eq!(found(cgroup), Some((ID.to_owned(), runtime)), "{cgroup}");
        }
    }

    #[test]
    fn processes_of_the_host_have_no_container() {
        for cgroup in [
            "",
            "0::/\n",
            "0::/system.slice/ssh.service\n",
            "0::/system.slice/docker.service\n",
            "0::/machine.slice/libpod-conmon-ID.scope\n",
            "0::/kubepods.slice/crio-conmon-ID.scope\n",
            "0::/user.slice/0123456789ab\n",
            "garbage without colons",
        ] {
            assert_eq!(found(cgroup), None, "{cgroup}");
        }
    }

    #[test]
    fn a_container_in_a_container_is_the_inner_one() {
        let inner = "ab".repeat(32);
        let cgroup = format!("0::/docker/ID/docker/{inner}\n");
        assert_eq!(found(&cgroup), Some((inner, Some("docker"))));
    }

    #[test]
    fn kernel_threads_are_told_from_processes_that_look_like_them() {
        assert!(is_kernel_thread_in("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0"));
        assert!(!is_kernel_thread_in("2 (kthreadd) S 0 0 0 0 -1 4194304 0 0 0 0 0 0"));
        assert!(!is_kernel_thread_in("2 (x) 1 1 1 1 1 1 2129984) S 0 0 0 0 -1 4194304 0 0 0 0 0 0"));
        assert!(!is_kernel_thread_in(""));
    }

    #[test]
    fn our_own_process_is_listed_with_its_command() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(pids().unwrap().contains(&own));
        assert!(!command(own).unwrap().is_empty());
    }
}
