//! Tells apps who their client is: the `getpeername` programs at the cgroup root, and the maps they read.

use super::{
    object,
    upstream_ports::{Changed, UpstreamPorts},
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
    programs::{CgroupAttachMode, CgroupSockAddr},
};
use redirector_common::{AddressBytes, ClientAddress, UpstreamKey};
use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use thiserror::Error;

/// Why apps will see the agent's address in place of the client's.
#[derive(Debug, Error)]
pub enum PeerNamesError {
    #[error("cannot open the cgroup2 root {0}: {1}; mount cgroup2 there")]
    Cgroup(PathBuf, #[source] io::Error),
    #[error("cannot load the getpeername programs (kernel 5.8 and root needed): {0}")]
    Load(#[from] aya::EbpfError),
    #[error("cannot attach the getpeername programs (kernel 5.8 and root needed): {0}")]
    Program(#[from] aya::programs::ProgramError),
    #[error("cannot use the maps of the getpeername programs: {0}")]
    Map(#[from] MapError),
    #[error("another connection to the app has the same addresses")]
    Taken,
    #[error("the embedded eBPF object lacks `{0}`: rebuild with `cargo xtask build`")]
    Missing(&'static str),
}

/// Insert only what is not there (linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

/// The attached programs; one for the whole node.
pub struct PeerNames {
    records: Mutex<Records>,
    /// Holds the programs and their links.
    _object: Ebpf,
}

struct Records {
    clients: HashMap<MapData, UpstreamKey, ClientAddress>,
    /// What `words` has.
    ports: UpstreamPorts,
    words: Array<MapData, u64>,
}

impl PeerNames {
    /// Loads and attaches at `cgroup_root`.
    pub fn attach(cgroup_root: &Path) -> Result<Arc<Self>, PeerNamesError> {
        let mut object = object::load_peername()?;
        for name in ["redirector_peer4", "redirector_peer6"] {
            let cgroup = File::open(cgroup_root)
                .map_err(|error| PeerNamesError::Cgroup(cgroup_root.to_owned(), error))?;
            let program: &mut CgroupSockAddr =
                object.program_mut(name).ok_or(PeerNamesError::Missing(name))?.try_into()?;
            program.load()?;
            // A link coexists with other programs whatever the mode says.
            program.attach(cgroup, CgroupAttachMode::Single)?;
        }
        let mut take = |name| object.take_map(name).ok_or(PeerNamesError::Missing(name));
        let records = Records {
            clients: HashMap::try_from(take("CLIENTS")?)?,
            ports: UpstreamPorts::new(),
            words: Array::try_from(take("UPSTREAM_PORTS")?)?,
        };
        Ok(Arc::new(Self { records: Mutex::new(records), _object: object }))
    }

    /// Records the client behind the connection from `agent` to `app`, until the guard is dropped.
    pub fn record(
        self: &Arc<Self>,
        netns_cookie: u64,
        agent: SocketAddr,
        app: SocketAddr,
        client: SocketAddr,
    ) -> Result<UpstreamGuard, PeerNamesError> {
        let key = UpstreamKey {
            netns_cookie,
            app_address: address_bytes(app.ip()),
            agent_address: address_bytes(agent.ip()),
            app_port: app.port(),
            agent_port: agent.port(),
            padding: 0,
        };
        let value =
            ClientAddress { address: address_bytes(client.ip()), port: client.port(), padding: [0; 3] };
        self.records().insert(key, value)?;
        Ok(UpstreamGuard { names: Arc::clone(self), key })
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn insert(&mut self, key: UpstreamKey, value: ClientAddress) -> Result<(), PeerNamesError> {
        // The programs look for a record only where the port has its bit.
        let changed = self.ports.add(key.agent_port);
        let inserted = self.show(changed).and_then(|()| self.clients.insert(key, value, BPF_NOEXIST));
        match inserted {
            Ok(()) => Ok(()),
            Err(error) => {
                self.remove_port(key.agent_port);
                Err(match error {
                    MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                        PeerNamesError::Taken
                    }
                    error => error.into(),
                })
            }
        }
    }

    fn remove(&mut self, key: &UpstreamKey) {
        if let Err(error) = self.clients.remove(key) {
            tracing::debug!(%error, "client address record was gone");
        }
        self.remove_port(key.agent_port);
    }

    fn remove_port(&mut self, port: u16) {
        let changed = self.ports.remove(port);
        // With a bit too many the programs look in vain.
        if let Err(error) = self.show(changed) {
            tracing::debug!(%error, "a port of the agent's is still said to have records");
        }
    }

    /// To the programs.
    fn show(&mut self, changed: Option<Changed>) -> Result<(), MapError> {
        match changed {
            Some(Changed { index, word }) => self.words.set(index, word, 0),
            None => Ok(()),
        }
    }
}

/// Removes the record of one connection when dropped.
pub struct UpstreamGuard {
    names: Arc<PeerNames>,
    key: UpstreamKey,
}

impl Drop for UpstreamGuard {
    fn drop(&mut self) {
        self.names.records().remove(&self.key);
    }
}

/// The form addresses have in maps: IPv4 is v4-mapped.
pub fn address_bytes(ip: IpAddr) -> AddressBytes {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
