//! The gateway's control API: what it and the command line say to each other, as JSON.
//!
//! | call | purpose |
//! | --- | --- |
//! | `GET /v1/previews` | the previews: a list of [`PreviewInfo`] |
//! | `POST /v1/previews` | create one: [`CreatePreview`] → [`PreviewCreated`] |
//! | `DELETE /v1/previews/NAME` | remove one |
//! | `POST /v1/trace` | which requests of previews were seen: [`TraceQuery`](crate::trace::query::TraceQuery) → [`Traced`](crate::trace::query::Traced) |
//! | `GET`, `POST /v1/tokens`, `DELETE /v1/tokens/ID` | join tokens, as the agent's ([`crate::api`]); unix socket only |
//!
//! Errors are [`crate::api::Problem`] with a fitting HTTP status.

use super::preview::{Access, PreviewWhenAway};
use crate::context::Matcher;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePreview {
    /// `None`: the gateway makes one up.
    pub name: Option<String>,
    /// Who asks, for people: `user@host`.
    pub owner: String,
    /// That of the intercept which requests are to match.
    pub matcher: Matcher,
    /// Seconds; `None`: 8 hours.
    pub expires_in: Option<i64>,
    #[serde(default)]
    pub access: Access,
    /// For `password`; `None`: the gateway makes one up.
    pub password: Option<String>,
    #[serde(default)]
    pub when_away: PreviewWhenAway,
}

/// Without the password.
impl fmt::Debug for CreatePreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatePreview")
            .field("name", &self.name)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub struct PreviewCreated {
    pub preview: PreviewInfo,
    /// The link to send: on the preview's own host where the gateway has a preview domain, else the share link. It can't
    /// be shown again.
    pub link: String,
    /// `SCHEME://GATEWAY/_p/ID`
    pub share_link: String,
    /// The one that was made up. It can't be shown again.
    pub password: Option<String>,
    /// What may be other than expected.
    pub warnings: Vec<String>,
}

/// Without link and password.
impl fmt::Debug for PreviewCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreviewCreated").field("preview", &self.preview).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PreviewInfo {
    pub name: String,
    pub owner: String,
    /// The name of the join token it was made with.
    pub token: String,
    pub matcher: Matcher,
    pub access: Access,
    pub when_away: PreviewWhenAway,
    /// Of public ones.
    pub link: Option<String>,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub expires: String,
    /// Is the developer there? `None`: the gateway can't know.
    pub developer_there: Option<bool>,
}
