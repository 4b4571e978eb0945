//! The preview gateway: a reverse proxy in front of an ingress, which puts a developer's context into the requests of
//! those who opened a preview's link. Unprivileged and portable.
//!
//! | file | purpose |
//! | --- | --- |
//! | `server`, `certificate` | visitors' connections, and the certificate that they are shown |
//! | `proxy` | one request, to the ingress and back |
//! | `visit` | which preview it is for, and whether its visitor may see it |
//! | `route`, `link`, `cookie`, `local_path` | by its host and path; links, cookies, where links lead |
//! | `injection`, `context` | context: stripped, and put in |
//! | `forwarded`, `hop_by_hop`, `redirects` | what a proxy owes both sides |
//! | `upstream`, `upgrade` | the ingress; WebSockets |
//! | `preview`, `store`, `password` | what previews are, where they are kept, what opens them |
//! | `record` | requests are remembered, for `redirector trace` |
//! | `away` | is the developer there |
//! | `page` | the gateway's own pages |
//! | `api`, `admin` | the control API |

mod admin;
pub mod api;
mod away;
mod certificate;
mod context;
mod cookie;
mod forwarded;
mod hop_by_hop;
mod injection;
pub mod link;
mod local_path;
mod page;
mod password;
pub mod preview;
mod proxy;
mod record;
mod redirects;
mod route;
mod server;
mod store;
mod upgrade;
mod upstream;
mod visit;

pub use upstream::IngressOptions;

use crate::{
    api_server::serve_tls,
    client::ApiAddress,
    file_limit::raise_file_limit,
    otlp::{Endpoint, Exporter},
    stop_signal::stop_signal,
    trace::log::RequestLog,
    tunnel::{identity::AgentIdentity, store::TokenStore, tls},
};
use admin::Admin;
use anyhow::{Context as _, Result, bail};
use away::Agents;
use certificate::Certificate;
use forwarded::TrustedPeers;
use ipnet::IpNet;
use jiff::Timestamp;
use link::{PreviewDomain, PublicUrl};
use proxy::Gateway;
use route::Site;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use store::PreviewStore;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{interval, timeout},
};
use upstream::Upstream;

/// How the gateway is run.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Where visitors connect.
    pub listen: SocketAddr,
    /// Certificate and key for TLS; `None`: without.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `None`: the address it listens on.
    pub public_url: Option<PublicUrl>,
    pub preview_domain: Option<PreviewDomain>,
    /// Empty: any.
    pub hosts: Vec<String>,
    pub ingress: IngressOptions,
    pub pass_through: bool,
    pub trusted: Vec<IpNet>,
    pub agents: Vec<ApiAddress>,
    pub state_dir: PathBuf,
    /// Where developers connect.
    pub admin_listen: SocketAddr,
    /// Where spans go; `None`: nowhere.
    pub otlp: Option<Endpoint>,
}

/// The gateway's socket for who runs it, in its state directory.
pub const SOCKET: &str = "gateway.sock";

/// Passwords that are hashed at a time, with 19 MiB each.
const HASHING: usize = 2;

const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// How long visitors may finish what they are at, when the gateway is told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or Ctrl-C.
pub async fn run(options: GatewayOptions) -> Result<()> {
    // First of all: it sees to it that no other gateway uses the state directory.
    let store = Arc::new(PreviewStore::open(&options.state_dir, Timestamp::now())?);
    raise_file_limit();
    let identity = AgentIdentity::load_or_create(&options.state_dir)?;
    let tokens = TokenStore::open(&options.state_dir, identity.fingerprint())?;
    tokens.ensure_default_token()?;
    let files = options.tls.as_ref();
    let certificate =
        files.map(|(certificate, key)| Certificate::open(certificate, key).map(Arc::new)).transpose()?;
    let upstream = Upstream::new(&options.ingress)?;

    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {} (--listen)", options.listen))?;
    let admin_listener = TcpListener::bind(options.admin_listen)
        .await
        .with_context(|| format!("cannot listen on {} (--admin-listen)", options.admin_listen))?;
    let address = listener.local_addr()?;
    let public_url = options
        .public_url
        .unwrap_or_else(|| PublicUrl::new(certificate.is_some(), host_of(address), address.port()));
    let agents = Agents::new(options.agents);
    let exporter =
        options.otlp.as_ref().map(|endpoint| Exporter::start(endpoint, "redirector-gateway")).transpose()?;
    let log = Arc::new(RequestLog::new(exporter));
    let gateway = Arc::new(Gateway {
        site: Site { preview_domain: options.preview_domain.clone(), hosts: options.hosts },
        public_url: public_url.clone(),
        pass_through: options.pass_through,
        trusted: TrustedPeers::new(options.trusted),
        store: Arc::clone(&store),
        agents: agents.clone(),
        upstream,
        attempts: Mutex::default(),
        hashing: Semaphore::new(HASHING),
        port: address.port(),
        log: Arc::clone(&log),
    });
    let admin = admin::router(Admin {
        store: Arc::clone(&store),
        tokens: tokens.clone(),
        agents,
        public_url: public_url.clone(),
        preview_domain: options.preview_domain,
        log: Arc::clone(&log),
    });
    let admin_tls = tls::server_config(&identity, &tokens)?;
    let socket = options.state_dir.join(SOCKET);
    let own = bind_socket(&socket)?;
    let stopped = stop_signal();

    println!("join token for developers: {}", tokens.default_token_path().display());
    println!("developers connect to {}", admin_listener.local_addr()?);
    println!("listening on {address}, seen as {public_url}");
    let (stop_sender, stop) = watch::channel(false);
    let mut visitors = tokio::spawn(server::serve(listener, certificate.clone(), gateway, stop));
    tokio::select! {
        _ = &mut visitors => bail!("the gateway can't serve visitors any more"),
        () = serve_tls(admin_listener, admin_tls, admin.clone(), tokens) => {}
        () = serve_socket(own, admin) => {}
        () = sweep(store) => {}
        () = keep_current(certificate) => {}
        () = stopped => tracing::info!("told to stop"),
    }
    stop_sender.send_replace(true);
    let _ = std::fs::remove_file(&socket);
    if timeout(DRAIN_DEADLINE, visitors).await.is_err() {
        tracing::info!("some visitors were still at something");
    }
    log.flush().await;
    Ok(())
}

/// As a host of a URL; what visitors on this machine can use, where it listens on all addresses.
fn host_of(address: SocketAddr) -> String {
    match address {
        _ if address.ip().is_unspecified() => "localhost".to_owned(),
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

#[cfg(unix)]
type OwnSocket = tokio::net::UnixListener;

#[cfg(not(unix))]
type OwnSocket = ();

#[cfg(unix)]
fn bind_socket(path: &Path) -> Result<OwnSocket> {
    // The store is ours, and with it the directory.
    crate::api_server::bind_unix(path).with_context(|| format!("cannot listen on {}", path.display()))
}

#[cfg(unix)]
async fn serve_socket(listener: OwnSocket, router: axum::Router) {
    crate::api_server::serve_unix(listener, router).await;
}

#[cfg(not(unix))]
fn bind_socket(_: &Path) -> Result<OwnSocket> {
    Ok(())
}

#[cfg(not(unix))]
async fn serve_socket(_: OwnSocket, _: axum::Router) {
    std::future::pending().await
}

async fn keep_current(certificate: Option<Arc<Certificate>>) {
    match certificate {
        Some(certificate) => certificate.keep_current().await,
        None => std::future::pending().await,
    }
}

async fn sweep(store: Arc<PreviewStore>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let store = Arc::clone(&store);
        let swept = tokio::task::spawn_blocking(move || store.sweep(Timestamp::now())).await;
        if !matches!(swept, Ok(Ok(()))) {
            tracing::warn!(?swept, "expired previews could not be put away");
        }
    }
}
