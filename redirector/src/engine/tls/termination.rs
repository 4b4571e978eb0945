//! From the client's first byte to two open sessions: one with the app, one with the client. Or to none.

use super::{
    app::{AppRefused, AppTls},
    hello::{ClientHello, HelloReader, NotTaken},
    keys,
    session::{Ending, Session},
};
use crate::{
    api::Uncovered,
    engine::{
        routes::Routes,
        socket::{Expect, Socket},
        upstream::Upstream,
    },
};
use bytes::BytesMut;
use rustls::ServerConnection;
use std::{io, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long the first message may take, from its first byte.
const HELLO: Duration = Duration::from_secs(5);

/// How long a client may take to finish the handshake once it has its answer.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// What became of a connection that begins as TLS does.
pub(in crate::engine) enum Terminated {
    /// TLS ends here, for the client and for the app.
    Inside { app: Upstream, settled: Arc<AppTls> },
    /// Client and app are to be left to each other. Nothing has been sent to the client, and `buf` is all that it
    /// has sent; the app needs a fresh connection.
    PassOn { reason: Uncovered, buf: BytesMut },
}

/// `buf`: all that the client has sent. `app` has been sent nothing.
///
/// # Errors
/// The client's: its connection broke, or it did not agree with what it was answered.
pub(in crate::engine) async fn terminate(
    client: &mut Socket,
    mut app: Upstream,
    mut buf: BytesMut,
    routes: &Routes,
) -> io::Result<Terminated> {
    let hello = match timeout(HELLO, read_hello(client, &mut buf)).await {
        Ok(hello) => hello?,
        Err(_) => None,
    };
    let Some(hello) = hello else { return Ok(Terminated::PassOn { reason: Uncovered::TlsRefused, buf }) };
    let name = hello.server_name.as_ref().map(|name| name.as_ref().to_owned());
    let name = name.as_deref();
    if let Some(reason) = routes.verdicts.of(name) {
        return Ok(Terminated::PassOn { reason, buf });
    }

    let tls = AppTls::for_client(&hello)?;
    let greeting = match tls.greet(&mut app.socket).await {
        Ok(greeting) => greeting,
        Err(refused) => {
            tracing::debug!(name, %refused, "TLS is left to client and app");
            let (reason, holds) = match refused {
                AppRefused::ClientCertificate => (Uncovered::ClientCertificate, true),
                // Another refusal may have to do with this client's offer.
                AppRefused::Handshake(error) => {
                    (Uncovered::TlsRefused, error.kind() == io::ErrorKind::TimedOut)
                }
            };
            if holds {
                routes.verdicts.note(name, reason);
            }
            return Ok(Terminated::PassOn { reason, buf });
        }
    };
    let key = match greeting.chain.first() {
        Some(certificate) => keys::find(routes, certificate).await,
        None => None,
    };
    let Some(key) = key else {
        let reason = Uncovered::OtherCertificate;
        app.socket.say_end(Ending::Clean).await;
        routes.verdicts.note(name, reason);
        return Ok(Terminated::PassOn { reason, buf });
    };

    let settled = Arc::new(tls.settled(greeting.alpn.as_ref()));
    let config = key.server_config(greeting.chain, greeting.alpn);
    let connection = match hello.accepted.into_connection(config) {
        Ok(connection) => connection,
        // Not sent: the app is to say that itself.
        Err((error, _unsent_alert)) => {
            tracing::debug!(name, %error, "TLS is left to client and app");
            app.socket.say_end(Ending::Clean).await;
            return Ok(Terminated::PassOn { reason: Uncovered::TlsRefused, buf });
        }
    };
    answer(client, connection, &buf[hello.len..]).await?;
    Ok(Terminated::Inside { app, settled })
}

/// `None`: it is none that the agent understands.
async fn read_hello(client: &Socket, buf: &mut BytesMut) -> io::Result<Option<ClientHello>> {
    let mut reader = HelloReader::default();
    loop {
        match reader.read(buf) {
            Ok(Some(hello)) => return Ok(Some(hello)),
            Ok(None) => {}
            Err(NotTaken::NotUnderstood(error)) => {
                tracing::debug!(%error, "no ClientHello");
                return Ok(None);
            }
            Err(NotTaken::OtherProtocol) => return Ok(None),
        }
        if client.read(buf, Expect::Head).await? == 0 {
            return Ok(None);
        }
    }
}

/// Completes the client's handshake. From here on there is no way back.
async fn answer(client: &mut Socket, connection: ServerConnection, rest: &[u8]) -> io::Result<()> {
    let session = Session::new(connection);
    let outcome = timeout(HANDSHAKE, session.handshake(client.tcp(), rest)).await;
    outcome.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    client.secure(session);
    Ok(())
}
