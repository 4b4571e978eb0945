//! Visitors' connections: HTTP/1.1 and HTTP/2, with TLS or without.

use super::{
    certificate::Certificate,
    proxy::{Connection, Gateway},
};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the head of a request may take, from its connection's last answer on. Bodies may take as long as they like.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How often an HTTP/2 connection is asked whether it is still there, and how long it may think about it.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Each takes a descriptor, and another one to the ingress while it asks something.
const MAX_CONNECTIONS: usize = 16_384;

/// Requests of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 256;

/// Longest head. Bytes.
const MAX_HEAD: u32 = 64 << 10;

/// A connection's place among [`MAX_CONNECTIONS`]. What goes on when the connection is done, as a WebSocket of HTTP/1.1
/// does, keeps it.
#[derive(Clone)]
pub struct Place(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

/// Serves visitors until `stop` says so; then lets those that are at something finish it. Returns when the last has.
pub async fn serve(
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    gateway: Arc<Gateway>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept; trying again");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let acceptor = certificate.as_ref().map(|certificate| TlsAcceptor::from(certificate.config()));
        let (gateway, stop) = (Arc::clone(&gateway), stop.clone());
        tokio::spawn(welcome(socket, peer, acceptor, gateway, stop, Place(Arc::new(place))));
    }
    drop(listener);
    // All places are free when nobody is left.
    let _ = places.acquire_many(MAX_CONNECTIONS as u32).await;
}

async fn welcome(
    socket: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    gateway: Arc<Gateway>,
    stop: watch::Receiver<bool>,
    place: Place,
) {
    let _ = socket.set_nodelay(true);
    let connection = Connection { peer, tls: acceptor.is_some() };
    match acceptor {
        None => converse(socket, connection, gateway, stop, place).await,
        Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => converse(stream, connection, gateway, stop, place).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake timed out"),
        },
    }
}

async fn converse(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    gateway: Arc<Gateway>,
    mut stop: watch::Receiver<bool>,
    place: Place,
) {
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let (gateway, place) = (Arc::clone(&gateway), place.clone());
        async move { Ok::<_, Infallible>(gateway.answer(request, connection, place).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .enable_connect_protocol();
    let mut conversation = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    // Before the first bytes tell the protocol nobody else looks at the clock.
    let mut silence = pin!(sleep(HEAD_TIMEOUT));
    let (mut listening, mut stopping) = (true, false);
    let ended = loop {
        tokio::select! {
            ended = conversation.as_mut() => break ended,
            () = &mut silence, if listening => {
                listening = false;
                if !has_asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                conversation.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a visitor's connection ended");
    }
}
