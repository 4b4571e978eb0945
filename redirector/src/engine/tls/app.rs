//! TLS towards the app, in the client's stead.

use super::{
    hello::{self, ClientHello},
    session::Session,
};
use crate::{any_certificate::AnyCertificate, crypto_provider::provider, engine::socket::Socket};
use rustls::{
    ClientConfig, ClientConnection, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    pki_types::{CertificateDer, DnsName, ServerName},
    sign::CertifiedKey,
};
use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use thiserror::Error;
use tokio::time::timeout;

/// How long the app may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How TLS with the app begins.
#[derive(Debug)]
pub(in crate::engine) struct AppTls {
    config: ClientConfig,
    server_name: Option<DnsName<'static>>,
}

/// What the app has answered.
pub(super) struct Greeting {
    pub chain: Vec<CertificateDer<'static>>,
    pub alpn: Option<Vec<u8>>,
}

/// Why TLS with the app did not come about.
#[derive(Debug, Error)]
pub(super) enum AppRefused {
    #[error("the app asks for a client certificate")]
    ClientCertificate,
    #[error("{0}")]
    Handshake(#[from] io::Error),
}

impl AppTls {
    /// As this client would begin.
    pub(super) fn for_client(hello: &ClientHello) -> io::Result<Self> {
        Self::new(AnyCertificate::of_schemes(&hello.schemes), hello.server_name.clone(), hello.alpn.clone())
    }

    /// As a client with no wishes but a name would begin.
    pub(super) fn for_probe(server_name: Option<DnsName<'static>>) -> io::Result<Self> {
        Self::new(AnyCertificate::new(), server_name, hello::all_routed())
    }

    fn new(
        verifier: AnyCertificate,
        server_name: Option<DnsName<'static>>,
        alpn: Vec<Vec<u8>>,
    ) -> io::Result<Self> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = alpn;
        // A session is one client's, and the app's certificate is to be seen each time.
        config.resumption = Resumption::disabled();
        config.enable_sni = server_name.is_some();
        Ok(Self { config, server_name })
    }

    /// For more connections of the same client: they are to be like the first.
    pub(super) fn settled(mut self, alpn: Option<&Vec<u8>>) -> Self {
        self.config.alpn_protocols = alpn.into_iter().cloned().collect();
        self
    }

    /// Makes the handshake on a fresh connection to the app, which carries TLS from then on.
    pub(super) async fn greet(&self, app: &mut Socket) -> Result<Greeting, AppRefused> {
        let asked = Arc::new(Asked::default());
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = Arc::clone(&asked) as Arc<dyn ResolvesClientCert>;
        let name = match &self.server_name {
            Some(name) => ServerName::DnsName(name.clone()),
            // Neither sent nor looked at.
            None => ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()),
        };
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let session = Session::new(connection);
        let outcome = timeout(HANDSHAKE, session.handshake(app.tcp(), &[])).await;
        if asked.0.load(Relaxed) {
            return Err(AppRefused::ClientCertificate);
        }
        outcome.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let greeting = session.with(|connection| Greeting {
            chain: connection.peer_certificates().unwrap_or_default().to_vec(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        });
        app.secure(session);
        Ok(greeting)
    }

    /// The same for a connection after the first, whose greeting is known.
    pub(in crate::engine) async fn secure(&self, app: &mut Socket) -> io::Result<()> {
        let greeting = self.greet(app).await.map_err(io::Error::other)?;
        if greeting.alpn != self.config.alpn_protocols.first().cloned() {
            return Err(io::Error::other("the app has chosen another protocol than before"));
        }
        Ok(())
    }
}

/// Has no certificate, and notes that one was asked for.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
