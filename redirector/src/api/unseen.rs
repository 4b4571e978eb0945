//! Connections that the app has, and whose requests nobody sees.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// Why the requests on a connection of the app's are not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unseen {
    /// It is older than the intercept, and connections are not inspected.
    Older,
    /// No request has been seen on it yet behind which another may begin.
    NotYet,
    Http2,
    Tls,
    /// CONNECT, an upgrade: WebSockets.
    Switched,
    NotHttp,
    /// The client sends requests without waiting for answers.
    Pipelined,
    /// The agent could not take it over, or not in time.
    HeldInVain,
    /// Urgent data has come on it.
    Urgent,
    /// It has explicit congestion notification, which a parked connection could not have.
    Ecn,
    /// A later version's reason.
    #[serde(other)]
    Other,
}

impl Unseen {
    /// For people: what it is, and what becomes of it.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Older => {
                "older than the intercept, which does not inspect connections: the app has them until they end \
                 (`redirector intercept --close-existing` ends them)"
            }
            Self::NotYet => {
                "no request seen yet: one that speaks HTTP/1.x is covered from the request after the next"
            }
            Self::Http2 => {
                "HTTP/2 that the app has: it stays with the app until it ends (--close-existing ends it)"
            }
            Self::Tls => {
                "TLS that the app has: give `redirector intercept` the app's certificate with --tls-cert and --tls-key, \
                 and --close-existing"
            }
            Self::Switched => {
                "switched to another protocol (WebSocket, CONNECT): it belongs to the app until it ends"
            }
            Self::NotHttp => {
                "not HTTP/1.x, or such that two parsers could read it differently: there are no requests to route"
            }
            Self::Pipelined => {
                "sends requests ahead of their answers, so that it can't be told which is whose"
            }
            Self::HeldInVain => {
                "the agent could not take it over, or not in time: the agent's log (RUST_LOG=debug) says why"
            }
            Self::Urgent => "had urgent data (TCP), and is left alone since",
            Self::Ecn => "has congestion notified explicitly (ECN), which a parked connection can't have",
            Self::Other => "for a reason that this version does not know",
        }
    }
}

/// The connections of one port that are not covered now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenConnections {
    /// All of them, by reason.
    pub counts: BTreeMap<Unseen, u64>,
    /// The first [`Self::LISTED`] of them.
    pub connections: Vec<UnseenConnection>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenConnection {
    pub client: SocketAddr,
    pub reason: Unseen,
}

impl UnseenConnections {
    /// How many are listed one by one.
    pub const LISTED: usize = 1000;
}

impl FromIterator<UnseenConnection> for UnseenConnections {
    fn from_iter<T: IntoIterator<Item = UnseenConnection>>(all: T) -> Self {
        let mut found = Self::default();
        for connection in all {
            *found.counts.entry(connection.reason).or_default() += 1;
            if found.connections.len() < Self::LISTED {
                found.connections.push(connection);
            }
        }
        found
    }
}
