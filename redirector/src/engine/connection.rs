//! One client connection, from accept to close.
//!
//! The connection alternates between two phases: [`live`](super::live), in which bytes flow between client and
//! app until a request with a developer's context comes, and [`developer`](super::developer), which carries
//! that one request; [`waiting`](super::waiting) for the next one needs no app. What is not understood ends in
//! [`splice`](super::splice).

use super::{
    addresses::{ClientAddr, OriginalDst},
    developer,
    http2::{self, Candidate},
    live::{self, First, LiveEnd},
    recording::Recorder,
    routes::Routes,
    socket::{Expect, Socket},
    splice::{Direction, splice},
    stats::{PortStats, bump},
    tls::{Ending, Terminated, terminate},
    upstream::{ClientUpstreams, Upstream, UpstreamConnector},
    waiting::{self, Waited},
};
use crate::{
    api::Uncovered,
    http1::{RawReason, RequestFramer},
};
use bytes::BytesMut;
use std::{
    io, mem,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch, time::timeout};

/// How long a client may take to read our last answer before the socket goes.
const LINGER: Duration = Duration::from_secs(2);

/// What all connections to one intercepted port share.
#[derive(Clone)]
pub struct PortContext {
    pub routes: Arc<Routes>,
    pub stats: Arc<PortStats>,
    pub upstream: Arc<UpstreamConnector>,
    pub recorder: Recorder,
    /// Turns `true` when the agent wants idle connections closed.
    pub drain: watch::Receiver<bool>,
}

/// How a client's connection came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is new. Its app may be one that speaks first.
    Accepted,
    /// It was the app's, which answered requests on it. The first request is there to be read.
    Parked,
}

/// A client's connection, and how far the client's bytes are understood.
pub(super) struct Connection<'a> {
    pub client: &'a Socket,
    pub client_addr: ClientAddr,
    pub original_dst: OriginalDst,
    pub context: &'a PortContext,
    /// Read from the client, not yet sent on.
    pub buf: BytesMut,
    pub framer: RequestFramer,
    /// A whole request head has been read: the client speaks HTTP/1.x.
    pub speaks_http: bool,
    /// The app has had a request over the connection to it.
    pub app_used: bool,
    /// It was the app's before it was ours.
    pub parked: bool,
}

/// How a phase leaves the connection.
pub(super) enum Next {
    /// The next request may go anywhere.
    Request,
    /// The request whose head is at the front of the buffer goes to the app after all.
    Live(First),
    /// Bytes go both ways between client and app from here on, those in the buffer first. `uncovered`: why, unless
    /// that is what client and app agreed on, or the end.
    Splice { from_app: Direction, client_ended: bool, uncovered: Option<Uncovered> },
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
    arrival: Arrival,
    context: &PortContext,
) {
    let _open = Open::count(&context.stats);
    let mut client = Socket::from(client);
    let connector = Arc::clone(&context.upstream);
    let mut upstreams = ClientUpstreams { connector, app: original_dst, client: client_addr, tls: None };
    let served = async {
        let app = match arrival {
            // At once, whoever speaks first: a server that greets must not wait for us to have seen a request.
            Arrival::Accepted => Some(upstreams.connect().await?),
            Arrival::Parked => None,
        };
        match run(&client, app, &upstreams, context).await? {
            Some(Handover { reason: RawReason::Tls, app, buf, .. }) if context.routes.has_keys() => {
                // In a box of its own: other connections need no room for it.
                Box::pin(inside_tls(&mut client, app, buf, &mut upstreams, context)).await
            }
            other => Ok(other),
        }
    };
    match served.await {
        Ok(None) => {}
        Ok(Some(Handover { reason: RawReason::Http2, app, buf, from_app })) => {
            let connect: http2::Connect = Rc::new(move || {
                let upstreams = upstreams.clone();
                Box::pin(async move { upstreams.connect().await })
            });
            let candidate =
                Candidate { client, client_addr, original_dst, app, from_client: buf, from_app, connect };
            // In a box of its own: other connections need no room for it.
            if let Err(error) = Box::pin(http2::serve(candidate, context)).await {
                tracing::debug!(%client_addr, %original_dst, %error, "connection broke");
            }
        }
        Ok(Some(Handover { reason, app, buf, from_app })) => {
            context.stats.uncovered.bump(reason.into());
            pass_on(&client, &app, buf, from_app).await;
        }
        Err(error) => {
            tracing::debug!(%client_addr, %original_dst, %error, "connection broke");
            client.reset_on_close();
        }
    }
}

/// A connection that turned out to speak another protocol than HTTP/1.x.
struct Handover {
    reason: RawReason,
    /// Nothing has been sent to it.
    app: Upstream,
    /// Everything that the client has sent.
    buf: BytesMut,
    /// Everything that the app has sent.
    from_app: BytesMut,
}

/// Serves what is inside TLS, or leaves client and app to each other.
async fn inside_tls(
    client: &mut Socket,
    app: Upstream,
    buf: BytesMut,
    upstreams: &mut ClientUpstreams,
    context: &PortContext,
) -> io::Result<Option<Handover>> {
    match terminate(client, app, buf, &context.routes).await? {
        Terminated::PassOn { reason, buf } => {
            context.stats.uncovered.bump(reason);
            pass_on(client, &upstreams.connect().await?, buf, BytesMut::new()).await;
            Ok(None)
        }
        Terminated::Inside { app, settled } => {
            upstreams.tls = Some(settled);
            run(client, Some(app), upstreams, context).await
        }
    }
}

/// What both sides have sent goes on, and so do all later bytes.
async fn pass_on(client: &Socket, app: &Upstream, from_client: BytesMut, from_app: BytesMut) {
    let direction = |buf| Direction { buf, ended: false };
    splice(client, &app.socket, direction(from_client), direction(from_app)).await;
}

/// Serves the connection as HTTP/1.x, or until it is known to be something else. `app`: `None` for one that was parked.
async fn run(
    client: &Socket,
    mut app: Option<Upstream>,
    upstreams: &ClientUpstreams,
    context: &PortContext,
) -> io::Result<Option<Handover>> {
    let mut connection = Connection {
        client,
        client_addr: upstreams.client,
        original_dst: upstreams.app,
        context,
        buf: BytesMut::new(),
        framer: RequestFramer::new(),
        speaks_http: false,
        app_used: false,
        parked: app.is_none(),
    };
    // The program that parked it compares names only.
    let mut undecided = connection.parked;
    let mut first = None;
    let mut after_developer = false;
    loop {
        let end = match &app {
            Some(app) => {
                let end = live::run(&mut connection, &app.socket, first.take(), after_developer).await;
                end.inspect_err(|_| app.socket.reset_on_close())?
            }
            None => {
                let waited = waiting::run(&mut connection).await?;
                if mem::take(&mut undecided) && !waited.was_looked_for() {
                    bump(&context.stats.parking.falsely);
                }
                match waited {
                    Waited::Developer(request) => LiveEnd::Developer(request),
                    Waited::Live(request) => {
                        first = Some(request);
                        app = Some(upstreams.connect().await?);
                        continue;
                    }
                    Waited::NotUnderstood(uncovered) => {
                        app = Some(upstreams.connect().await?);
                        let from_app = Direction::default();
                        LiveEnd::Next(Next::Splice { from_app, client_ended: false, uncovered })
                    }
                    Waited::Over => LiveEnd::Next(Next::Close),
                }
            }
        };
        let next = match end {
            LiveEnd::Next(next) => next,
            LiveEnd::Other { reason, from_app } => {
                return Ok(app.map(|app| Handover { reason, app, buf: connection.buf, from_app }));
            }
            LiveEnd::AppIdle => {
                app = None;
                connection.app_used = false;
                continue;
            }
            LiveEnd::Again(request) => {
                first = Some(request);
                app = Some(upstreams.connect().await?);
                connection.app_used = false;
                continue;
            }
            LiveEnd::Developer(request) => {
                after_developer = true;
                let next = developer::run(&mut connection, request).await;
                if next.is_err()
                    && let Some(app) = &app
                {
                    app.socket.reset_on_close();
                }
                let next = next?;
                // To the app its connection was idle, so it may have ended it. One that it has never been
                // asked anything over is only in its way: some serve one connection at a time.
                if !connection.app_used || app.as_ref().is_some_and(|app| app.socket.has_spoken()) {
                    if let Some(app) = app.take() {
                        app.socket.say_end(Ending::Clean).await;
                    }
                    connection.app_used = false;
                }
                next
            }
        };
        match next {
            Next::Request => {}
            Next::Live(request) => {
                first = Some(request);
                if app.is_none() {
                    app = Some(upstreams.connect().await?);
                }
            }
            Next::Splice { from_app, client_ended, uncovered } => {
                if let Some(reason) = uncovered {
                    context.stats.uncovered.bump(reason);
                }
                if let Some(app) = &app {
                    let from_client = Direction { buf: connection.buf, ended: client_ended };
                    splice(client, &app.socket, from_client, from_app).await;
                }
                return Ok(None);
            }
            Next::Close => {
                if let Some(app) = &app {
                    app.socket.say_end(Ending::Clean).await;
                }
                close(client).await;
                return Ok(None);
            }
            Next::Reset => {
                if let Some(app) = &app {
                    app.socket.reset_on_close();
                }
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }
}

/// Ends our half, and reads what the client still sends: closing with unread bytes would reset the
/// connection and could destroy the last answer on its way (RFC 9112 §9.6).
async fn close(client: &Socket) {
    client.finish(Ending::Clean).await;
    let _ = timeout(LINGER, async {
        let mut rest = BytesMut::new();
        while client.read(&mut rest, Expect::Head).await? > 0 {
            rest.clear();
        }
        Ok::<_, io::Error>(())
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
