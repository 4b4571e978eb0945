//! Whose a connection is: the maps that the agent and the eBPF programs share.
//!
//! A held segment has an entry in `HOLDS`. Whoever deletes it has the connection: the program, which then passes the
//! segment on to the app, or the agent, which then has parked it. There is no third outcome and no moment in between,
//! wherever either of them is stopped.

use crate::{
    datapath::DoorError,
    sock_diag::{SockDiag, State},
};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use redirector_common::{AddressBytes, Flow, Held, Tuple};
use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use thiserror::Error;

/// linux/bpf.h: insert only what is not there; change only what is.
const BPF_NOEXIST: u64 = 1;
const BPF_EXIST: u64 = 2;

/// Why a connection could not be claimed.
#[derive(Debug, Error)]
pub enum ClaimError {
    #[error("the time for it was over")]
    Expired,
    #[error("the connection is being moved or is parked already")]
    Taken,
    #[error("cannot change an eBPF map: {0}")]
    Map(#[from] MapError),
}

impl ClaimError {
    fn of(error: MapError) -> Self {
        if is(&error, libc::ENOENT) { Self::Expired } else { error.into() }
    }
}

/// The connections of one target that are held, moving, or parked.
pub struct Flows {
    holds: Mutex<HashMap<MapData, Tuple, Held>>,
    flows: Mutex<HashMap<MapData, Tuple, Flow>>,
    agent_ports: Mutex<HashMap<MapData, u16, u16>>,
    /// Parked connections that the agent has done with, and whose sockets may still be there.
    ended: Mutex<VecDeque<Ended>>,
    /// Parked connections that the agent serves.
    served: Mutex<usize>,
}

#[derive(Clone, Copy)]
struct Ended {
    tuple: Tuple,
    agent_port: u16,
}

impl Flows {
    /// # Errors
    /// When the embedded object is not the one that this agent was built for.
    pub fn new(object: &mut Ebpf) -> Result<Arc<Self>, DoorError> {
        let mut take = |name| object.take_map(name).ok_or(DoorError::Missing(name));
        Ok(Arc::new(Self {
            holds: Mutex::new(HashMap::try_from(take("HOLDS")?)?),
            flows: Mutex::new(HashMap::try_from(take("FLOWS")?)?),
            agent_ports: Mutex::new(HashMap::try_from(take("AGENT_PORTS")?)?),
            ended: Mutex::default(),
            served: Mutex::default(),
        }))
    }

    /// What leaves from `agent_port` is made to come from `port`, for connections that are parked.
    pub fn reserve(&self, agent_port: u16, port: u16) -> Result<(), MapError> {
        lock(&self.agent_ports).insert(agent_port, port, 0)
    }

    /// From here on nothing that the app sends on the connection reaches the client. The segment stays held.
    pub fn begin(self: &Arc<Self>, tuple: Tuple, agent_port: u16) -> Result<Moving, ClaimError> {
        let flow = Flow { state: Flow::MOVING, agent_port, padding: 0 };
        match lock(&self.flows).insert(tuple, flow, BPF_NOEXIST) {
            Ok(()) => Ok(Moving { flows: Arc::clone(self), tuple, agent_port, committed: false }),
            Err(error) => {
                self.let_go(&tuple);
                Err(if is(&error, libc::EEXIST) { ClaimError::Taken } else { error.into() })
            }
        }
    }

    /// Gives a held segment that is not to be moved back to the app: the client's next try passes.
    pub fn let_go(&self, tuple: &Tuple) {
        match lock(&self.holds).remove(tuple) {
            Err(error) if !is(&error, libc::ENOENT) => {
                tracing::warn!(%error, "a segment stays held for a while");
            }
            _ => {}
        }
    }

    /// Forgets parked connections whose sockets are gone, the agent's and the app's. Call it now and then, inside the
    /// namespace.
    ///
    /// A socket in TIME_WAIT is there for a minute, so a part of them is looked at each time: the calls take some
    /// milliseconds however many connections have ended.
    pub fn sweep(&self, diag: &SockDiag) {
        const AT_LEAST: usize = 64;
        const CALLS: usize = 16;
        let ended: Vec<_> = {
            let mut ended = lock(&self.ended);
            let part = ended.len().min(AT_LEAST.max(ended.len() / CALLS));
            ended.drain(..part).collect()
        };
        for ended in ended {
            // Nobody else can begin to move a connection with the same addresses meanwhile.
            let mut flows = lock(&self.flows);
            // The program deletes an entry when the client comes back with a new connection.
            if matches!(flows.get(&ended.tuple, 0), Err(MapError::KeyNotFound)) {
                continue;
            }
            if ended.sockets().all(|(local, peer)| matches!(diag.look_up(local, peer), Ok(None))) {
                // It may have been forgotten, as above.
                let _ = flows.remove(&ended.tuple);
            } else {
                drop(flows);
                lock(&self.ended).push_back(ended);
            }
        }
    }

    /// Do the clients have all that the agent and the apps had to say on parked connections? Then nothing is lost
    /// when the programs go.
    pub fn are_quiet(&self, diag: &SockDiag) -> bool {
        *lock(&self.served) == 0
            && lock(&self.ended).iter().flat_map(Ended::sockets).all(|(local, peer)| {
                let facts = diag.look_up(local, peer);
                facts.is_ok_and(|facts| {
                    facts.is_none_or(|facts| facts.state == State::Closing { acknowledged: true })
                })
            })
    }

    fn forget(&self, tuple: &Tuple) {
        match lock(&self.flows).remove(tuple) {
            // The program has claimed the connection, and has said so.
            Err(error) if !is(&error, libc::ENOENT) => tracing::error!(%error, "a connection stays closed"),
            _ => {}
        }
    }
}

impl Ended {
    /// The agent's socket and the app's, each from its end.
    fn sockets(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let (client, app) = addresses(&self.tuple);
        [(SocketAddr::new(app.ip(), self.agent_port), client), (app, client)].into_iter()
    }
}

/// A connection that is being moved. Dropping it gives the connection back to the app.
pub struct Moving {
    flows: Arc<Flows>,
    tuple: Tuple,
    agent_port: u16,
    committed: bool,
}

impl Moving {
    /// Says where the connection's segments will go: of no effect as long as the hold stands. It is gone if we were stopped for
    /// too long, and the program gave us up.
    ///
    /// # Errors
    /// [`ClaimError::Expired`]: it is the app's.
    pub fn steer(&self) -> Result<(), ClaimError> {
        let flow = Flow { state: Flow::PARKED, agent_port: self.agent_port, padding: 0 };
        lock(&self.flows.flows).insert(self.tuple, flow, BPF_EXIST).map_err(ClaimError::of)
    }

    /// Makes the connection the agent's, [steered](Self::steer): its segments go to `agent_port` from now on.
    ///
    /// # Errors
    /// As [`Self::steer`].
    pub fn commit(mut self) -> Result<ParkedFlow, ClaimError> {
        // This decides it, and nothing is left to be done after it.
        lock(&self.flows.holds).remove(&self.tuple).map_err(ClaimError::of)?;
        self.committed = true;
        *lock(&self.flows.served) += 1;
        Ok(ParkedFlow { flows: Arc::clone(&self.flows), tuple: self.tuple, agent_port: self.agent_port })
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if !self.committed {
            // In this order: what comes meanwhile is dropped, and sent again.
            self.flows.forget(&self.tuple);
            self.flows.let_go(&self.tuple);
        }
    }
}

/// A parked connection, to be kept while the agent serves it. Afterwards its segments still go to the agent's
/// port until [`Flows::sweep`] finds the socket gone.
pub struct ParkedFlow {
    flows: Arc<Flows>,
    tuple: Tuple,
    agent_port: u16,
}

impl Drop for ParkedFlow {
    fn drop(&mut self) {
        lock(&self.flows.ended).push_back(Ended { tuple: self.tuple, agent_port: self.agent_port });
        *lock(&self.flows.served) -= 1;
    }
}

/// The client's address and the app's, IPv4 as IPv4.
pub fn addresses(tuple: &Tuple) -> (SocketAddr, SocketAddr) {
    let ip = |bytes: AddressBytes| -> IpAddr { Ipv6Addr::from(bytes).to_canonical() };
    (SocketAddr::new(ip(tuple.client), tuple.client_port), SocketAddr::new(ip(tuple.app), tuple.app_port))
}

fn is(error: &MapError, number: i32) -> bool {
    let number_of = |error: &io::Error| error.raw_os_error();
    match error {
        MapError::KeyNotFound => number == libc::ENOENT,
        MapError::SyscallError(error) => number_of(&error.io_error) == Some(number),
        MapError::IoError(error) => number_of(error) == Some(number),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
