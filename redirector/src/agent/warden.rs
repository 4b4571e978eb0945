//! The one owner of everything that is attached to a target: it lives on a thread inside the target's network
//! namespace, and nothing it made is left when it ends.

use super::{
    ledger::TargetStats,
    worker::{Pulse, WorkerCommand},
};
use crate::{
    api::TargetStatus,
    datapath::{AttachKind, Door, DoorError, PortListeners},
    engine::PortContext,
    redirect_rules::{Certainty, RedirectFinding, redirect_of},
    target::{Target, listening::ListeningSockets, presence::Presence},
};
use redirector_common::Counter;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

/// As large as the kernel allows, which cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65535;

/// Above this age of a worker's pulse the target counts as hung, and new connections go to the app.
const HUNG: Duration = Duration::from_millis(300);

/// The namespace's interfaces and addresses, and whether it is still there, are looked at this often.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Why a port cannot be intercepted.
#[derive(Debug, Error)]
pub enum PortError {
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("cannot listen inside the target (is its loopback interface up?): {0}")]
    Listen(#[source] io::Error),
    #[error("the target is gone, or its thread hangs")]
    Gone,
}

/// What a warden is asked.
pub enum WardenCommand {
    /// Answers with what may keep the intercept from working.
    OpenPort {
        port: u16,
        context: PortContext,
        reply: oneshot::Sender<Result<Vec<String>, PortError>>,
    },
    ClosePort {
        port: u16,
        reply: oneshot::Sender<()>,
    },
    Status {
        reply: oneshot::Sender<TargetStatus>,
    },
    /// Detach everything; answers when nothing is attached any more.
    End {
        reply: oneshot::Sender<()>,
    },
}

/// What a warden works with.
pub struct Warden {
    pub target: Target,
    pub presence: Presence,
    pub workers: Vec<(mpsc::UnboundedSender<WorkerCommand>, Arc<Pulse>)>,
    /// Set, with the reason, when the target is no longer there.
    pub gone: watch::Sender<Option<String>>,
    door: Door,
    ports: BTreeMap<u16, PortContext>,
    stats: Arc<TargetStats>,
    /// What of the door's own counters is in `stats` already.
    booked: BTreeMap<&'static str, u64>,
}

impl Warden {
    /// Attaches to the namespace that the thread is in.
    pub fn open(
        target: Target,
        presence: Presence,
        workers: Vec<(mpsc::UnboundedSender<WorkerCommand>, Arc<Pulse>)>,
        gone: watch::Sender<Option<String>>,
        attach: AttachKind,
        log_packets: bool,
        stats: Arc<TargetStats>,
    ) -> Result<Self, DoorError> {
        let door = Door::open(attach, log_packets)?;
        let (ports, booked) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { target, presence, workers, gone, door, ports, stats, booked })
    }

    /// Runs until `commands` is closed or the target is gone. Everything is detached when it returns.
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<WardenCommand>) {
        let mut beat = interval(Duration::from_nanos(redirector_common::HEARTBEAT_INTERVAL_NS));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended = None;
        let mut look_around = interval(LOOK_AROUND);
        look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = beat.tick() => self.beat(),
                command = commands.recv() => match command {
                    Some(WardenCommand::End { reply }) => {
                        ended = Some(reply);
                        break;
                    }
                    Some(command) => self.obey(command),
                    None => break,
                },
                _ = look_around.tick() => if let Err(reason) = self.look_around() {
                    tracing::info!(target = %self.target, reason, "target is gone");
                    self.gone.send_replace(Some(reason));
                    break;
                },
            }
        }
        // The namespace lives as long as threads and sockets are in it: those of a target that is gone must go.
        let gone = self.gone.borrow().is_some();
        for port in self.ports.keys() {
            self.tell_workers(
                || {
                    if gone { WorkerCommand::Cut } else { WorkerCommand::Close { port: *port } }
                },
            );
        }
        self.book_packets();
        drop(self);
        if let Some(reply) = ended {
            // Whoever asked may have given up meanwhile.
            let _ = reply.send(());
        }
    }

    fn obey(&mut self, command: WardenCommand) {
        // Whoever asked may have given up meanwhile: then the answer has no receiver.
        match command {
            WardenCommand::OpenPort { port, context, reply } => {
                let _ = reply.send(self.open_port(port, context));
            }
            WardenCommand::ClosePort { port, reply } => {
                if let Err(error) = self.door.close_port(port) {
                    tracing::warn!(%error, port, "cannot close a port");
                }
                self.ports.remove(&port);
                self.tell_workers(|| WorkerCommand::Close { port });
                let _ = reply.send(());
            }
            WardenCommand::Status { reply } => {
                let _ = reply.send(self.status());
            }
            // Ends the loop that calls this.
            WardenCommand::End { .. } => {}
        }
    }

    fn open_port(&mut self, port: u16, context: PortContext) -> Result<Vec<String>, PortError> {
        let listeners = PortListeners {
            v4: listen(Ipv4Addr::LOCALHOST.into()).map_err(PortError::Listen)?,
            v6: listen(Ipv6Addr::LOCALHOST.into()).ok(),
        };
        // All of them before anything is assigned: a listener that nobody accepts on would hold connections.
        let clones = (self.workers.iter())
            .map(|_| [Some(&listeners.v4), listeners.v6.as_ref()].into_iter().flatten())
            .map(|both| both.map(TcpListener::try_clone).collect::<Result<Vec<_>, _>>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(PortError::Listen)?;
        for ((worker, _), listeners) in self.workers.iter().zip(clones) {
            // A worker that is gone has no pulse, so nothing is assigned any more.
            let _ = worker.send(WorkerCommand::Listen { port, listeners, context: context.clone() });
        }
        if let Err(error) = self.door.open_port(port, &listeners) {
            self.tell_workers(|| WorkerCommand::Close { port });
            return Err(error.into());
        }
        self.ports.insert(port, context);
        Ok(warnings(port))
    }

    fn tell_workers(&self, command: impl Fn() -> WorkerCommand) {
        for (worker, _) in &self.workers {
            // One that is gone needs no telling.
            let _ = worker.send(command());
        }
    }

    fn beat(&mut self) {
        if self.workers.iter().all(|(_, pulse)| pulse.is_well() && pulse.age() < HUNG)
            && let Err(error) = self.door.beat()
        {
            tracing::error!(%error, "no heartbeat: new connections go to the app");
        }
    }

    fn look_around(&mut self) -> Result<(), String> {
        self.presence.check().map_err(|gone| gone.to_string())?;
        if let Err(error) = self.door.refresh() {
            tracing::warn!(target = %self.target, %error, "cannot follow the target's interfaces");
        }
        Ok(())
    }

    /// Moves what the door has counted to where it outlives the door.
    fn book_packets(&mut self) {
        let counters = self.door.counters();
        for (outcome, name) in Counter::ALL {
            let (now, booked) = (counters.get(name).copied(), self.booked.entry(name).or_default());
            // A map that can't be read now can be the next time.
            let now = now.unwrap_or_default().max(*booked);
            self.stats.add_packets(outcome, now - *booked);
            *booked = now;
        }
    }

    fn status(&mut self) -> TargetStatus {
        self.book_packets();
        TargetStatus {
            target: self.target.clone(),
            attached: self
                .door
                .attachments()
                .map(|(interface, kind)| (interface.to_owned(), format!("{kind:?}").to_lowercase()))
                .collect(),
            packets: self.stats.packets().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            ports: self.ports.iter().map(|(port, context)| (*port, context.stats.read())).collect(),
        }
    }
}

/// A listening socket of the agent in the namespace of the calling thread.
///
/// On a loopback address, so that nothing outside can connect to it; what is assigned to it keeps its own.
/// `SO_REUSEADDR`, because accepted sockets inherit it, and the app must be able to bind its port again while
/// they exist; `TCP_NODELAY`, because they inherit that as well. No `SO_REUSEPORT`: `bpf_sk_assign` takes such
/// listeners from kernel 6.6 only.
fn listen(address: std::net::IpAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::new(address, 0).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What a user should know who intercepts `port` of the namespace that the thread is in.
fn warnings(port: u16) -> Vec<String> {
    let mut warnings = Vec::new();
    match ListeningSockets::of_current_netns() {
        Ok(sockets) if !sockets.listens_on(port) => warnings.push(format!(
            "nothing listens on port {port} in the target now: connections are refused until the app starts"
        )),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot read the target's listening sockets"),
    }
    match redirect_of(port) {
        Ok(Some(RedirectFinding { table, chain, rule, certainty })) => {
            let verb = match certainty {
                Certainty::Redirects => "redirects",
                Certainty::MayRedirect => "may redirect",
            };
            warnings.push(format!(
                "netfilter (iptables or nftables) in the target {verb} port {port}, as service meshes do: what it \
                 takes never reaches this intercept ({table}, chain {chain}: {rule})"
            ));
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "cannot tell whether netfilter redirects the port"),
    }
    warnings
}
