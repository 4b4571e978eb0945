//! One intercepted target: its threads, and the way to talk to them.

use super::{
    ledger::TargetStats,
    steering::Steering,
    warden::Warden,
    warden_command::{PortError, WardenCommand},
    worker::{self, Pulse},
};
use crate::{
    api::{TargetStatus, Unseen},
    datapath::{AttachKind, Door, DoorError, PeerNames},
    engine::{PortContext, PortStats, Recorder, Routes, UpstreamConnector, tls::TlsKey},
    target::{Target, netns::Netns, presence::Presence, resolve::ResolvedTarget},
    trace::log::RequestLog,
};
use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
    time::timeout,
};

/// More workers than this do not make one target faster in practice.
const MAX_WORKERS: usize = 4;

/// How long a target's thread may take for one command. One that takes longer must not hold up the others. On a busy machine
/// the kernel was seen to take half a minute for one program that is attached or detached (an RCU grace period).
const PATIENCE: Duration = Duration::from_secs(60);

/// The same for a question, which can do without an answer.
const BRIEF_PATIENCE: Duration = Duration::from_secs(10);

/// Why a target cannot be intercepted.
#[derive(Debug, Error)]
pub enum HostError {
    #[error("cannot enter the target's network namespace (CAP_SYS_ADMIN needed): {0}")]
    Enter(#[source] io::Error),
    #[error("cannot start a thread for the target: {0}")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("the target's thread ended at once; the agent's log says why")]
    Died,
}

/// What all targets of an agent have in common.
#[derive(Clone)]
pub struct HostOptions {
    pub attach: AttachKind,
    pub log_packets: bool,
    pub peer_names: Option<Arc<PeerNames>>,
    pub drain: watch::Receiver<bool>,
    /// Where requests are remembered.
    pub log: Arc<RequestLog>,
}

/// A target with its threads. Dropping it detaches everything; the threads end with their last connection.
pub struct TargetHost {
    target: Target,
    upstream: UpstreamConnector,
    drain: watch::Receiver<bool>,
    log: Arc<RequestLog>,
    warden: mpsc::UnboundedSender<WardenCommand>,
    gone: watch::Receiver<Option<String>>,
}

impl TargetHost {
    /// Starts the threads and attaches. The handles are for the agent's end, to wait for the threads.
    pub async fn start(
        resolved: &ResolvedTarget,
        options: &HostOptions,
        stats: Arc<TargetStats>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), HostError> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        let (warden, warden_commands) = mpsc::unbounded_channel();
        let (gone_sender, gone) = watch::channel(None);
        let (ready_sender, ready) = oneshot::channel();

        let mut workers = Vec::new();
        let mut receivers = Vec::new();
        for _ in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let pulse = Pulse::new();
            workers.push((sender, Arc::clone(&pulse)));
            receivers.push((receiver, pulse));
        }

        let mut handles = Vec::new();
        let start_warden = {
            let (target, presence) = (resolved.target.clone(), Presence::of(resolved));
            let (attach, log_packets) = (options.attach, options.log_packets);
            let drain = options.drain.clone();
            move || {
                let door = Door::open(attach, log_packets)?;
                Warden::new(target, presence, workers, gone_sender, drain, door, stats)
                    .map_err(HostError::Thread)
            }
        };
        for (receiver, pulse) in receivers {
            let (netns, drain) = (resolved.netns.clone(), options.drain.clone());
            let work = move || worker::run(receiver, drain, pulse);
            handles.push(spawn_inside("worker", netns, work).await?);
        }
        let peer_names = options.peer_names.clone();
        let warden_thread = spawn_inside("warden", resolved.netns.clone(), move || async move {
            let opened = UpstreamConnector::new(peer_names);
            match start_warden() {
                Ok(warden) => {
                    let _ = ready_sender.send(Ok(opened));
                    warden.run(warden_commands).await;
                }
                Err(error) => drop(ready_sender.send(Err(error))),
            }
        });
        handles.push(warden_thread.await?);
        let upstream = ready.await.map_err(|_| HostError::Died)??;
        let target = resolved.target.clone();
        let (drain, log) = (options.drain.clone(), Arc::clone(&options.log));
        let host = Self { target, upstream, drain, log, warden, gone };
        Ok((host, handles))
    }

    /// Why connections that the app has can't be inspected, if they can't. The first one to ask waits for the verifier.
    pub async fn inspection(&self) -> Result<(), String> {
        let answer = self.ask(|reply| WardenCommand::Inspection { reply }).await;
        answer.unwrap_or_else(|| Err(PortError::Gone.to_string()))
    }

    /// The name by which it was first intercepted.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Gets ready for `port`, of which nothing is taken before [`Self::steer`]; answers with what may keep that from
    /// working.
    pub async fn open_port(
        &self,
        port: u16,
        routes: Arc<Routes>,
        stats: Arc<PortStats>,
    ) -> Result<Vec<String>, PortError> {
        let hop = self.target.to_string().into();
        let context = PortContext {
            routes,
            recorder: Recorder { hop, port, log: Arc::clone(&self.log) },
            upstream: Arc::new(self.upstream.counted_in(&stats.live_bytes)),
            stats,
            drain: self.drain.clone(),
        };
        self.ask(|reply| WardenCommand::OpenPort { port, context, reply }).await.ok_or(PortError::Gone)?
    }

    /// From now on, this is what happens to connections to `port`.
    pub async fn steer(&self, port: u16, steering: Steering) -> Result<(), PortError> {
        self.ask(|reply| WardenCommand::Steer { port, steering, reply }).await.ok_or(PortError::Gone)?
    }

    /// Tries the app with the keys that somebody has brought, and warns of what will keep them from being of use.
    pub async fn probe_tls(&self, port: u16, keys: Vec<Arc<TlsKey>>) -> Vec<String> {
        self.ask(|reply| WardenCommand::ProbeTls { port, keys, reply }).await.unwrap_or_default()
    }

    /// Connections to `port` are the app's from now on; parked ones end when they are idle.
    pub async fn close_port(&self, port: u16) {
        self.ask(|reply| WardenCommand::ClosePort { port, reply }).await;
    }

    /// Detaches everything. Open connections go on.
    pub async fn end(&self) {
        self.ask(|reply| WardenCommand::End { reply }).await;
    }

    /// Whether [`Self::close_existing`] can work.
    pub async fn can_close(&self) -> Result<(), PortError> {
        self.ask(|reply| WardenCommand::CanClose { reply }).await.ok_or(PortError::Gone)?
    }

    /// Ends connections to `port` that the app has and nobody looks into, and says how many: those of whose clients the next
    /// ones will be covered.
    pub async fn close_existing(&self, port: u16) -> Result<u64, PortError> {
        // Of an idle connection nobody can tell what it speaks, but its server can be asked.
        self.ask(|reply| WardenCommand::ProbeHttp2 { port, reply }).await.ok_or(PortError::Gone)?;
        self.ask(|reply| WardenCommand::CloseExisting { port, reply }).await.ok_or(PortError::Gone)?
    }

    /// A warning, when the app has connections on `port` that nobody looks into, nor will.
    pub async fn uncovered(&self, port: u16) -> Option<String> {
        let unseen = self.status(true).await?.unseen.remove(&port)?;
        let for_good = |reason: &&Unseen| **reason != Unseen::NotYet;
        let reason = *unseen.counts.keys().find(for_good)?;
        let count: u64 =
            unseen.counts.iter().filter(|(reason, _)| for_good(reason)).map(|(_, count)| count).sum();
        let connections = if count == 1 { "connection that exists" } else { "connections that exist" };
        Some(format!("{count} {connections} already can't be covered: {}", reason.explanation()))
    }

    /// `None` once the target is gone. `connections`: with those that the app has and nobody looks into.
    pub async fn status(&self, connections: bool) -> Option<TargetStatus> {
        self.ask_for(BRIEF_PATIENCE, |reply| WardenCommand::Status { connections, reply }).await
    }

    /// Resolves, with the reason, when the target is no longer there or its threads have failed.
    pub fn gone(&self) -> impl Future<Output = String> + Send + use<> {
        let mut gone = self.gone.clone();
        async move {
            match gone.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "its thread has ended".to_owned(),
            }
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> WardenCommand) -> Option<T> {
        self.ask_for(PATIENCE, command).await
    }

    async fn ask_for<T>(
        &self,
        patience: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> WardenCommand,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.warden.send(command(reply)).ok()?;
        timeout(patience, answer).await.ok()?.ok()
    }
}

/// Runs `work` on a thread of its own, inside `netns` from before the first socket to the thread's end.
async fn spawn_inside<W, F>(name: &str, netns: Netns, work: W) -> Result<JoinHandle<()>, HostError>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let (entered_sender, entered) = oneshot::channel();
    let handle = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = netns.enter().and_then(|()| {
                let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(runtime)
            });
            match runtime {
                Ok(runtime) => {
                    let _ = entered_sender.send(Ok(()));
                    LocalSet::new().block_on(&runtime, work());
                }
                Err(error) => drop(entered_sender.send(Err(error))),
            }
        })
        .map_err(HostError::Thread)?;
    entered.await.map_err(|_| HostError::Died)?.map_err(HostError::Enter)?;
    Ok(handle)
}
