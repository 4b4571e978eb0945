//! What inspection (door C) and parking (door B) share: whose a connection is, what is held back, what is looked for.
//!
//! Maps: `HOLDS` [`Tuple`] → [`Held`], `FLOWS` [`Tuple`] → [`Flow`], `NEEDLES` [`Needle`] → `u32`,
//! `INSPECTED_PORTS` port → [`InspectedPort`], `AGENT_PORTS` the agent's port → the service's, ring buffer `HELD_SEGMENTS` of [`HeldSegment`],
//! `EXISTING` [`Tuple`] → [`Existing`], `PORT_PROTOCOLS` port → [`PORT_HTTP2`] and [`PORT_TLS`],
//! socket storage `CONNECTIONS` of [`Connection`](crate::Connection).

use crate::AddressBytes;

/// A client's connection to the app. Ports in host order. (Aligned, so that it is copied by words.)
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub client: AddressBytes,
    pub app: AddressBytes,
    pub client_port: u16,
    pub app_port: u16,
}

/// A connection that is not the app's any more, or not for long.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// [`Flow::MOVING`] or [`Flow::PARKED`].
    pub state: u32,
    /// The local port of the agent's socket. Host order.
    pub agent_port: u16,
    /// Always zero.
    pub padding: u16,
}

impl Flow {
    /// All its segments are dropped, in both directions.
    pub const MOVING: u32 = 1;
    /// The client talks to the agent's socket.
    pub const PARKED: u32 = 2;
}

/// A segment is held back since then.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// A connection that was there when the inspection of its port began, and on which neither side had anything to say: what
/// comes next from the client begins a request. The counts are those of `struct tcp_info`, then; if they have changed it says nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// `tcpi_bytes_received`
    pub bytes_received: u64,
    /// `tcpi_bytes_acked`
    pub bytes_acked: u64,
}

/// Bits of `PORT_PROTOCOLS`: new connections to the port began with the preface of HTTP/2 (RFC 9113 §3.4), or with a TLS
/// handshake (RFC 8446 §5.1). The programs set them and never clear them.
pub const PORT_HTTP2: u32 = 1;
pub const PORT_TLS: u32 = 2;

/// A name to look for in request heads to a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needle {
    /// Host order.
    pub port: u16,
    /// [`Needle::HEADER`], [`Needle::LIST`] or [`Needle::MEMBER`].
    pub kind: u16,
    /// [`name_hash`](crate::scan::name_hash) of the name.
    pub hash: u32,
}

impl Needle {
    /// The name of a header, in lower case, that makes a head interesting by itself.
    pub const HEADER: u16 = 0;
    /// The name of a header, in lower case, whose members are to be looked at.
    pub const LIST: u16 = 1;
    /// The key of a member, as it is, that makes a head interesting in any such list.
    pub const MEMBER: u16 = 2;
}

/// The value of a port in `INSPECTED_PORTS`: what is looked for in requests to it, without a look into `NEEDLES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectedPort {
    /// The [`name_bit`]s of all names and keys that are looked for. 0: the port is not inspected.
    pub names: u32,
    /// [`MemberStarts`](crate::scan::MemberStarts) of the members of lists to look at.
    pub members: u32,
    /// [`LineStarts`](crate::scan::LineStarts) of the header lines to look at.
    pub lines: u64,
}

/// The bit of a name or key. It tells most of those that are not looked for from those that are.
pub const fn name_bit(hash: u32) -> u32 {
    1 << (hash >> 27)
}

/// Nanoseconds after which a held segment that the agent has not claimed passes to the app when the client sends it again.
pub const HOLD_DEADLINE_NS: u64 = 50_000_000;

/// Bytes of a payload that the record of a held segment has room for; the client sends the rest again.
pub const HELD_PAYLOAD: usize = 16 * 1024;

/// A segment that was held back. The record in the ring buffer may end behind the part of `payload` that is used.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeldSegment {
    pub tuple: Tuple,
    /// Of the first byte of the payload.
    pub seq: u32,
    pub ack: u32,
    /// Bytes that the app's socket had sent in all, modulo 2^32: `bytes_acked` and what was on the way.
    pub said: u32,
    /// Bytes that it had received in all, modulo 2^32: `bytes_received`.
    pub received: u32,
    /// As it stands in the header, not scaled.
    pub window: u16,
    /// The flags byte of the TCP header.
    pub flags: u8,
    /// The packet is an IPv6 packet.
    pub is_v6: u8,
    /// Bytes of `options` that are used.
    pub options_len: u8,
    /// Always zero.
    pub padding: [u8; 3],
    /// Bytes of `payload` that are used.
    pub payload_len: u32,
    pub options: [u8; 40],
    pub payload: [u8; HELD_PAYLOAD],
}

#[cfg(all(feature = "user", target_os = "linux"))]
mod user {
    use super::{Existing, Flow, Held, InspectedPort, Needle, Tuple};

    // SAFETY: `repr(C)`, only integers and arrays of integers, and no implicit padding: 16+16+2+2.
    unsafe impl aya::Pod for Tuple {}
    // SAFETY: as above: 4+2+2.
    unsafe impl aya::Pod for Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Held {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Existing {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InspectedPort {}
    // SAFETY: as above: 2+2+4.
    unsafe impl aya::Pod for Needle {}
}
