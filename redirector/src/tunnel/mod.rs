//! The tunnel between agent and developer: identity, join tokens, TLS, byte streams over HTTP/2.
//!
//! The developer dials the agent with TLS 1.3, each side knowing the other's public key from the join token
//! ([`token`], [`identity`], [`tls`], [`store`]). After an HTTP/1.1 Upgrade on the control API both ends speak
//! HTTP/2 with prior knowledge on that connection. Streams are opened by the agent, so the agent is the HTTP/2
//! client ([`agent_end`]) and the developer the HTTP/2 server ([`developer_end`]).

pub mod agent_end;
pub mod backoff;
pub mod developer_end;
pub mod error;
pub mod identity;
pub mod liveness;
pub mod local_server;
pub mod meta;
pub mod relay;
pub mod report;
pub mod response_status;
pub mod store;
pub mod stream;
pub mod tls;
pub mod token;

pub(crate) mod state_file;
mod wire;

/// Value of the `Upgrade` header that turns a control API connection into a tunnel.
pub const UPGRADE_PROTOCOL: &str = "redirector-tunnel";

#[cfg(test)]
mod tests;
