//! The connections of a port that the app has: which of them nobody looks into, and why.

use crate::{
    api::{Unseen, UnseenConnection},
    sock_diag::{Established, SockDiag, Traffic},
};
use redirector_common::{Connection, Existing, PORT_HTTP2, PORT_TLS, Raw, Tuple};
use std::{
    collections::BTreeSet,
    io,
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

/// Connections that have been quiet for so long, and on which the app spoke last, wait for a request.
const QUIET: Duration = Duration::from_secs(1);

/// Lists the connections of one port. It blocks, for some microseconds for each.
pub struct AppConnections {
    pub port: u16,
    pub diag: SockDiag,
    /// The map in which the eBPF programs keep what they know of connections.
    pub known: OwnedFd,
    pub view: PortView,
}

/// What is known of the port.
#[derive(Clone, Debug, Default)]
pub struct PortView {
    /// The addresses of the namespace: whoever has one of them is inside, and nobody's client here.
    pub inside: BTreeSet<IpAddr>,
    /// For how long its connections have been inspected; `None`: they are not.
    pub inspected_for: Option<Duration>,
    /// Its server was found to speak HTTP/2.
    pub server_speaks_http2: bool,
}

/// What becomes of new connections to the port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anew {
    pub through_agent: bool,
    /// There are keys to look into TLS with.
    pub keys: bool,
}

/// What the eBPF programs know of one connection: the part of [`Connection`] that says whether it is covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    phase: u32,
    raw: u32,
    looks_like: u32,
}

impl AppConnections {
    /// The connections whose requests are not seen, with the reason.
    ///
    /// # Errors
    /// Those of sock_diag.
    pub fn unseen(&self) -> io::Result<Vec<(Established, Unseen)>> {
        let connections = self.diag.established(self.port, Some(self.known.as_fd()))?;
        let judged = connections.into_iter().map(|connection| {
            let reason = why_unseen(&connection, &self.view);
            (connection, reason)
        });
        Ok(judged.filter_map(|(connection, reason)| Some((connection, reason?))).collect())
    }

    /// The same for people.
    ///
    /// # Errors
    /// As there.
    pub fn listed(&self) -> io::Result<Vec<UnseenConnection>> {
        let unseen = self.unseen()?.into_iter();
        Ok(unseen.map(|(connection, reason)| UnseenConnection { client: connection.peer, reason }).collect())
    }

    /// Ends those of them whose requests will be seen when their clients connect anew, and says how many.
    ///
    /// # Errors
    /// As there, and those of [`SockDiag::close`].
    pub fn close(&self, anew: Anew) -> io::Result<u64> {
        let mut closed = 0;
        for (connection, reason) in self.unseen()? {
            if helps(reason, anew) && self.diag.close(&connection)? {
                tracing::info!(client = %connection.peer, ?reason, "closed, as was asked for");
                closed += 1;
            }
        }
        Ok(closed)
    }
}

impl Known {
    /// From the value of a socket in the map. What is not there is zero.
    fn read(stored: &[u8]) -> Self {
        let word = |at: usize| {
            let bytes = stored.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        Self {
            phase: word(offset_of!(Connection, phase)),
            raw: word(offset_of!(Connection, raw)),
            looks_like: word(offset_of!(Connection, looks_like)),
        }
    }
}

/// Would the client's next connection be covered?
fn helps(reason: Unseen, anew: Anew) -> bool {
    match reason {
        // It will be seen as it is.
        Unseen::NotYet | Unseen::Other => false,
        Unseen::Older | Unseen::Switched | Unseen::Pipelined | Unseen::HeldInVain => true,
        Unseen::Http2 | Unseen::Urgent | Unseen::Ecn => anew.through_agent,
        Unseen::Tls => anew.through_agent && anew.keys,
        // Another of its kind has no requests either.
        Unseen::NotHttp => false,
    }
}

/// `None`: its requests are seen, or it is no client's connection to the app.
fn why_unseen(connection: &Established, view: &PortView) -> Option<Unseen> {
    if connection.peer.ip().is_loopback() || view.inside.contains(&connection.peer.ip()) {
        return None;
    }
    let known = connection.storage.as_deref().map(Known::read);
    match known.and_then(|known| Raw::from_value(known.raw)) {
        Some(Raw::Own) => return None,
        Some(reason) => return Some(reason.into()),
        None => {}
    }
    let Some(inspected_for) = view.inspected_for else { return Some(Unseen::Older) };
    match known {
        Some(known) if known.phase != Connection::UNKNOWN => None,
        Some(known) if known.looks_like & PORT_HTTP2 != 0 => Some(Unseen::Http2),
        Some(known) if known.looks_like & PORT_TLS != 0 => Some(Unseen::Tls),
        Some(_) => Some(Unseen::NotYet),
        None => match connection.traffic {
            // The program sees by itself that a connection is new.
            Some(Traffic { bytes_received: 0, segments_sent: 0, .. }) => None,
            Some(traffic) if is_last_request(&traffic, inspected_for) => None,
            // An HTTP/1.x client would be covered. This one may be, or not.
            _ if view.server_speaks_http2 => Some(Unseen::Http2),
            Some(traffic) if was_idle(connection, &traffic, inspected_for) => None,
            _ => Some(Unseen::NotYet),
        },
    }
}

/// What [`Existing`] needs to know of connections to be inspected from now on: of those that wait for a request.
pub fn idle(connections: &[Established]) -> impl Iterator<Item = (Tuple, Existing)> {
    connections.iter().filter_map(|connection| {
        let traffic = connection.traffic.filter(|traffic| was_idle(connection, traffic, Duration::ZERO))?;
        let tuple = Tuple {
            client: bytes(connection.peer),
            app: bytes(connection.local),
            client_port: connection.peer.port(),
            app_port: connection.local.port(),
        };
        let Traffic { bytes_received, bytes_acknowledged: bytes_acked, .. } = traffic;
        Some((tuple, Existing { bytes_received, bytes_acked }))
    })
}

/// Since `ago`, and for [`QUIET`] before that. The kernel's clock is coarse: an app that answers at once spoke at the same
/// time as its client. So did one whose client asked again at once, and which has been thinking since; what it says in the end
/// changes the count of bytes, and until then only a client that sends ahead would have another request.
fn was_idle(connection: &Established, traffic: &Traffic, ago: Duration) -> bool {
    connection.unread == 0 && connection.unacknowledged == 0 && is_answered(traffic, ago + QUIET)
}

/// The app spoke last, and has been quiet for so long.
fn is_answered(traffic: &Traffic, quiet: Duration) -> bool {
    traffic.segments_sent > 0
        && traffic.last_sent_ms <= traffic.last_received_ms
        && Duration::from_millis(traffic.last_sent_ms.into()) >= quiet
}

/// Of one of which nothing is known, although something came since `ago`: a request came that says that no other follows, and is being
/// answered. (An app that has answered it ends the connection; where it does not, the request came in some way in which it was not
/// seen, such as in the SYN. The kernel's clock is coarse.)
fn is_last_request(traffic: &Traffic, ago: Duration) -> bool {
    const COARSE: Duration = Duration::from_millis(20);
    let since_received = Duration::from_millis(traffic.last_received_ms.into());
    traffic.bytes_received > 0 && since_received + COARSE < ago && !is_answered(traffic, QUIET)
}

fn bytes(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl From<Raw> for Unseen {
    fn from(reason: Raw) -> Self {
        match reason {
            Raw::Http2 => Self::Http2,
            Raw::Tls => Self::Tls,
            Raw::Switched => Self::Switched,
            Raw::NotHttp => Self::NotHttp,
            Raw::HeldInVain => Self::HeldInVain,
            Raw::Urgent => Self::Urgent,
            Raw::Ecn => Self::Ecn,
            Raw::Pipelined => Self::Pipelined,
            // The agent's own are left out before.
            Raw::Own => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: Option<Duration> = None;
    const INSPECTED: Option<Duration> = Some(Duration::from_secs(10));

    fn view(inspected_for: Option<Duration>) -> PortView {
        PortView { inside: ["10.0.0.2".parse().unwrap()].into(), inspected_for, server_speaks_http2: false }
    }

    fn connection() -> Established {
        let traffic = Traffic {
            last_sent_ms: 100,
            last_received_ms: 200,
            bytes_received: 80,
            bytes_acknowledged: 90,
            segments_sent: 2,
        };
        Established::of("10.0.0.2:80".parse().unwrap(), "10.0.0.3:40000".parse().unwrap(), traffic)
    }

    fn known(known: Known) -> Established {
        let mut stored = vec![0; size_of::<Connection>()];
        for (at, value) in [
            (offset_of!(Connection, phase), known.phase),
            (offset_of!(Connection, raw), known.raw),
            (offset_of!(Connection, looks_like), known.looks_like),
        ] {
            stored[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        Established { storage: Some(stored), ..connection() }
    }

    #[test]
    fn without_inspection_all_but_the_agents_own_are_unseen() {
        assert_eq!(why_unseen(&connection(), &view(PROXY)), Some(Unseen::Older));
        let own = known(Known { raw: Raw::Own as u32, ..Known::default() });
        assert_eq!(why_unseen(&own, &view(PROXY)), None);
    }

    #[test]
    fn who_is_inside_is_nobodys_client() {
        for inside in ["10.0.0.2:4000", "127.0.0.1:4000", "[::1]:4000"] {
            let connection = Established { peer: inside.parse().unwrap(), ..connection() };
            assert_eq!(why_unseen(&connection, &view(PROXY)), None, "{inside}");
        }
    }

    #[test]
    fn what_the_program_follows_is_seen_and_what_it_left_is_named() {
        for phase in [Connection::PROBATION, Connection::LIKELY, Connection::PROVEN, Connection::DOUBTED] {
            let followed = known(Known { phase, ..Known::default() });
            assert_eq!(why_unseen(&followed, &view(INSPECTED)), None);
        }
        let lost = known(Known::default());
        assert_eq!(why_unseen(&lost, &view(INSPECTED)), Some(Unseen::NotYet));
        for (looks_like, reason) in [(PORT_HTTP2, Unseen::Http2), (PORT_TLS, Unseen::Tls)] {
            let other = known(Known { looks_like, ..Known::default() });
            assert_eq!(why_unseen(&other, &view(INSPECTED)), Some(reason));
        }
        for (raw, reason) in [(Raw::Http2, Unseen::Http2), (Raw::Switched, Unseen::Switched)] {
            let left = known(Known { raw: raw as u32, phase: Connection::PROVEN, looks_like: 0 });
            assert_eq!(why_unseen(&left, &view(INSPECTED)), Some(reason));
        }
    }

    #[test]
    fn one_that_was_idle_when_inspection_began_is_seen_from_its_first_request_on() {
        let quiet_for = |last_sent_ms| {
            let mut connection = connection();
            let traffic = connection.traffic.as_mut().unwrap();
            (traffic.last_sent_ms, traffic.last_received_ms) = (last_sent_ms, last_sent_ms + 5);
            connection
        };
        assert_eq!(why_unseen(&quiet_for(11_000), &view(INSPECTED)), None);
        assert_eq!(why_unseen(&quiet_for(10_999), &view(INSPECTED)), Some(Unseen::NotYet));
        let http2 = PortView { server_speaks_http2: true, ..view(INSPECTED) };
        assert_eq!(why_unseen(&quiet_for(11_000), &http2), Some(Unseen::Http2));
        assert_eq!(idle(&[quiet_for(1000), quiet_for(999)]).count(), 1);
    }

    #[test]
    fn one_whose_last_request_is_being_answered_is_seen() {
        let asked = |last_received_ms, last_sent_ms| {
            let mut connection = connection();
            let traffic = connection.traffic.as_mut().unwrap();
            (traffic.last_received_ms, traffic.last_sent_ms) = (last_received_ms, last_sent_ms);
            connection
        };
        let http2 = PortView { server_speaks_http2: true, ..view(INSPECTED) };
        // Nothing was said yet, or it goes on.
        for answered_ms in [20_000, 500] {
            assert_eq!(why_unseen(&asked(9000, answered_ms), &view(INSPECTED)), None);
            assert_eq!(why_unseen(&asked(9000, answered_ms), &http2), None);
        }
        assert_eq!(why_unseen(&asked(9000, 8000), &view(INSPECTED)), Some(Unseen::NotYet));
        assert_eq!(why_unseen(&asked(10_000, 500), &view(INSPECTED)), Some(Unseen::NotYet));
        assert_eq!(why_unseen(&asked(9000, 500), &view(PROXY)), Some(Unseen::Older));
    }

    #[test]
    fn one_on_which_somebody_has_something_to_say_is_not_idle() {
        let mut base = connection();
        base.traffic.as_mut().unwrap().last_sent_ms = 5000;
        base.traffic.as_mut().unwrap().last_received_ms = 6000;
        assert_eq!(idle(std::slice::from_ref(&base)).count(), 1);
        let spoke_last = |client_ms| {
            let mut connection = base.clone();
            connection.traffic.as_mut().unwrap().last_received_ms = client_ms;
            connection
        };
        for busy in [
            Established { unread: 1, ..base.clone() },
            Established { unacknowledged: 1, ..base.clone() },
            spoke_last(4999),
            spoke_last(4000),
        ] {
            assert_eq!(idle(&[busy]).count(), 0);
        }
    }

    #[test]
    fn only_what_a_new_connection_cures_is_closed() {
        let through_agent = Anew { through_agent: true, keys: false };
        for reason in [Unseen::NotYet, Unseen::NotHttp, Unseen::Other] {
            assert!(!helps(reason, Anew { keys: true, ..through_agent }), "{reason:?}");
        }
        assert!(helps(Unseen::Older, through_agent) && helps(Unseen::Switched, Anew::default()));
        assert!(helps(Unseen::Http2, through_agent) && !helps(Unseen::Http2, Anew::default()));
        assert!(
            !helps(Unseen::Tls, through_agent) && helps(Unseen::Tls, Anew { keys: true, ..through_agent })
        );
    }
}
