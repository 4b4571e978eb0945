//! A tunnel with both ends in this process and a local server that does as it is told.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::tunnel::agent_end::{AgentEnd, OpeningStream, Tunnel};
use crate::tunnel::developer_end::{DeveloperEnd, RoutedRequest};
use crate::tunnel::error::TunnelError;
use crate::tunnel::liveness::LivenessConfig;
use crate::tunnel::meta::StreamMeta;

/// Guards against hanging forever; no test depends on how long anything takes below it.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("hung for a minute")
}

/// Patient enough for a loaded machine.
pub(super) fn patient() -> LivenessConfig {
    LivenessConfig { interval: Duration::from_secs(1), deadline: Duration::from_secs(30) }
}

pub(super) struct Pair {
    pub tunnel: Tunnel,
    pub finished: mpsc::UnboundedReceiver<RoutedRequest>,
    pub agent: JoinHandle<TunnelError>,
    pub developer: JoinHandle<TunnelError>,
}

impl Pair {
    pub(super) fn open(&self) -> OpeningStream {
        self.tunnel.open(&meta()).expect("the tunnel takes a stream")
    }
}

pub(super) fn meta() -> StreamMeta {
    StreamMeta {
        intercept: "shop".into(),
        client: "10.0.0.9:40000".parse().unwrap(),
        original_destination: "[fd00::1]:8080".parse().unwrap(),
        method: "GET".into(),
        path: "/cart?item=ünïcode".into(),
        protocol: crate::protocol::Protocol::Http1,
    }
}

/// A tunnel over loopback TCP whose developer's side connects to `to`.
pub(super) async fn pair(to: SocketAddr) -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let accepted = listener.accept().await.unwrap().0;
    dialled.set_nodelay(true).unwrap();
    accepted.set_nodelay(true).unwrap();
    pair_over(accepted, dialled, to).await
}

pub(super) async fn pair_over<A, D>(agent_io: A, developer_io: D, to: SocketAddr) -> Pair
where
    A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (report, finished) = mpsc::unbounded_channel();
    let end = DeveloperEnd { liveness: patient(), ..DeveloperEnd::new(to.to_string().parse().unwrap()) };
    let developer = tokio::spawn(end.serve(developer_io, move |request| {
        // The receiver is gone when the test is over.
        let _ = report.send(request);
    }));
    let (tunnel, driver) = AgentEnd::handshake(agent_io, patient()).await.unwrap();
    Pair { tunnel, finished, agent: tokio::spawn(driver), developer }
}

/// A local server that hands each connection to `behaviour`. Ends with the test's runtime.
pub(super) async fn server<F, Fut>(behaviour: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    // A deep backlog, as thousands connect at once.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(4096).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(behaviour(stream));
        }
    });
    address
}

/// Sends back what comes, and closes after its peer has.
pub(super) async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

/// A port on which nothing listens: bound, so that nobody else gets it, but never listening.
pub(super) fn refusing_port() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// `length` bytes that differ for each seed and position.
pub(super) fn pattern(seed: usize, length: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

pub(super) fn checksum(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

/// Sends `data` through an echo server, both directions at once, and checks what comes back.
pub(super) async fn echoes(stream: OpeningStream, data: &[u8]) {
    let (mut from, mut to) = tokio::io::split(stream);
    let send = async {
        to.write_all(data).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let receive = from.read_to_end(&mut received);
    let ((), read) = tokio::join!(send, receive);
    read.unwrap();
    assert_eq!(received.len(), data.len());
    assert_eq!(checksum(&received), checksum(data));
}

/// Thousands of connections need more descriptors than the usual soft limit of 1024.
#[cfg(target_os = "linux")]
pub(super) fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = hard.min(65_536);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).unwrap();
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn raise_descriptor_limit() {}
