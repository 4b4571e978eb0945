//! Established connections to a port, as a dump lists them.

use super::{SocketId, word};
use crate::netlink::{self, Message};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;

/// One established connection of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    pub socket: SocketId,
    /// IPv4 as IPv4, on whichever socket.
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Bytes that the application has not read yet.
    pub unread: u32,
    /// Bytes that the application has written, and the other side has not acknowledged.
    pub unacknowledged: u32,
    pub traffic: Option<Traffic>,
    /// The value in the socket storage that was asked for, if there is one.
    pub storage: Option<Vec<u8>>,
}

/// What has passed on a connection, from `struct tcp_info` (linux/tcp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// How long ago the last data was sent, and received, in milliseconds.
    pub last_sent_ms: u32,
    pub last_received_ms: u32,
    pub bytes_received: u64,
    pub bytes_acknowledged: u64,
    /// Segments with data.
    pub segments_sent: u32,
}

impl Established {
    /// The size of `struct inet_diag_msg`, which attributes follow.
    const FIXED: usize = 72;

    /// For tests: an IPv4 connection without storage.
    #[cfg(test)]
    pub fn of(local: SocketAddr, peer: SocketAddr, traffic: Traffic) -> Self {
        let (unread, unacknowledged) = (0, 0);
        let socket = SocketId { family: libc::AF_INET as u8, id: [0; 48] };
        Self { socket, local, peer, unread, unacknowledged, traffic: Some(traffic), storage: None }
    }

    pub(super) fn parse(message: &Message) -> Option<Self> {
        let (fixed, rest) = message.payload.split_at_checked(Self::FIXED)?;
        let attributes = netlink::attributes(rest).ok()?;
        let attribute = |kind| attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
        let id: [u8; 48] = fixed[4..52].try_into().ok()?;
        let family = fixed[0];
        let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
        Some(Self {
            socket: SocketId { family, id },
            local: SocketAddr::new(ip(family, &id[4..20])?, port(0)),
            peer: SocketAddr::new(ip(family, &id[20..36])?, port(2)),
            unread: word(fixed, 56)?,
            unacknowledged: word(fixed, 60)?,
            traffic: attribute(INET_DIAG_INFO).and_then(Traffic::parse),
            storage: attribute(INET_DIAG_SK_BPF_STORAGES).and_then(stored),
        })
    }
}

impl Traffic {
    fn parse(info: &[u8]) -> Option<Self> {
        let long = |at: usize| info.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        Some(Self {
            last_sent_ms: word(info, 44)?,
            last_received_ms: word(info, 52)?,
            bytes_received: long(128)?,
            bytes_acknowledged: long(120)?,
            segments_sent: word(info, 156)?,
        })
    }
}

/// The value of the one map that was asked for.
fn stored(storages: &[u8]) -> Option<Vec<u8>> {
    let of_kind = |bytes, kind| {
        let attributes = netlink::attributes(bytes).unwrap_or_default();
        attributes.into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    };
    let storage = of_kind(storages, SK_DIAG_BPF_STORAGE)?;
    of_kind(storage, SK_DIAG_BPF_STORAGE_MAP_VALUE).map(<[u8]>::to_vec)
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    if i32::from(family) == libc::AF_INET {
        let v4: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        Some(Ipv4Addr::from(v4).into())
    } else {
        let v6: [u8; 16] = bytes.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(v6)).to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use proptest::prelude::*;

    use super::{super::SockDiag, *};

    #[test]
    fn connections_to_a_port_are_listed_and_others_are_not() {
        let (listener, other) =
            (TcpListener::bind("[::]:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let mut v4 = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let v6 = TcpStream::connect(("::1", port)).unwrap();
        let _elsewhere = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        let (mut app, _) = listener.accept().unwrap();
        v4.write_all(b"question").unwrap();
        app.read_exact(&mut [0; 8]).unwrap();
        app.write_all(b"answer").unwrap();
        v4.read_exact(&mut [0; 6]).unwrap();

        let found = SockDiag::open().unwrap().established(port, None).unwrap();
        let peers: Vec<SocketAddr> = found.iter().map(|connection| connection.peer).collect();
        assert!(peers.contains(&v4.local_addr().unwrap()) && peers.contains(&v6.local_addr().unwrap()));
        assert_eq!(found.len(), 2, "{found:?}");
        let first = found.iter().find(|connection| connection.peer == v4.local_addr().unwrap()).unwrap();
        assert_eq!(first.local, v4.peer_addr().unwrap());
        assert_eq!((first.unread, first.unacknowledged, &first.storage), (0, 0, &None));
        let traffic = first.traffic.unwrap();
        assert_eq!((traffic.bytes_received, traffic.bytes_acknowledged), (8, 6));
        assert_eq!(traffic.segments_sent, 1);
    }

    #[test]
    fn a_connection_is_closed_once_and_no_other_in_its_place() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let diag = SockDiag::open().unwrap();
        diag.can_close().expect("CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY");
        let found = diag.established(listener.local_addr().unwrap().port(), None).unwrap();
        let one = found.iter().find(|found| found.peer == client.local_addr().unwrap()).unwrap();
        assert!(diag.close(one).unwrap());
        assert!(client.read(&mut [0]).is_err(), "it is reset");
        assert!(!diag.close(one).unwrap(), "it is gone");
        let left = diag.established(listener.local_addr().unwrap().port(), None).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].peer, other.local_addr().unwrap());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_fail(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Established::parse(&Message { kind: 20, flags: 0, payload });
        }
    }
}
