//! One client connection, from accept to close.
//!
//! The connection alternates between two phases: [`live`](super::live), in which bytes flow between client and
//! app until a request with a developer's context comes, and [`developer`](super::developer), which carries
//! that one request. What is not understood ends in [`splice`](super::splice).

use super::{
    addresses::{ClientAddr, OriginalDst},
    developer,
    duplex::{at_end, finish, reset_on_close},
    live::{self, LiveEnd},
    routes::Routes,
    splice::splice,
    stats::{PortStats, bump},
    upstream::{Upstream, UpstreamConnector},
};
use crate::http1::{RequestFramer, RequestHead};
use bytes::BytesMut;
use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch, time::timeout};

/// How long a client may take to read our last answer before the socket goes.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection that only a developer uses is kept after the app has closed its end of it: what
/// servers commonly grant an idle connection.
const IDLE_WITHOUT_APP: Duration = Duration::from_secs(75);

/// What all connections to one intercepted port share.
#[derive(Clone)]
pub struct PortContext {
    pub routes: Arc<Routes>,
    pub stats: Arc<PortStats>,
    pub upstream: Arc<UpstreamConnector>,
    /// Turns `true` when the agent wants idle connections closed.
    pub drain: watch::Receiver<bool>,
}

/// A client's connection, and how far the client's bytes are understood.
pub(super) struct Connection<'a> {
    pub client: &'a TcpStream,
    pub client_addr: ClientAddr,
    pub original_dst: OriginalDst,
    pub context: &'a PortContext,
    /// Read from the client, not yet sent on.
    pub buf: BytesMut,
    pub framer: RequestFramer,
}

/// How a phase leaves the connection.
pub(super) enum Next {
    /// The next request may go anywhere.
    Request,
    /// The request whose head is at the front of the buffer goes to the app after all.
    Live(RequestHead),
    /// Bytes go both ways between client and app from here on, those in the buffer first.
    Splice { from_app: BytesMut, understood: bool },
    /// Nothing more will be sent to the client.
    Close,
    /// The connection broke; the client is to see that.
    Reset,
}

/// Serves the connection, which must not delay small writes (`TCP_NODELAY`), until it ends. Every failure ends it
/// as a failure of the app would.
pub async fn serve(
    client: TcpStream,
    client_addr: ClientAddr,
    original_dst: OriginalDst,
    context: &PortContext,
) {
    let _open = Open::count(&context.stats);
    if let Err(error) = run(&client, client_addr, original_dst, context).await {
        tracing::debug!(%client_addr, %original_dst, %error, "connection broke");
        reset_on_close(&client);
    }
}

async fn run(
    client: &TcpStream,
    client_addr: ClientAddr,
    original_dst: OriginalDst,
    context: &PortContext,
) -> io::Result<()> {
    // At once, whoever speaks first: a server that greets must not wait for us to have seen a request.
    let mut app = context.upstream.connect(original_dst, client_addr).await?;
    let mut connection = Connection {
        client,
        client_addr,
        original_dst,
        context,
        buf: BytesMut::new(),
        framer: RequestFramer::new(),
    };
    let mut next = Next::Request;
    let mut after_developer = false;
    loop {
        let first = match next {
            Next::Request => None,
            Next::Live(head) => Some(head),
            Next::Splice { from_app, understood } => {
                if !understood {
                    bump(&context.stats.raw);
                }
                splice(client, &app.socket, connection.buf, from_app).await;
                return Ok(());
            }
            Next::Close => {
                close(client).await;
                return Ok(());
            }
            Next::Reset => {
                reset_on_close(&app.socket);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        };
        if after_developer && at_end(&app.socket) {
            // To the app the connection was idle, so it was free to close it. The client knows better.
            match revive(&mut connection, first.is_some()).await? {
                Some(upstream) => app = upstream,
                None => {
                    next = Next::Close;
                    continue;
                }
            }
        }
        next = match live::run(&mut connection, &app.socket, first, after_developer).await? {
            LiveEnd::Developer(request) => {
                after_developer = true;
                developer::run(&mut connection, request).await?
            }
            LiveEnd::AppClosedIdle => Next::Request,
            LiveEnd::Next(next) => next,
        };
    }
}

/// A new connection to the app as soon as the client sends something; `None` when it has nothing to send.
async fn revive(connection: &mut Connection<'_>, due: bool) -> io::Result<Option<Upstream>> {
    if !due && connection.buf.is_empty() {
        let mut drain = connection.context.drain.clone();
        tokio::select! {
            readable = timeout(IDLE_WITHOUT_APP, connection.client.readable()) => match readable {
                Ok(readable) => readable?,
                Err(_) => return Ok(None),
            },
            _ = drain.wait_for(|drain| *drain) => return Ok(None),
        }
        if at_end(connection.client) {
            return Ok(None);
        }
    }
    connection.context.upstream.connect(connection.original_dst, connection.client_addr).await.map(Some)
}

/// Ends our half, and reads what the client still sends: closing with unread bytes would reset the
/// connection and could destroy the last answer on its way (RFC 9112 §9.6).
async fn close(client: &TcpStream) {
    finish(client);
    let _ = timeout(LINGER, async {
        let mut rest = [0; 4096];
        loop {
            client.readable().await?;
            match client.try_read(&mut rest) {
                Ok(0) => return Ok::<_, io::Error>(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    })
    .await;
}

/// Counts a connection while it is open, however it ends.
struct Open<'a>(&'a PortStats);

impl<'a> Open<'a> {
    fn count(stats: &'a PortStats) -> Self {
        bump(&stats.connections);
        bump(&stats.open);
        Self(stats)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
