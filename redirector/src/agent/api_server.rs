//! The control API over TLS and over the unix socket. See [`crate::api`] for its calls.

use super::{
    caller::{Caller, Peer},
    explain,
    registry::Registry,
    registry_error::RegistryError,
    tls_keys::TlsKeysError,
};
use crate::{
    api::{CreateIntercept, CreateToken, Explain, Problem, TokenCreated},
    target::{discover::discover, resolve::ResolveError, root::TargetRootError},
    tunnel::{UPGRADE_PROTOCOL, agent_end::AgentEnd, liveness::LivenessConfig, store::TokenStore, tls},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::pending, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Tunnels and calls at a time. Whoever holds them all keeps developers out, but no descriptors from live traffic.
const MAX_CONNECTIONS: usize = 2048;

/// What the handlers work on.
#[derive(Clone)]
pub struct Api {
    pub registry: Arc<Registry>,
    pub tokens: TokenStore,
}

/// An error answer.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    problem: Problem,
}

impl ApiError {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, problem: Problem { error: error.into() } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let status = match &error {
            RegistryError::Target(error) => match error {
                ResolveError::HostNetns { .. } => StatusCode::FORBIDDEN,
                ResolveError::AmbiguousContainer { .. } => StatusCode::CONFLICT,
                ResolveError::NotPermitted { .. } | ResolveError::HostUnknown(_) | ResolveError::Proc(_) => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
                _ => StatusCode::NOT_FOUND,
            },
            RegistryError::Unknown(_) => StatusCode::NOT_FOUND,
            RegistryError::Forbidden(_) | RegistryError::AllForbidden(_) => StatusCode::FORBIDDEN,
            RegistryError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            RegistryError::Full(_) | RegistryError::Oversized => StatusCode::UNPROCESSABLE_ENTITY,
            RegistryError::NameTaken { .. } | RegistryError::Clash { .. } => StatusCode::CONFLICT,
            RegistryError::Removed(_) => StatusCode::GONE,
            RegistryError::BadName(_) | RegistryError::NoRequest(_) => StatusCode::BAD_REQUEST,
            RegistryError::CannotInspect(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // The pod may be on its way.
            RegistryError::TlsKeys(TlsKeysError::Target(TargetRootError::NoProcess)) => StatusCode::NOT_FOUND,
            RegistryError::TlsKeys(_) => StatusCode::UNPROCESSABLE_ENTITY,
            RegistryError::Lookup(_) | RegistryError::Host(_) | RegistryError::Port(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
    }
}

/// Serves developers. Returns when the listener is of no use any more.
pub async fn serve_tls(listener: TcpListener, config: Arc<ServerConfig>, api: Api) {
    let acceptor = TlsAcceptor::from(config);
    let router = router(api.clone());
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
        let (acceptor, router, tokens) = (acceptor.clone(), router.clone(), api.tokens.clone());
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

/// Serves root on the node.
pub async fn serve_unix(listener: UnixListener, api: Api) {
    let router = router(api);
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

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/targets", get(targets))
        .route("/v1/intercepts", get(list).post(create))
        .route("/v1/intercepts/{name}", delete(remove))
        .route("/v1/intercepts/{name}/tunnel", post(tunnel))
        .route("/v1/explain", post(explain_request))
        .route("/v1/status", get(status))
        .route("/v1/tokens", get(list_tokens).post(create_token))
        .route("/v1/tokens/{token}", delete(revoke_token))
        .fallback(|_: Caller| async { ApiError::new(StatusCode::NOT_FOUND, "no such call") })
        .with_state(api)
}

async fn targets(_: Caller) -> Result<Response, ApiError> {
    let found = tokio::task::spawn_blocking(discover).await;
    let discovery = found
        .map_err(std::io::Error::other)
        .and_then(|discovery| discovery)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(discovery.targets).into_response())
}

async fn list(State(api): State<Api>, _: Caller) -> Response {
    Json(api.registry.list().await).into_response()
}

async fn status(State(api): State<Api>, _: Caller) -> Response {
    Json(api.registry.status(true).await).into_response()
}

async fn explain_request(State(api): State<Api>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    let question: Explain = parse(&body)?;
    Ok(Json(explain::explain(&api.registry, question, &caller).await?).into_response())
}

async fn create(State(api): State<Api>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    let request: CreateIntercept = parse(&body)?;
    let created = to_the_end(async move { api.registry.create(request, &caller).await }).await?;
    Ok(Json(created).into_response())
}

async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    to_the_end(async move { api.registry.remove(&name, &caller).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tunnel(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let asked_for = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked_for.is_some_and(|protocol| protocol.eq_ignore_ascii_case(UPGRADE_PROTOCOL)) {
        let error = format!("this call is an HTTP Upgrade to {UPGRADE_PROTOCOL}");
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, error));
    }
    api.registry.may_connect(&name, &caller).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => carry(&api, &caller, &name, TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "the tunnel did not come about"),
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, UPGRADE_PROTOCOL)
        .body(Body::empty())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Drives the agent's end of a tunnel until it ends.
async fn carry(
    api: &Api,
    caller: &Caller,
    name: &str,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let (tunnel, driver) = match AgentEnd::handshake(io, LivenessConfig::default()).await {
        Ok(ends) => ends,
        Err(error) => {
            tracing::debug!(name, %error, "the tunnel broke at once");
            return;
        }
    };
    let number = match api.registry.connect(name, caller, tunnel).await {
        Ok(number) => number,
        Err(error) => {
            tracing::debug!(name, %error, "the intercept went while its tunnel came");
            return;
        }
    };
    tracing::info!(name, "developer connected");
    let revoked = async {
        match caller {
            Caller::Token(grant) => api.tokens.revoked(&grant.id).await,
            Caller::Root => pending().await,
        }
    };
    tokio::select! {
        reason = driver => tracing::info!(name, %reason, "developer disconnected"),
        () = revoked => tracing::info!(name, "token revoked: developer disconnected"),
    }
    api.registry.disconnect(number).await;
}

async fn list_tokens(State(api): State<Api>, caller: Caller) -> Result<Response, ApiError> {
    root_only(&caller)?;
    Ok(Json(api.tokens.list()).into_response())
}

async fn create_token(State(api): State<Api>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    root_only(&caller)?;
    let request: CreateToken = parse(&body)?;
    let token = api.tokens.create(&request.name, request.targets).map_err(store_error)?;
    Ok(Json(TokenCreated { token: token.to_string() }).into_response())
}

async fn revoke_token(
    State(api): State<Api>,
    caller: Caller,
    Path(which): Path<String>,
) -> Result<StatusCode, ApiError> {
    root_only(&caller)?;
    let found: Vec<_> = api
        .tokens
        .list()
        .into_iter()
        .filter(|token| token.name == which || token.id.as_str() == which)
        .collect();
    if found.is_empty() {
        let error = format!("there is no token \"{which}\"; `redirector token list` shows those there are");
        return Err(ApiError::new(StatusCode::NOT_FOUND, error));
    }
    for token in found {
        api.tokens.revoke(&token.id).map_err(store_error)?;
        let registry = Arc::clone(&api.registry);
        to_the_end(async move {
            registry.revoke(&token.id).await;
            Ok(())
        })
        .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a change of the registry to its end, also when the caller goes away in the middle: half a change would
/// leave a port open without an intercept, or the other way round.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change).await.map_err(RegistryError::from)?.map_err(ApiError::from)
}

fn root_only(caller: &Caller) -> Result<(), ApiError> {
    match caller {
        Caller::Root => Ok(()),
        Caller::Token(_) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "tokens are managed on the node, over the unix socket in the agent's state directory",
        )),
    }
}

fn store_error(error: crate::tunnel::store::StoreError) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("the call's JSON is not understood: {error}"))
    })
}

/// A JSON answer.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}
