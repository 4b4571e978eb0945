//! Door A: new connections to an intercepted port go to the agent's listener in the same namespace.
//!
//! The rule for every doubt is to pass the packet on: the app then gets it, as if we were not there.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::generated::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    macros::map,
    maps::{HashMap, SockMap},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use redirector_common::{AddressBytes, Counter};

use crate::{
    counters::count,
    heartbeat::agent_alive,
    packet::{self, Segment, TCP_ACK, TCP_RST, TCP_SYN},
    sockets::{self, TCP_LISTEN},
};

/// Intercepted port (host order) → slot of its IPv4 listener in `LISTENERS`; the IPv6 one is in the next.
#[map]
static PORTS: HashMap<u16, u32> = HashMap::with_max_entries(256, 0);

/// The agent's listening sockets, and never any socket of the app. Closing one empties its slot: fail open.
#[map]
static LISTENERS: SockMap = SockMap::with_max_entries(512, 0);

/// The addresses of this namespace. What goes elsewhere is forwarded here, and must not be assigned: the
/// kernel drops forwarded packets that have a socket.
#[map]
static LOCAL_ADDRESSES: HashMap<AddressBytes, u8> = HashMap::with_max_entries(4096, 1);

/// Hands the segment to the agent's listener, if it opens a connection to an intercepted port.
#[inline(never)]
pub fn ingress(ctx: TcContext, segment: &Segment) {
    let ctx = &ctx;
    if let Some(outcome) = offer(ctx, segment) {
        count(outcome);
        debug!(
            ctx,
            "port {} flags {}: {}",
            u16::from_be_bytes(segment.destination_port),
            segment.flags,
            outcome as u32
        );
    }
}

/// `None`: not an intercepted port, or a packet of a connection that exists already.
fn offer(ctx: &TcContext, segment: &Segment) -> Option<Counter> {
    let port = u16::from_be_bytes(segment.destination_port);
    // SAFETY: the value is read once, right here; the agent only replaces whole entries.
    let slot = *unsafe { PORTS.get(&port) }?;

    // Only what can open a connection: a SYN, or the ACK that ends a handshake made with SYN cookies, for
    // which no request socket exists.
    if segment.flags & TCP_RST != 0 || segment.flags & (TCP_SYN | TCP_ACK) == 0 {
        return None;
    }
    match sockets::state(ctx, segment) {
        Some(TCP_LISTEN) => {}
        // Established, in handshake, or in TIME_WAIT: assigning over any of these would break it.
        Some(_) => return None,
        None if segment.flags & TCP_SYN == 0 => return None,
        None => return Some(Counter::AppNotListening),
    }
    if !agent_alive() {
        return Some(Counter::AgentSilent);
    }
    if !is_local(segment) {
        return Some(Counter::NotLocal);
    }
    if segment.flags & TCP_SYN != 0 && joins_multipath(ctx, segment) {
        return Some(Counter::MultipathJoin);
    }
    Some(assign(ctx, slot + segment.is_v6 as u32))
}

fn is_local(segment: &Segment) -> bool {
    // SAFETY: only presence is asked for.
    unsafe { LOCAL_ADDRESSES.get(&segment.destination) }.is_some()
}

/// A SYN with MP_JOIN (option kind 30, subtype 1) adds a path to a connection that the app has.
fn joins_multipath(ctx: &TcContext, segment: &Segment) -> bool {
    const FIXED: u32 = 20;
    let mut at = FIXED;
    // Options fill at most 40 bytes, and each but padding takes two: 20 rounds see them all in practice.
    for _ in 0..20 {
        if at + 2 >= segment.tcp_header_len {
            return false;
        }
        let Some([kind, len, subtype]) = packet::load::<[u8; 3]>(ctx, segment.tcp_offset + at) else {
            return false;
        };
        match kind {
            0 => return false,
            1 => at += 1,
            30 => return subtype >> 4 == 1,
            _ if len < 2 => return false,
            _ => at += u32::from(len),
        }
    }
    false
}

fn assign(ctx: &TcContext, slot: u32) -> Counter {
    // SAFETY: lookups in a sockmap return a referenced socket, released below on the only path out.
    unsafe {
        let listener =
            bpf_map_lookup_elem((&raw const LISTENERS).cast_mut().cast(), (&raw const slot).cast())
                .cast::<bpf_sock>();
        if listener.is_null() {
            return Counter::NoListener;
        }
        let refused = bpf_sk_assign(ctx.as_ptr(), listener.cast(), 0);
        bpf_sk_release(listener.cast());
        if refused == 0 { Counter::Assigned } else { Counter::AssignFailed }
    }
}
