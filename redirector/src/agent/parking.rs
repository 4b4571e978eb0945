//! Parking on one target: which ports' connections are moved to the agent, and where. The `parker` moves them, the workers serve
//! them.

use super::{
    parker::{Moves, Parker},
    worker::{Pulse, WorkerCommand},
};
use crate::{
    engine::{self, Arrival, PortContext},
    park::{Mover, Parked},
};
use aya::maps::{MapData, RingBuf};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::spawn_local,
};

/// What the warden has of it. Dropping it leaves held segments to their deadline.
pub struct Parking {
    mover: Arc<Mover>,
    ports: Ports,
    /// By port of the service. They stay: segments of connections that have ended may still come.
    reserved: RefCell<BTreeMap<u16, Reserved>>,
    pulse: Arc<Pulse>,
    /// Dropped after the rest: it ends a thread.
    _parker: Parker,
}

/// A local port that nobody else gets as long as the socket is there. Repaired sockets can have it all the same.
struct Reserved {
    port: u16,
    _socket: Socket,
}

pub type Ports = Arc<Mutex<BTreeMap<u16, ParkingPort>>>;

/// One intercepted port.
pub struct ParkingPort {
    /// Where the port's parked connections are, as the kernel sees them.
    pub agent_port: u16,
    pub context: PortContext,
    /// Ends parked connections when they are idle.
    retire: Arc<watch::Sender<bool>>,
}

/// A connection that was moved, to be served by a worker.
pub struct ParkedJob {
    pub parked: Parked,
    pub context: PortContext,
    pub mover: Arc<Mover>,
}

impl Parking {
    /// Call it inside the target's namespace, on the warden's thread.
    ///
    /// # Errors
    /// When there can be no thread for it.
    pub fn start(
        mover: Mover,
        ring: RingBuf<MapData>,
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    ) -> io::Result<Self> {
        let mover = Arc::new(mover);
        let ports = Ports::default();
        let pulse = Pulse::new();
        let moves = Moves {
            mover: Arc::clone(&mover),
            ports: Arc::clone(&ports),
            workers,
            pulse: Arc::clone(&pulse),
        };
        let parker = Parker::start(moves, ring)?;
        Ok(Self { mover, ports, reserved: RefCell::default(), pulse, _parker: parker })
    }

    /// Tells whether held segments are taken.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Connections to `port` can be parked from now on.
    ///
    /// # Errors
    /// When no port can be reserved.
    pub fn open_port(&self, port: u16, context: &PortContext) -> io::Result<()> {
        let agent_port = self.agent_port(port)?;
        let (retire, retired) = watch::channel(false);
        let retire = Arc::new(retire);
        let context = PortContext { drain: retired, ..context.clone() };
        self.ports().insert(port, ParkingPort { agent_port, context, retire });
        Ok(())
    }

    fn agent_port(&self, port: u16) -> io::Result<u16> {
        let mut reserved = self.reserved.borrow_mut();
        if let Some(reserved) = reserved.get(&port) {
            return Ok(reserved.port);
        }
        let new = Reserved::new()?;
        self.mover.reserve(new.port, port).map_err(io::Error::other)?;
        let agent_port = new.port;
        reserved.insert(port, new);
        Ok(agent_port)
    }

    /// No connection to `port` is parked any more; those that are end when they are idle.
    pub fn close_port(&self, port: u16) {
        if let Some(port) = self.ports().remove(&port) {
            port.retire.send_replace(true);
        }
    }

    /// The same with all ports.
    pub fn close(&self) {
        for (_, port) in std::mem::take(&mut *self.ports()) {
            port.retire.send_replace(true);
        }
    }

    fn ports(&self) -> MutexGuard<'_, BTreeMap<u16, ParkingPort>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called now and then.
    pub fn sweep(&self) {
        self.mover.sweep();
    }

    /// Nothing is lost when the eBPF programs go.
    pub fn is_quiet(&self) -> bool {
        self.mover.is_quiet()
    }
}

impl ParkedJob {
    /// Serves the connection to its end.
    pub async fn run(self) {
        let Self { parked, context, mover } = self;
        let (client, original_dst) = (parked.client, parked.original_dst);
        let farewell = parked.farewell;
        spawn_local(async move { mover.farewell(client, original_dst, farewell).await });
        match TcpStream::from_std(parked.stream) {
            Ok(stream) => engine::serve(stream, client, original_dst, Arrival::Parked, &context).await,
            Err(error) => tracing::error!(%error, "a parked connection can't be served"),
        }
        drop(parked.flow);
    }
}

impl Reserved {
    fn new() -> io::Result<Self> {
        Self::on(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| Self::on(Ipv4Addr::UNSPECIFIED.into()))
    }

    /// `address`: that of all interfaces; IPv6 then includes IPv4.
    fn on(address: IpAddr) -> io::Result<Self> {
        let address = SocketAddr::new(address, 0);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { port: bound.port(), _socket: socket })
    }
}
