//! `redirector gateway`

use super::{connection::agent_with_token, otlp::OtlpArgs};
use crate::gateway::{
    self, GatewayOptions, IngressOptions,
    link::{PreviewDomain, PublicUrl},
};
use anyhow::{Result, ensure};
use clap::Args;
use ipnet::IpNet;
use std::{
    io::IsTerminal as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

/// Run the preview gateway, in front of an ingress (no privileges)
///
/// Who opens a preview's link gets the developer's version: the gateway puts the developer's context into their requests,
/// and passes them to the ingress. Context that comes from outside is taken away. Requests without a preview see the live
/// version. Ready when it prints a line with "listening". RUST_LOG sets what it logs to stderr (default: info).
#[derive(Args, Debug)]
pub struct GatewayCommand {
    /// Where visitors connect
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// Speak TLS to visitors, with this certificate: a PEM file, with what leads to its issuer
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Its key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// How visitors see the gateway, for links: https://HOST[:PORT]. With https cookies are for TLS only, also where
    /// something in front of the gateway ends it [default: the address it listens on]
    #[arg(long, value_name = "URL")]
    public_url: Option<PublicUrl>,

    /// Previews answer at ID.DOMAIN, too; all names below DOMAIN must lead here, and be in the certificate
    #[arg(long, value_name = "DOMAIN")]
    preview_domain: Option<PreviewDomain>,

    /// A host to serve: for share links and the live version. Repeat it for more [default: any]
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,

    /// Nothing but previews: requests without one are not passed on to the live version
    #[arg(long)]
    only_previews: bool,

    /// Peers that tell the truth in Forwarded and X-Forwarded-*, as load balancers do; all others' claims are replaced.
    /// Repeat it for more
    #[arg(long = "trust-forwarded", value_name = "ADDRESS[/BITS]", value_parser = network)]
    trusted: Vec<IpNet>,

    /// The ingress: name or address to connect to
    #[arg(long, value_name = "HOST", help_heading = "Ingress")]
    ingress_host: String,

    /// Its port [default: 80, with --ingress-tls 443]
    #[arg(long, value_name = "PORT", help_heading = "Ingress", value_parser = clap::value_parser!(u16).range(1..))]
    ingress_port: Option<u16>,

    /// Speak TLS to it
    #[arg(long, help_heading = "Ingress")]
    ingress_tls: bool,

    /// Speak HTTP/2 to it, as gRPC needs; only WebSockets go in HTTP/1.1. Without TLS it must know HTTP/2 with prior
    /// knowledge. Needs --ingress-l5 or --host
    #[arg(long, help_heading = "Ingress")]
    ingress_http2: bool,

    /// The host that it serves, for SNI and the Host header [default: the one the visitor asked for; for ID.DOMAIN the
    /// --ingress-host]
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Ingress")]
    ingress_l5: Option<String>,

    /// Certificates to verify it by, besides the system's: a PEM file
    #[arg(long, value_name = "FILE", help_heading = "Ingress", requires = "ingress_tls")]
    ingress_ca: Option<PathBuf>,

    /// An agent to ask whether a preview's developer is there. Repeat it, each with its --agent-token-file, for more
    #[arg(long = "agent", value_name = "ADDRESS", help_heading = "Developers")]
    agents: Vec<String>,

    /// A file with a join token for that agent
    #[arg(long = "agent-token-file", value_name = "FILE", help_heading = "Developers")]
    agent_token_files: Vec<PathBuf>,

    /// Where developers connect, with the join token in STATE_DIR/token
    #[arg(long, default_value = "0.0.0.0:7466", value_name = "ADDRESS:PORT", help_heading = "Developers")]
    admin_listen: SocketAddr,

    #[command(flatten)]
    otlp: OtlpArgs,

    /// Previews, identity and join tokens
    #[arg(long, default_value = "/var/lib/redirector-gateway", value_name = "DIR")]
    state_dir: PathBuf,
}

impl GatewayCommand {
    pub fn run(self) -> Result<ExitCode> {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init();
        let options = self.options()?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(gateway::run(options))?;
        Ok(ExitCode::SUCCESS)
    }

    fn options(self) -> Result<GatewayOptions> {
        ensure!(
            self.agents.len() == self.agent_token_files.len(),
            "each --agent needs its --agent-token-file, in the same order"
        );
        ensure!(
            !self.ingress_http2 || self.ingress_l5.is_some() || !self.hosts.is_empty(),
            "--ingress-http2 needs to know the hosts, for each of them has connections of its own: name the one that the \
             ingress serves with --ingress-l5, or those that visitors ask for with --host"
        );
        let agents = self.agents.iter().zip(&self.agent_token_files);
        let port = self.ingress_port.unwrap_or(if self.ingress_tls { 443 } else { 80 });
        Ok(GatewayOptions {
            listen: self.listen,
            tls: self.tls_cert.zip(self.tls_key),
            public_url: self.public_url,
            preview_domain: self.preview_domain,
            hosts: self.hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase()).collect(),
            ingress: IngressOptions {
                host: self.ingress_host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port,
                tls: self.ingress_tls,
                http2: self.ingress_http2,
                l5: self.ingress_l5,
                ca: self.ingress_ca,
            },
            pass_through: !self.only_previews,
            trusted: self.trusted,
            agents: agents.map(|(agent, file)| agent_with_token(agent, Some(file))).collect::<Result<_>>()?,
            state_dir: self.state_dir,
            admin_listen: self.admin_listen,
            otlp: self.otlp.endpoint,
        })
    }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|error| error.to_string())
}
