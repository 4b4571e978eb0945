//! Who calls the control API, and how that is known.

use super::answer::ApiError;
use crate::tunnel::{
    store::{TokenGrant, TokenStore},
    token::{JoinToken, TokenId},
};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header::AUTHORIZATION, request::Parts},
};

/// The name under which root's intercepts over the unix socket are shown.
const ROOT: &str = "root";

/// Who calls: a developer with a token, or root over the unix socket.
#[derive(Clone, Debug)]
pub enum Caller {
    Root,
    Token(TokenGrant),
}

impl Caller {
    pub fn name(&self) -> &str {
        match self {
            Self::Root => ROOT,
            Self::Token(grant) => &grant.name,
        }
    }

    pub fn may_use(&self, target: &str) -> bool {
        match self {
            Self::Root => true,
            Self::Token(grant) => grant.allows(target),
        }
    }

    pub fn token_id(&self) -> Option<&TokenId> {
        match self {
            Self::Root => None,
            Self::Token(grant) => Some(&grant.id),
        }
    }

    /// May it change, or be the tunnel of, what was made with `token` (`None`: by root)?
    pub fn owns(&self, token: Option<&TokenId>) -> bool {
        match self {
            Self::Root => true,
            Self::Token(grant) => token == Some(&grant.id),
        }
    }
}

/// The way a connection came in.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Over the unix socket, which only root can open.
    Unix,
    /// Over TLS; the token whose key the peer proved to hold, if it showed a certificate.
    Tls { certificate: Option<TokenId> },
}

/// What calls are judged by.
pub trait HoldsTokens: Send + Sync {
    fn tokens(&self) -> &TokenStore;
}

impl<S: HoldsTokens> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &S) -> Result<Self, ApiError> {
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
            .tokens()
            .authenticate(&token.id, &token.secret)
            .map_err(|error| unauthorized(error.to_string()))?;
        // curl has no certificate. Who shows one must show that of the token.
        if certificate.is_some_and(|id| id != grant.id) {
            return Err(unauthorized("the token is not the one of the client certificate".to_owned()));
        }
        Ok(Self::Token(grant))
    }
}
