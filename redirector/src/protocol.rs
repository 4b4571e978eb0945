//! The protocol in which a request came.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// A version of HTTP, named as in ALPN (RFC 7301 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
}

/// A protocol that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the protocol is neither http/1.1 nor h2")]
pub struct UnknownProtocol;

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == text).ok_or(UnknownProtocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
