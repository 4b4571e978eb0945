//! `redirector token`

use super::{
    connection::ConnectionArgs,
    output::{OutputArgs, block_on, path_segment, table},
};
use crate::{
    api::{CreateToken, TokenCreated},
    target::Target,
    tunnel::store::TokenInfo,
};
use anyhow::Result;
use clap::{Args, Subcommand};
use http::Method;
use std::process::ExitCode;

/// Manage join tokens (root, on the agent's node)
#[derive(Args, Debug)]
pub struct TokenCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token for a developer and print it. It is not shown again
    Create {
        /// Whom it is for
        name: String,
        /// A target it is limited to; repeat for more [default: all of the node]
        #[arg(long = "target", value_name = "TARGET")]
        targets: Vec<Target>,
        #[command(flatten)]
        connection: ConnectionArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the tokens, without their secrets
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make a token worthless and end its intercepts
    Revoke {
        /// Its name or id
        token: String,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

impl TokenCommand {
    pub fn run(self) -> Result<ExitCode> {
        match self.action {
            Action::Create { name, targets, connection, output } => {
                let targets = targets.iter().map(ToString::to_string).collect::<Vec<_>>();
                let request = CreateToken { name, targets: (!targets.is_empty()).then_some(targets) };
                let agent = connection.address()?;
                let created: TokenCreated =
                    block_on(async { Ok(agent.post("/v1/tokens", &request).await?) })?;
                output.print(&created, |created| created.token.clone())?;
            }
            Action::List { connection, output } => {
                let agent = connection.address()?;
                let tokens: Vec<TokenInfo> =
                    block_on(async { Ok(agent.call(Method::GET, "/v1/tokens").await?) })?;
                output.print(&tokens, |tokens| text(tokens))?;
            }
            Action::Revoke { token, connection } => {
                let agent = connection.address()?;
                let path = format!("/v1/tokens/{}", path_segment(&token));
                block_on(async { Ok(agent.delete(&path).await?) })?;
                println!("revoked {token}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(tokens: &[TokenInfo]) -> String {
    if tokens.is_empty() {
        return "There are no tokens: `redirector token create NAME` makes one.".to_owned();
    }
    let rows = tokens.iter().map(|token| {
        let targets = token.targets.as_ref().map_or_else(|| "all".to_owned(), |targets| targets.join(" "));
        [token.id.to_string(), token.name.clone(), targets, token.created.clone()]
    });
    table(["ID", "NAME", "TARGETS", "CREATED"], rows)
}
