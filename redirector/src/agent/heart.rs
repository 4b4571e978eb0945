//! The thread that says to a target's eBPF programs that the agent is alive, for as long as all of its other threads are.
//!
//! It does nothing that can wait. The others do: listing interfaces and attaching to them take a lock of the kernel's
//! (RTNL) that others hold for seconds on a busy node, where pods come and go.

use super::{urgency::be_urgent, worker::Pulse};
use crate::datapath::Heartbeat;
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const INTERVAL: Duration = Duration::from_nanos(redirector_common::HEARTBEAT_INTERVAL_NS);

/// The thread. Dropping it ends it.
pub struct Heart {
    watched: Watched,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Pulses, and how old each may be.
type Watched = Arc<Mutex<Vec<(Arc<Pulse>, Duration)>>>;

impl Heart {
    /// Beats at once.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(mut heartbeat: Heartbeat) -> io::Result<Self> {
        let watched = Watched::default();
        let (stop, stopped) = mpsc::channel::<()>();
        let pulses = Arc::clone(&watched);
        beat(&mut heartbeat);
        let thread = thread::Builder::new().name("heart".to_owned()).spawn(move || {
            if let Err(error) = be_urgent() {
                tracing::debug!(%error, "on a busy machine the heart may beat too late");
            }
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if are_well(&pulses) {
                    beat(&mut heartbeat);
                }
            }
        })?;
        Ok(Self { watched, stop: Some(stop), thread: Some(thread) })
    }

    /// From now on there is no beat while this pulse is older than `patience`, or not well.
    pub fn watch(&self, pulse: Arc<Pulse>, patience: Duration) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push((pulse, patience));
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the heartbeat has failed");
        }
    }
}

fn are_well(watched: &Watched) -> bool {
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    watched.iter().all(|(pulse, patience)| pulse.is_well() && pulse.age() < *patience)
}

fn beat(heartbeat: &mut Heartbeat) {
    if let Err(error) = heartbeat.beat() {
        tracing::error!(%error, "no heartbeat: new connections go to the app");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_worker_stops_the_heart_and_a_warden_that_waits_for_the_kernel_does_not() {
        let (warden, worker) = (Pulse::new(), Pulse::new());
        let watched: Watched = Arc::new(Mutex::new(vec![
            (warden, Duration::from_secs(60)),
            (Arc::clone(&worker), Duration::from_millis(5)),
        ]));
        thread::sleep(Duration::from_millis(20));
        assert!(!are_well(&watched));
        worker.beat();
        watched.lock().unwrap()[1].1 = Duration::from_secs(60);
        assert!(are_well(&watched));
    }
}
