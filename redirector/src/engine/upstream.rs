//! Connections to the app, made so that it can be told who its client is.
//!
//! Each binds its source port before it connects: the `getpeername` programs must know the connection by the
//! time the app accepts it. Ports are taken in turn, with `SO_REUSEADDR`, so that those in TIME_WAIT do not
//! run the range dry (they can be reused after a second, `tcp_tw_reuse`).

use super::{
    addresses::{ClientAddr, OriginalDst},
    socket::Socket,
    tls::AppTls,
};
use crate::{
    byte_counts::ByteCounts,
    datapath::{PeerNames, PeerNamesError, UpstreamGuard},
    netns_cookie,
};
use std::{
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};
use tokio::net::TcpStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpSocket,
};

/// How many source ports are tried before the connection fails.
const ATTEMPTS: usize = 128;

/// Makes connections to the apps of one target. Use it on threads inside the target's namespace.
#[derive(Clone)]
pub struct UpstreamConnector {
    peer_names: Option<Arc<PeerNames>>,
    netns_cookie: Option<u64>,
    ports: RangeInclusive<u16>,
    next: Arc<AtomicU32>,
    bytes: Arc<ByteCounts>,
}

/// A connection to the app.
pub struct Upstream {
    pub socket: Socket,
    /// While it lives, the app is told the client's address.
    _peer_name: Option<UpstreamGuard>,
}

/// Makes one client's connections to the app.
#[derive(Clone)]
pub(super) struct ClientUpstreams {
    pub connector: Arc<UpstreamConnector>,
    pub app: OriginalDst,
    pub client: ClientAddr,
    /// With TLS on them.
    pub tls: Option<Arc<AppTls>>,
}

impl ClientUpstreams {
    pub(super) async fn connect(&self) -> io::Result<Upstream> {
        let mut upstream = self.connector.connect(self.app, self.client).await?;
        if let Some(tls) = &self.tls {
            tls.secure(&mut upstream.socket).await?;
        }
        Ok(upstream)
    }
}

/// For those who own the connection and want it as a stream.
impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl UpstreamConnector {
    /// Call it inside the target's namespace. `peer_names`: `None` where the kernel or the machine cannot tell apps their client.
    pub fn new(peer_names: Option<Arc<PeerNames>>) -> Self {
        Self {
            peer_names,
            netns_cookie: netns_cookie::of_this_thread().ok(),
            ports: ephemeral_ports(),
            next: Arc::new(AtomicU32::new(random_start())),
            bytes: Arc::default(),
        }
    }

    /// The same, for the connections of one port, whose bytes are counted in `bytes`.
    #[must_use]
    pub fn counted_in(&self, bytes: &Arc<ByteCounts>) -> Self {
        Self { bytes: Arc::clone(bytes), ..self.clone() }
    }

    /// Connects to the app at the address the client wanted.
    pub async fn connect(&self, app: OriginalDst, client: ClientAddr) -> io::Result<Upstream> {
        let (Some(names), Some(cookie)) = (&self.peer_names, self.netns_cookie) else {
            // Nobody needs to know the port beforehand, so the kernel chooses.
            let socket = new_socket(app)?.connect(app.0).await?;
            return Ok(self.upstream(socket, None));
        };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in 0..ATTEMPTS {
            let mut agent = app.0;
            agent.set_port(self.next_port());
            // To a port of its own a socket connects to itself when nobody listens there.
            if agent.port() == app.0.port() {
                continue;
            }
            match connect_from(agent, app, || names.record(cookie, agent, app.0, client.0)).await {
                Err(error) if is_taken(&error) => last = error,
                other => return other.map(|(socket, peer_name)| self.upstream(socket, peer_name)),
            }
        }
        Err(last)
    }

    fn upstream(&self, socket: TcpStream, peer_name: Option<UpstreamGuard>) -> Upstream {
        Upstream { socket: Socket::to_app(socket, Arc::clone(&self.bytes)), _peer_name: peer_name }
    }

    /// Neighbours in time are far apart in the range: connections that came together and stay do not make a block
    /// in which all attempts would fail.
    fn next_port(&self) -> u16 {
        const STRIDE: u32 = 7919;
        let count = u32::from(self.ports.end() - self.ports.start()) + 1;
        let turn = self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE) % count;
        // `turn` is below a count of 16-bit ports.
        self.ports.start() + turn as u16
    }
}

async fn connect_from(
    agent: SocketAddr,
    app: OriginalDst,
    record: impl FnOnce() -> Result<UpstreamGuard, PeerNamesError>,
) -> io::Result<(TcpStream, Option<UpstreamGuard>)> {
    let socket = new_socket(app)?;
    socket.set_reuseaddr(true)?;
    socket.bind(agent)?;
    let peer_name = match record() {
        Err(PeerNamesError::Taken) => return Err(io::ErrorKind::AddrInUse.into()),
        other => other.inspect_err(warn_once).ok(),
    };
    let socket = socket.connect(app.0).await?;
    Ok((socket, peer_name))
}

fn new_socket(app: OriginalDst) -> io::Result<TcpSocket> {
    let socket = match app.0 {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

fn warn_once(error: &PeerNamesError) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tracing::warn!(%error, "apps see the agent's address on some connections"));
}

/// The namespace's own range for outgoing connections; the kernel's default where it cannot be read.
fn ephemeral_ports() -> RangeInclusive<u16> {
    let default = 32768..=60999;
    let Ok(text) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else { return default };
    let mut bounds = text.split_whitespace().map(str::parse);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low < high => low..=high,
        _ => default,
    }
}

fn random_start() -> u32 {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 4];
    // Only spreads the starting points of several agents' lives; any value does.
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
