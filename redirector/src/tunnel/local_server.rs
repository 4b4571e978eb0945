//! The developer's local server: `--to`, and connections to it, with TLS if asked.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::any_certificate::AnyCertificate;
use crate::crypto_provider::provider;
use crate::protocol::Protocol;

/// Where requests go: `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalServer {
    tls: bool,
    /// A name or an address; an IPv6 address without its brackets.
    host: String,
    port: u16,
}

/// A text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "give it as HOST:PORT, such as 127.0.0.1:3000, or as https://HOST:PORT if it speaks TLS; a path can't be added"
)]
pub struct NotAServer;

/// Makes connections to a local server.
#[derive(Clone)]
pub struct LocalConnector {
    server: LocalServer,
    tls: Option<Arc<ClientConfig>>,
}

/// A connection to a local server.
pub enum LocalStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl FromStr for LocalServer {
    type Err = NotAServer;

    fn from_str(text: &str) -> Result<Self, NotAServer> {
        let (tls, authority) = match text.split_once("://") {
            Some(("https", authority)) => (true, authority),
            Some(("http", authority)) => (false, authority),
            Some(_) => return Err(NotAServer),
            None => (false, text),
        };
        let authority = if text.contains("://") { authority.trim_end_matches('/') } else { authority };
        let (host, port) = authority.rsplit_once(':').ok_or(NotAServer)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inside)) if inside.contains(':') => inside,
            Some(_) => return Err(NotAServer),
            None if host.contains(':') && host.parse::<IpAddr>().is_err() => return Err(NotAServer),
            None => host,
        };
        let odd = |character: char| character.is_whitespace() || matches!(character, '/' | '@' | '?' | '#');
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(NotAServer)?;
        if host.is_empty() || host.contains(odd) {
            return Err(NotAServer);
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https://" } else { "" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}{}:{}", self.host, self.port),
        }
    }
}

impl LocalServer {
    /// On this machine by its very name: nobody can be in between.
    fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => {
                let host = self.host.trim_end_matches('.').to_ascii_lowercase();
                host == "localhost" || host.ends_with(".localhost")
            }
        }
    }
}

impl LocalConnector {
    /// # Errors
    /// A text for people: the server is to be verified, and this system has nothing to verify it by.
    pub fn new(server: LocalServer) -> Result<Self, String> {
        let tls = if server.tls { Some(Arc::new(tls_config(&server)?)) } else { None };
        Ok(Self { server, tls })
    }

    /// Connects, ready for `protocol`. `patience`: for all of it.
    ///
    /// # Errors
    /// A text for people: what to do about it.
    pub async fn connect(&self, protocol: Protocol, patience: Duration) -> Result<LocalStream, String> {
        timeout(patience, self.connect_at_last(protocol)).await.unwrap_or_else(|_| {
            let wanted =
                if self.tls.is_some() { "a connection, or did not answer TLS," } else { "a connection" };
            Err(format!(
                "{} did not accept {wanted} within {patience:?} on the developer's machine",
                self.server
            ))
        })
    }

    async fn connect_at_last(&self, protocol: Protocol) -> Result<LocalStream, String> {
        let LocalServer { host, port, .. } = &self.server;
        // A name is looked up for each request and all its addresses are tried, as `localhost` is `::1` for some
        // servers and `127.0.0.1` for others.
        let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "nothing listens on {} on the developer's machine; start the local server, or give its address with --to",
                self.server
            ),
            _ => format!("cannot connect to {} on the developer's machine: {error}", self.server),
        })?;
        // Only latency is at stake.
        let _ = tcp.set_nodelay(true);
        let Some(config) = &self.tls else { return Ok(LocalStream::Plain(tcp)) };

        let name = ServerName::try_from(host.clone())
            .map_err(|_| format!("{host} is no name that a certificate could have; change --to"))?;
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = vec![protocol.as_str().as_bytes().to_vec()];
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map_err(|error| self.tls_failed(&error))?;
        if protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(format!(
                "the local server at {} does not speak HTTP/2 over TLS, which this request needs (ALPN h2); enable it \
                 there, or give its plain port with --to",
                self.server
            ));
        }
        Ok(LocalStream::Tls(Box::new(stream)))
    }

    fn tls_failed(&self, error: &io::Error) -> String {
        let server = &self.server;
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                let hint = match why {
                    CertificateError::UnknownIssuer => {
                        "; its issuer is not among this system's roots: SSL_CERT_FILE names a file with others"
                    }
                    // Of webpki, which has no other way to say it.
                    CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                        "; it is an issuer's own: make one for the server (openssl: basicConstraints=CA:FALSE)"
                    }
                    _ => "",
                };
                format!("the certificate of the local server at {server} can't be trusted ({why}){hint}")
            }
            Some(rustls::Error::InvalidMessage(_)) => format!(
                "the local server at {server} does not speak TLS; write --to without https:// if it speaks plain HTTP"
            ),
            _ => format!("TLS with the local server at {server} failed: {error}"),
        }
    }
}

/// Everything but the protocol.
fn tls_config(server: &LocalServer) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = if server.is_loopback() {
        // Certificates for development are issued by nobody.
        let any = Arc::new(AnyCertificate::new());
        builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
    } else {
        builder.with_root_certificates(system_roots()?).with_no_client_auth()
    };
    config.resumption = Resumption::in_memory_sessions(8);
    Ok(config)
}

/// Read once: they are several hundred.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err("this system has no root certificates to verify the local server by; install ca-certificates, or \
                    name a file with SSL_CERT_FILE"
            .to_owned());
    }
    Ok(Arc::clone(roots))
}

impl LocalStream {
    /// The coming close is a reset: the server learns that nobody waits for its answer.
    pub(super) fn reset_on_close(&self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for LocalStream {
    /// An end of TLS without the word for it (close_notify) is an end: many servers leave so, and HTTP's own framing
    /// tells whether the answer was whole.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => match Pin::new(tls.as_mut()).poll_read(cx, buf) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(text: &str) -> LocalServer {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn all_forms_are_understood() {
        for (text, shown) in [
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("localhost:80", "localhost:80"),
            ("http://localhost:80", "localhost:80"),
            ("http://localhost:80/", "localhost:80"),
            ("https://dev.test:8443", "https://dev.test:8443"),
            ("https://[::1]:8443/", "https://[::1]:8443"),
            ("[::1]:3000", "[::1]:3000"),
            ("::1:3000", "[::1]:3000"),
        ] {
            assert_eq!(server(text).to_string(), shown);
        }
    }

    #[test]
    fn what_names_no_server_is_refused() {
        for text in [
            "",
            "localhost",
            ":80",
            "localhost:",
            "localhost:0",
            "localhost:99999",
            "ftp://localhost:21",
            "https://localhost",
            "http://a:1/path",
            "localhost:80/path",
            "a b:1",
            "[a]:1",
            "[::1:1",
            "user@a:1",
            "x:y:1",
        ] {
            assert_eq!(text.parse::<LocalServer>(), Err(NotAServer), "{text}");
        }
    }

    #[test]
    fn only_this_machines_own_names_go_without_verification() {
        for text in [
            "https://127.0.0.1:1",
            "https://127.9.9.9:1",
            "https://[::1]:1",
            "https://localhost:1",
            "https://LocalHost:1",
            "https://shop.localhost:1",
            "https://[::ffff:127.0.0.1]:1",
        ] {
            assert!(server(text).is_loopback(), "{text}");
        }
        for text in
            ["https://10.0.0.1:1", "https://dev.test:1", "https://localhost.test:1", "https://notlocalhost:1"]
        {
            assert!(!server(text).is_loopback(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_understood_again(text in "(https?://)?([a-z.]{1,10}|\\[[0-9a-f:]{2,8}\\]|\\PC{0,8}):[0-9]{1,5}") {
            if let Ok(server) = text.parse::<LocalServer>() {
                prop_assert_eq!(server.to_string().parse(), Ok(server));
            }
        }
    }
}
