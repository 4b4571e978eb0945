//! The ingress behind the gateway: connections to it, and requests over them.

use super::route::host_name;
use crate::crypto_provider::provider;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header, uri::Authority};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject as _},
};
use std::{
    borrow::Cow,
    error::Error as StdError,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// A body on its way, of a request or of an answer.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

/// As ALPN calls them (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// For all of connecting, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter than servers keep idle connections (nginx 75 s, Apache 5 s): who is first to close does not lose a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How often an HTTP/2 connection is asked whether it is still there, and how long it may think about it. Many visitors
/// wait for one that is dead.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP/2 connections. One takes only so many requests at a time (nginx 128, Apache and HAProxy 100), and those that are
/// open for long, as event streams are, would have all others wait.
const HTTP2_CONNECTIONS: usize = 8;

/// What one answer in HTTP/2 may have in flight, so what a visitor that does not read costs at most. Bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// The largest there is (RFC 9113 §6.9.1): visitors that do not read must never stall the others. Bytes.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;
/// Requests cancelled by visitors, remembered so that what is still under way to them is known to be late.
const REMEMBERED_RESETS: usize = 1024;

/// Longest head of an answer in HTTP/2. Bytes.
const MAX_HEAD: u32 = 64 << 10;

/// Where the ingress is, by the names that Telepresence asks for.
#[derive(Clone, Debug)]
pub struct IngressOptions {
    /// Name or address to connect to; an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// Everything but WebSockets goes in HTTP/2: without TLS with prior knowledge (RFC 9113 §3.3), in it by ALPN.
    pub http2: bool,
    /// The host that the ingress serves: for SNI, and as `Host`.
    pub l5: Option<String>,
    /// Certificates (PEM) to verify the ingress by, besides the system's.
    pub ca: Option<PathBuf>,
}

/// Why there is no way to the ingress.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    #[error(
        "`{0}` can't be the ingress's host: give a name or an address with --ingress-host and --ingress-l5"
    )]
    Host(String),
    #[error("cannot read the certificates in {path} (--ingress-ca): {reason}")]
    Ca { path: PathBuf, reason: String },
    #[error("TLS to the ingress can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The ingress, and a pool of connections to it.
pub struct Upstream {
    http1: Client<IngressConnector, Body>,
    /// Each has one connection to each host of the ingress. Empty: there is no HTTP/2.
    http2: Vec<Http2>,
    address: Authority,
    l5: Option<Authority>,
    scheme: &'static str,
}

struct Http2 {
    client: Client<IngressConnector, Body>,
    in_flight: Arc<()>,
}

/// A request is at the ingress, until its answer has come to its end.
#[must_use]
pub struct InFlight(#[expect(dead_code, reason = "it is counted")] Option<Arc<()>>);

impl Upstream {
    pub fn new(options: &IngressOptions) -> Result<Self, IngressError> {
        let bad_host = |text: &str| IngressError::Host(text.to_owned());
        let host = match options.host.contains(':') {
            true => format!("[{}]", options.host),
            false => options.host.clone(),
        };
        let own_port = if options.tls { 443 } else { 80 };
        let address = match options.port == own_port {
            true => host,
            false => format!("{host}:{}", options.port),
        };
        let l5 =
            options.l5.as_deref().map(|l5| l5.parse::<Authority>().map_err(|_| bad_host(l5))).transpose()?;
        let mut builder = Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT);
        builder.set_host(false);
        let http1 = builder.build(IngressConnector::new(options, l5.as_ref(), HTTP1)?);
        builder.http2_only(true).http2_max_header_list_size(MAX_HEAD);
        builder.http2_keep_alive_interval(PING_INTERVAL).http2_keep_alive_timeout(PING_TIMEOUT);
        builder
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_concurrent_reset_streams(REMEMBERED_RESETS)
            // Else a connection would end on what visitors do all day long.
            .http2_max_local_error_reset_streams(None);
        let http2 = match options.http2 {
            true => {
                let connector = IngressConnector::new(options, l5.as_ref(), HTTP2)?;
                let client = || Http2 { client: builder.build(connector.clone()), in_flight: Arc::default() };
                (0..HTTP2_CONNECTIONS).map(|_| client()).collect()
            }
            false => Vec::new(),
        };
        let address = address.parse().map_err(|_| bad_host(&options.host))?;
        Ok(Self { http1, http2, address, l5, scheme: if options.tls { "https" } else { "http" } })
    }

    /// What the ingress is told in `Host`: the one it serves, if that was said; else what the visitor asked for, unless
    /// that is a preview's own host, which the ingress can't know.
    ///
    /// In HTTP/2 without the port: there each host has connections of its own, and visitors can make up ports.
    #[must_use]
    pub fn host<'a>(&'a self, asked: &'a Authority, is_preview_host: bool) -> Cow<'a, Authority> {
        match &self.l5 {
            Some(l5) => Cow::Borrowed(l5),
            None if is_preview_host => Cow::Borrowed(&self.address),
            None if self.http2.is_empty() => Cow::Borrowed(asked),
            None => host_name(asked).parse().map_or(Cow::Borrowed(asked), Cow::Owned),
        }
    }

    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The version of HTTP in which a request goes to the ingress.
    #[must_use]
    pub fn version(&self, is_websocket: bool) -> Version {
        if !self.http2.is_empty() && !is_websocket { Version::HTTP_2 } else { Version::HTTP_11 }
    }

    /// Sends a request whose target is a path, in its own version. Reads as much of the body as the ingress takes. The
    /// request is in flight for as long as the answer's body is there.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        host: &Authority,
    ) -> Result<(Response<Incoming>, InFlight), hyper_util::client::legacy::Error> {
        let least_busy = self.http2.iter().min_by_key(|http2| Arc::strong_count(&http2.in_flight));
        let (client, authority, in_flight) = match least_busy {
            // There the host is the authority of the target (RFC 9113 §8.3.1).
            Some(http2) if request.version() == Version::HTTP_2 => {
                request.headers_mut().remove(header::HOST);
                (&http2.client, host, InFlight(Some(Arc::clone(&http2.in_flight))))
            }
            _ => {
                if let Ok(host) = HeaderValue::from_str(host.as_str()) {
                    request.headers_mut().insert(header::HOST, host);
                }
                (&self.http1, &self.address, InFlight(None))
            }
        };
        let target = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = self.scheme.parse().ok();
        parts.authority = Some(authority.clone());
        parts.path_and_query = target.or_else(|| "/".parse().ok());
        // All three are there, and valid.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        Ok((client.request(request).await?, in_flight))
    }
}

/// Connects to the ingress, whatever the target of a request.
#[derive(Clone)]
struct IngressConnector {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    protocol: &'static [u8],
}

impl IngressConnector {
    fn new(
        options: &IngressOptions,
        l5: Option<&Authority>,
        protocol: &'static [u8],
    ) -> Result<Self, IngressError> {
        let name = l5.map_or(options.host.as_str(), Authority::host);
        let tls = match options.tls {
            true => {
                let bad_name = |_: InvalidDnsNameError| IngressError::Host(name.to_owned());
                let server_name = ServerName::try_from(name.to_owned()).map_err(bad_name)?;
                Some((TlsConnector::from(Arc::new(tls_config(options.ca.clone(), protocol)?)), server_name))
            }
            false => None,
        };
        Ok(Self { host: options.host.as_str().into(), port: options.port, tls, protocol })
    }

    async fn connect(self) -> io::Result<TokioIo<Box<dyn Io>>> {
        let connect = async {
            let socket = TcpStream::connect((&*self.host, self.port)).await?;
            let _ = socket.set_nodelay(true);
            let io: Box<dyn Io> = match self.tls {
                Some((connector, name)) => {
                    let stream = connector.connect(name, socket).await?;
                    if self.protocol == HTTP2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
                        return Err(io::Error::other("it does not speak HTTP/2 (--ingress-http2)"));
                    }
                    Box::new(stream)
                }
                None => Box::new(socket),
            };
            Ok(TokioIo::new(io))
        };
        timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn tls_config(ca: Option<PathBuf>, protocol: &'static [u8]) -> Result<ClientConfig, IngressError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let failed = |reason: String| IngressError::Ca { path: path.clone(), reason };
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| failed(error.to_string()))? {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

impl Service<Uri> for IngressConnector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A connection, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection for Box<dyn Io> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(host: &str, port: u16, l5: Option<&str>) -> Result<Upstream, IngressError> {
        Upstream::new(&options(host, port, l5))
    }

    fn options(host: &str, port: u16, l5: Option<&str>) -> IngressOptions {
        let l5 = l5.map(str::to_owned);
        IngressOptions { host: host.to_owned(), port, tls: false, http2: false, l5, ca: None }
    }

    #[tokio::test]
    async fn the_ingress_is_told_a_host_that_it_can_know() {
        let asked: Authority = "asked.test:8443".parse().unwrap();
        let plain = upstream("ingress.test", 8080, None).unwrap();
        assert_eq!(*plain.host(&asked, false), "asked.test:8443");
        assert_eq!(*plain.host(&asked, true), "ingress.test:8080");
        assert_eq!(*upstream("::1", 80, None).unwrap().host(&asked, true), "[::1]");
        let http2 = Upstream::new(&IngressOptions { http2: true, ..options("ingress.test", 80, None) });
        assert_eq!(
            *http2.unwrap().host(&asked, false),
            "asked.test",
            "a port would be the visitor's to make up"
        );
        let l5 = upstream("10.0.0.1", 80, Some("shop.test")).unwrap();
        assert_eq!(
            (l5.host(&asked, false).as_str(), l5.host(&asked, true).as_str()),
            ("shop.test", "shop.test")
        );
        assert!(matches!(upstream("a b", 80, None), Err(IngressError::Host(_))));
    }
}
