//! `redirector preview`

use super::{
    connection::{ConnectionArgs, GatewayArgs},
    output::{Format, OutputArgs, block_on, path_segment, table},
    owner::owner,
    qr_code::qr_code,
};
use crate::{
    api::InterceptInfo,
    client::ApiAddress,
    context::{Condition, InterceptKey, Matcher},
    gateway::{
        api::{CreatePreview, PreviewCreated, PreviewInfo},
        preview::{Access, PreviewWhenAway},
    },
};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use std::{fs, path::PathBuf, process::ExitCode};

/// Manage the previews of a gateway: links by which others see your version
#[derive(Args, Debug)]
pub struct PreviewCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Box<CreateCommand>),
    /// Show the previews, without their links
    List {
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        gateway: GatewayArgs,
    },
    /// End a preview
    Remove {
        /// Its name, as `redirector preview list` shows it
        name: String,
        #[command(flatten)]
        gateway: GatewayArgs,
    },
}

/// Make a preview of an intercept and print its link. It is not shown again
#[derive(Args, Debug)]
struct CreateCommand {
    /// The intercept's name, as `redirector list` shows it; its agent says what it takes
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    intercept: Option<String>,

    /// In place of an intercept, its key: no agent is asked
    #[arg(long)]
    key: Option<InterceptKey>,

    /// When it ends by itself, from now: 30m, 8h or 7d; 90d at most
    #[arg(long, default_value = "8h", value_name = "TIME", value_parser = seconds)]
    expires: i64,

    /// Who may look at it
    #[arg(long = "auth", value_enum, default_value_t)]
    access: Access,

    /// For --auth password: a file with the password [default: one is made up, and printed]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// A name to remove it by [default: made up]
    #[arg(long)]
    name: Option<String>,

    /// What visitors see while you are away
    #[arg(long, value_enum, default_value_t)]
    when_away: PreviewWhenAway,

    /// Print the link as a QR code, too
    #[arg(long)]
    qr: bool,

    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl PreviewCommand {
    pub fn run(self) -> Result<ExitCode> {
        match self.action {
            Action::Create(command) => command.run()?,
            Action::List { gateway, output } => {
                let gateway = gateway.address()?;
                let list: Vec<PreviewInfo> =
                    block_on(async { Ok(gateway.call(Method::GET, "/v1/previews").await?) })?;
                output.print(&list, |list| text(list))?;
            }
            Action::Remove { name, gateway } => {
                let gateway = gateway.address()?;
                block_on(async { Ok(gateway.delete(&preview_path(&name)).await?) })?;
                println!("removed {name}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl CreateCommand {
    fn run(self) -> Result<()> {
        let gateway = self.gateway.address()?;
        let password = match &self.password_file {
            Some(path) => {
                let text = fs::read_to_string(path)
                    .with_context(|| format!("cannot read the password from {}", path.display()))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => None,
        };
        let agent = match &self.intercept {
            Some(_) => Some(self.connection.address()?),
            None => None,
        };
        if self.key.as_ref().is_some_and(InterceptKey::is_short) {
            eprintln!(
                "warning: the key is short: whoever guesses it reaches your version without the link; intercepts without \
                 conditions get a random one"
            );
        }
        let created: PreviewCreated = block_on(async {
            let request = CreatePreview {
                name: self.name.clone(),
                owner: owner(),
                matcher: self.matcher(agent.as_ref()).await?,
                expires_in: Some(self.expires),
                access: self.access,
                password,
                when_away: self.when_away,
            };
            Ok(gateway.post("/v1/previews", &request).await?)
        })?;
        for warning in &created.warnings {
            eprintln!("warning: {warning}");
        }
        let qr = self.qr && self.output.output == Format::Text;
        self.output.print(&created, |created| created_text(created, qr))
    }

    async fn matcher(&self, agent: Option<&ApiAddress>) -> Result<Matcher> {
        let (Some(name), Some(agent)) = (&self.intercept, agent) else {
            return Ok(Matcher { conditions: self.key.iter().cloned().map(Condition::Key).collect() });
        };
        let intercepts: Vec<InterceptInfo> = agent.call(Method::GET, "/v1/intercepts").await?;
        match intercepts.into_iter().find(|intercept| intercept.name == *name) {
            Some(intercept) => Ok(intercept.matcher),
            None => bail!("there is no intercept \"{name}\"; `redirector list` shows those there are"),
        }
    }
}

/// A preview in the gateway's API.
pub fn preview_path(name: &str) -> String {
    format!("/v1/previews/{}", path_segment(name))
}

/// The link first, on a line of its own, for who copies it.
fn created_text(created: &PreviewCreated, qr: bool) -> String {
    let mut text = format!("{}\n", created.link);
    if created.share_link != created.link {
        text.push_str(&format!("or {}\n", created.share_link));
    }
    if let Some(password) = &created.password {
        text.push_str(&format!("password: {password}\n"));
    }
    text.push_str(&format!("preview \"{}\" until {}\n", created.preview.name, created.preview.expires));
    if qr && let Some(code) = qr_code(&created.link) {
        text.push_str(&code);
    }
    text
}

fn text(list: &[PreviewInfo]) -> String {
    if list.is_empty() {
        return "There are no previews: `redirector preview create` makes one.".to_owned();
    }
    let rows = list.iter().map(|preview| {
        [
            preview.name.clone(),
            preview.matcher.to_string(),
            preview.owner.clone(),
            preview.access.to_string(),
            match preview.developer_there {
                Some(true) => "there",
                Some(false) => "away",
                None => "unknown",
            }
            .to_owned(),
            preview.expires.clone(),
            preview.link.clone().unwrap_or_default(),
        ]
    });
    table(["NAME", "CONTEXT", "OWNER", "AUTH", "DEVELOPER", "EXPIRES", "LINK"], rows)
}

/// `90`, `90s`, `30m`, `8h` or `7d`.
fn seconds(text: &str) -> Result<i64, String> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => 0,
    };
    let seconds = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| "write it as 30m, 8h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [("90", 90), ("1s", 1), ("30m", 1800), ("8h", 28800), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "h", "0h", "-1h", "1.5h", "8 h", "8x", "99999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
