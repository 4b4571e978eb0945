//! Which agent a command talks to, and with which token.

use crate::{client::AgentAddress, tunnel::token::JoinToken};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::{fs, path::PathBuf};

/// The unix socket of an agent with the default state directory.
const DEFAULT_SOCKET: &str = "/var/lib/redirector/agent.sock";

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
    pub fn address(&self) -> Result<AgentAddress> {
        let agent = match &self.agent {
            None => return Ok(AgentAddress::Unix(DEFAULT_SOCKET.into())),
            Some(agent) => agent,
        };
        if let Some(path) = agent.strip_prefix("unix:") {
            return Ok(AgentAddress::Unix(path.into()));
        }
        Ok(AgentAddress::Tls { address: with_port(agent), token: Box::new(self.token()?) })
    }

    fn token(&self) -> Result<JoinToken> {
        let (text, source) = match (&self.token_file, std::env::var("REDIRECTOR_TOKEN")) {
            (Some(path), _) => {
                let text = fs::read_to_string(path)
                    .with_context(|| format!("cannot read the join token from {}", path.display()))?;
                (text, path.display().to_string())
            }
            (None, Ok(text)) => (text, "REDIRECTOR_TOKEN".to_owned()),
            (None, Err(_)) => bail!(
                "a join token is needed: --token-file PATH or REDIRECTOR_TOKEN. The agent wrote one to \
                 STATE_DIR/token, `redirector token create` on its node makes more"
            ),
        };
        text.trim().parse().with_context(|| format!("the join token in {source} can't be used"))
    }
}

/// 7465 where no port is given.
fn with_port(address: &str) -> String {
    let has_port = match address.rsplit_once(':') {
        // A bare IPv6 address has colons, and no port unless it is in brackets.
        Some((host, port)) => port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')),
        None => false,
    };
    if has_port {
        address.to_owned()
    } else if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:7465")
    } else {
        format!("{address}:7465")
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
            assert_eq!(with_port(given), used);
        }
    }
}
