//! Parking on one target: takes held segments from the eBPF program and has the workers move their connections.

use super::worker::WorkerCommand;
use crate::{
    engine::{self, Arrival, PortContext, bump},
    park::{HeldRing, HeldSegment, Mover},
};
use aya::maps::{MapData, RingBuf};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::{AbortHandle, spawn_local},
};

/// What the warden has of it. Dropping it leaves held segments to their deadline.
pub struct Parking {
    mover: Arc<Mover>,
    ports: Ports,
    /// By port of the service. They stay: segments of connections that have ended may still come.
    reserved: RefCell<BTreeMap<u16, Reserved>>,
    receiving: AbortHandle,
}

/// A local port that nobody else gets as long as the socket is there. Repaired sockets can have it all the same.
struct Reserved {
    port: u16,
    _socket: Socket,
}

type Ports = Rc<RefCell<BTreeMap<u16, ParkingPort>>>;

/// One intercepted port.
struct ParkingPort {
    /// Where the port's parked connections are, as the kernel sees them.
    agent_port: u16,
    context: PortContext,
    /// Ends parked connections when they are idle.
    retire: Arc<watch::Sender<bool>>,
}

/// One connection to be moved and served, by a worker.
pub struct ParkingJob {
    held: HeldSegment,
    agent_port: u16,
    context: PortContext,
    mover: Arc<Mover>,
}

impl Parking {
    /// Call it inside the target's namespace, on the warden's thread.
    ///
    /// # Errors
    /// When the runtime can't wait for the ring buffer.
    pub fn start(
        mover: Mover,
        ring: RingBuf<MapData>,
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    ) -> io::Result<Self> {
        let mover = Arc::new(mover);
        let ports = Ports::default();
        let receiver = Receiver { mover: Arc::clone(&mover), ports: Rc::clone(&ports), workers, turn: 0 };
        let receiving = spawn_local(receiver.run(HeldRing::new(ring)?)).abort_handle();
        Ok(Self { mover, ports, reserved: RefCell::default(), receiving })
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
        self.ports.borrow_mut().insert(port, ParkingPort { agent_port, context, retire });
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
        if let Some(port) = self.ports.borrow_mut().remove(&port) {
            port.retire.send_replace(true);
        }
    }

    /// The same with all ports.
    pub fn close(&self) {
        for (_, port) in std::mem::take(&mut *self.ports.borrow_mut()) {
            port.retire.send_replace(true);
        }
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

impl Drop for Parking {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// Spreads held segments over the workers.
struct Receiver {
    mover: Arc<Mover>,
    ports: Ports,
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    turn: usize,
}

impl Receiver {
    async fn run(mut self, mut ring: HeldRing) {
        loop {
            if let Err(error) = ring.receive(|record| self.assign(record)).await {
                tracing::error!(%error, "held segments can't be received: they pass on to the app");
                return;
            }
        }
    }

    fn assign(&mut self, record: &[u8]) {
        let held = match HeldSegment::parse(record) {
            Ok(held) => held,
            Err((tuple, reason)) => {
                tracing::debug!(%reason, "a held segment is given back");
                if let Some(tuple) = tuple {
                    self.mover.let_go(&tuple);
                }
                return;
            }
        };
        let ports = self.ports.borrow();
        let Some(port) = ports.get(&held.tuple.app_port) else {
            self.mover.let_go(&held.tuple);
            return;
        };
        let job = ParkingJob {
            held,
            agent_port: port.agent_port,
            context: port.context.clone(),
            mover: Arc::clone(&self.mover),
        };
        self.turn = (self.turn + 1) % self.workers.len();
        // A worker that is gone has no pulse, so nothing more is held; this segment passes in time.
        let _ = self.workers[self.turn].send(WorkerCommand::Park(Box::new(job)));
    }
}

impl ParkingJob {
    /// Moves the connection and serves it to its end.
    pub async fn run(self) {
        let Self { held, agent_port, context, mover } = self;
        let started = Instant::now();
        let parked = match mover.park(&held, agent_port) {
            Ok(parked) => parked,
            Err(reason) => {
                tracing::debug!(%reason, "a connection stays with the app");
                bump(&context.stats.parking.given_back);
                return;
            }
        };
        let took = started.elapsed();
        bump(&context.stats.parking.parked);
        let (client, original_dst) = (parked.client, parked.original_dst);
        tracing::debug!(%client, %original_dst, ?took, "parked");
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
