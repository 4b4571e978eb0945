//! `redirector check`: what this kernel and machine can do, found out by trying, and what to do about the rest.

mod attach;
mod bpf;
mod capability;
pub mod cgroup;
mod inspection;
mod kernel;
pub mod report;
mod sockets;

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::geteuid;

pub use self::cgroup::cgroup2_root;
pub use self::report::{Item, Report, Status};

/// Tries everything that the agent uses. Leaves nothing behind but this process's raised
/// `RLIMIT_MEMLOCK`.
#[must_use]
pub fn run() -> Report {
    // Before Linux 5.11 maps count against this limit, and its default makes probes fail that would succeed in the
    // agent. Without the right to raise it the probes fail for that reason anyway.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let mut items = vec![user(), process_namespace()];
    items.extend(capability::items());
    items.extend(kernel::items());
    items.extend(attach::items());
    items.extend(sockets::items());
    Report { items }
}

/// Only says who we are: what counts are the capabilities.
fn user() -> Item {
    let user = geteuid();
    let detail = if user.is_root() { "root".to_owned() } else { format!("user id {user}") };
    Item::ok("user", "the rights below", detail)
}

/// The first pid namespace of a machine always has the same inode number (`PROC_PID_INIT_INO` of <linux/proc_ns.h>).
fn process_namespace() -> Item {
    const FIRST: &str = "pid:[4026531836]";
    const NEEDED_FOR: &str = "finding targets by process or container";
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == FIRST => {
            Item::ok("processes", NEEDED_FOR, "in the machine's first pid namespace")
        }
        _ => Item::warn(
            "processes",
            NEEDED_FOR,
            "not in the machine's first pid namespace: only the processes of this container can be found",
            "run the agent's pod with `hostPID: true` (docker: --pid=host); fine when this container is itself the node",
        ),
    }
}
