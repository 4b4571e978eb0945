//! Who calls the control API, and how that is known.

use super::api_server::{Api, ApiError};
use super::registry::Caller;
use crate::tunnel::token::{JoinToken, TokenId};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header::AUTHORIZATION, request::Parts},
};

/// The way a connection came in.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Over the unix socket, which only root can open.
    Unix,
    /// Over TLS; the token whose key the peer proved to hold, if it showed a certificate.
    Tls { certificate: Option<TokenId> },
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let certificate = match parts.extensions.get::<Peer>() {
            Some(Peer::Unix) => return Ok(Self::Root),
            Some(Peer::Tls { certificate }) => certificate.clone(),
            None => None,
        };
        let unauthorized = |error: String| ApiError::new(StatusCode::UNAUTHORIZED, error);
        let header =
            parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(|| {
                unauthorized("a join token is needed (authorization: Bearer TOKEN)".to_owned())
            })?;
        let token = JoinToken::from_bearer(header).map_err(|error| unauthorized(error.to_string()))?;
        let grant = api
            .tokens
            .authenticate(&token.id, &token.secret)
            .map_err(|error| unauthorized(error.to_string()))?;
        // curl has no certificate. Who shows one must show that of the token.
        if certificate.is_some_and(|id| id != grant.id) {
            return Err(unauthorized("the token is not the one of the client certificate".to_owned()));
        }
        Ok(Self::Token(grant))
    }
}
