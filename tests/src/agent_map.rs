//! The eBPF maps of a running agent, for tests that leave no room in them.

use std::{
    ffi::c_long,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::{
    agent::Agent,
    attached::{bpf, file},
};

/// Commands and flags of `linux/bpf.h`.
const MAP_UPDATE_ELEM: c_long = 2;
const MAP_DELETE_ELEM: c_long = 3;
const MAP_GET_FD_BY_ID: c_long = 14;
const OBJ_GET_INFO_BY_FD: c_long = 15;
const NOEXIST: u64 = 1;

/// `union bpf_attr` for changes to elements of a map.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The same for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct AskInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The same for `BPF_MAP_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    map_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// A hash map of an agent.
#[derive(Debug)]
pub struct AgentMap {
    map: OwnedFd,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
}

impl AgentMap {
    /// The map with this name that has room for something; panics when the agent has none, or several.
    #[must_use]
    #[track_caller]
    pub fn of(agent: &Agent, name: &str) -> Self {
        let mut found: Vec<Self> = map_ids(agent.pid())
            .into_iter()
            .filter_map(|id| Self::open(id, name).ok().flatten())
            .filter(|map| map.max_entries > 1)
            .collect();
        assert_eq!(found.len(), 1, "maps called {name} of the agent");
        found.remove(0)
    }

    fn open(map_id: u32, name: &str) -> io::Result<Option<Self>> {
        let map = file(MAP_GET_FD_BY_ID, &mut ById { map_id, ..ById::default() })?;
        let mut info = Info::default();
        let mut ask = AskInfo {
            bpf_fd: map.as_raw_fd().cast_unsigned(),
            info_len: size_of::<Info>() as u32,
            info: (&raw mut info) as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut ask)?;
        let is_it = info.name.split(|byte| *byte == 0).next() == Some(name.as_bytes());
        Ok(is_it.then_some(Self {
            map,
            key_size: info.key_size as usize,
            value_size: info.value_size as usize,
            max_entries: info.max_entries,
        }))
    }

    /// Puts in entries that mean nothing until there is no room.
    #[track_caller]
    pub fn fill(&self) {
        for number in 0..=self.max_entries {
            match self.change(MAP_UPDATE_ELEM, number, NOEXIST) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::E2BIG) => return,
                Err(error) => panic!("fill a map: {error}"),
            }
        }
        panic!("the map takes more than it has room for");
    }

    /// Takes them out again.
    pub fn make_room(&self) {
        for number in 0..=self.max_entries {
            let _ = self.change(MAP_DELETE_ELEM, number, 0);
        }
    }

    fn change(&self, command: c_long, number: u32, flags: u64) -> io::Result<i32> {
        let mut key = vec![0xee; self.key_size];
        key[..4].copy_from_slice(&number.to_ne_bytes());
        let value = vec![0_u8; self.value_size];
        let mut element = Element {
            map_fd: self.map.as_raw_fd().cast_unsigned(),
            key: key.as_ptr() as u64,
            value: if command == MAP_UPDATE_ELEM { value.as_ptr() as u64 } else { 0 },
            flags,
            ..Element::default()
        };
        bpf(command, &mut element)
    }
}

/// Of all maps that the process has open: proc(5).
fn map_ids(pid: u32) -> Vec<u32> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let mut ids: Vec<u32> = files
        .filter_map(|file| {
            let info = fs::read_to_string(file.path()).ok()?;
            info.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok())
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
