//! The one owner of everything that is attached to a target: it lives on a thread inside the target's network
//! namespace, and nothing it made is left when it ends.

use super::{
    app_connections::{Anew, AppConnections, PortView, idle},
    heart::Heart,
    ledger::TargetStats,
    parking::Parking,
    port_inside::{address_inside, listen, obstacles},
    steering::{Spoken, Steering},
    warden_command::{PortError, WardenCommand},
    worker::{Pulse, WorkerCommand},
};
use crate::{
    api::TargetStatus,
    datapath::{Door, Heartbeat, LoadedPrograms, PortListeners},
    engine::{PortContext, speaks_http2, tls::probe},
    park::Mover,
    sock_diag::SockDiag,
    target::{Target, presence::Presence},
};
use redirector_common::{Counter, PORT_HTTP2};
use std::{
    collections::BTreeMap,
    future::pending,
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::{MissedTickBehavior, interval, sleep},
};

/// Above this age of the pulse of a thread that traffic waits for, the target counts as hung, and new connections go to the
/// app.
const HUNG: Duration = Duration::from_millis(300);

/// The same for the warden's own, which waits for the kernel now and then, and no traffic for it.
const LOST: Duration = Duration::from_secs(120);

/// The namespace's interfaces and addresses, and whether it is still there, are looked at this often.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// How long whoever ends a target waits for its parked connections.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long parked connections have, once the agent ends.
const PARKED_DEADLINE: Duration = Duration::from_secs(3);

/// What a warden works with.
pub struct Warden {
    pub target: Target,
    pub presence: Presence,
    pub workers: Vec<(mpsc::UnboundedSender<WorkerCommand>, Arc<Pulse>)>,
    /// Set, with the reason, when the target is no longer there.
    pub gone: watch::Sender<Option<String>>,
    drain: watch::Receiver<bool>,
    door: Door,
    heart: Heart,
    pulse: Arc<Pulse>,
    /// Why not, where connections can't be parked. It is there from the first on who asks for inspection.
    parking: Result<Parking, String>,
    /// The programs that inspect are being loaded for those who wait.
    loading: Option<JoinHandle<LoadedPrograms>>,
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
    ports: BTreeMap<u16, Port>,
    stats: Arc<TargetStats>,
    /// What of the door's own counters is in `stats` already.
    booked: BTreeMap<&'static str, u64>,
}

/// An open port.
struct Port {
    context: PortContext,
    steering: Steering,
    /// New connections go to the agent.
    assigned: bool,
    /// Since when connections of the app's are inspected, if they are.
    inspected: Option<Instant>,
}

impl Warden {
    /// For the namespace that the thread is in, where `door` is attached.
    pub fn new(
        target: Target,
        presence: Presence,
        workers: Vec<(mpsc::UnboundedSender<WorkerCommand>, Arc<Pulse>)>,
        gone: watch::Sender<Option<String>>,
        drain: watch::Receiver<bool>,
        (door, heartbeat): (Door, Heartbeat),
        stats: Arc<TargetStats>,
    ) -> io::Result<Self> {
        let (heart, pulse) = (Heart::start(heartbeat)?, Pulse::new());
        heart.watch(Arc::clone(&pulse), LOST);
        for (_, worker) in &workers {
            heart.watch(Arc::clone(worker), HUNG);
        }
        let parking = Err("nobody has asked for it".to_owned());
        let (ports, booked, waiting) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let loading = None;
        Ok(Self {
            target,
            presence,
            workers,
            gone,
            drain,
            door,
            heart,
            pulse,
            parking,
            loading,
            waiting,
            ports,
            stats,
            booked,
        })
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
                _ = beat.tick() => {
                    self.pulse.beat();
                    self.door.flush_log();
                    self.learn();
                }
                command = commands.recv() => match command {
                    Some(WardenCommand::End { reply }) => {
                        ended = Some(reply);
                        break;
                    }
                    Some(command) => self.obey(command),
                    None => break,
                },
                programs = finished(&mut self.loading) => match programs {
                    Some(programs) => self.get_ready_to_inspect(programs),
                    None => {
                        self.gone.send_replace(Some("the thread that loads its programs has failed".to_owned()));
                        break;
                    }
                },
                _ = look_around.tick() => if let Err(reason) = self.look_around() {
                    tracing::info!(target = %self.target, reason, "target is gone");
                    self.gone.send_replace(Some(reason));
                    break;
                },
            }
        }
        for port in self.ports.keys() {
            if let Err(error) = self.door.close_port(*port) {
                tracing::warn!(%error, port, "cannot close a port");
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
        if !gone {
            self.wait_for_parked(&mut ended).await;
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
            WardenCommand::Steer { port, steering, reply } => {
                let _ = reply.send(self.steer(port, steering));
            }
            WardenCommand::ClosePort { port, reply } => {
                if let Ok(parking) = &self.parking {
                    parking.close_port(port);
                }
                if let Err(error) = self.door.close_port(port) {
                    tracing::warn!(%error, port, "cannot close a port");
                }
                self.ports.remove(&port);
                self.tell_workers(|| WorkerCommand::Close { port });
                let _ = reply.send(());
            }
            WardenCommand::ProbeTls { port, keys, reply } => {
                // The heartbeat does not wait for the app.
                spawn_local(async move {
                    let warnings = match address_inside(port) {
                        Some(address) => probe(address, &keys).await,
                        // Another warning says that nothing listens.
                        None => Vec::new(),
                    };
                    let _ = reply.send(warnings);
                });
            }
            WardenCommand::ProbeHttp2 { port, reply } => {
                let stats = self.ports.get(&port).map(|open| Arc::clone(&open.context.stats));
                spawn_local(async move {
                    if let (Some(stats), Some(address)) = (stats, address_inside(port))
                        && speaks_http2(address).await
                    {
                        stats.began_with.fetch_or(PORT_HTTP2, Relaxed);
                    }
                    let _ = reply.send(());
                });
            }
            WardenCommand::Inspection { reply } => self.answer_inspection(reply),
            WardenCommand::CanClose { reply } => {
                let can_close = SockDiag::open().and_then(|diag| diag.can_close());
                let _ = reply.send(can_close.map_err(PortError::CannotClose));
            }
            WardenCommand::CloseExisting { port, reply } => self.close_existing(port, reply),
            WardenCommand::Status { connections, reply } => self.answer_status(connections, reply),
            // Ends the loop that calls this.
            WardenCommand::End { .. } => {}
        }
    }

    /// Only where somebody asks the programs are loaded, and elsewhere: other commands do not wait for the verifier.
    fn answer_inspection(&mut self, reply: oneshot::Sender<Result<(), String>>) {
        if self.loading.is_some() {
            self.waiting.push(reply);
        } else if let Some(programs) = self.door.unloaded() {
            self.waiting.push(reply);
            self.loading = Some(spawn_blocking(move || programs.load()));
        } else {
            let inspection = self.door.inspection();
            let parking = || self.parking.as_ref().map(drop).map_err(Clone::clone);
            // Whoever asked may have given up meanwhile.
            let _ = reply.send(inspection.and_then(|()| parking()));
        }
    }

    fn get_ready_to_inspect(&mut self, programs: LoadedPrograms) {
        self.loading = None;
        self.door.loaded(programs);
        self.parking = self.open_parking();
        if let Err(reason) = &self.parking {
            tracing::info!(target = %self.target, reason, "connections that exist already can't be intercepted");
        }
        for reply in std::mem::take(&mut self.waiting) {
            let _ = reply.send(self.parking.as_ref().map(drop).map_err(Clone::clone));
        }
    }

    /// Gets ready to park connections, those of open ports too, or says why that is impossible.
    fn open_parking(&mut self) -> Result<Parking, String> {
        self.door.inspection()?;
        let (ring, flows) = self.door.take_held().map_err(|error| error.to_string())?;
        let mover =
            Mover::open(flows).map_err(|error| format!("CAP_NET_RAW and sock_diag are needed: {error}"))?;
        let workers = self.workers.iter().map(|(worker, _)| worker.clone()).collect();
        let parking = Parking::start(mover, ring, workers).map_err(|error| error.to_string())?;
        self.heart.watch(Arc::clone(parking.pulse()), HUNG);
        for (port, open) in &self.ports {
            parking.open_port(*port, &open.context).map_err(|error| PortError::Park(error).to_string())?;
        }
        Ok(parking)
    }

    fn open_port(&mut self, port: u16, context: PortContext) -> Result<Vec<String>, PortError> {
        let warnings = obstacles(port)?;
        if let Ok(parking) = &self.parking {
            parking.open_port(port, &context).map_err(PortError::Park)?;
        }
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
        let steering = Steering::default();
        self.ports.insert(port, Port { context, steering, assigned: false, inspected: None });
        Ok(warnings)
    }

    fn steer(&mut self, port: u16, steering: Steering) -> Result<(), PortError> {
        let Some(open) = self.ports.get_mut(&port) else { return Err(PortError::Gone) };
        let inspects = !steering.needles.is_empty();
        if inspects && open.inspected.is_none() {
            match SockDiag::open().and_then(|diag| diag.established(port, None)) {
                Ok(connections) => self.door.remember(idle(&connections)),
                // Then their first request is the app's.
                Err(error) => tracing::warn!(%error, port, "existing connections can't be listed"),
            }
        }
        self.door.watch(port, &steering.needles)?;
        open.inspected = inspects.then(|| open.inspected.unwrap_or_else(Instant::now));
        open.assigned = steering.assigns(Spoken::of(&open.context.stats));
        self.door.assign(port, open.assigned)?;
        open.steering = steering;
        Ok(())
    }

    /// Sends new connections to where their requests are seen, now that more is known of what clients speak. Those that
    /// are there stay where they are.
    fn learn(&mut self) {
        for (port, open) in &mut self.ports {
            let stats = &open.context.stats;
            if open.inspected.is_some() {
                stats.began_with.fetch_or(self.door.protocols(*port), Relaxed);
            }
            let wanted = open.steering.assigns(Spoken::of(stats));
            if wanted == open.assigned {
                continue;
            }
            match self.door.assign(*port, wanted) {
                Ok(()) => {
                    open.assigned = wanted;
                    let to = if wanted { "the agent" } else { "the app" };
                    tracing::info!(target = %self.target, port, "new connections go to {to} from now on");
                }
                Err(error) => tracing::warn!(%error, port, "new connections go where they went before"),
            }
        }
    }

    /// Everything that is needed to list the connections of a port of the app's.
    fn app_connections(&self, port: u16, server_speaks_http2: bool) -> io::Result<AppConnections> {
        let inspected_for =
            self.ports.get(&port).and_then(|open| open.inspected).map(|since| since.elapsed());
        let inside = self.door.addresses().clone();
        let view = PortView { inside, inspected_for, server_speaks_http2 };
        Ok(AppConnections { port, diag: SockDiag::open()?, known: self.door.connections()?, view })
    }

    /// Parked connections need the programs until they have ended. They end when they are idle; whoever ended the target
    /// does not wait for that longer than [`PATIENCE`].
    async fn wait_for_parked(&mut self, ended: &mut Option<oneshot::Sender<()>>) {
        const PAUSE: Duration = Duration::from_millis(20);
        if let Ok(parking) = &self.parking {
            parking.close();
        }
        let started = Instant::now();
        let mut draining = None;
        while self.parking.as_ref().is_ok_and(|parking| !parking.is_quiet()) {
            sleep(PAUSE).await;
            self.pulse.beat();
            if started.elapsed() > PATIENCE
                && let Some(reply) = ended.take()
            {
                let _ = reply.send(());
            }
            if *self.drain.borrow() && draining.get_or_insert_with(Instant::now).elapsed() > PARKED_DEADLINE {
                tracing::info!(target = %self.target, "parked connections cut at the end of the drain");
                return;
            }
            if self.presence.check().is_err() {
                return;
            }
        }
    }

    fn tell_workers(&self, command: impl Fn() -> WorkerCommand) {
        for (worker, _) in &self.workers {
            // One that is gone needs no telling.
            let _ = worker.send(command());
        }
    }

    fn look_around(&mut self) -> Result<(), String> {
        self.presence.check().map_err(|gone| gone.to_string())?;
        if let Err(error) = self.door.refresh() {
            tracing::warn!(target = %self.target, %error, "cannot follow the target's interfaces");
        }
        if let Ok(parking) = &self.parking {
            parking.sweep();
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

    /// What is slow is done elsewhere: the heartbeat does not wait for it.
    fn answer_status(&mut self, connections: bool, reply: oneshot::Sender<TargetStatus>) {
        let mut status = self.status();
        if !connections {
            let _ = reply.send(status);
            return;
        }
        let spoken = |open: &Port| Spoken::of(&open.context.stats);
        let ports: Vec<_> =
            (self.ports.iter()).map(|(port, open)| self.app_connections(*port, spoken(open).http2)).collect();
        spawn_local(async move {
            let listed = spawn_blocking(move || {
                ports.into_iter().map(|port| port.and_then(|port| Ok((port.port, port.listed()?)))).collect()
            });
            let listed: Vec<io::Result<_>> = listed.await.unwrap_or_default();
            for port in listed {
                match port {
                    Ok((port, connections)) => {
                        status.unseen.insert(port, connections.into_iter().collect());
                    }
                    Err(error) => tracing::warn!(%error, "connections can't be listed"),
                }
            }
            let _ = reply.send(status);
        });
    }

    fn close_existing(&mut self, port: u16, reply: oneshot::Sender<Result<u64, PortError>>) {
        // Before their clients connect anew.
        self.learn();
        let Some(open) = self.ports.get(&port) else {
            let _ = reply.send(Err(PortError::Gone));
            return;
        };
        let http2 = Spoken::of(&open.context.stats).http2;
        let anew = Anew { through_agent: open.assigned, keys: open.context.routes.has_keys() };
        let connections = self.app_connections(port, http2).map_err(PortError::Connections);
        spawn_local(async move {
            let closed = async {
                let connections = connections?;
                spawn_blocking(move || connections.close(anew).map_err(PortError::CannotClose))
                    .await
                    .map_err(|_| PortError::Gone)?
            };
            let _ = reply.send(closed.await);
        });
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
            addresses: self.door.addresses().iter().copied().collect(),
            packets: self.stats.packets().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            ports: self.ports.iter().map(|(port, open)| (*port, open.context.stats.read())).collect(),
            unseen: BTreeMap::new(),
        }
    }
}

/// What a thread was started for, `None` if it has failed. Never, if there is none.
async fn finished<T>(thread: &mut Option<JoinHandle<T>>) -> Option<T> {
    match thread {
        Some(thread) => thread.await.ok(),
        None => pending().await,
    }
}
