//! The caller's side of the control API: one connection per call.

use crate::{
    api::Problem,
    tunnel::{
        UPGRADE_PROTOCOL,
        tls::{self, TlsError},
        token::JoinToken,
    },
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to do something: on a busy machine its kernel takes its time to attach programs.
const WORK_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a control API is, and what gives access to it.
#[derive(Clone, Debug)]
pub struct ApiAddress {
    pub whose: Whose,
    pub way: Way,
}

/// Whose control API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Agent,
    Gateway,
}

/// How it is reached.
#[derive(Clone, Debug)]
pub enum Way {
    /// On its own machine, for root or who runs it.
    Unix(PathBuf),
    /// From anywhere, with a join token.
    Tls { address: String, token: Box<JoinToken> },
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    #[error(
        "cannot reach the {whose} at {at}: {source}; is it running, and is the address (--{whose}) right?",
        whose = at.whose
    )]
    Connect { at: ApiAddress, source: io::Error },
    #[error("cannot trust the {} at {at}: {source}", at.whose)]
    Tls { at: ApiAddress, source: TlsError },
    #[error("the {} at {at} broke off: {reason}", at.whose)]
    Broken { at: ApiAddress, reason: String },
    /// The answer is a no.
    #[error("{error}")]
    Refused { status: StatusCode, error: String },
}

impl CallError {
    /// May the same call succeed later, without anybody changing anything?
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } => true,
            Self::Tls { source, .. } => matches!(source, TlsError::Io(_)),
            Self::Refused { status, .. } => status.is_server_error(),
        }
    }
}

impl fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Unix(path) => write!(f, "unix:{}", path.display()),
            Way::Tls { address, .. } => f.write_str(address),
        }
    }
}

/// As in the name of the command, and of the flag.
impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Gateway => "gateway",
        })
    }
}

impl ApiAddress {
    /// A call without a body.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, CallError> {
        let body = self.send(self.request(method, path, Bytes::new(), false)?).await?;
        self.parse(&body)
    }

    /// A call with a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        let body = self.send(self.request(Method::POST, path, body.into(), false)?).await?;
        self.parse(&body)
    }

    /// A call whose answer has no body.
    pub async fn delete(&self, path: &str) -> Result<(), CallError> {
        self.send(self.request(Method::DELETE, path, Bytes::new(), false)?).await.map(drop)
    }

    /// Turns a connection into a tunnel.
    pub async fn upgrade(&self, path: &str) -> Result<TokioIo<Upgraded>, CallError> {
        let response = self.exchange(self.request(Method::POST, path, Bytes::new(), true)?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.body_of(response).await?;
            return Err(self.broken("it does not speak the tunnel's protocol"));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.broken(error))?;
        Ok(TokioIo::new(upgraded))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: bool,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "redirector");
        if let Way::Tls { token, .. } = &self.way {
            request = request.header(header::AUTHORIZATION, token.bearer());
        }
        if upgrade {
            request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, UPGRADE_PROTOCOL);
        }
        request.body(Full::new(body)).map_err(|error| self.broken(error))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Bytes, CallError> {
        let response = self.exchange(request).await?;
        self.body_of(response).await
    }

    async fn body_of(&self, response: Response<Incoming>) -> Result<Bytes, CallError> {
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let error = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.error,
            Err(_) => format!("the {} at {self} answered {status}", self.whose),
        };
        Err(CallError::Refused { status, error })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError> {
        match &self.way {
            #[cfg(unix)]
            Way::Unix(path) => {
                let socket = tokio::net::UnixStream::connect(path)
                    .await
                    .map_err(|source| CallError::Connect { at: self.clone(), source })?;
                self.converse(socket, request).await
            }
            #[cfg(not(unix))]
            Way::Unix(_) => Err(self.broken("unix sockets are for its own machine, and not on this system")),
            Way::Tls { address, token } => {
                let config = tls::client_config(token)
                    .map_err(|source| CallError::Tls { at: self.clone(), source })?;
                let connect_error = |source| CallError::Connect { at: self.clone(), source };
                let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
                    .await
                    .map_err(|_| connect_error(io::ErrorKind::TimedOut.into()))?
                    .map_err(connect_error)?;
                let _ = socket.set_nodelay(true);
                let connector = TlsConnector::from(Arc::new(config));
                let stream = timeout(CONNECT_TIMEOUT, connector.connect(tls::server_name(), socket))
                    .await
                    .map_err(|_| connect_error(io::ErrorKind::TimedOut.into()))?
                    .map_err(|error| CallError::Tls { at: self.clone(), source: tls::explain(error) })?;
                self.converse(stream, request).await
            }
        }
    }

    async fn converse(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(io)).await.map_err(|error| self.unreachable(error))?;
        tokio::spawn(connection.with_upgrades());
        let patience = if request.method() == Method::GET { ANSWER_TIMEOUT } else { WORK_TIMEOUT };
        match timeout(patience, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(error)),
            Err(_) => Err(self.broken("no answer in time")),
        }
    }

    /// With TLS 1.3 the agent's verdict on our certificate comes only after the handshake.
    fn unreachable(&self, error: hyper::Error) -> CallError {
        let verdict = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<io::Error>())
            .and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
        match verdict {
            Some(verdict) => {
                let source = tls::explain(io::Error::other(verdict.clone()));
                CallError::Tls { at: self.clone(), source }
            }
            None => self.broken(error),
        }
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CallError> {
        serde_json::from_slice(body)
            .map_err(|error| self.broken(format!("its answer is not understood ({error}); same version?")))
    }

    fn broken(&self, reason: impl fmt::Display) -> CallError {
        CallError::Broken { at: self.clone(), reason: reason.to_string() }
    }
}
