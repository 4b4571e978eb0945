//! The control API: what agent and command line say to each other, as JSON.
//!
//! | call | purpose |
//! | --- | --- |
//! | `GET /v1/targets` | what can be intercepted on this node |
//! | `GET /v1/intercepts` | the intercepts |
//! | `POST /v1/intercepts` | create one: [`CreateIntercept`] → [`Created`] |
//! | `DELETE /v1/intercepts/NAME` | remove one |
//! | `POST /v1/intercepts/NAME/tunnel` | become its tunnel (HTTP Upgrade) |
//! | `POST /v1/trace` | which requests were seen: [`TraceQuery`](crate::trace::query::TraceQuery) → [`Traced`](crate::trace::query::Traced) |
//! | `POST /v1/explain` | which intercept would take a request: [`Explain`] → [`Explanation`] |
//! | `GET /v1/status` | [`Status`] |
//! | `GET`, `POST /v1/tokens`, `DELETE /v1/tokens/ID` | join tokens; unix socket only |
//!
//! Errors are [`Problem`] with a fitting HTTP status.

mod unseen;

pub use unseen::{Unseen, UnseenConnection, UnseenConnections};

use crate::{
    context::{Condition, Matcher},
    protocol::Protocol,
    target::Target,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::IpAddr};

/// What a matching request gets while the developer's tunnel is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WhenAway {
    /// The app answers, as if there were no intercept.
    #[default]
    Live,
    /// A 503 that names the intercept.
    Error,
}

/// How requests are got at.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Datapath {
    /// New connections pass through the agent; those that existed before stay with the app.
    Proxy,
    /// Connections stay with the app, new ones and old ones; one changes to the agent when a request on it may match.
    Inspect,
    /// As `inspect` where that sees all requests; elsewhere new connections pass through the agent.
    #[default]
    Auto,
}

impl fmt::Display for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Proxy => "proxy",
            Self::Inspect => "inspect",
            Self::Auto => "auto",
        })
    }
}

/// Why a connection, or what was left of it, is passed on to the app as raw bytes, its requests unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uncovered {
    /// Neither HTTP nor TLS.
    NotHttp,
    /// The server spoke first.
    ServerFirst,
    /// TLS, and there is no key for it.
    Tls,
    /// TLS, and the app asks for client certificates.
    ClientCertificate,
    /// TLS, and the app shows a certificate that no key is there for.
    OtherCertificate,
    /// TLS that the agent can't take part in: the client, or the app, does not agree with it on a version, a cipher or
    /// a protocol.
    TlsRefused,
    /// HTTP/2 that could not be taken up.
    Http2,
    /// HTTP that two parsers could read differently.
    Malformed,
}

impl Uncovered {
    pub const ALL: [Self; 8] = [
        Self::NotHttp,
        Self::ServerFirst,
        Self::Tls,
        Self::ClientCertificate,
        Self::OtherCertificate,
        Self::TlsRefused,
        Self::Http2,
        Self::Malformed,
    ];

    /// As in JSON and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotHttp => "not-http",
            Self::ServerFirst => "server-first",
            Self::Tls => "tls",
            Self::ClientCertificate => "client-certificate",
            Self::OtherCertificate => "other-certificate",
            Self::TlsRefused => "tls-refused",
            Self::Http2 => "http2",
            Self::Malformed => "malformed",
        }
    }

    /// For people: what it is, and what to do.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::NotHttp => {
                "neither HTTP nor TLS: there are no requests to route; intercept the service's HTTP port"
            }
            Self::ServerFirst => {
                "the server spoke first, as those of SMTP, SSH and MySQL do: there are no requests to route; \
                 intercept the service's HTTP port"
            }
            Self::Tls => {
                "TLS, and there is no key for it: give `redirector intercept` the app's certificate with \
                 --tls-cert and --tls-key"
            }
            Self::ClientCertificate => {
                "TLS, and the app asks for client certificates (mTLS): the agent can't show the client's; there is \
                 nothing to be done about it"
            }
            Self::OtherCertificate => {
                "TLS, and the app shows a certificate whose key is not there: give `redirector intercept` the one it \
                 shows, with its key"
            }
            Self::TlsRefused => {
                "TLS that the agent can't take part in, for the version, the cipher or the protocol that client and \
                 app agree on: the agent's log (RUST_LOG=debug) says why"
            }
            Self::Http2 => "HTTP/2 that could not be taken up: the agent's log (RUST_LOG=debug) says why",
            Self::Malformed => {
                "HTTP that two parsers could read differently, so nobody may cut it into requests: repair the \
                 client or the app; the agent's log (RUST_LOG=debug) says what it met"
            }
        }
    }
}

/// The way in which connections come to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DoorKind {
    /// New connections, assigned to the agent's listener by the eBPF program.
    Assign,
    /// Connections of the app, parked on the agent when a request on them may have matched.
    Park,
}

impl DoorKind {
    pub const ALL: [Self; 2] = [Self::Assign, Self::Park];

    /// As in JSON and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::Park => "park",
        }
    }
}

/// Asks for an intercept. Asking again with the same `instance` renews it after a lost connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateIntercept {
    /// `None`: the agent makes one up.
    pub name: Option<String>,
    pub target: Target,
    pub port: u16,
    pub matcher: Matcher,
    #[serde(default)]
    pub when_away: WhenAway,
    #[serde(default)]
    pub datapath: Datapath,
    /// End the connections that exist already and whose requests can't be seen: their clients make new ones.
    #[serde(default)]
    pub close_existing: bool,
    /// Takes no requests: those of the port are remembered, for [`crate::trace`]. It has no tunnel, and ends unless it is
    /// renewed.
    #[serde(default)]
    pub observe: bool,
    /// Who asks, for people: `user@host`.
    pub owner: String,
    /// Names the process that asks, at random.
    pub instance: String,
    /// Where the developer's side sends requests, for people.
    pub to: String,
    /// The app's certificates with their keys, for what is inside TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<TlsPair>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPair {
    pub certificate: PemSource,
    pub key: PemSource,
}

/// Where the text of a PEM file (RFC 7468) comes from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PemSource {
    /// This is it.
    Pem(String),
    /// A file inside the target, by its path from the target's own root.
    Target(String),
}

/// Never shows a key.
impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(text) => write!(f, "Pem({} bytes)", text.len()),
            Self::Target(path) => f.debug_tuple("Target").field(path).finish(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Created {
    pub intercept: InterceptInfo,
    /// What may keep the intercept from working.
    pub warnings: Vec<String>,
    /// How many connections were closed, if that was asked for.
    #[serde(default)]
    pub closed: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterceptInfo {
    pub name: String,
    pub target: Target,
    pub port: u16,
    pub matcher: Matcher,
    pub when_away: WhenAway,
    /// What becomes of new connections now: [`Datapath::Proxy`] or [`Datapath::Inspect`].
    #[serde(default)]
    pub datapath: Datapath,
    /// Why.
    #[serde(default)]
    pub datapath_reason: String,
    pub owner: String,
    /// The name of the join token it was made with.
    pub token: String,
    pub to: String,
    /// It is an observer, and takes no requests.
    #[serde(default)]
    pub observes: bool,
    /// Is the developer's tunnel there?
    pub connected: bool,
    /// Since when it is there, or away: RFC 3339.
    pub tunnel_since: String,
    /// RFC 3339.
    pub created: String,
    pub counts: InterceptCounts,
}

/// Asks which intercept would take a request. Nothing is sent to anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    pub target: Target,
    pub port: u16,
    /// Case-sensitive.
    pub method: String,
    /// The request target in any of its forms, as sent: `/cart?id=1`.
    pub path: String,
    #[serde(default)]
    pub headers: Vec<HeaderLine>,
}

/// One line of a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderLine {
    /// In any case.
    pub name: String,
    /// Without the whitespace around it.
    pub value: String,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name of the intercept that takes it; `None`: it goes to the app.
    pub taken_by: Option<String>,
    /// All intercepts of the port, the oldest first: the first one that matches takes the request.
    pub intercepts: Vec<ExplainedIntercept>,
}

/// One intercept's view of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedIntercept {
    pub name: String,
    pub owner: String,
    pub to: String,
    /// Is the developer's tunnel there?
    pub connected: bool,
    /// What the request gets if it is not.
    pub when_away: WhenAway,
    /// All of its conditions hold.
    pub matches: bool,
    pub conditions: Vec<ExplainedCondition>,
}

/// One condition, and whether the request meets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedCondition {
    pub condition: Condition,
    /// The same for people.
    pub text: String,
    pub holds: bool,
}

/// Requests of one intercept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterceptCounts {
    /// Matched the intercept; the sum of the others and of those under way.
    pub matched: u64,
    /// Answered by the developer's local server.
    pub answered: u64,
    /// Went to the app, because the developer was away.
    pub away: u64,
    /// Got an error: the local server refused, or the tunnel was lost in the middle.
    pub failed: u64,
}

/// What came to one intercepted port, since the agent started: an intercept that ends takes nothing away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounts {
    /// Connections taken, by the way they came.
    pub connections: BTreeMap<DoorKind, u64>,
    /// Of these, open now.
    pub open: u64,
    pub requests: BTreeMap<Protocol, RequestCounts>,
    /// Connections that were passed on without their requests being seen, from their start or from some point on, by
    /// reason.
    pub uncovered: BTreeMap<Uncovered, u64>,
    /// Connections that changed from the app to the agent.
    #[serde(default)]
    pub parked: u64,
    /// Of these, for a request that did not match after all.
    #[serde(default)]
    pub falsely_parked: u64,
    /// Of these, ended by the agent because they were idle.
    #[serde(default)]
    pub retired: u64,
    /// Connections that were to change, and stayed with the app because something was in doubt.
    #[serde(default)]
    pub given_back: u64,
    pub bytes: BTreeMap<Route, Bytes>,
}

/// Requests of one port in one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Their head was read.
    pub seen: u64,
    /// Went to the app: no intercept took them, or its developer was away.
    pub live: u64,
    /// Matched an intercept; the sum of the following and of those under way.
    pub matched: u64,
    /// Answered by a developer's local server.
    pub answered: u64,
    /// Went to the app, because the developer was away. Counted as `live`, too.
    pub away: u64,
    /// Got an error in place of a developer's answer.
    pub failed: u64,
}

/// Where requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// To the app. What is passed on unseen goes there, too.
    Live,
    Developer,
}

impl Route {
    /// As in JSON and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Developer => "developer",
        }
    }
}

/// Bytes that were sent to a server and received from it, as they were on the connection (with the framing and the
/// encryption there).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    pub request: u64,
    pub response: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// Seconds.
    pub uptime: u64,
    /// Do apps see the real client? If not, why.
    pub client_address_shown: bool,
    pub client_address_reason: Option<String>,
    pub targets: Vec<TargetStatus>,
    pub intercepts: Vec<InterceptInfo>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    pub target: Target,
    /// Interface → `tcx` or `clsact`.
    pub attached: BTreeMap<String, String>,
    /// Those of the target, outside of its loopback interface.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Packets that could have opened a connection to an intercepted port, by what became of them, since the agent
    /// started.
    pub packets: BTreeMap<String, u64>,
    pub ports: BTreeMap<u16, PortCounts>,
    /// Connections that the app has now, and whose requests are not seen. Without a port: they could not be listed.
    #[serde(default)]
    pub unseen: BTreeMap<u16, UnseenConnections>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateToken {
    /// Whom it is for.
    pub name: String,
    /// Targets it is limited to; `None`: all of the node.
    pub targets: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The whole token. It can't be shown again.
    pub token: String,
}

/// Whether an intercept, or a preview, may be called so: 1 to 64 of letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Why a call failed, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub error: String,
}
