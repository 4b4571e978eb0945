//! Which agent or gateway a command talks to, and with which token.

use crate::{
    client::{ApiAddress, Way, Whose},
    tunnel::token::JoinToken,
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The unix socket of an agent with the default state directory.
const DEFAULT_SOCKET: &str = "/var/lib/redirector/agent.sock";

const AGENT_PORT: u16 = 7465;
const GATEWAY_PORT: u16 = 7466;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Agent")]
pub struct ConnectionArgs {
    /// The agent: HOST:PORT, or unix:PATH for root on its node [default: unix:/var/lib/redirector/agent.sock]
    #[arg(long, env = "REDIRECTOR_AGENT", value_name = "ADDRESS")]
    agent: Option<String>,

    /// A file with the join token (on the agent's node: STATE_DIR/token). In place of it the token itself can be
    /// in REDIRECTOR_TOKEN
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

impl ConnectionArgs {
    pub fn address(&self) -> Result<ApiAddress> {
        match &self.agent {
            None => Ok(default_agent()),
            Some(agent) => agent_with_token(agent, self.token_file.as_deref()),
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayArgs {
    /// The gateway: HOST:PORT of its --admin-listen, or unix:PATH of the socket in its state directory
    #[arg(long, env = "REDIRECTOR_GATEWAY", value_name = "ADDRESS")]
    gateway: Option<String>,

    /// A file with the gateway's join token (on its machine: STATE_DIR/token). In place of it the token itself can be
    /// in REDIRECTOR_GATEWAY_TOKEN
    #[arg(long, value_name = "PATH")]
    gateway_token_file: Option<PathBuf>,
}

impl GatewayArgs {
    pub fn is_given(&self) -> bool {
        self.gateway.is_some()
    }

    pub fn address(&self) -> Result<ApiAddress> {
        let Some(gateway) = &self.gateway else {
            bail!("which gateway? --gateway HOST:PORT or REDIRECTOR_GATEWAY says it");
        };
        let token = || {
            token(self.gateway_token_file.as_deref(), "REDIRECTOR_GATEWAY_TOKEN")?.with_context(|| {
                "a join token of the gateway is needed: --gateway-token-file PATH or REDIRECTOR_GATEWAY_TOKEN. The \
                 gateway wrote one to STATE_DIR/token"
            })
        };
        address(Whose::Gateway, gateway, token)
    }
}

/// One of several agents that are asked: its address, and a file with a join token for it.
pub fn agent_with_token(agent: &str, token_file: Option<&Path>) -> Result<ApiAddress> {
    address(Whose::Agent, agent, || agent_token(token_file))
}

/// The one of this node.
pub fn default_agent() -> ApiAddress {
    ApiAddress { whose: Whose::Agent, way: Way::Unix(DEFAULT_SOCKET.into()) }
}

fn agent_token(file: Option<&Path>) -> Result<JoinToken> {
    token(file, "REDIRECTOR_TOKEN")?.with_context(|| {
        "a join token is needed: --token-file PATH or REDIRECTOR_TOKEN. The agent wrote one to STATE_DIR/token, \
         `redirector token create` on its node makes more"
    })
}

fn address(whose: Whose, text: &str, token: impl FnOnce() -> Result<JoinToken>) -> Result<ApiAddress> {
    let port = match whose {
        Whose::Agent => AGENT_PORT,
        Whose::Gateway => GATEWAY_PORT,
    };
    let way = match text.strip_prefix("unix:") {
        Some(path) => Way::Unix(path.into()),
        None => Way::Tls { address: with_port(text, port), token: Box::new(token()?) },
    };
    Ok(ApiAddress { whose, way })
}

/// From the file, or else from the variable, if there is either.
fn token(file: Option<&Path>, variable: &str) -> Result<Option<JoinToken>> {
    match (file, std::env::var(variable)) {
        (Some(path), _) => read_token(path).map(Some),
        (None, Ok(text)) => parse_token(&text, variable).map(Some),
        (None, Err(_)) => Ok(None),
    }
}

fn read_token(path: &Path) -> Result<JoinToken> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the join token from {}", path.display()))?;
    parse_token(&text, &path.display().to_string())
}

fn parse_token(text: &str, source: &str) -> Result<JoinToken> {
    text.trim().parse().with_context(|| format!("the join token in {source} can't be used"))
}

/// `port` where none is given.
fn with_port(address: &str, own: u16) -> String {
    let has_port = match address.rsplit_once(':') {
        // A bare IPv6 address has colons, and no port unless it is in brackets.
        Some((host, port)) => port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')),
        None => false,
    };
    if has_port {
        address.to_owned()
    } else if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{own}")
    } else {
        format!("{address}:{own}")
    }
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn the_port_may_be_left_out() {
        for (given, used) in [
            ("node", "node:7465"),
            ("node:1", "node:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("fd00::1", "[fd00::1]:7465"),
            ("[fd00::1]", "[fd00::1]:7465"),
            ("[fd00::1]:1", "[fd00::1]:1"),
        ] {
            assert_eq!(with_port(given, 7465), used);
        }
    }
}
