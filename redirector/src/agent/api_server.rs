//! The control API over TLS and over the unix socket. See [`crate::api`] for its calls.

use super::{explain, registry::Registry, registry_error::RegistryError, tls_keys::TlsKeysError, trace};
use crate::{
    api::{CreateIntercept, Explain},
    api_server::{ApiError, Caller, EndsWithToken, HoldsTokens, Json, parse, token_calls, trace_query},
    target::{discover::discover, resolve::ResolveError, root::TargetRootError},
    tunnel::{
        UPGRADE_PROTOCOL, agent_end::AgentEnd, liveness::LivenessConfig, store::TokenStore, token::TokenId,
    },
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hyper_util::rt::TokioIo;
use std::{future::pending, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};

/// What the handlers work on.
#[derive(Clone)]
pub struct Api {
    pub registry: Arc<Registry>,
    pub tokens: TokenStore,
}

impl HoldsTokens for Api {
    fn tokens(&self) -> &TokenStore {
        &self.tokens
    }
}

impl EndsWithToken for Api {
    async fn end_with(&self, token: TokenId) -> Result<(), ApiError> {
        let registry = Arc::clone(&self.registry);
        to_the_end(async move {
            registry.revoke(&token).await;
            Ok(())
        })
        .await
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

/// All calls.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/targets", get(targets))
        .route("/v1/intercepts", get(list).post(create))
        .route("/v1/intercepts/{name}", delete(remove))
        .route("/v1/intercepts/{name}/tunnel", post(tunnel))
        .route("/v1/explain", post(explain_request))
        .route("/v1/trace", post(trace_requests))
        .route("/v1/status", get(status))
        .merge(token_calls())
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

async fn trace_requests(State(api): State<Api>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    let query = trace_query(&body)?;
    Ok(Json(trace::trace(&api.registry, &query, &caller).await).into_response())
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

/// Runs a change of the registry to its end, also when the caller goes away in the middle: half a change would
/// leave a port open without an intercept, or the other way round.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change).await.map_err(RegistryError::from)?.map_err(ApiError::from)
}
