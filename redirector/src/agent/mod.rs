//! The node agent: owns the eBPF programs, the listeners and the intercepts of one node.

mod admission;
mod api_server;
mod app_connections;
mod clash;
mod entry;
mod explain;
mod heart;
mod ledger;
mod leftovers;
mod metrics;
mod parker;
mod parking;
mod port_inside;
mod registry;
mod registry_error;
mod registry_state;
mod steering;
mod target_host;
mod tls_keys;
mod trace;
mod urgency;
mod warden;
mod warden_command;
mod worker;

use crate::{
    api_server::{bind_unix, serve_tls, serve_unix},
    check::cgroup2_root,
    datapath::{AttachKind, PeerNames},
    file_limit::raise_file_limit,
    netns_cookie,
    otlp::{Endpoint, Exporter},
    trace::log::RequestLog,
    tunnel::{identity::AgentIdentity, store::TokenStore, tls},
};
use anyhow::{Context as _, Result, bail};
use api_server::Api;
use nix::fcntl::{Flock, FlockArg};
use registry::Registry;
use std::{
    fs::{self, DirBuilder, File, Permissions},
    future::pending,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use target_host::HostOptions;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

/// How the agent is run.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub listen: SocketAddr,
    /// Where Prometheus finds metrics; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    pub state_dir: PathBuf,
    pub attach: AttachKind,
    pub log_packets: bool,
    /// How long an intercept waits for a developer who was cut off.
    pub grace: Duration,
    /// May an intercept take everybody's requests?
    pub allow_all: bool,
    /// Where spans go; `None`: nowhere.
    pub otlp: Option<Endpoint>,
}

/// The agent's socket for root, in its state directory.
pub const SOCKET: &str = "agent.sock";

/// Runs until SIGTERM or SIGINT. Nothing is attached when it returns.
pub async fn run(options: AgentOptions) -> Result<()> {
    let _lock = lock_state(&options.state_dir)?;
    raise_file_limit();
    let identity = AgentIdentity::load_or_create(&options.state_dir)?;
    let tokens = TokenStore::open(&options.state_dir, identity.fingerprint())?;
    tokens.ensure_default_token()?;
    tokio::task::spawn_blocking(leftovers::sweep).await?;

    let (peer_names, client_address_reason) = match attach_peer_names() {
        Ok(names) => (Some(names), None),
        Err(error) => {
            tracing::warn!("apps see the agent's address instead of the client's: {error:#}");
            (None, Some(format!("{error:#}")))
        }
    };
    let (drain_sender, drain) = watch::channel(false);
    let exporter =
        options.otlp.as_ref().map(|endpoint| Exporter::start(endpoint, "redirector-agent")).transpose()?;
    let log = Arc::new(RequestLog::new(exporter));
    let host_options = HostOptions {
        attach: options.attach,
        log_packets: options.log_packets,
        peer_names,
        drain,
        log: Arc::clone(&log),
    };
    let registry = Registry::new(host_options, options.grace, options.allow_all, client_address_reason);
    let router = api_server::router(Api { registry: Arc::clone(&registry), tokens: tokens.clone() });

    let socket_path = options.state_dir.join(SOCKET);
    // The lock is ours.
    let unix =
        bind_unix(&socket_path).with_context(|| format!("cannot listen on {}", socket_path.display()))?;
    let tcp = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {} (--listen)", options.listen))?;
    let metrics = bind_metrics(options.metrics).await?;
    let tls = tls::server_config(&identity, &tokens)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    println!("join token for developers: {}", tokens.default_token_path().display());
    if let Some(listener) = &metrics {
        println!("metrics: http://{}/metrics", listener.local_addr()?);
    }
    println!("listening on {} for developers, on {} for root", tcp.local_addr()?, socket_path.display());
    tokio::select! {
        () = serve_tls(tcp, tls, router.clone(), tokens.clone()) => {}
        () = serve_unix(unix, router) => {}
        () = serve_metrics(metrics, &registry) => {}
        () = registry.expire() => {}
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
    }

    let end = async {
        // New connections go to the app from here on; those that are open may finish what they are at.
        let threads = registry.shut_down().await;
        drain_sender.send_replace(true);
        wait_for(threads).await
    };
    let ended = tokio::select! {
        ended = end => ended,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    let _ = fs::remove_file(&socket_path);
    log.flush().await;
    if !ended {
        bail!("stopped before all connections had ended");
    }
    println!("stopped, nothing is attached any more");
    Ok(())
}

/// Makes the state directory, for this user only, and sees to it that no other agent uses it.
fn lock_state(dir: &Path) -> Result<Flock<File>> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create the state directory {} (--state-dir)", dir.display()))?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close the state directory {} to others", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        anyhow::Error::new(errno).context(format!(
            "another agent uses the state directory {}: stop it, or choose another with --state-dir",
            dir.display()
        ))
    })
}

fn attach_peer_names() -> Result<Arc<PeerNames>> {
    let root = cgroup2_root().context(
        "no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified, or the host's into the container",
    )?;
    netns_cookie::of_this_thread().context("this kernel has no SO_NETNS_COOKIE (it came with 5.14)")?;
    Ok(PeerNames::attach(&root)?)
}

async fn bind_metrics(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    Ok(Some(listener.with_context(|| format!("cannot serve metrics on {address} (--metrics)"))?))
}

async fn serve_metrics(listener: Option<TcpListener>, registry: &Arc<Registry>) {
    match listener {
        Some(listener) => metrics::serve(listener, Arc::clone(registry)).await,
        None => pending().await,
    }
}

/// Waits for the targets' threads, though not forever; have all of them ended?
async fn wait_for(threads: Vec<JoinHandle<()>>) -> bool {
    let deadline = Instant::now() + worker::DRAIN_DEADLINE + Duration::from_secs(1);
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
    let ended = threads.iter().all(JoinHandle::is_finished);
    for thread in threads.into_iter().filter(JoinHandle::is_finished) {
        if thread.join().is_err() {
            tracing::error!("a target's thread had panicked");
        }
    }
    ended
}
