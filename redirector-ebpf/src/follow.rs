//! Door C: follows the requests and responses of connections that the app has, so that it is known where the next request
//! begins, and stops those that may be a developer's.
//!
//! A gap, or a segment that the app had to be sent again, ends what is known (`UNKNOWN`). It begins again with a
//! segment that is exactly what the app expects next, at a time when the app has said all it had to say, and that looks
//! like a request; and it is relied on after a whole exchange (`PROBATION`, `PROVEN`).

use aya_ebpf::{
    bindings::bpf_tcp_sock as TcpSock,
    helpers::generated::{bpf_sk_fullsock, bpf_tcp_sock},
    macros::map,
    maps::HashMap,
    programs::TcContext,
};
use core::sync::atomic::{Ordering, compiler_fence};
use redirector_common::{
    Connection, Counter, Existing, Raw, Tuple,
    scan::{RequestScan, ResponseScan},
};

use crate::{
    connection::{self, is_idle, try_lock, unlock, will_send},
    counters::count,
    hold::{self, hold},
    packet::{self, Segment, TCP_FIN, TCP_RST, TCP_SYN, TCP_URG},
    scanning,
    sockets::{self, TCP_ESTABLISHED},
};

/// The ports (host order) whose requests are read, and the [`name_bit`](redirector_common::name_bit)s of what is looked for in them.
#[map]
static INSPECTED_PORTS: HashMap<u16, u32> = HashMap::with_max_entries(256, 0);

/// See [`Existing`].
#[map]
static EXISTING: HashMap<Tuple, Existing> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// See [`PORT_HTTP2`](redirector_common::PORT_HTTP2).
#[map]
static PORT_PROTOCOLS: HashMap<u16, u32> = HashMap::with_max_entries(256, 0);

const BPF_F_NO_PREALLOC: u32 = 1;

/// A connection that was held as often in vain is left alone: each time the client has to send again.
const MAX_HOLDS: u32 = 2;

/// More requests without an answer than this are not followed.
const MAX_OUTSTANDING: u32 = 60;

/// `bpf_tcp_sock.ecn_flags`
const ECN_NEGOTIATED: u32 = 1;

/// Where the payload of a segment is, counted from the start of the packet.
#[derive(Clone, Copy)]
pub struct Payload {
    pub at: u32,
    pub len: u32,
}

/// A segment from the client. True: it is held, drop it.
#[inline(never)]
pub fn request(ctx: &TcContext, segment: &Segment, tuple: &Tuple) -> bool {
    if segment.flags & (TCP_SYN | TCP_RST) != 0 {
        return false;
    }
    // SAFETY: the value is copied at once.
    let Some(names) = (unsafe { INSPECTED_PORTS.get(&tuple.app_port) }).copied() else { return false };
    let Some(len) = segment.payload_len(ctx) else { return false };
    let link = packet::link_len(ctx);
    if len == 0 || link == packet::UNKNOWN_LINK {
        return false;
    }
    let payload = Payload { at: link + segment.payload_offset(), len };
    let held = sockets::look_up(ctx, segment, |socket| {
        // SAFETY: the socket is referenced while this runs.
        unsafe {
            let socket = bpf_sk_fullsock(socket);
            if socket.is_null() || (*socket).state != TCP_ESTABLISHED {
                return false;
            }
            let tcp = bpf_tcp_sock(socket);
            if tcp.is_null() || (*tcp).ecn_flags & ECN_NEGOTIATED != 0 {
                // No socket that the agent could make has ECN.
                return false;
            }
            let connection = connection::known_from_now(socket);
            if connection.is_null() || (*connection).raw != 0 || !try_lock(&mut *connection) {
                return false;
            }
            let held = read_request(ctx, segment, tuple, payload, names, &mut *connection, tcp);
            unlock(&mut *connection);
            held
        }
    });
    held == Some(true)
}

#[inline(always)]
fn read_request(
    ctx: &TcContext,
    segment: &Segment,
    tuple: &Tuple,
    payload: Payload,
    names: u32,
    connection: &mut Connection,
    tcp: *mut TcpSock,
) -> bool {
    let len = payload.len;
    // SAFETY: the caller has a reference to the socket.
    let (rcv_nxt, snd_nxt) = unsafe { ((*tcp).rcv_nxt, (*tcp).snd_nxt) };
    let mut seen = 0;
    if connection.phase != Connection::UNKNOWN {
        let behind = connection.next.wrapping_sub(segment.seq) as i32;
        if behind > 0 {
            if (segment.seq.wrapping_sub(rcv_nxt) as i32) < 0 {
                // The app has it, and so have we.
                if behind as u32 >= len {
                    return false;
                }
                seen = behind as u32;
            } else {
                // What we read the first time has not got to the app: it may have been damaged.
                lose_sight(connection);
            }
        } else if behind < 0 || connection.broken_epoch == connection.epoch {
            lose_sight(connection);
        }
    }
    if connection.phase == Connection::PROBATION && connection.request.is_at_start() {
        if !is_idle(connection) {
            // The request that the app has not answered may have been a part of a body, and this the next.
            lose_sight(connection);
        } else if connection.requests != connection.found_at {
            connection.phase = Connection::PROVEN;
        }
    }
    if connection.phase == Connection::UNKNOWN {
        if segment.seq != rcv_nxt || segment.ack != snd_nxt || !begins_like_a_request(ctx, payload) {
            return false;
        }
        // SAFETY: as above.
        let fresh = unsafe { (*tcp).bytes_received == 0 && (*tcp).data_segs_out == 0 };
        find(connection, segment, fresh);
        seen = 0;
    }

    let Some(work) = scanning::work() else { return false };
    // SAFETY: this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    let at_start = seen == 0 && connection.request.is_at_start();
    let idle = is_idle(connection);
    work.request = connection.request;
    work.requests = connection.requests;
    work.head_requests = connection.head_requests;
    work.heads = 0;
    work.first_interesting = 0;
    work.interesting = 0;
    work.port = u32::from(tuple.app_port);
    work.names = names;
    work.at = payload.at + seen;
    work.end = payload.at + len;
    let finished = scanning::read_requests(ctx, work);

    let outstanding = work.requests.wrapping_sub(connection.responses);
    // The app may not get an urgent byte where we see it (RFC 9293 §3.8.5).
    let urgent = segment.flags & TCP_URG != 0;
    if !finished || work.request.is_raw() || outstanding > MAX_OUTSTANDING || urgent {
        if connection.phase == Connection::PROBATION && !urgent {
            lose_sight(connection);
        } else {
            let reason = if urgent {
                Raw::Urgent
            } else if work.request.is_switched() {
                Raw::Switched
            } else {
                Raw::NotHttp
            };
            leave_alone(connection, reason);
        }
        return false;
    }
    let unjudged = work.heads == 0 && work.request.is_in_head();
    let wanted = work.first_interesting != 0 || unjudged;
    let mut not_held = work.interesting;
    let held_before = connection.holds != 0 && connection.held_seq == segment.seq;
    if held_before && connection.holds >= MAX_HOLDS {
        // The agent can't take it, or not in time; it shall not cost the client more.
        leave_alone(connection, Raw::HeldInVain);
        return false;
    }
    if at_start && wanted && !held_before {
        if idle && connection.phase == Connection::PROVEN && segment.seq == rcv_nxt && segment.ack == snd_nxt
        {
            if hold(ctx, segment, tuple, payload, connection, tcp) == hold::HELD {
                return true;
            }
            not_held = 0;
        } else if unjudged {
            not_held = 1;
        }
    }
    if work.heads != 0 {
        count(Counter::Head);
    }
    if work.interesting != 0 {
        count(Counter::InterestingHead);
    }
    if not_held != 0 {
        count(Counter::RefusedAtBoundary);
    }
    connection.request = work.request;
    connection.head_requests = work.head_requests;
    connection.next = segment.seq.wrapping_add(len);
    // Last: the egress program may look at once.
    compiler_fence(Ordering::Release);
    connection.requests = work.requests;
    false
}

/// Begins to follow the connection with this segment.
#[inline(always)]
fn find(connection: &mut Connection, segment: &Segment, fresh: bool) {
    connection.request = RequestScan::default();
    connection.next = segment.seq;
    connection.requests = connection.responses;
    connection.found_at = connection.requests;
    connection.response_from = segment.ack;
    connection.sent_end = u64::from(segment.ack);
    connection.phase = if fresh { Connection::PROVEN } else { Connection::PROBATION };
    compiler_fence(Ordering::Release);
    // 0 is the epoch in which nothing is followed.
    let next = connection.epoch.wrapping_add(1);
    connection.epoch = if next == 0 { 1 } else { next };
}

#[inline(always)]
fn leave_alone(connection: &mut Connection, reason: Raw) {
    connection.raw = reason as u32;
    count(Counter::RawConnection);
}

#[inline(always)]
fn lose_sight(connection: &mut Connection) {
    connection.phase = Connection::UNKNOWN;
    count(Counter::LostSight);
}

#[inline(always)]
fn begins_like_a_request(ctx: &TcContext, payload: Payload) -> bool {
    ctx.load::<u8>(payload.at as usize).is_ok_and(|byte| byte.wrapping_sub(b'A') < 26)
}

/// A segment from the app. True: the connection is held, drop it.
#[inline(never)]
pub fn response(ctx: &TcContext, segment: &Segment, tuple: &Tuple) -> bool {
    if segment.flags & (TCP_SYN | TCP_RST) != 0 || !is_inspected(tuple.app_port) {
        return false;
    }
    // SAFETY: the context is the one the kernel called us with; the socket of a packet lives as long as the packet.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return false;
        }
        let socket = bpf_sk_fullsock(socket);
        if socket.is_null() {
            return false;
        }
        let connection = connection::known(socket);
        if connection.is_null() || (*connection).raw != 0 {
            return false;
        }
        read_response(ctx, segment, tuple, &mut *connection)
    }
}

#[inline(always)]
fn read_response(ctx: &TcContext, segment: &Segment, tuple: &Tuple, connection: &mut Connection) -> bool {
    let Some(len) = segment.payload_len(ctx) else {
        connection.broken_epoch = connection.epoch;
        return hold::is_held(tuple);
    };
    let fin = (segment.flags & TCP_FIN != 0) as u32;
    if len + fin == 0 {
        return false;
    }
    // In this order: see `hold`.
    will_send(connection, segment.seq.wrapping_add(len + fin));
    if hold::is_held(tuple) {
        return true;
    }
    let epoch = connection.epoch;
    if epoch == 0 || connection.broken_epoch == epoch {
        return false;
    }
    if connection.response_epoch != epoch {
        connection.response_epoch = epoch;
        connection.response_next = connection.response_from;
        connection.response = ResponseScan::default();
    }
    let behind = connection.response_next.wrapping_sub(segment.seq) as i32;
    if behind < 0 {
        connection.broken_epoch = epoch;
        return false;
    }
    let seen = behind as u32;
    if seen >= len {
        return false;
    }
    let link = packet::link_len(ctx);
    if link == packet::UNKNOWN_LINK {
        connection.broken_epoch = epoch;
        return false;
    }
    let Some(work) = scanning::work() else { return false };
    // SAFETY: this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    work.response = connection.response;
    work.responses = connection.responses;
    work.head_requests = connection.head_requests;
    work.at = link + segment.payload_offset() + seen;
    work.end = link + segment.payload_offset() + len;
    let finished = scanning::read_responses(ctx, work);

    // More answers than requests: it speaks first, or unasked.
    let unanswered = connection.requests.wrapping_sub(work.responses) as i32;
    let unasked = unanswered < 0 || (unanswered == 0 && !work.response.is_at_start());
    if !finished || work.response.is_raw() || unasked {
        if connection.phase == Connection::PROVEN {
            let switched = work.response.is_switched();
            leave_alone(connection, if switched { Raw::Switched } else { Raw::NotHttp });
        } else {
            connection.broken_epoch = epoch;
        }
        return false;
    }
    connection.response = work.response;
    connection.response_next = segment.seq.wrapping_add(len);
    connection.responses = work.responses;
    false
}

#[inline(always)]
fn is_inspected(port: u16) -> bool {
    // SAFETY: only presence is asked for.
    unsafe { INSPECTED_PORTS.get(&port) }.is_some()
}
