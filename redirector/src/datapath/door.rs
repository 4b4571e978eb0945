//! Everything that is attached for one target: the programs on its interfaces, and the maps that steer them.

use super::{
    attach::{AttachKind, Attachment, EGRESS_PROGRAM, INSPECT_PROGRAM, PROGRAM},
    connections::Connections,
    heartbeat::Heartbeat,
    inspection::{Inspection, LoadedPrograms, UnloadedPrograms},
    interfaces::{Interface, local_addresses, outside_interfaces},
    object,
    peername::address_bytes,
};
use crate::{context::Needle, park::Flows, with_sources::with_sources};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, SockMap},
    programs::{ProgramError, SchedClassifier},
};
use aya_log::EbpfLogger;
use redirector_common::{AddressBytes, Counter, Existing, Tuple};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    marker::PhantomData,
    net::{IpAddr, TcpListener},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
};
use thiserror::Error;

/// Why a target cannot be intercepted, or a change to it failed.
#[derive(Debug, Error)]
pub enum DoorError {
    #[error("cannot load the eBPF object; `redirector check` says what this machine lacks: {0}")]
    Load(#[from] aya::EbpfError),
    #[error("cannot attach to {interface}; `redirector check` says what this machine lacks: {}", with_sources(.source))]
    Attach { interface: String, source: ProgramError },
    #[error("cannot load the ingress program; `redirector check` says what this machine lacks: {0}")]
    Program(#[from] ProgramError),
    #[error("cannot change an eBPF map: {0}")]
    Map(#[from] MapError),
    #[error("cannot read the interfaces of the target: {0}")]
    Interfaces(#[source] io::Error),
    #[error("the target has no network interface but loopback, so nothing can reach it from outside")]
    NoInterface,
    #[error("the embedded eBPF object lacks `{0}`: rebuild with `cargo xtask build`")]
    Missing(&'static str),
    #[error("256 ports of this target are intercepted already: remove an intercept first")]
    TooManyPorts,
    #[error("cannot share an eBPF map with sock_diag: {0}")]
    Descriptor(#[source] io::Error),
    #[error("connections can't be inspected: {0}")]
    NoInspection(String),
    #[error("the programs that inspect are being loaded: try again in a moment")]
    Loading,
}

/// The agent's listening sockets for one port. Their own address does not matter: connections are assigned.
pub struct PortListeners {
    pub v4: TcpListener,
    /// `None` where the target has no IPv6.
    pub v6: Option<TcpListener>,
}

/// Everything attached for one target.
///
/// Not `Send`: it is made, used and dropped on one thread, which is inside the target's namespace for good.
pub struct Door {
    /// Dropped first: nothing is assigned any more when the maps go.
    attachments: Vec<Attachment>,
    kind: AttachKind,
    ports: HashMap<MapData, u16, u32>,
    listeners: SockMap<MapData>,
    addresses: HashMap<MapData, AddressBytes, u8>,
    counters: PerCpuArray<MapData, u64>,
    connections: Connections,
    slots: BTreeMap<u16, u32>,
    known_addresses: BTreeSet<IpAddr>,
    /// The programs that inspect are attached, in place of the one that only assigns. From the first intercept on that
    /// asks for it, to the end.
    inspecting: bool,
    /// Why not, where connections that the app has can't be inspected. `None`: nobody has asked.
    inspection: Option<Result<Inspection, String>>,
    /// Moves the program's log records into `tracing`; only when packets are logged.
    flush_log: Option<Box<dyn FnMut()>>,
    /// `None` while it is away to be loaded.
    object: Option<Ebpf>,
    bound_to_thread: PhantomData<Rc<()>>,
}

impl Door {
    /// Loads the program and attaches it to all interfaces of the namespace that the thread is in. The heartbeat is
    /// for another thread: much of what a door does can wait for locks of the kernel's. Keep it as long as the door.
    pub fn open(kind: AttachKind, log_packets: bool) -> Result<(Self, Heartbeat), DoorError> {
        let mut object = object::load_ingress(log_packets)?;
        let flush_log = match log_packets.then(|| EbpfLogger::init(&mut object)) {
            Some(Ok(mut logger)) => Some(Box::new(move || logger.flush()) as Box<dyn FnMut()>),
            Some(Err(error)) => {
                tracing::warn!(%error, "packets will not be logged");
                None
            }
            None => None,
        };
        // The sweep of another agent takes a door without a beat for what a dead one has left.
        let mut heartbeat = Heartbeat::new(&mut object)?;
        heartbeat.beat()?;
        let mut door = Self {
            attachments: Vec::new(),
            kind,
            ports: HashMap::try_from(take(&mut object, "PORTS")?)?,
            listeners: SockMap::try_from(take(&mut object, "LISTENERS")?)?,
            addresses: HashMap::try_from(take(&mut object, "LOCAL_ADDRESSES")?)?,
            counters: PerCpuArray::try_from(take(&mut object, "COUNTERS")?)?,
            connections: Connections::new(&mut object)?,
            slots: BTreeMap::new(),
            known_addresses: BTreeSet::new(),
            inspecting: false,
            inspection: None,
            flush_log,
            object: Some(object),
            bound_to_thread: PhantomData,
        };
        door.program(PROGRAM)?.load()?;
        door.refresh()?;
        if door.attachments.is_empty() {
            return Err(DoorError::NoInterface);
        }
        if door.attachments.iter().any(|attachment| attachment.kind != AttachKind::Tcx) {
            door.inspection = Some(Err(NO_TCX.to_owned()));
        }
        Ok((door, heartbeat))
    }

    /// The programs that inspect, to be loaded on another thread, as the verifier takes its time, and then given to
    /// [`Self::loaded`]. `None`: [`Self::inspection`] answers at once, or they are being loaded.
    pub fn unloaded(&mut self) -> Option<UnloadedPrograms> {
        if self.inspection.is_some() { None } else { self.object.take().map(UnloadedPrograms) }
    }

    /// They are as ready as they can be.
    pub fn loaded(&mut self, programs: LoadedPrograms) {
        let LoadedPrograms { mut object, loaded } = programs;
        let inspection =
            loaded.and_then(|()| Inspection::new(&mut object).map_err(|error| error.to_string()));
        self.inspection = Some(inspection);
        self.object = Some(object);
    }

    /// Why connections that the app has can't be inspected, if they can't. Loads what is needed to find out, if
    /// that was not done before.
    pub fn inspection(&mut self) -> Result<(), String> {
        self.inspector().map(drop)
    }

    fn inspector(&mut self) -> Result<&mut Inspection, String> {
        if let Some(programs) = self.unloaded() {
            self.loaded(programs.load());
        }
        match &mut self.inspection {
            Some(Ok(inspection)) => Ok(inspection),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(DoorError::Loading.to_string()),
        }
    }

    /// What is held back, and the maps to claim it with. Gives them once.
    pub fn take_held(&mut self) -> Result<(RingBuf<MapData>, Arc<Flows>), DoorError> {
        self.inspection().map_err(DoorError::NoInspection)?;
        let object = self.object.as_mut().ok_or(DoorError::Loading)?;
        Ok((RingBuf::try_from(take(object, "HELD_SEGMENTS")?)?, Flows::new(object)?))
    }

    /// From now on heads of requests to `port`, on connections that the app has, are searched for these names; not
    /// at all without any.
    pub fn watch(&mut self, port: u16, names: &BTreeSet<Needle>) -> Result<(), DoorError> {
        if names.is_empty() {
            // Nothing is looked for where nothing was ever looked for.
            return match &mut self.inspection {
                Some(Ok(inspection)) => Ok(inspection.watch(port, names)?),
                _ => Ok(()),
            };
        }
        self.inspection().map_err(DoorError::NoInspection)?;
        if !self.inspecting {
            self.start_inspecting()?;
        }
        Ok(self.inspector().map_err(DoorError::NoInspection)?.watch(port, names)?)
    }

    /// What is known of connections before the first [`Self::watch`] of their port: see [`Existing`].
    pub fn remember(&mut self, existing: impl IntoIterator<Item = (Tuple, Existing)>) {
        if let Ok(inspection) = self.inspector() {
            inspection.remember(existing);
        }
    }

    /// What new connections to an inspected port began with, other than HTTP/1.x: bits of
    /// [`PORT_HTTP2`](redirector_common::PORT_HTTP2) and [`PORT_TLS`](redirector_common::PORT_TLS).
    pub fn protocols(&self, port: u16) -> u32 {
        match &self.inspection {
            Some(Ok(inspection)) => inspection.protocols(port),
            _ => 0,
        }
    }

    /// New connections to `port` can go to `listeners`, once they are to: see [`Self::assign`].
    pub fn open_port(&mut self, port: u16, listeners: &PortListeners) -> Result<(), DoorError> {
        let slot = (0..256)
            .map(|n| n * 2)
            .find(|slot| !self.slots.values().any(|used| used == slot))
            .ok_or(DoorError::TooManyPorts)?;
        self.listeners.set(slot, &listeners.v4, 0)?;
        if let Some(v6) = &listeners.v6 {
            self.listeners.set(slot + 1, v6, 0)?;
        }
        for listener in [Some(&listeners.v4), listeners.v6.as_ref()].into_iter().flatten() {
            self.connections.own(listener)?;
        }
        self.slots.insert(port, slot);
        Ok(())
    }

    /// From now on new connections to `port` go to its listeners, or, if not `wanted`, to the app.
    pub fn assign(&mut self, port: u16, wanted: bool) -> Result<(), DoorError> {
        match self.slots.get(&port) {
            Some(slot) if wanted => self.ports.insert(port, slot, 0)?,
            _ => match self.ports.remove(&port) {
                Err(MapError::SyscallError(error)) if error.io_error.kind() != io::ErrorKind::NotFound => {
                    return Err(MapError::SyscallError(error).into());
                }
                _ => {}
            },
        }
        Ok(())
    }

    /// From now on new connections to `port` go to the app, and none is inspected.
    pub fn close_port(&mut self, port: u16) -> Result<(), DoorError> {
        self.watch(port, &BTreeSet::new())?;
        self.assign(port, false)?;
        if let Some(slot) = self.slots.remove(&port) {
            for slot in [slot, slot + 1] {
                // The IPv6 slot may be empty, and a closed listener has emptied its own.
                let _ = self.listeners.clear_index(&slot);
            }
        }
        Ok(())
    }

    /// Follows the namespace: attaches to new interfaces, learns new addresses, forgets old ones.
    pub fn refresh(&mut self) -> Result<(), DoorError> {
        let interfaces = outside_interfaces().map_err(DoorError::Interfaces)?;
        self.attachments.retain(|attachment| interfaces.contains(&attachment.interface));
        let mut failed = None;
        for interface in interfaces {
            if self.attachments.iter().any(|attachment| attachment.interface == interface) {
                continue;
            }
            let kind = self.kind;
            match self.attach(&interface, kind) {
                Ok(attachment) => self.attachments.push(attachment),
                // It may have vanished meanwhile, or be of a kind that takes no programs: the others matter more.
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if self.attachments.is_empty() => return Err(error),
            Some(error) => tracing::debug!(%error, "not attached"),
            None => {}
        }

        let addresses = local_addresses().map_err(DoorError::Interfaces)?;
        for new in addresses.difference(&self.known_addresses) {
            self.addresses.insert(address_bytes(*new), 1, 0)?;
        }
        for gone in self.known_addresses.difference(&addresses) {
            self.addresses.remove(&address_bytes(*gone))?;
        }
        self.known_addresses = addresses;
        Ok(())
    }

    /// Moves what the programs have logged on to `tracing`.
    pub fn flush_log(&mut self) {
        if let Some(flush) = &mut self.flush_log {
            flush();
        }
    }

    /// Packets by what became of them, summed over processors.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        Counter::ALL
            .into_iter()
            .map(|(counter, name)| {
                let per_cpu = self.counters.get(&(counter as u32), 0);
                (name, per_cpu.map_or(0, |values| values.iter().sum()))
            })
            .collect()
    }

    /// The map of what the programs know of connections, by socket: see [`redirector_common::Connection`].
    pub fn connections(&self) -> io::Result<OwnedFd> {
        self.connections.descriptor()
    }

    /// The addresses of the namespace.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.known_addresses
    }

    /// What is attached where, as `interface` → `tcx` or `clsact`.
    pub fn attachments(&self) -> impl Iterator<Item = (&str, AttachKind)> {
        self.attachments.iter().map(|attachment| (attachment.interface.name.as_str(), attachment.kind))
    }

    /// With inspection once some intercept asks for it.
    fn attach(&mut self, interface: &Interface, kind: AttachKind) -> Result<Attachment, DoorError> {
        if self.inspecting {
            return self.attach_inspection(interface);
        }
        let attached = Attachment::attach(self.program(PROGRAM)?, interface, kind);
        attached.map_err(|source| DoorError::Attach { interface: interface.name.clone(), source })
    }

    /// There is no moment without a program: the new one takes the place of the old one at once.
    fn start_inspecting(&mut self) -> Result<(), DoorError> {
        let mut attachments = std::mem::take(&mut self.attachments);
        let started = attachments.iter_mut().try_for_each(|attachment| self.inspect_at(attachment));
        // One that has failed takes nothing from the others; if its interface is still there, the next refresh attaches anew.
        attachments.retain(Attachment::is_attached);
        self.attachments = attachments;
        self.inspecting = started.is_ok();
        started
    }

    fn inspect_at(&mut self, attachment: &mut Attachment) -> Result<(), DoorError> {
        let interface = attachment.interface.name.clone();
        let failed = |source| DoorError::Attach { interface: interface.clone(), source };
        attachment.replace(self.program(INSPECT_PROGRAM)?).map_err(failed)?;
        attachment.attach_egress(self.program(EGRESS_PROGRAM)?).map_err(failed)
    }

    fn attach_inspection(&mut self, interface: &Interface) -> Result<Attachment, DoorError> {
        let failed = |source| DoorError::Attach { interface: interface.name.clone(), source };
        let mut attachment =
            Attachment::attach(self.program(INSPECT_PROGRAM)?, interface, AttachKind::Tcx).map_err(failed)?;
        attachment.attach_egress(self.program(EGRESS_PROGRAM)?).map_err(failed)?;
        Ok(attachment)
    }

    fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, DoorError> {
        let object = self.object.as_mut().ok_or(DoorError::Loading)?;
        Ok(object.program_mut(name).ok_or(DoorError::Missing(name))?.try_into()?)
    }
}

/// Why not, on older kernels.
pub const NO_TCX: &str = "it needs TCX links (kernel 6.6)";

pub(super) fn take(object: &mut Ebpf, map: &'static str) -> Result<Map, DoorError> {
    object.take_map(map).ok_or(DoorError::Missing(map))
}
