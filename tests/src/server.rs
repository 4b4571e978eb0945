//! Servers in the test process itself, in a namespace of the lab: for apps that must be under control to the byte.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    netns::Netns,
    wait::{DEADLINE, eventually_some},
};

const POLL: Duration = Duration::from_millis(5);

/// A connection that a [`Server`] accepted.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What `accept` said.
    pub address: SocketAddr,
    /// What `getpeername` said.
    pub name: SocketAddr,
    received: Arc<Mutex<Received>>,
}

#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

/// Listens, records what each connection sends, and answers as its script says. Stops when dropped.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    peers: Mutex<Vec<Peer>>,
    streams: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// Never says anything, and never closes first.
    #[must_use]
    pub fn silent(netns: &Netns, address: SocketAddr) -> Self {
        Self::start(netns, address, |_, peer| {
            // No deadline: dropping the server ends it.
            while !peer.ended() {
                thread::sleep(POLL);
            }
            Ok(())
        })
    }

    /// `script` runs for each connection, in a thread, while all that comes in is recorded; the connection is closed
    /// when the script returns. An IPv6 wildcard address is listened on for both families, as Node and Java do.
    #[must_use]
    pub fn start(
        netns: &Netns,
        address: SocketAddr,
        script: impl Fn(&TcpStream, &Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener =
            netns.run(|| listen(address)).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        let shared = Arc::<Shared>::default();
        let accepting = {
            let listener = listener.try_clone().expect("a second handle of the listener");
            let (shared, script) = (Arc::clone(&shared), Arc::new(script));
            thread::spawn(move || {
                while let Ok((stream, address)) = listener.accept() {
                    let Ok(name) = stream.peer_addr() else { continue };
                    let peer = Peer { address, name, received: Arc::default() };
                    let Ok(kept) = stream.try_clone() else { continue };
                    lock(&shared.peers).push(peer.clone());
                    lock(&shared.streams).push(kept);
                    record(&stream, &peer);
                    let script = Arc::clone(&script);
                    thread::spawn(move || {
                        let _ = script(&stream, &peer);
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
            })
        };
        Self { listener, shared, accepting: Some(accepting) }
    }

    /// The connections so far.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        lock(&self.shared.peers).clone()
    }

    /// Waits for the connection with this number, from 0.
    #[must_use]
    #[track_caller]
    pub fn peer(&self, number: usize) -> Peer {
        eventually_some("the app has a connection", || self.peers().get(number).cloned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes up `accept`.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in lock(&self.shared.streams).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Peer {
    /// What came so far.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        lock(&self.received).bytes.clone()
    }

    /// Whether the other side has finished sending.
    #[must_use]
    pub fn ended(&self) -> bool {
        lock(&self.received).ended
    }

    /// Waits for the end of what comes.
    #[track_caller]
    pub fn wait_for_end(&self) {
        eventually_some("the connection ends", || self.ended().then_some(()));
    }

    /// Waits until `length` bytes came or the stream ended, and gives what came.
    #[must_use]
    pub fn wait_for(&self, length: usize) -> Vec<u8> {
        let start = Instant::now();
        while start.elapsed() < DEADLINE && !self.ended() && lock(&self.received).bytes.len() < length {
            thread::sleep(POLL);
        }
        self.received()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn record(stream: &TcpStream, peer: &Peer) {
    let Ok(mut stream) = stream.try_clone() else { return };
    let received = Arc::clone(&peer.received);
    thread::spawn(move || {
        let mut chunk = [0; 16 * 1024];
        loop {
            match io::Read::read(&mut stream, &mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(length) => lock(&received).bytes.extend_from_slice(&chunk[..length]),
            }
        }
        lock(&received).ended = true;
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
