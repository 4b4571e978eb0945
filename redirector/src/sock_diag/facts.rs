//! What the kernel tells of one socket.

use super::{INET_DIAG_CONG, INET_DIAG_INFO, word};
use crate::netlink::{self, Message};

/// The states of TCP as `tcp_states.h` numbers them, as far as they are told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Established,
    /// Our end has been sent; the other side has it (FIN_WAIT2, TIME_WAIT), or is still to get it.
    Closing {
        acknowledged: bool,
    },
    /// The other side has ended its half.
    CloseWait,
    /// A handshake, or nothing any more.
    Other,
}

/// Facts about a socket, from `struct inet_diag_msg` and `struct tcp_info` (linux/inet_diag.h, linux/tcp.h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    pub state: State,
    /// Bytes that were written and are not acknowledged, sent or not.
    pub unacknowledged: u32,
    /// A device that the socket is bound to.
    pub device: u32,
    pub connection: Option<ConnectionFacts>,
}

/// What both sides agreed on at the handshake, and where flow control is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// Bytes that the peer has acknowledged, since the connection began (Linux 4.1).
    pub acknowledged: u64,
    /// Bytes that were written and not sent so far (Linux 4.6).
    pub unsent: u32,
    /// Bytes that it has sent and the kernel has taken, read or not. The kernel first takes what it had put aside while
    /// a process was using the socket.
    pub received: u64,
    /// The peer's timestamps are answered (RFC 7323 §3).
    pub timestamps: bool,
    /// The clock of our timestamps counts microseconds (`TCPI_OPT_USEC_TS`, Linux 6.7).
    pub microseconds: bool,
    pub sack: bool,
    pub ecn: bool,
    /// Shift counts of RFC 7323 §2.2: of what the peer announces, of what we announce. Zero without the option.
    pub send_scale: u8,
    pub receive_scale: u8,
    /// Payload of a full segment in bytes, options taken off.
    pub send_mss: u32,
    /// The receive window that was announced last, in bytes (Linux 6.2).
    pub receive_window: u32,
    /// Smoothed, in microseconds.
    pub round_trip: u32,
    /// The name of the congestion control.
    pub congestion_control: String,
}

impl SocketFacts {
    /// The size of `struct inet_diag_msg`, which attributes follow.
    const FIXED: usize = 72;

    pub(super) fn parse(message: &Message) -> Option<Self> {
        let (fixed, rest) = message.payload.split_at_checked(Self::FIXED)?;
        let attributes = netlink::attributes(rest).ok()?;
        let attribute = |kind: u8| {
            attributes.iter().find(|(found, _)| *found == u16::from(kind)).map(|(_, value)| *value)
        };
        let connection = attribute(INET_DIAG_INFO)
            .and_then(|info| ConnectionFacts::parse(info, attribute(INET_DIAG_CONG).unwrap_or_default()));
        Some(Self {
            state: state(fixed[1]),
            unacknowledged: word(fixed, 60)?,
            device: word(fixed, 40)?,
            connection,
        })
    }
}

impl ConnectionFacts {
    const TIMESTAMPS: u8 = 1;
    const SACK: u8 = 2;
    const WINDOW_SCALE: u8 = 4;
    const ECN: u8 = 8;
    const MICROSECONDS: u8 = 64;

    /// `info` is `struct tcp_info`, which grows at its end. `None` when it is older than what is needed of it.
    fn parse(info: &[u8], congestion_control: &[u8]) -> Option<Self> {
        let options = *info.get(5)?;
        let scales = if options & Self::WINDOW_SCALE == 0 { 0 } else { *info.get(6)? };
        // Two bit fields of one byte, the first of them in the low bits of a little-endian machine.
        let (low, high) = (scales & 0x0f, scales >> 4);
        let (send_scale, receive_scale) =
            if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
        let name = congestion_control.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self {
            acknowledged: u64::from_ne_bytes(*info.get(120..)?.first_chunk()?),
            unsent: word(info, 144)?,
            received: u64::from_ne_bytes(*info.get(128..)?.first_chunk()?),
            timestamps: options & Self::TIMESTAMPS != 0,
            microseconds: options & Self::MICROSECONDS != 0,
            sack: options & Self::SACK != 0,
            ecn: options & Self::ECN != 0,
            send_scale,
            receive_scale,
            send_mss: word(info, 16)?,
            receive_window: word(info, 232)?,
            round_trip: word(info, 68)?,
            congestion_control: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

fn state(number: u8) -> State {
    match number {
        1 => State::Established,
        // FIN_WAIT1, LAST_ACK, CLOSING
        4 | 9 | 11 => State::Closing { acknowledged: false },
        // FIN_WAIT2, TIME_WAIT
        5 | 6 => State::Closing { acknowledged: true },
        8 => State::CloseWait,
        _ => State::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
    };

    use proptest::prelude::*;

    use super::{super::SockDiag, *};

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_connection_of_ours_is_found_and_described() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, app) = pair(address);
            let diag = SockDiag::open().unwrap();
            let (local, peer) = (app.local_addr().unwrap(), app.peer_addr().unwrap());
            let facts = diag.look_up(local, peer).unwrap().unwrap();
            assert_eq!((facts.state, facts.unacknowledged, facts.device), (State::Established, 0, 0));
            let connection = facts.connection.unwrap();
            assert!(connection.send_mss > 500, "{connection:?}");
            assert!(connection.receive_window > 0, "{connection:?}");
            let known =
                std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
            assert!(
                known.split_whitespace().any(|name| name == connection.congestion_control),
                "{connection:?}"
            );

            drop(client);
            let facts = diag.look_up(local, peer).unwrap().unwrap();
            assert_eq!(facts.state, State::CloseWait);
            drop(app);
            let facts = diag.look_up(local, peer).unwrap();
            assert!(facts.is_none(), "the client's end is in TIME_WAIT, the app's is gone: {facts:?}");
            let facts = diag.look_up(peer, local).unwrap().unwrap();
            assert_eq!(facts.state, State::Closing { acknowledged: true });
        }
    }

    #[test]
    fn what_was_written_and_not_acknowledged_is_seen() {
        let (client, mut app) = pair("127.0.0.1:0");
        app.set_nonblocking(true).unwrap();
        while app.write(&[0; 1 << 16]).is_ok() {}
        let facts = SockDiag::open().unwrap().look_up(app.local_addr().unwrap(), app.peer_addr().unwrap());
        let facts = facts.unwrap().unwrap();
        assert!(facts.unacknowledged > 0);
        assert!(facts.connection.unwrap().unsent > 0);
        drop(client);
    }

    #[test]
    fn a_listener_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let facts = SockDiag::open().unwrap().look_up(local, "127.0.0.1:1".parse().unwrap()).unwrap();
        assert_eq!(facts, None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_fail(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = SocketFacts::parse(&Message { kind: 20, flags: 0, payload });
        }
    }
}
