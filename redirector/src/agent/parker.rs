//! The thread that moves held connections to the agent. A held segment waits for it, and not for long: so it does nothing
//! else, and comes before others.

use super::{
    parking::{ParkedJob, Ports},
    urgency::be_urgent,
    worker::{Pulse, WorkerCommand},
};
use crate::{
    engine::bump,
    park::{HeldRing, HeldSegment, Mover},
};
use aya::maps::{MapData, RingBuf};
use std::{
    convert::Infallible,
    io,
    sync::{Arc, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

/// The thread. Dropping it ends it.
pub struct Parker {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
pub struct Moves {
    pub mover: Arc<Mover>,
    pub ports: Ports,
    pub workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    pub pulse: Arc<Pulse>,
}

impl Parker {
    /// Call it inside the target's namespace: the thread is where its parent is.
    ///
    /// # Errors
    /// When there can be no thread, or it can't wait for the ring buffer.
    pub fn start(moves: Moves, ring: RingBuf<MapData>) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("parker".to_owned()).spawn(move || {
            if let Err(error) = be_urgent() {
                tracing::debug!(%error, "on a busy machine some held requests may reach the app");
            }
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    Err(error) = moves.run(ring) => {
                        tracing::error!(%error, "held segments can't be received: they pass on to the app");
                    }
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Parker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that moves connections has failed");
        }
    }
}

impl Moves {
    async fn run(self, ring: RingBuf<MapData>) -> io::Result<Infallible> {
        let mut ring = HeldRing::new(ring)?;
        let mut beat = interval(Duration::from_nanos(redirector_common::HEARTBEAT_INTERVAL_NS));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0;
        loop {
            tokio::select! {
                received = ring.receive(|record| {
                    turn = (turn + 1) % self.workers.len();
                    self.park(record, turn);
                }) => received?,
                _ = beat.tick() => {}
            }
            self.pulse.beat();
        }
    }

    /// `worker`: who serves it afterwards.
    fn park(&self, record: &[u8], worker: usize) {
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
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let port = ports.get(&held.tuple.app_port);
        let Some((agent_port, context)) = port.map(|port| (port.agent_port, port.context.clone())) else {
            self.mover.let_go(&held.tuple);
            return;
        };
        drop(ports);
        let started = Instant::now();
        match self.mover.park(&held, agent_port) {
            Ok(parked) => {
                bump(&context.stats.parking.parked);
                tracing::debug!(client = %parked.client, took = ?started.elapsed(), "parked");
                let job = ParkedJob { parked, context, mover: Arc::clone(&self.mover) };
                // Dropped when the worker is gone, which ends the connection. Then nothing more is held: it has no pulse.
                let _ = self.workers[worker].send(WorkerCommand::Serve(Box::new(job)));
            }
            Err(reason) => {
                tracing::debug!(%reason, "a connection stays with the app");
                bump(&context.stats.parking.given_back);
            }
        }
    }
}
