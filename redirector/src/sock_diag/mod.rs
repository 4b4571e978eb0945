//! What the kernel knows about TCP sockets of a network namespace, and the way to end one: sock_diag(7).
//!
//! | file | purpose |
//! | --- | --- |
//! | `facts` | one socket, by its two addresses |
//! | `established` | all established connections to a port |

mod established;
pub mod facts;

pub use established::{Established, Traffic};
pub use facts::{SocketFacts, State};

use crate::netlink::{self, Request};
use nix::sys::socket::SockProtocol;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Kinds of messages of linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Attributes of requests and answers, linux/inet_diag.h.
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const INET_DIAG_INFO: u8 = 2;
const INET_DIAG_CONG: u8 = 4;
/// `TCP_LISTEN` of the kernel's net/tcp_states.h.
const LISTEN: u8 = 10;
const ESTABLISHED: u8 = 1;
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Names one socket of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketId {
    family: u8,
    /// `struct inet_diag_sockid`, with the cookie that tells the socket from all others.
    id: [u8; 48],
}

/// Asks about sockets of the network namespace in which it was opened.
#[derive(Debug)]
pub struct SockDiag(netlink::Socket);

impl SockDiag {
    /// # Errors
    /// Those of `socket(2)`; `EPROTONOSUPPORT` when the kernel lacks the family.
    pub fn open() -> io::Result<Self> {
        // NETLINK_SOCK_DIAG, by its older name in the crate.
        netlink::Socket::open(SockProtocol::NetlinkSockDiag).map(Self)
    }

    /// The socket of the connection from `local` to `peer`; `None` when there is none, not even in TIME_WAIT.
    ///
    /// # Errors
    /// Those of `netlink(7)`; `InvalidData` for an answer of an unknown shape.
    pub fn look_up(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<SocketFacts>> {
        let details = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_CONG - 1);
        let fixed = fixed(family(local), details, u32::MAX, &id(local, peer));
        match self.0.ask(&Request::new(SOCK_DIAG_BY_FAMILY, 0, &fixed)) {
            // Where there is no connection the kernel finds whoever would get one.
            Ok(message) if message.payload.get(1) == Some(&LISTEN) => Ok(None),
            Ok(message) => SocketFacts::parse(&message)
                .map(Some)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, netlink::Malformed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All established connections to the local `port`. `storage`: a map of socket storage (`BPF_MAP_TYPE_SK_STORAGE`),
    /// whose values are to be read too.
    ///
    /// # Errors
    /// Those of `netlink(7)`. With `storage`: `EPERM` without `CAP_BPF`; kernels before 5.7 do not read it.
    pub fn established(&self, port: u16, storage: Option<BorrowedFd<'_>>) -> io::Result<Vec<Established>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let fixed = fixed(family as u8, 1 << (INET_DIAG_INFO - 1), 1 << ESTABLISHED, &[0; 48]);
            let mut request = Request::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &fixed)
                .attribute(INET_DIAG_REQ_BYTECODE, &local_port_is(port));
            if let Some(map) = storage {
                let descriptor = map.as_raw_fd().to_ne_bytes();
                request = request
                    .nested(INET_DIAG_REQ_SK_BPF_STORAGES, &[(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &descriptor)]);
            }
            found.extend(self.0.dump(&request)?.iter().filter_map(Established::parse));
        }
        Ok(found)
    }

    /// Ends a connection as a reset does: both sides see that. False: it has ended by itself, or the socket is another.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the kernel was built without `CONFIG_INET_DIAG_DESTROY`, `EPERM` without `CAP_NET_ADMIN`.
    pub fn close(&self, connection: &Established) -> io::Result<bool> {
        self.destroy(connection.socket)
    }

    /// Ends what is left of a connection that both sides have ended (TIME_WAIT), so that its addresses can be used again.
    /// False: it is not at its end, or there is none.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub fn forget(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<bool> {
        match self.look_up(local, peer)? {
            Some(SocketFacts { state: State::Closing { acknowledged: true }, .. }) => {
                self.destroy(SocketId { family: family(local), id: id(local, peer) })
            }
            _ => Ok(false),
        }
    }

    /// Whether [`Self::close`] can work here. Closes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn can_close(&self) -> io::Result<()> {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        self.destroy(SocketId { family: family(nobody), id: id(nobody, nobody) }).map(drop)
    }

    fn destroy(&self, socket: SocketId) -> io::Result<bool> {
        let fixed = fixed(socket.family, 0, u32::MAX, &socket.id);
        match self.0.acknowledged(Request::new(SOCK_DESTROY, libc::NLM_F_ACK, &fixed)) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `struct inet_diag_req_v2`
fn fixed(family: u8, details: u8, states: u32, id: &[u8; 48]) -> Vec<u8> {
    let mut fixed = vec![family, libc::IPPROTO_TCP as u8, details, 0];
    fixed.extend(states.to_ne_bytes());
    fixed.extend(id);
    fixed
}

/// `struct inet_diag_sockid`, of whatever socket has these addresses.
fn id(local: SocketAddr, peer: SocketAddr) -> [u8; 48] {
    let mut id = [0; 48];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&peer.port().to_be_bytes());
    id[4..20].copy_from_slice(&address(local.ip()));
    id[20..36].copy_from_slice(&address(peer.ip()));
    id[40..].copy_from_slice(&NO_COOKIE);
    id
}

/// IPv4 takes the first of the four words.
fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn family(address: SocketAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// A filter of two `struct inet_diag_bc_op`s, each with the one behind it that holds the port: at least, at most. A jump
/// beyond the end rejects.
fn local_port_is(port: u16) -> Vec<u8> {
    const AT_LEAST: u8 = 2;
    const AT_MOST: u8 = 3;
    const STEP: u8 = 8;
    let compare = |code: u8, rejected: u16| {
        let mut operations = vec![code, STEP];
        operations.extend(rejected.to_ne_bytes());
        operations.extend([0, 0]);
        operations.extend(port.to_ne_bytes());
        operations
    };
    [compare(AT_LEAST, 20), compare(AT_MOST, 12)].concat()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
