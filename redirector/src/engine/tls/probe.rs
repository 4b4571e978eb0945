//! Tries the app once, when somebody brings a key: what will keep its connections from being looked into?

use super::{
    app::{AppRefused, AppTls},
    key::TlsKey,
    session::Ending,
};
use crate::engine::socket::Socket;
use rustls::pki_types::DnsName;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// More than these server names are not tried for one certificate.
const NAMES: usize = 4;

/// Makes a handshake with the app at `address` for each key, and gives warnings for people. Call it inside the
/// target's network namespace.
pub async fn probe(address: SocketAddr, keys: &[Arc<TlsKey>]) -> Vec<String> {
    let mut warnings = Vec::new();
    let all = async {
        for key in keys {
            if let Some(warning) = probe_key(address, key).await
                && !warnings.contains(&warning)
            {
                warnings.push(warning);
            }
        }
    };
    if timeout(PATIENCE, all).await.is_err() {
        warnings.push(no_tls(address, "no answer in time"));
    }
    warnings
}

/// `None`: a server name leads to the key's own certificate.
async fn probe_key(address: SocketAddr, key: &TlsKey) -> Option<String> {
    let names = key.server_names().iter().take(NAMES).map(|name| DnsName::try_from(name.clone()).ok());
    let mut names: Vec<_> = names.flatten().map(Some).collect();
    if names.is_empty() {
        names.push(None);
    }
    let mut warning = None;
    for name in names {
        warning = match greet(address, name, key).await {
            Ok(true) => return None,
            Ok(false) => Some(format!(
                "the service on port {} shows another certificate than the one of --tls-cert ({}): its \
                 connections pass through untouched until it does, or until you give the one it shows, with its key",
                address.port(),
                key.server_names().join(", ")
            )),
            Err(AppRefused::ClientCertificate) => {
                return Some(format!(
                    "the service on port {} asks for client certificates (mTLS): its connections can't be \
                     intercepted, as the agent can't show the client's; they pass through untouched",
                    address.port()
                ));
            }
            Err(AppRefused::Handshake(error)) => Some(no_tls(address, &error.to_string())),
        };
    }
    warning
}

fn no_tls(address: SocketAddr, why: &str) -> String {
    let port = address.port();
    format!(
        "the service on port {port} does not speak TLS with the agent ({why}): its TLS passes through untouched"
    )
}

/// Does the app show a certificate of this key?
async fn greet(
    address: SocketAddr,
    name: Option<DnsName<'static>>,
    key: &TlsKey,
) -> Result<bool, AppRefused> {
    // That nothing listens is said otherwise.
    let Ok(tcp) = TcpStream::connect(address).await else { return Ok(true) };
    let mut app = Socket::from(tcp);
    let greeting = AppTls::for_probe(name)?.greet(&mut app).await?;
    app.say_end(Ending::Clean).await;
    Ok(greeting.chain.first().is_some_and(|certificate| key.fits(certificate)))
}
