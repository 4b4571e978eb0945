//! Door A: new connections to an intercepted port go to the agent's listener in the same namespace.
//!
//! The rule for every doubt is to pass the packet on: the app then gets it, as if we were not there.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CURRENT_NETNS, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_sock, bpf_sock_tuple,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::{
        bpf_ktime_get_ns,
        generated::{
            bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_fullsock, bpf_sk_release, bpf_skc_lookup_tcp,
            bpf_tcp_sock,
        },
    },
    macros::{classifier, map},
    maps::{Array, HashMap, PerCpuArray, SockMap},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use redirector_common::{AddressBytes, Counter, HEARTBEAT_DEADLINE_NS, Tuple};

use crate::inspect;
use crate::packet::{self, Parsed, Segment, TCP_ACK, TCP_RST, TCP_SYN};
use crate::parking;

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

/// When the agent last said that it is alive: `CLOCK_MONOTONIC` in nanoseconds.
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// See [`Counter`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// `TCP_LISTEN` of the kernel's `net/tcp_states.h`.
const TCP_LISTEN: u32 = 10;

#[classifier]
pub fn redirector_ingress(ctx: TcContext) -> i32 {
    match packet::parse(&ctx) {
        Parsed::Segment(segment) => {
            let tuple = Tuple {
                client: segment.source,
                app: segment.destination,
                client_port: u16::from_be_bytes(segment.source_port),
                app_port: u16::from_be_bytes(segment.destination_port),
            };
            match parking::ingress(&ctx, &segment, &tuple) {
                parking::Verdict::Pass => return TC_ACT_UNSPEC,
                parking::Verdict::Drop => return TC_ACT_SHOT,
                parking::Verdict::Next => {}
            }
            if inspect::hold(&ctx, &segment, &tuple) {
                return TC_ACT_SHOT;
            }
            if let Some(outcome) = offer(&ctx, &segment) {
                count(outcome);
                debug!(
                    &ctx,
                    "port {} flags {}: {}",
                    u16::from_be_bytes(segment.destination_port),
                    segment.flags,
                    outcome as u32
                );
            }
        }
        Parsed::Unreadable => count(Counter::Unreadable),
        Parsed::Other => {}
    }
    TC_ACT_UNSPEC
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
    match app_socket(ctx, segment) {
        AppSocket::Connection => return None,
        AppSocket::None if segment.flags & TCP_SYN == 0 => return None,
        AppSocket::None => return Some(Counter::AppNotListening),
        AppSocket::Listener => {}
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

enum AppSocket {
    None,
    Listener,
    /// Established, in handshake, or in TIME_WAIT: assigning over any of these would break it.
    Connection,
}

/// What the kernel would deliver this segment to.
fn app_socket(ctx: &TcContext, segment: &Segment) -> AppSocket {
    match app_socket_state(ctx, segment) {
        None => AppSocket::None,
        Some(TCP_LISTEN) => AppSocket::Listener,
        Some(_) => AppSocket::Connection,
    }
}

/// Of an established socket that would take `seq` next, and to which `ack` acknowledges all: how much that is.
#[inline(always)]
pub fn idle_at(ctx: &TcContext, segment: &Segment, seq: u32, ack: u32) -> Option<u32> {
    with_socket(ctx, segment, |socket| {
        // SAFETY: the socket is referenced while this runs.
        unsafe {
            let full = bpf_sk_fullsock(socket);
            if full.is_null() || (*full).state != 1 {
                return None;
            }
            let tcp = bpf_tcp_sock(full);
            if tcp.is_null() || (*tcp).rcv_nxt != seq || (*tcp).snd_nxt != ack {
                return None;
            }
            Some(ack.wrapping_sub((*tcp).snd_una))
        }
    })?
}

/// Its state in `net/tcp_states.h`; `None`: there is none.
pub fn app_socket_state(ctx: &TcContext, segment: &Segment) -> Option<u32> {
    // SAFETY: the socket is referenced while this runs.
    with_socket(ctx, segment, |socket| unsafe { (*socket).state })
}

#[inline(always)]
fn with_socket<T>(ctx: &TcContext, segment: &Segment, look: impl FnOnce(*mut bpf_sock) -> T) -> Option<T> {
    let source_port = u16::from_ne_bytes(segment.source_port);
    let destination_port = u16::from_ne_bytes(segment.destination_port);
    // SAFETY: each tuple is initialised for the size that is given with it; the socket is released below on
    // the only path out.
    unsafe {
        let socket = if segment.is_v6 {
            let mut tuple = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: words(segment.source),
                daddr: words(segment.destination),
                sport: source_port,
                dport: destination_port,
            };
            look_up(ctx, &raw mut tuple)
        } else {
            let mut tuple = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: words(segment.source)[3],
                daddr: words(segment.destination)[3],
                sport: source_port,
                dport: destination_port,
            };
            look_up(ctx, &raw mut tuple)
        };
        if socket.is_null() {
            return None;
        }
        let seen = look(socket);
        bpf_sk_release(socket.cast());
        Some(seen)
    }
}

/// # Safety
/// `tuple` must be one of the members of `bpf_sock_tuple`, initialised. The socket must be released.
#[inline(always)]
unsafe fn look_up<T>(ctx: &TcContext, tuple: *mut T) -> *mut bpf_sock {
    // SAFETY: guaranteed by the caller; the kernel tells the family by the size.
    unsafe {
        bpf_skc_lookup_tcp(
            ctx.as_ptr(),
            tuple.cast::<bpf_sock_tuple>(),
            core::mem::size_of::<T>() as u32,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        )
    }
}

fn words(address: AddressBytes) -> [u32; 4] {
    // SAFETY: same size, and every bit pattern is a valid array of integers.
    unsafe { core::mem::transmute(address) }
}

pub fn agent_alive() -> bool {
    let Some(beat) = HEARTBEAT.get_ptr(0) else { return false };
    // SAFETY: array slots live as long as the program; an aligned 8-byte read is not torn.
    let beat = unsafe { beat.read_volatile() };
    // SAFETY: no preconditions. The agent writes the same clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // A beat that lands between the two reads is later than `now`: alive.
    now.saturating_sub(beat) < HEARTBEAT_DEADLINE_NS
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

pub fn count(outcome: Counter) {
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: a per-CPU slot; programs do not migrate while they run.
        unsafe { *counter += 1 };
    }
}
