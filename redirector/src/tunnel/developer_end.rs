//! The developer's end of the tunnel: takes each stream to the local server. HTTP/2 server.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::{Refusal, TunnelError};
use super::liveness::LivenessConfig;
use super::local_server::{LocalConnector, LocalServer, LocalStream};
use super::meta::{StreamMeta, accepted};
use super::relay::{RelayEnd, Traffic, relay};
use super::stream::TunnelStream;
use super::wire::{self, Heartbeat, Listened};
use crate::protocol::Protocol;

/// How long the agent may take for its side of the HTTP/2 preface.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where requests go and how patient to be.
#[derive(Clone, Debug)]
pub struct DeveloperEnd {
    /// The local server.
    pub to: LocalServer,
    /// How long the local server may take to accept a connection.
    pub connect_timeout: Duration,
    pub liveness: LivenessConfig,
}

/// One request that has passed, for display.
#[derive(Clone, Debug)]
pub struct RoutedRequest {
    pub intercept: String,
    pub started: SystemTime,
    pub method: String,
    pub path: String,
    pub protocol: Protocol,
    pub client: SocketAddr,
    /// As the local server answered; `None` when it did not, or not in HTTP.
    pub status: Option<u16>,
    /// HTTP/1.x: what the local server was sent, heads and framing included. HTTP/2: content only; also heads and
    /// framing when it was not the agent that ended the request.
    pub request_bytes: u64,
    /// The same of the answer.
    pub response_bytes: u64,
    pub duration: Duration,
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The local server could not be reached, and why.
    Refused(String),
    /// The client cancelled, the tunnel ended, or the local server broke off.
    Reset,
}

impl DeveloperEnd {
    /// Takes requests to `to`, with the defaults: 5 s to connect, [`LivenessConfig::default`].
    #[must_use]
    pub fn new(to: LocalServer) -> Self {
        Self { to, connect_timeout: Duration::from_secs(5), liveness: LivenessConfig::default() }
    }

    /// Serves the tunnel until it ends and returns why. Each finished request is reported to `on_finished`, which must
    /// not block. Dropping the future ends the tunnel and the requests in it. A TCP connection below `io` needs
    /// TCP_NODELAY, as on the agent's end.
    pub async fn serve<IO>(
        self,
        io: IO,
        on_finished: impl Fn(RoutedRequest) + Send + Sync + 'static,
    ) -> TunnelError
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (io, heard) = Listened::new(io);
        let mut connection = match timeout(HANDSHAKE_TIMEOUT, wire::server().handshake::<_, Bytes>(io)).await
        {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return error.into(),
            Err(_) => return TunnelError::Dead { silence: HANDSHAKE_TIMEOUT },
        };
        let mut heartbeat = Heartbeat::new(self.liveness, heard, connection.ping_pong());
        let local = Arc::new(Local {
            connector: LocalConnector::new(self.to),
            connect_timeout: self.connect_timeout,
            on_finished,
        });
        let mut requests = JoinSet::new();
        let reason = loop {
            let next = poll_fn(|cx| match connection.poll_accept(cx) {
                Poll::Ready(next) => Poll::Ready(Ok(next)),
                Poll::Pending => heartbeat.poll(cx).map(Err),
            });
            tokio::select! {
                biased;
                next = next => match next {
                    Ok(Some(Ok((request, respond)))) => {
                        requests.spawn(local.clone().handle(request, respond));
                    }
                    Ok(Some(Err(error))) => break error.into(),
                    Ok(None) => break TunnelError::ClosedByPeer,
                    Err(dead) => break dead,
                },
                Some(_) = requests.join_next() => {}
            }
        };
        // Without their connection the requests fail at once; let each of them say so.
        drop(connection);
        while requests.join_next().await.is_some() {}
        reason
    }
}

struct Local<F> {
    /// Or why there is none.
    connector: Result<LocalConnector, String>,
    connect_timeout: Duration,
    on_finished: F,
}

impl<F: Fn(RoutedRequest) + Send + Sync> Local<F> {
    async fn handle(self: Arc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let meta = match StreamMeta::from_request(&request) {
            Ok(meta) => meta,
            Err(error) => {
                let refusal = Refusal { status: StatusCode::BAD_REQUEST, reason: error.to_string() };
                // Fails only when the stream is gone.
                let _ = respond.send_response(refusal.to_response(), true);
                return;
            }
        };
        let (started, clock) = (SystemTime::now(), Instant::now());
        let mut traffic = Traffic::default();
        let mut outcome = self.exchange(meta.protocol, request.into_body(), respond, &mut traffic).await;
        // In HTTP/2 only the agent, which frames it, knows what has passed.
        let Traffic { mut request_bytes, mut response_bytes, status, report } = traffic;
        let mut status = status.status();
        if let Some(report) = report {
            (request_bytes, response_bytes) = (report.request_bytes, report.response_bytes);
            status = report.status;
            if report.cut_off {
                outcome = Outcome::Reset;
            }
        }
        (self.on_finished)(RoutedRequest {
            intercept: meta.intercept,
            started,
            method: meta.method,
            path: meta.path,
            protocol: meta.protocol,
            client: meta.client,
            status,
            request_bytes,
            response_bytes,
            duration: clock.elapsed(),
            outcome,
        });
    }

    async fn exchange(
        &self,
        protocol: Protocol,
        request: RecvStream,
        mut respond: SendResponse<Bytes>,
        traffic: &mut Traffic,
    ) -> Outcome {
        let connected = tokio::select! {
            connected = self.connect(protocol) => connected,
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return Outcome::Reset,
        };
        match connected {
            Ok(local) => match respond.send_response(accepted(), false) {
                Ok(send) => match relay(TunnelStream::new(send, request), local, traffic).await {
                    RelayEnd::Finished => Outcome::Ok,
                    RelayEnd::Cancelled(_) | RelayEnd::LocalReset(_) => Outcome::Reset,
                },
                Err(_) => Outcome::Reset,
            },
            Err(reason) => {
                let refusal = Refusal { status: StatusCode::BAD_GATEWAY, reason: reason.clone() };
                let _ = respond.send_response(refusal.to_response(), true);
                Outcome::Refused(reason)
            }
        }
    }

    async fn connect(&self, protocol: Protocol) -> Result<LocalStream, String> {
        match &self.connector {
            Ok(connector) => connector.connect(protocol, self.connect_timeout).await,
            Err(reason) => Err(reason.clone()),
        }
    }
}
