//! What the kernel says is attached: TCX programs of a device, `getpeername` programs of a cgroup.
//!
//! iproute2 6.1 does not know TCX and bpftool is not packaged everywhere, so this asks through `bpf(2)`.

use std::{
    ffi::c_long,
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

use nix::net::if_::if_nameindex;

use crate::netns::Netns;

/// Commands and attach types of `linux/bpf.h`.
const PROG_LOAD: c_long = 5;
const PROG_QUERY: c_long = 16;
const LINK_CREATE: c_long = 28;
const CGROUP_INET4_GETPEERNAME: u32 = 29;
const CGROUP_INET6_GETPEERNAME: u32 = 30;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`, as of Linux 6.6.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to `expected_attach_type`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` for `BPF_LINK_CREATE` of a TCX link without an order.
#[repr(C)]
#[derive(Default)]
struct Link {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

/// The devices of a namespace that have TCX programs, and how many. Empty on kernels without TCX (before 6.6).
#[must_use]
pub fn tcx_programs(netns: &Netns, direction: Direction) -> Vec<(String, u32)> {
    netns.run(|| {
        let mut found = Vec::new();
        for device in &if_nameindex().expect("the devices of the namespace") {
            let count = query(device.index(), tcx(direction)).unwrap_or(0);
            if count > 0 {
                found.push((device.name().to_string_lossy().into_owned(), count));
            }
        }
        found
    })
}

/// How many `getpeername` programs of a family are attached to the cgroup root.
#[must_use]
pub fn cgroup_peername_programs(family: IpAddr) -> u32 {
    let root = File::open(cgroup_root()).expect("open the cgroup root");
    let attach_type = if family.is_ipv4() { CGROUP_INET4_GETPEERNAME } else { CGROUP_INET6_GETPEERNAME };
    query(root.as_raw_fd().cast_unsigned(), attach_type).expect("the programs of the cgroup root")
}

/// Where cgroup2 is mounted on this machine.
#[must_use]
pub fn cgroup_root() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts");
    let point =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
    point.map(|words| PathBuf::from(words[1])).expect("a mounted cgroup2")
}

/// A TCX program of somebody else that passes everything on; detached when dropped.
#[derive(Debug)]
pub struct PassAll {
    _link: OwnedFd,
}

impl PassAll {
    /// Attaches it to a device of the namespace.
    pub fn attach(netns: &Netns, device: &str, direction: Direction) -> io::Result<Self> {
        // r0 = -1 (TCX_NEXT); exit.
        const PROGRAM: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
        const SCHED_CLS: u32 = 3;
        let mut load = Load {
            prog_type: SCHED_CLS,
            insn_cnt: 2,
            insns: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..Load::default()
        };
        let program = file(PROG_LOAD, &mut load)?;
        let _link = netns.run(|| {
            let target_ifindex = nix::net::if_::if_nametoindex(device)?;
            let prog_fd = program.as_raw_fd().cast_unsigned();
            let attach_type = tcx(direction);
            file(LINK_CREATE, &mut Link { prog_fd, target_ifindex, attach_type, ..Link::default() })
        })?;
        Ok(Self { _link })
    }
}

fn tcx(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => TCX_INGRESS,
        Direction::Egress => TCX_EGRESS,
    }
}

fn query(target: u32, attach_type: u32) -> io::Result<u32> {
    let mut query = Query { target, attach_type, ..Query::default() };
    bpf(PROG_QUERY, &mut query)?;
    Ok(query.prog_cnt)
}

pub(crate) fn file<A>(command: c_long, attributes: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the command succeeded, so it returned a new file descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn bpf<A>(command: c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: `attributes` is a `repr(C)` prefix of `union bpf_attr` with its size; pointers in it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
