//! Does netfilter in a network namespace send inbound connections to a port elsewhere before they reach the app?
//!
//! Service meshes do so (Istio, Linkerd); an intercept there would be answered by the sidecar all the same. Read from
//! the kernel without any `iptables` or `nft` binary, and without loading a module or registering a table.

mod extension;
mod legacy;
mod nft;
mod rule;
mod walk;

use std::io;

use serde::Serialize;
use thiserror::Error;

use self::rule::{Connection, Family};

/// A rule that takes connections away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedirectFinding {
    /// Such as `ip nat`, or `ip nat (iptables-legacy)`.
    pub table: String,
    pub chain: String,
    /// The rule in words close to those of `nft`; what it also depends on is in brackets.
    pub rule: String,
    pub certainty: Certainty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// Every new connection to the port is redirected.
    Redirects,
    /// It depends on more than the port, or on something that we cannot evaluate.
    MayRedirect,
}

#[derive(Debug, Error)]
pub enum RedirectRulesError {
    #[error("cannot read the nf_tables rules of the target: {0}; the agent needs CAP_NET_ADMIN")]
    Nftables(#[source] io::Error),
    #[error(
        "cannot read the legacy iptables rules of the target: {0}; the agent needs CAP_NET_ADMIN and CAP_NET_RAW"
    )]
    Legacy(#[source] io::Error),
}

/// The first rule that redirects connections from outside to `port`, in the network namespace of the calling thread
/// (see [`crate::target::netns::Netns::run_inside`]). A certain one is preferred to a possible one.
///
/// # Errors
/// When the kernel does not let us read the rules, or answers in a form that we do not know.
pub fn redirect_of(port: u16) -> Result<Option<RedirectFinding>, RedirectRulesError> {
    let mut tables = nft::read_tables().map_err(RedirectRulesError::Nftables)?;
    tables.extend(legacy::read_tables().map_err(RedirectRulesError::Legacy)?);
    let connections = [Family::Ipv4, Family::Ipv6].map(|family| Connection { family, port });
    let findings = tables.iter().flat_map(|table| {
        connections.iter().filter_map(|connection| {
            let found = walk::find_redirect(table, *connection)?;
            Some(RedirectFinding {
                table: table.name.clone(),
                chain: found.chain.to_owned(),
                rule: found.rule.to_string(),
                certainty: if found.certain { Certainty::Redirects } else { Certainty::MayRedirect },
            })
        })
    });
    Ok(findings.min_by_key(|finding| finding.certainty != Certainty::Redirects))
}
