//! What the app is told when its connection is parked: that the client has sent its last byte.

use super::held::HeldSegment;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

const FIN_ACK: u8 = 0x11;
const TCP: u8 = 6;
const TIME_TO_LIVE: u8 = 64;

/// Sends segments on the clients' behalf, within the network namespace in which it was opened.
///
/// They take the way over `lo`, because the app's address is local. A packet that was made here is not asked where
/// it came from again, so no reverse path filter sees the foreign source.
#[derive(Debug)]
pub struct Impersonator {
    v4: Socket,
    /// `None`: no IPv6 here.
    v6: Option<Socket>,
}

impl Impersonator {
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        // raw(7): packets are given with their IP header, which is what IPPROTO_RAW means in both families.
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let v4 = raw(Domain::IPV4)?;
        v4.set_nonblocking(true)?;
        Ok(Self { v4, v6: raw(Domain::IPV6).ok() })
    }

    /// Ends the client's half of the connection, as far as the app's socket can tell.
    ///
    /// # Errors
    /// Those of `sendto(2)`.
    pub fn finish(&self, client: SocketAddr, app: SocketAddr, held: &Farewell) -> io::Result<()> {
        let packet = held.packet(client, app);
        let to = SockAddr::from(SocketAddr::new(app.ip(), 0));
        let socket = match (app, &self.v6) {
            (SocketAddr::V4(_), _) => &self.v4,
            (SocketAddr::V6(_), Some(v6)) => v6,
            (SocketAddr::V6(_), None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        socket.send_to(&packet, &to).map(drop)
    }
}

/// The numbers of the last segment that the app's socket gets: those of the segment that was held back, so that
/// whatever the app's kernel would have accepted, it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    seq: u32,
    ack: u32,
    window: u16,
    timestamps: Option<super::options::Timestamps>,
}

impl From<&HeldSegment> for Farewell {
    fn from(held: &HeldSegment) -> Self {
        Self { seq: held.seq, ack: held.ack, window: held.window, timestamps: held.timestamps }
    }
}

impl Farewell {
    /// An IP packet with a TCP segment (RFC 9293 §3.1) that has FIN and no payload.
    fn packet(&self, client: SocketAddr, app: SocketAddr) -> Vec<u8> {
        let mut segment = Vec::with_capacity(32);
        segment.extend(client.port().to_be_bytes());
        segment.extend(app.port().to_be_bytes());
        segment.extend(self.seq.to_be_bytes());
        segment.extend(self.ack.to_be_bytes());
        let words: u8 = if self.timestamps.is_some() { 8 } else { 5 };
        segment.extend([words << 4, FIN_ACK]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0; 4]);
        if let Some(timestamps) = self.timestamps {
            segment.extend([1, 1, 8, 10]);
            segment.extend(timestamps.value.to_be_bytes());
            segment.extend(timestamps.echo.to_be_bytes());
        }
        let checksum = checksum(client.ip(), app.ip(), &segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = ip_header(client.ip(), app.ip(), segment.len() as u16);
        packet.extend(segment);
        packet
    }
}

/// The kernel computes the checksum of an IPv4 header itself (raw(7)).
fn ip_header(source: IpAddr, destination: IpAddr, payload: u16) -> Vec<u8> {
    let mut header = Vec::with_capacity(40 + usize::from(payload));
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) {
        header.extend([0x45, 0]);
        header.extend((20 + payload).to_be_bytes());
        header.extend([0, 0, 0x40, 0, TIME_TO_LIVE, TCP, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
    } else {
        header.extend([0x60, 0, 0, 0]);
        header.extend(payload.to_be_bytes());
        header.extend([TCP, TIME_TO_LIVE]);
        header.extend(octets(source));
        header.extend(octets(destination));
    }
    header
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Over the pseudo header and the segment, whose own field is zero (RFC 9293 §3.1, RFC 8200 §8.1). The longer length
/// and protocol fields of IPv6 add nothing but zeros.
fn checksum(source: IpAddr, destination: IpAddr, segment: &[u8]) -> u16 {
    let pseudo = [octets(source), octets(destination)].concat();
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(&pseudo) + words(segment) + u32::from(TCP) + segment.len() as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::{super::options::Timestamps, *};

    /// A receiver's check: the sum over everything, the checksum included, is zero.
    fn verifies(source: IpAddr, destination: IpAddr, segment: &[u8]) -> bool {
        checksum(source, destination, segment) == 0
    }

    #[test]
    fn both_families_get_a_segment_that_a_receiver_accepts() {
        for (client, app, header) in
            [("10.0.0.3:40000", "10.0.0.2:8080", 20), ("[fd77::3]:40000", "[fd77::2]:8080", 40)]
        {
            let (client, app): (SocketAddr, SocketAddr) = (client.parse().unwrap(), app.parse().unwrap());
            for timestamps in [None, Some(Timestamps { value: 7, echo: 9 })] {
                let farewell = Farewell { seq: 0x0102_0304, ack: 0x0506_0708, window: 502, timestamps };
                let packet = farewell.packet(client, app);
                let segment = &packet[header..];
                assert!(verifies(client.ip(), app.ip(), segment), "{packet:02x?}");
                assert_eq!(segment[..4], [0x9c, 0x40, 0x1f, 0x90], "ports");
                assert_eq!(segment[4..12], [1, 2, 3, 4, 5, 6, 7, 8], "sequence numbers");
                assert_eq!(usize::from(segment[12] >> 4) * 4, segment.len(), "no payload");
                assert_eq!(segment[13], FIN_ACK);
            }
        }
    }
}
