//! Connections: TLS for whoever has a join token, and a unix socket for root.

use super::caller::Peer;
use crate::tunnel::{store::TokenStore, tls};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
#[cfg(unix)]
use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};
use std::{sync::Arc, time::Duration};
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Tunnels and calls at a time. Whoever holds them all keeps developers out, but no descriptors from live traffic.
const MAX_CONNECTIONS: usize = 2048;

/// Serves whoever has a token. Returns when the listener is of no use any more.
pub async fn serve_tls(listener: TcpListener, config: Arc<ServerConfig>, router: Router, tokens: TokenStore) {
    let acceptor = TlsAcceptor::from(config);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept; trying again");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router, tokens) = (acceptor.clone(), router.clone(), tokens.clone());
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => {
                    let certificate = tls::peer_token(stream.get_ref().1, &tokens);
                    serve(stream, router, Peer::Tls { certificate }).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake timed out"),
            }
            drop(place);
        });
    }
}

/// A socket for this user and root only. Whoever asks holds the lock of the state directory that `path` is in, so a
/// socket that is there belongs to no one.
#[cfg(unix)]
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves root, or who runs us.
#[cfg(unix)]
pub async fn serve_unix(listener: UnixListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(serve(socket, router.clone(), Peer::Unix));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept; trying again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, peer: Peer) {
    let service = TowerToHyperService::new(router.layer(axum::Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "API connection ended");
    }
}
