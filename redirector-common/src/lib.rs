//! What the eBPF programs and the agent agree on: map keys, map values, counters and time limits.
//!
//! Every type here crosses the kernel boundary as plain bytes: fixed layout, no implicit padding.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod connection;
mod doors;
mod rehearsal;
pub mod scan;
mod word;

pub use connection::{Connection, Raw};
pub use doors::*;
pub use rehearsal::Rehearsal;
pub use word::word_at;

/// An IPv4 or IPv6 address as 16 bytes in network order; IPv4 is v4-mapped (`::ffff:a.b.c.d`).
pub type AddressBytes = [u8; 16];

/// IPv4 in the form the maps use.
pub const fn v4_mapped(v4: [u8; 4]) -> AddressBytes {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// Nanoseconds of `CLOCK_MONOTONIC` after which an agent that has not beaten counts as hung, and new
/// connections go to the app.
///
/// Eight missed beats: far above what a busy machine delays a thread, far below a client's patience.
pub const HEARTBEAT_DEADLINE_NS: u64 = 400_000_000;

/// Nanoseconds between two beats of a healthy agent.
pub const HEARTBEAT_INTERVAL_NS: u64 = 50_000_000;

/// What became of a packet to an intercepted port, or was seen in it; the index into the `COUNTERS` map.
///
/// Other packets of connections that exist already are the common case and are not counted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Given to the agent's listener.
    Assigned = 0,
    /// Passed on: the agent has not beaten for [`HEARTBEAT_DEADLINE_NS`].
    AgentSilent = 1,
    /// Passed on: the agent has no listener for this port, it is going away.
    NoListener = 2,
    /// Passed on: nothing in this namespace listens on the port, so the kernel refuses as it does without us.
    AppNotListening = 3,
    /// Passed on: the destination is not an address of this namespace (forwarded traffic).
    NotLocal = 4,
    /// Passed on: an IP fragment or an extension header that hides the TCP header.
    Unreadable = 5,
    /// Passed on: `bpf_sk_assign` refused.
    AssignFailed = 6,
    /// Passed on: joins a Multipath TCP connection that the app already has (RFC 8684 §3.2).
    MultipathJoin = 7,
    /// A request head on a connection that the app has, seen from its first byte to its last.
    Head = 8,
    /// Such a head with one of the names of an intercept.
    InterestingHead = 9,
    /// A segment held back for the agent.
    Held = 10,
    /// Passed on: an interesting head, or one that couldn't be judged, where no request was due for certain.
    RefusedAtBoundary = 11,
    /// Passed on after the agent had not claimed it in time.
    HoldExpired = 12,
    /// Passed on instead of held: no room for it, or another packet came in between.
    HoldFailed = 13,
    /// Passed on instead of held, for the app's side to drop: its checksum is wrong.
    BadChecksum = 14,
    /// A connection that is left alone from now on: not HTTP/1.x, or not any more, or not beyond doubt.
    RawConnection = 15,
    /// A connection whose requests were lost sight of; they are found again at the next proven boundary.
    LostSight = 16,
    /// Dropped, to see whether the app is done on a connection of which not all was seen: see
    /// [`Connection::LIKELY`].
    SilenceAwaited = 17,
    /// Passed on after that: the app was not done.
    AppNotSilent = 18,
    /// A segment of a head made one with those before it, which had been put aside: in place of all of them, one comes in.
    Joined = 19,
}

impl Counter {
    /// How many there are: the size of the `COUNTERS` map.
    pub const COUNT: u32 = 20;

    /// All of them, with the name they have in `status` and in metrics.
    pub const ALL: [(Self, &'static str); Self::COUNT as usize] = [
        (Self::Assigned, "assigned"),
        (Self::AgentSilent, "agent_silent"),
        (Self::NoListener, "no_listener"),
        (Self::AppNotListening, "app_not_listening"),
        (Self::NotLocal, "not_local"),
        (Self::Unreadable, "unreadable"),
        (Self::AssignFailed, "assign_failed"),
        (Self::MultipathJoin, "multipath_join"),
        (Self::Head, "heads"),
        (Self::InterestingHead, "interesting_heads"),
        (Self::Held, "held"),
        (Self::RefusedAtBoundary, "refused_at_boundary"),
        (Self::HoldExpired, "hold_expired"),
        (Self::HoldFailed, "hold_failed"),
        (Self::BadChecksum, "bad_checksum"),
        (Self::RawConnection, "raw_connections"),
        (Self::LostSight, "lost_sight"),
        (Self::SilenceAwaited, "silence_awaited"),
        (Self::AppNotSilent, "app_not_silent"),
        (Self::Joined, "joined"),
    ];
}

/// Names one connection between the agent and an app, as the app's socket sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamKey {
    /// `SO_NETNS_COOKIE` of the target's network namespace.
    pub netns_cookie: u64,
    /// The app's end.
    pub app_address: AddressBytes,
    /// The agent's end, which the kernel would answer to `getpeername`.
    pub agent_address: AddressBytes,
    /// Host order.
    pub app_port: u16,
    /// Host order.
    pub agent_port: u16,
    /// Always zero: the map compares bytes.
    pub padding: u32,
}

/// 64-bit words with a bit for each port.
pub const PORT_WORDS: u32 = 1 << 10;

/// The word and the bit of a port.
#[inline(always)]
pub const fn port_bit(port: u16) -> (u32, u64) {
    (port as u32 >> 6, 1 << (port & 63))
}

/// The client on whose behalf the agent made a connection to the app.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    pub address: AddressBytes,
    /// Host order.
    pub port: u16,
    /// Always zero.
    pub padding: [u16; 3],
}

#[cfg(all(feature = "user", target_os = "linux"))]
mod user {
    use super::{ClientAddress, Connection, UpstreamKey};

    // SAFETY: `repr(C)`, only integers and arrays of integers, and no implicit padding: 8+16+16+2+2+4.
    unsafe impl aya::Pod for UpstreamKey {}
    // SAFETY: as above: 16+2+6.
    unsafe impl aya::Pod for ClientAddress {}
    // SAFETY: `repr(C)`, only integers and arrays of integers. The kernel copies it as a whole.
    unsafe impl aya::Pod for Connection {}
}
