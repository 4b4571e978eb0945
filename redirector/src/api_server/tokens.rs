//! The calls about join tokens, the same in every control API.

use super::{
    answer::{ApiError, Json, parse},
    caller::{Caller, HoldsTokens},
};
use crate::{
    api::{CreateToken, TokenCreated},
    tunnel::{store::StoreError, token::TokenId},
};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get},
};

/// What was made with a token ends with it.
pub trait EndsWithToken: HoldsTokens {
    /// Ends what was made with this token, which has just been revoked.
    fn end_with(&self, token: TokenId) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// `GET`, `POST /v1/tokens`, `DELETE /v1/tokens/ID`
pub fn token_calls<S: EndsWithToken + Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/v1/tokens", get(list_tokens::<S>).post(create_token::<S>))
        .route("/v1/tokens/{token}", delete(revoke_token::<S>))
}

async fn list_tokens<S: EndsWithToken>(State(api): State<S>, caller: Caller) -> Result<Response, ApiError> {
    root_only(&caller)?;
    Ok(Json(api.tokens().list()).into_response())
}

async fn create_token<S: EndsWithToken>(
    State(api): State<S>,
    caller: Caller,
    body: Bytes,
) -> Result<Response, ApiError> {
    root_only(&caller)?;
    let request: CreateToken = parse(&body)?;
    let token = api.tokens().create(&request.name, request.targets).map_err(store_error)?;
    Ok(Json(TokenCreated { token: token.to_string() }).into_response())
}

async fn revoke_token<S: EndsWithToken>(
    State(api): State<S>,
    caller: Caller,
    Path(which): Path<String>,
) -> Result<StatusCode, ApiError> {
    root_only(&caller)?;
    let all = api.tokens().list().into_iter();
    let found: Vec<_> = all.filter(|token| token.name == which || token.id.as_str() == which).collect();
    if found.is_empty() {
        let error = format!("there is no token \"{which}\"; `redirector token list` shows those there are");
        return Err(ApiError::new(StatusCode::NOT_FOUND, error));
    }
    for token in found {
        api.tokens().revoke(&token.id).map_err(store_error)?;
        api.end_with(token.id).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

fn root_only(caller: &Caller) -> Result<(), ApiError> {
    match caller {
        Caller::Root => Ok(()),
        Caller::Token(_) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "tokens are managed on the machine they are for, over the unix socket in its state directory",
        )),
    }
}

fn store_error(error: StoreError) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
