//! Why a call on the registry failed, in words for the developer who made it.

use super::{clash::Clash, target_host::HostError, tls_keys::TlsKeysError, warden_command::PortError};
use crate::{context::MAX_CONDITIONS, target::resolve::ResolveError};
use thiserror::Error;

/// Why a call on the registry failed.
#[derive(Debug, Error)]
pub enum RegistryError {
    #[error(transparent)]
    Target(#[from] ResolveError),
    #[error("cannot look for the target: {0}")]
    Lookup(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    TlsKeys(#[from] TlsKeysError),
    #[error(
        "your token is limited to other targets than {0}; ask whoever runs the agent for one that includes it"
    )]
    Forbidden(String),
    #[error(
        "this would take everybody's requests ({0}), which this agent does not allow: match a header, a path or \
         another part of your own requests, or ask whoever runs the agent to start it with --allow-all"
    )]
    AllForbidden(String),
    #[error("the name \"{name}\" is taken by an intercept of {owner}; choose another with --name")]
    NameTaken { name: String, owner: String },
    #[error("this would clash with intercept \"{name}\" of {owner}: {clash}")]
    Clash { name: String, owner: String, clash: Clash },
    #[error("there is no intercept \"{0}\"; `redirector list` shows those there are")]
    Unknown(String),
    #[error("intercept \"{0}\" was removed")]
    Removed(String),
    #[error("--datapath inspect is impossible here: {0}; use --datapath auto or proxy")]
    CannotInspect(String),
    #[error("the agent is stopping")]
    Stopping,
    #[error("the agent has {0} intercepts already, its limit")]
    Full(usize),
    #[error(
        "owner, address and instance may have 256 printable characters each, a matcher {MAX_CONDITIONS} conditions"
    )]
    Oversized,
    #[error("the name \"{0}\" can't be used: letters, digits, '-', '_' and '.' only, 64 at most")]
    BadName(String),
    #[error("nobody can send such a request: {0}")]
    NoRequest(String),
}
