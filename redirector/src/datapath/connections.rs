//! What the eBPF programs know of connections. It is kept with their sockets.

use super::door::{DoorError, take};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, SkStorage},
};
use redirector_common::{Connection, Raw};
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, OwnedFd},
};

/// The map of [`Connection`]s, by socket.
pub struct Connections {
    map: SkStorage<MapData, Connection>,
    descriptor: OwnedFd,
}

impl Connections {
    pub fn new(object: &mut Ebpf) -> Result<Self, DoorError> {
        let map = take(object, "CONNECTIONS")?;
        let Map::SkStorage(data) = &map else { return Err(DoorError::Missing("CONNECTIONS")) };
        let descriptor = data.fd().as_fd().try_clone_to_owned().map_err(DoorError::Descriptor)?;
        Ok(Self { map: SkStorage::try_from(map)?, descriptor })
    }

    /// Connections accepted from `listener` from now on are the agent's own, and not looked at.
    pub fn own(&mut self, listener: &impl AsRawFd) -> Result<(), MapError> {
        self.map.insert(listener, Connection { raw: Raw::Own as u32, ..Connection::default() }, 0)
    }

    /// The map itself, for sock_diag to read.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }
}
