//! The threads that serve one target's connections. Each is inside the target's network namespace for good, and
//! runs a scheduler of its own: a connection stays on the thread that accepted it.

use super::parking::ParkedJob;
use crate::engine::{self, Arrival, ClientAddr, OriginalDst, PortContext};
use std::{
    cell::Cell,
    collections::HashMap,
    io,
    net::TcpListener as StdListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, spawn_local},
    time::sleep,
};

/// Connections that the kernel gave to a listener before its port was closed are still served; their handshake may
/// need a retransmission.
const ACCEPT_AFTER_CLOSE: Duration = Duration::from_secs(3);

/// The same, when the agent ends.
const ACCEPT_AFTER_END: Duration = Duration::from_millis(300);

/// How long idle connections and running requests have, once the agent ends.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// What a worker is told.
pub enum WorkerCommand {
    Listen {
        port: u16,
        listeners: Vec<StdListener>,
        context: PortContext,
    },
    Close {
        port: u16,
    },
    /// Serve a connection that was the app's.
    Serve(Box<ParkedJob>),
    /// Drop all connections and end.
    Cut,
}

/// Tells from outside that a worker's scheduler runs.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
    /// Connections can't be accepted now.
    unwell: AtomicBool,
}

impl Pulse {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), last: AtomicU64::new(0), unwell: AtomicBool::new(false) })
    }

    pub fn beat(&self) {
        self.last.store(self.started.elapsed().as_millis() as u64, Relaxed);
    }

    /// Can connections be accepted?
    pub fn is_well(&self) -> bool {
        !self.unwell.load(Relaxed)
    }

    /// How long ago the last beat was.
    pub fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }
}

/// Runs until `commands` is closed and the last connection is gone, or, once `drain` says so, for
/// [`DRAIN_DEADLINE`] at most.
pub async fn run(
    mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
    mut drain: watch::Receiver<bool>,
    pulse: Arc<Pulse>,
) {
    let beating = Arc::clone(&pulse);
    let beat = spawn_local(async move {
        loop {
            beating.beat();
            sleep(Duration::from_nanos(redirector_common::HEARTBEAT_INTERVAL_NS)).await;
        }
    });
    let connections = Connections::default();
    let mut accepting: HashMap<u16, Vec<AbortHandle>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            WorkerCommand::Cut => return,
            WorkerCommand::Serve(job) => {
                let open = connections.open();
                spawn_local(async move {
                    job.run().await;
                    drop(open);
                });
            }
            WorkerCommand::Listen { port, listeners, context } => {
                let loops = listeners
                    .into_iter()
                    .filter_map(|listener| TcpListener::from_std(listener).inspect_err(log_listener).ok())
                    .map(|listener| {
                        spawn_local(accept(
                            listener,
                            port,
                            context.clone(),
                            connections.clone(),
                            Arc::clone(&pulse),
                        ))
                        .abort_handle()
                    });
                accepting.entry(port).or_default().extend(loops);
            }
            WorkerCommand::Close { port } => {
                for handle in accepting.remove(&port).unwrap_or_default() {
                    spawn_local(async move {
                        sleep(ACCEPT_AFTER_CLOSE).await;
                        handle.abort();
                    });
                }
            }
        }
    }
    // A target without intercepts: its connections stay until they end by themselves.
    tokio::select! {
        () = sleep(ACCEPT_AFTER_CLOSE) => {}
        () = async {
            let _ = drain.wait_for(|drain| *drain).await;
            sleep(ACCEPT_AFTER_END).await;
        } => {}
    }
    tokio::select! {
        () = connections.none_left() => {}
        () = async {
            // An error means that the agent is gone without a word; then there is nothing to wait for either.
            let _ = drain.wait_for(|drain| *drain).await;
            sleep(DRAIN_DEADLINE).await;
        } => tracing::info!(left = connections.open.get(), "connections cut at the end of the drain"),
    }
    beat.abort();
}

async fn accept(
    listener: TcpListener,
    port: u16,
    context: PortContext,
    connections: Connections,
    pulse: Arc<Pulse>,
) {
    let context = Rc::new(context);
    loop {
        match listener.accept().await {
            Ok((client, client_addr)) => {
                pulse.unwell.store(false, Relaxed);
                // Another port is the listener's own, found by someone inside the target: not a connection to serve.
                let Some(original_dst) = client.local_addr().ok().filter(|local| local.port() == port) else {
                    continue;
                };
                let (client_addr, original_dst) = (ClientAddr(client_addr), OriginalDst(original_dst));
                let (context, open) = (Rc::clone(&context), connections.open());
                spawn_local(async move {
                    engine::serve(client, client_addr, original_dst, Arrival::Accepted, &context).await;
                    drop(open);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of descriptors, most likely. Until it works again new connections go to the app.
                if !pulse.unwell.swap(true, Relaxed) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn log_listener(error: &io::Error) {
    tracing::error!(%error, "a listener could not be used");
}

/// Counts the connections of one worker.
#[derive(Clone, Default)]
struct Connections {
    open: Rc<Cell<usize>>,
    changed: Rc<Notify>,
}

struct OpenConnection(Connections);

impl Connections {
    fn open(&self) -> OpenConnection {
        self.open.set(self.open.get() + 1);
        OpenConnection(self.clone())
    }

    async fn none_left(&self) {
        while self.open.get() > 0 {
            self.changed.notified().await;
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.changed.notify_one();
    }
}
