//! The gateway's control API. See [`super::api`] for its calls.

use super::{
    api::{CreatePreview, PreviewCreated, PreviewInfo},
    away::Agents,
    context::PreviewContext,
    link::{PreviewDomain, PublicUrl},
    password,
    preview::{Access, LivePreview, Preview, PreviewId, PreviewWhenAway, expiry},
    record::retain_own,
    store::{PreviewStore, PreviewStoreError},
};
use crate::{
    api::is_name,
    api_server::{ApiError, Caller, EndsWithToken, HoldsTokens, Json, parse, token_calls, trace_query},
    context::InterceptKey,
    trace::{log::RequestLog, query::Traced},
    tunnel::{store::TokenStore, token::TokenId},
};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use jiff::Timestamp;
use std::sync::Arc;

/// What the handlers work on.
#[derive(Clone)]
pub struct Admin {
    pub store: Arc<PreviewStore>,
    pub tokens: TokenStore,
    pub agents: Agents,
    pub public_url: PublicUrl,
    pub preview_domain: Option<PreviewDomain>,
    /// Where requests are remembered.
    pub log: Arc<RequestLog>,
}

/// All calls.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/previews", get(list).post(create))
        .route("/v1/previews/{name}", delete(remove))
        .route("/v1/trace", post(trace))
        .merge(token_calls())
        .fallback(|_: Caller| async { ApiError::new(StatusCode::NOT_FOUND, "no such call") })
        .with_state(admin)
}

impl HoldsTokens for Admin {
    fn tokens(&self) -> &TokenStore {
        &self.tokens
    }
}

impl EndsWithToken for Admin {
    async fn end_with(&self, token: TokenId) -> Result<(), ApiError> {
        on_disk(&self.store, move |store| store.remove_of(&token, Timestamp::now())).await
    }
}

impl From<PreviewStoreError> for ApiError {
    fn from(error: PreviewStoreError) -> Self {
        let status = match error {
            PreviewStoreError::NameTaken(_) => StatusCode::CONFLICT,
            PreviewStoreError::Unknown(_) => StatusCode::NOT_FOUND,
            PreviewStoreError::Full | PreviewStoreError::Crowded => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

async fn list(State(admin): State<Admin>, _: Caller) -> Response {
    let mut list = Vec::new();
    for live in admin.store.list(Timestamp::now()) {
        let is_there = admin.agents.developer_was_there(&live.context).await;
        list.push(admin.info(&live, is_there));
    }
    Json(list).into_response()
}

async fn create(State(admin): State<Admin>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    let request: CreatePreview = parse(&body)?;
    check(&request)?;
    let id = PreviewId::random().map_err(internal)?;
    let made_up = match (request.access, &request.password) {
        (Access::Password, None) => Some(made_up_password()?),
        _ => None,
    };
    let password = match (request.access, request.password.clone().or_else(|| made_up.clone())) {
        (Access::Password, Some(password)) => Some(hashed(password).await?),
        _ => None,
    };
    let now = Timestamp::now();
    let preview = Preview {
        name: request.name.unwrap_or_else(made_up_name),
        owner: request.owner,
        token: caller.token_id().cloned(),
        token_name: caller.name().to_owned(),
        matcher: request.matcher,
        created: now,
        expires: expiry(now, request.expires_in),
        access: request.access,
        password,
        id: (request.access == Access::Public).then(|| id.as_str().to_owned()),
        when_away: request.when_away,
    };
    let live = LivePreview::new(id.hash(), preview)
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let live = on_disk(&admin.store, move |store| store.create(live)).await?;
    tracing::info!(name = live.preview.name, owner = live.preview.owner, "preview created");
    let is_there = admin.agents.developer_is_there(&live.context).await;
    let preview = admin.info(&live, is_there);
    let warnings = admin.warnings(&preview);
    let created = PreviewCreated {
        preview,
        link: admin.link(&id),
        share_link: admin.public_url.share_link(&id),
        password: made_up,
        warnings,
    };
    Ok(Json(created).into_response())
}

async fn remove(
    State(admin): State<Admin>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let found = admin.store.list(Timestamp::now()).into_iter().find(|live| live.preview.name == name);
    let live = found.ok_or_else(|| PreviewStoreError::Unknown(name.clone()))?;
    if !caller.owns(live.preview.token.as_ref()) {
        let error =
            format!("preview \"{name}\" was made with another join token ({})", live.preview.token_name);
        return Err(ApiError::new(StatusCode::FORBIDDEN, error));
    }
    let removed = name.clone();
    on_disk(&admin.store, move |store| store.remove(&name, Timestamp::now())).await?;
    tracing::info!(name = removed, "preview removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Requests of the caller's own previews, as long as these live.
async fn trace(State(admin): State<Admin>, caller: Caller, body: Bytes) -> Result<Response, ApiError> {
    let query = trace_query(&body)?;
    let mut remembered = admin.log.read();
    retain_own(&mut remembered, &admin.store.list(Timestamp::now()), &caller);
    let observations = query.select(remembered);
    Ok(Json(Traced { now: Timestamp::now(), hops: Vec::new(), observations }).into_response())
}

impl Admin {
    fn link(&self, id: &PreviewId) -> String {
        match &self.preview_domain {
            Some(domain) => self.public_url.host_link(id, domain),
            None => self.public_url.share_link(id),
        }
    }

    fn info(&self, live: &LivePreview, developer_there: Option<bool>) -> PreviewInfo {
        let Preview { name, owner, token_name, matcher, created, expires, access, id, when_away, .. } =
            live.preview.clone();
        PreviewInfo {
            name,
            owner,
            token: token_name,
            matcher,
            access,
            when_away,
            link: id.and_then(|id| id.parse().ok()).map(|id| self.link(&id)),
            created: created.to_string(),
            expires: expires.to_string(),
            developer_there,
        }
    }

    fn warnings(&self, preview: &PreviewInfo) -> Vec<String> {
        match (preview.when_away, preview.developer_there) {
            (PreviewWhenAway::Live, _) | (_, Some(true)) => Vec::new(),
            (PreviewWhenAway::Page, None) => vec![
                "this gateway has no agent to ask, so visitors see the live version while you are away \
                 (`redirector gateway --agent … --agent-token-file …` makes it show a page that says so)"
                    .to_owned(),
            ],
            (PreviewWhenAway::Page, Some(false)) => vec![
                "no intercept takes these requests at the moment: visitors see a page that says you are away"
                    .to_owned(),
            ],
        }
    }
}

fn check(request: &CreatePreview) -> Result<(), ApiError> {
    let bad = |error: &str| Err(ApiError::new(StatusCode::BAD_REQUEST, error));
    if request.name.as_deref().is_some_and(|name| !is_name(name)) {
        return bad("a preview's name has 1 to 64 of letters, digits, `-`, `_` and `.`");
    }
    if request.owner.len() > 256 || request.owner.chars().any(char::is_control) {
        return bad("an owner has 256 printable characters at most");
    }
    if request.password.is_some() && request.access != Access::Password {
        return bad("a password is for previews with --auth password");
    }
    PreviewContext::of(&request.matcher)
        .map(drop)
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

fn made_up_name() -> String {
    let key = InterceptKey::random().map(String::from).unwrap_or_default();
    format!("preview-{}", key.get(..6).unwrap_or("x"))
}

/// 80 random bits, in groups that can be read out.
fn made_up_password() -> Result<String, ApiError> {
    let key: String = InterceptKey::random().map_err(internal)?.into();
    let groups: Vec<&str> = (0..4).filter_map(|group| key.get(group * 4..group * 4 + 4)).collect();
    Ok(groups.join("-"))
}

async fn hashed(password: String) -> Result<String, ApiError> {
    let hashed = tokio::task::spawn_blocking(move || password::hash(&password)).await.map_err(internal)?;
    hashed.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Runs a change to its end, off the threads that serve visitors, also when the caller goes away in the middle.
async fn on_disk<T: Send + 'static>(
    store: &Arc<PreviewStore>,
    change: impl FnOnce(&PreviewStore) -> Result<T, PreviewStoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = Arc::clone(store);
    Ok(tokio::task::spawn_blocking(move || change(&store)).await.map_err(internal)??)
}

fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
