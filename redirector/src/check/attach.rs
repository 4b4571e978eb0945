//! Tries the attach kinds for real: to the loopback interface of a network namespace made for it, which ends with the
//! probing thread, and for an instant to the cgroup root, with programs that change nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockProtocol;

use super::bpf::{Constant, PASS_CLASSIFIER, PASS_GETPEERNAME4, PASS_GETPEERNAME6, Place};
use super::cgroup::{cgroup2_root, is_machine_root};
use super::inspection;
use super::report::Item;
use crate::netlink::{Request, Socket};
use crate::target::netns::Netns;

/// The first interface of every network namespace.
const LOOPBACK: u32 = 1;

pub fn items() -> Vec<Item> {
    let mut items = namespace_items();
    items.extend(cgroup_items());
    items
}

/// What was tried inside the namespace.
struct Tried {
    setns: io::Result<()>,
    tcx: io::Result<()>,
    clsact: io::Result<()>,
}

fn namespace_items() -> Vec<Item> {
    const NAMESPACES: &str = "entering the network namespaces of targets";
    match in_new_netns() {
        Ok(tried) => {
            let setns = match tried.setns {
                Ok(()) => Item::ok("network namespaces", NAMESPACES, "made, left and entered one"),
                Err(error) => no_namespaces(NAMESPACES, &error),
            };
            let [tcx, clsact] = classifier_items(&tried.tcx, &tried.clsact);
            vec![setns.essential(), tcx, clsact, inspection::item(&tried.tcx)]
        }
        Err(error) => vec![no_namespaces(NAMESPACES, &error).essential()],
    }
}

fn no_namespaces(needed_for: &'static str, error: &io::Error) -> Item {
    let remedy =
        "run as root; in a container with CAP_SYS_ADMIN and a seccomp profile that allows setns and unshare";
    Item::no("network namespaces", needed_for, error.to_string(), remedy)
}

/// Either is enough.
fn classifier_items(tcx: &io::Result<()>, clsact: &io::Result<()>) -> [Item; 2] {
    const TCX: &str = "catching connections, detached by the kernel when the agent dies; inspection";
    const CLSACT: &str = "catching connections on kernels without TCX";
    let tcx_item = match tcx {
        Ok(()) => Item::ok("attach: TCX link", TCX, "attached and detached"),
        Err(error) if clsact.is_ok() => {
            let remedy = "nothing: clsact takes its place; Linux 6.6 is the first with TCX";
            Item::warn("attach: TCX link", TCX, error.to_string(), remedy)
        }
        Err(error) => {
            let remedy = "use Linux 6.6 or newer, or one with clsact (see below)";
            Item::no("attach: TCX link", TCX, error.to_string(), remedy).essential()
        }
    };
    let clsact_item = match clsact {
        Ok(()) => Item::ok("attach: clsact", CLSACT, "attached and detached"),
        Err(error) => {
            let remedy = "use Linux 4.5 or newer with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF (modules sch_ingress, cls_bpf)";
            if tcx.is_ok() {
                Item::warn("attach: clsact", CLSACT, error.to_string(), "nothing: TCX is there")
            } else {
                Item::no("attach: clsact", CLSACT, error.to_string(), remedy).essential()
            }
        }
    };
    [tcx_item, clsact_item]
}

/// On a thread of its own, which takes the namespace with it when it ends.
fn in_new_netns() -> io::Result<Tried> {
    let thread = std::thread::Builder::new().name("check".into()).spawn(|| {
        let outside = Netns::current().map_err(io::Error::other)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(Tried { tcx: try_tcx(), clsact: try_clsact(), setns: outside.enter() })
    })?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn try_tcx() -> io::Result<()> {
    let program = PASS_CLASSIFIER.load()?;
    PASS_CLASSIFIER.attach(program.as_fd(), Place::Ingress(LOOPBACK)).map(drop)
}

/// `tc qdisc add dev lo clsact; tc filter add dev lo ingress bpf da`, in <linux/rtnetlink.h> and <linux/pkt_cls.h>.
fn try_clsact() -> io::Result<()> {
    const CLSACT: u32 = 0xffff_fff1;
    const CLSACT_INGRESS: u32 = 0xffff_fff2;
    const HANDLE: u32 = 0xffff_0000;
    const TCA_KIND: u16 = 1;
    const TCA_OPTIONS: u16 = 2;
    const TCA_BPF_FD: u16 = 6;
    const TCA_BPF_NAME: u16 = 7;
    const TCA_BPF_FLAGS: u16 = 8;
    const ACT_DIRECT: u32 = 1;
    const CREATE: libc::c_int = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let priority_and_protocol = (1 << 16) | u32::from(0x0003_u16.to_be());

    let program = PASS_CLASSIFIER.load()?;
    let socket = Socket::open(SockProtocol::NetlinkRoute)?;
    let qdisc = Request::new(libc::RTM_NEWQDISC, CREATE, &tcmsg(HANDLE, CLSACT, 0));
    socket.acknowledged(qdisc.attribute(TCA_KIND, b"clsact\0"))?;
    let fd = program.as_raw_fd().to_ne_bytes();
    let options: [(u16, &[u8]); 3] =
        [(TCA_BPF_FD, &fd), (TCA_BPF_NAME, b"check\0"), (TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes())];
    let filter = Request::new(libc::RTM_NEWTFILTER, CREATE, &tcmsg(0, CLSACT_INGRESS, priority_and_protocol));
    socket.acknowledged(filter.attribute(TCA_KIND, b"bpf\0").nested(TCA_OPTIONS, &options))
}

/// `struct tcmsg` for the loopback interface.
fn tcmsg(handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, LOOPBACK, handle, parent, info].iter().flat_map(|field| field.to_ne_bytes()).collect()
}

fn cgroup_items() -> Vec<Item> {
    const CLIENT_ADDRESS: &str = "showing the app the client's address in place of the agent's";
    let Some(root) = cgroup2_root() else {
        let remedy = "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified; in a container mount the host's /sys/fs/cgroup";
        return vec![Item::no("cgroup2", CLIENT_ADDRESS, "not mounted", remedy)];
    };
    let shown = root.display().to_string();
    let mount = if is_machine_root(&root) {
        Item::ok("cgroup2", CLIENT_ADDRESS, shown)
    } else {
        let remedy =
            "mount the host's /sys/fs/cgroup into the container, and run it in the host's cgroup namespace";
        Item::warn("cgroup2", CLIENT_ADDRESS, format!("{shown} is not the machine's root cgroup"), remedy)
    };
    let programs = [("getpeername4", PASS_GETPEERNAME4), ("getpeername6", PASS_GETPEERNAME6)];
    let attached = programs.map(|(name, program)| {
        let name = format!("attach: cgroup/{name}");
        match File::open(&root).and_then(|cgroup| try_cgroup(program, &cgroup)) {
            Ok(()) => Item::ok(name, CLIENT_ADDRESS, "attached and detached"),
            Err(error) => {
                let remedy = "use Linux 5.8 or newer with CONFIG_CGROUP_BPF, and run as root";
                Item::no(name, CLIENT_ADDRESS, error.to_string(), remedy)
            }
        }
    });
    std::iter::once(mount).chain(attached).collect()
}

fn try_cgroup(program: Constant, cgroup: &File) -> io::Result<()> {
    let loaded = program.load()?;
    program.attach(loaded.as_fd(), Place::Cgroup(cgroup.as_fd())).map(drop)
}
