//! Packets as one wants them, sent by the client's machine.

use super::tcp::Position;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};

const PSH_ACK: u8 = 0x18;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const TCP: u8 = 6;
const ICMP: u8 = 1;

/// A segment with data on the client's connection.
pub fn send(stream: &TcpStream, position: Position, payload: &[u8]) {
    let (client, app) = ends(stream);
    put(&segment(client, app, position, payload, true), app);
}

/// The same, with a checksum that is wrong.
pub fn send_damaged(stream: &TcpStream, position: Position, payload: &[u8]) {
    let (client, app) = ends(stream);
    put(&segment(client, app, position, payload, false), app);
}

/// The same, whose first byte is urgent (RFC 9293 §3.8.5).
pub fn send_urgent(stream: &TcpStream, position: Position, payload: &[u8]) {
    let (client, app) = ends(stream);
    put(&tcp_packet(client, app, position, payload, PSH_ACK | URG, true), app);
}

/// The same, with a checksum that is wrong.
pub fn send_damaged_urgent(stream: &TcpStream, position: Position, payload: &[u8]) {
    let (client, app) = ends(stream);
    put(&tcp_packet(client, app, position, payload, PSH_ACK | URG, false), app);
}

/// A router on the way says that a packet from the app, with this sequence number, was too large (RFC 1191 §4).
pub fn send_too_large(stream: &TcpStream, seq: u32, mtu: u16) {
    let (client, app) = ends(stream);
    let quoted = segment(app, client, Position { seq, ack: 0 }, b"", true);
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(&quoted[..28]);
    let checksum = checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = ip_header(client, app, ICMP, message.len());
    packet.extend(message);
    put(&packet, app);
}

fn ends(stream: &TcpStream) -> (SocketAddrV4, SocketAddrV4) {
    match (stream.local_addr().unwrap(), stream.peer_addr().unwrap()) {
        (SocketAddr::V4(client), SocketAddr::V4(app)) => (client, app),
        other => panic!("{other:?}"),
    }
}

fn put(packet: &[u8], to: SocketAddrV4) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
    assert_eq!(socket.send_to(packet, &to.into()).unwrap(), packet.len());
}

fn segment(from: SocketAddrV4, to: SocketAddrV4, position: Position, payload: &[u8], good: bool) -> Vec<u8> {
    tcp_packet(from, to, position, payload, if payload.is_empty() { ACK } else { PSH_ACK }, good)
}

fn tcp_packet(
    from: SocketAddrV4,
    to: SocketAddrV4,
    position: Position,
    payload: &[u8],
    flags: u8,
    good: bool,
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(position.seq.to_be_bytes());
    segment.extend(position.ack.to_be_bytes());
    segment.extend([5 << 4, flags]);
    segment.extend(500_u16.to_be_bytes());
    segment.extend([0; 2]);
    segment.extend(u16::from(flags & URG != 0).to_be_bytes());
    segment.extend(payload);
    let mut pseudo = [from.ip().octets(), to.ip().octets()].concat();
    pseudo.extend([0, TCP]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    pseudo.extend(&segment);
    let checksum = checksum(&pseudo) ^ if good { 0 } else { 0x0101 };
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = ip_header(from, to, TCP, segment.len());
    packet.extend(segment);
    packet
}

/// The kernel computes its checksum (raw(7)).
fn ip_header(from: SocketAddrV4, to: SocketAddrV4, protocol: u8, payload: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(from.ip().octets());
    header.extend(to.ip().octets());
    header
}

fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
