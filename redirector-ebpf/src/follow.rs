//! Door C: follows the requests and responses of connections that the app has, so that it is known where the next request
//! begins, and stops those that may be a developer's. (Responses: see `responses`.) A part of a head waits for the rest (`aside`).
//!
//! What comes before its turn is read when its turn comes (`early`). A gap that is not closed so, or a part of a request that the app
//! had to be sent again, ends what is known (`UNKNOWN`), or puts it in doubt (`DOUBTED`). It begins again with a segment that is
//! exactly what the app expects next, at a time when the app has said all it had to say, and that looks like a request;
//! after a whole exchange (`PROBATION`) it is `LIKELY`, and after a silence of the app `PROVEN`.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock as Sock, bpf_tcp_sock as TcpSock},
    helpers::{bpf_ktime_get_ns, generated::bpf_tcp_sock},
    macros::map,
    maps::{Array, HashMap},
    programs::TcContext,
};
use core::sync::atomic::{Ordering, compiler_fence};
use redirector_common::{
    Connection, Counter, Existing, InspectedPort, PORT_TLS, Raw, Tuple,
    scan::{LineStarts, RequestScan},
};

use crate::{
    aside, checksum,
    connection::{self, is_idle, lock, may_have_said, start_listening, unlock},
    counters::count,
    early,
    hold::{self, hold},
    opening,
    packet::{self, Segment, TCP_RST, TCP_SYN, TCP_URG},
    protocol, scanning, silence,
    sockets::{self, TCP_ESTABLISHED, TCP_NEW_SYN_RECV},
    unread,
};

/// By port (host order). All ports, because each packet is looked up, and nothing is quicker.
#[map]
static INSPECTED_PORTS: Array<InspectedPort> = Array::with_max_entries(1 << 16, 0);

/// See [`Existing`].
#[map]
static EXISTING: HashMap<Tuple, Existing> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

const BPF_F_NO_PREALLOC: u32 = 1;

/// A connection that was held as often in vain is left alone: each time the client has to send again.
const MAX_HOLDS: u32 = 2;

/// More requests without an answer than this are not followed.
const MAX_OUTSTANDING: u32 = 60;
/// So many may be without one as far as is known before it is looked whether they are.
const SOME_OUTSTANDING: u32 = 30;

/// `bpf_tcp_sock.ecn_flags`
const ECN_NEGOTIATED: u32 = 1;

/// Where the payload of a segment is, counted from the start of the packet.
#[derive(Clone, Copy)]
pub struct Payload {
    pub at: u32,
    pub len: u32,
}

/// What is to become of a segment from the client. A number, because functions are to return numbers.
pub type Seen = u32;
/// It may be the app's.
pub const PASS: Seen = 0;
/// It is held: drop it.
pub const HELD: Seen = 1;
/// It is the app's, and so is its connection.
pub const FOLLOWED: Seen = 2;
/// The same, and it came before its turn. Only in here.
const EARLY: Seen = 3;
/// More than this by the number of the slot in which there is what goes before it: see [`join`](crate::join).
pub const JOINS: Seen = 15;

/// What is looked for in requests to it; `None`: it is not inspected.
#[inline(always)]
pub fn inspected(port: u16) -> Option<InspectedPort> {
    let port = INSPECTED_PORTS.get_ptr(u32::from(port))?;
    // SAFETY: the element lives as long as the program; aligned words are not torn.
    let (names, lines) =
        unsafe { ((&raw const (*port).names).read_volatile(), (&raw const (*port).lines).read_volatile()) };
    // The agent may be writing: what frames is never missed.
    let lines = lines | LineStarts::OF_REQUESTS.to_bits();
    (names != 0).then_some(InspectedPort { names, padding: 0, lines })
}

/// A segment from the client, or its copy: see [`opening`].
#[inline(always)]
pub fn request(ctx: &TcContext, segment: &Segment, is_copy: bool) -> Seen {
    redirector_request(ctx.skb.skb, segment, u32::from(is_copy))
}

/// Exported, as those of `scanning` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn redirector_request(packet: *mut __sk_buff, segment: *const Segment, is_copy: u32) -> Seen {
    if packet.is_null() || segment.is_null() {
        return PASS;
    }
    let (ctx, is_copy) = (&TcContext::new(packet), is_copy != 0);
    // SAFETY: valid.
    let segment = unsafe { &*segment };
    if segment.flags & (TCP_SYN | TCP_RST) != 0 {
        return PASS;
    }
    let Some(wanted) = inspected(u16::from_be_bytes(segment.destination_port)) else { return PASS };
    let Some(len) = segment.payload_len(ctx) else { return PASS };
    let link = segment.link;
    if len == 0 || link == packet::UNKNOWN_LINK {
        return PASS;
    }
    let payload = Payload { at: link + segment.payload_offset(), len };
    let mut half_open = false;
    let seen = sockets::look_up(ctx, segment, |socket| {
        // SAFETY: the socket is referenced while this runs.
        unsafe {
            let state = (*socket).state;
            half_open = state == TCP_NEW_SYN_RECV;
            if state != TCP_ESTABLISHED {
                return PASS;
            }
            // It is full: the helpers make sure of it.
            let tcp = bpf_tcp_sock(socket);
            if tcp.is_null() {
                return PASS;
            }
            let connection = connection::known_from_now(socket);
            if connection.is_null() {
                return PASS;
            }
            if (*connection).raw != 0 {
                // The egress program may have said so, while there were copies.
                if (*connection).early != 0 && lock(&mut *connection) {
                    early::forget(&mut *connection, socket);
                    unlock(&mut *connection);
                }
                return PASS;
            }
            if !lock(&mut *connection) {
                return PASS;
            }
            let mut seen = if (*tcp).ecn_flags & ECN_NEGOTIATED != 0 {
                leave_alone(&mut *connection, Raw::Ecn);
                FOLLOWED
            } else {
                read_request(ctx, segment, payload, wanted, &mut *connection, socket, tcp)
            };
            if (*connection).early != 0 && is_past_early(&*connection, seen) {
                early::forget(&mut *connection, socket);
            }
            if seen == EARLY {
                // As in `read_request`.
                let urgent = segment.flags & TCP_URG != 0 && early::is_near(&*connection, segment);
                let goes_on = (*connection).aside != 0;
                if urgent || goes_on || early::matters(&*connection, segment, payload) {
                    if !checksum::is_good(ctx, segment, payload) {
                        count(Counter::BadChecksum);
                    } else if urgent {
                        leave_alone(&mut *connection, Raw::Urgent);
                    } else {
                        let slot = if goes_on { aside::claim(segment, len, &mut *connection) } else { 0 };
                        if slot == aside::KNOWN {
                            seen = HELD;
                        } else if slot != 0 {
                            seen = JOINS + slot;
                        } else if early::matters(&*connection, segment, payload) {
                            early::put_aside(ctx, segment, payload.at, &mut *connection, socket);
                        }
                    }
                }
            }
            unlock(&mut *connection);
            if seen == HELD || seen > JOINS { seen } else { FOLLOWED }
        }
    });
    if half_open {
        if !is_copy {
            return if opening::open(ctx, segment, link) { HELD } else { PASS };
        }
        // The app's queue is full, and the kernel drops it.
        count(Counter::HoldFailed);
    }
    seen.unwrap_or(PASS)
}

#[inline(always)]
fn read_request(
    ctx: &TcContext,
    segment: &Segment,
    payload: Payload,
    wanted: InspectedPort,
    connection: &mut Connection,
    socket: *mut Sock,
    tcp: *mut TcpSock,
) -> Seen {
    let len = payload.len;
    // SAFETY: the caller has a reference to the socket.
    let (rcv_nxt, snd_nxt) = unsafe { ((*tcp).rcv_nxt, (*tcp).snd_nxt) };
    let expected = segment.seq == rcv_nxt && segment.ack == snd_nxt;
    let mut seen = 0;
    // It was passed on to the app, which may have it although it does not say so.
    let mut passed_before = false;
    // It is read once more.
    let mut again = false;
    if connection.phase != Connection::UNKNOWN {
        // (The socket says it at less cost, but later.)
        if (segment.ack.wrapping_sub(snd_nxt) as i32) > 0 && !may_have_said(connection, segment.ack) {
            // For something that the app has not said: it will not take it.
            return FOLLOWED;
        }
        if connection.broken_epoch == connection.epoch {
            silence::is_broken(connection);
            if connection.raw != 0 {
                return FOLLOWED;
            }
            lose_sight(connection);
        } else {
            let behind = connection.next.wrapping_sub(segment.seq) as i32;
            if behind > 0 {
                let body = connection.request.is_counted()
                    && (segment.seq.wrapping_sub(connection.body_from) as i32) >= 0;
                let read_before = if (behind as u32) < len { behind as u32 } else { len };
                if (segment.seq.wrapping_sub(rcv_nxt) as i32) >= 0
                    && !body
                    && !is_known(connection, segment.seq, read_before)
                {
                    // What we read the first time has not got to the app: it may have been damaged. In a body that
                    // would not matter. Or the kernel has put it aside, because a process is using the socket.
                    passed_before = true;
                    again = connection.phase >= Connection::PROVEN
                        && segment.seq == rcv_nxt
                        && segment.seq == connection.began;
                    if !again {
                        if connection.phase >= Connection::PROVEN
                            && behind as u32 >= len
                            && connection.request.is_at_start()
                        {
                            // What came behind it was read already.
                            doubt(connection);
                            return FOLLOWED;
                        }
                        lose_sight(connection);
                    }
                } else if behind as u32 >= len {
                    // We have it.
                    return FOLLOWED;
                } else {
                    seen = behind as u32;
                }
            } else if behind < 0 {
                if (rcv_nxt.wrapping_sub(segment.seq) as i32) < 0 {
                    // Too early: some other segment was lost or overtaken, or it is none of this connection's.
                    return EARLY;
                }
                // The rest came too early, and was passed on.
                if connection.request.pass_over(behind.wrapping_neg() as u32) {
                    connection.next = segment.seq;
                } else {
                    lose_sight(connection);
                }
            }
        }
    }
    if connection.phase == Connection::DOUBTED {
        let at_start = seen == 0 && connection.request.is_at_start();
        if at_start && expected && is_idle(connection) && silence::is_proof(connection) {
            connection.phase = Connection::PROVEN;
        }
    } else if connection.phase != Connection::PROVEN && connection.phase != Connection::UNKNOWN {
        let at_start = connection.request.is_at_start();
        if at_start && !is_idle(connection) {
            // The request that the app has not answered may have been a part of a body, and this the next. Or the client
            // does not wait for answers, and there may be more that wait.
            lose_sight(connection);
        } else if at_start && seen == 0 && expected && connection.requests != connection.found_at {
            connection.phase =
                if silence::is_proof(connection) { Connection::PROVEN } else { Connection::LIKELY };
        }
    }
    if connection.phase == Connection::UNKNOWN {
        if unread::is_open(connection) {
            let ends = unread::is_end(ctx, payload.at + len, len) && checksum::is_good(ctx, segment, payload);
            unread::note(connection, segment, len, ends);
        }
        // SAFETY: as above.
        let fresh = unsafe { (*tcp).bytes_received == 0 && (*tcp).data_segs_out == 0 };
        if !expected {
            if fresh && segment.ack == snd_nxt && (rcv_nxt.wrapping_sub(segment.seq) as i32) < 0 {
                connection.next = rcv_nxt;
                return EARLY;
            }
            return FOLLOWED;
        }
        if fresh {
            let protocol = protocol::of_opening(ctx, payload);
            if protocol != 0 {
                let held = hold_opening(ctx, segment, payload, connection, tcp, protocol);
                return if held { HELD } else { FOLLOWED };
            }
        } else if !begins_like_a_request(ctx, payload) {
            connection.looks_like = protocol::of_any(ctx, payload);
            return FOLLOWED;
        }
        let certain = fresh || was_quiet(tcp, segment);
        let ended = unread::has_ended(connection, segment);
        find(connection, segment, certain);
        if ended && !certain {
            connection.phase = Connection::DOUBTED;
        }
        seen = 0;
    }

    let Some(work) = scanning::work() else { return FOLLOWED };
    // SAFETY: this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    let mut notes = passed_before as u32 * PASSED_BEFORE;
    scanning::copy(&connection.request, &mut work.request);
    work.requests = connection.requests;
    if again {
        scanning::clear(&mut work.request);
        work.requests = connection.requests_before;
        notes |= AT_START;
    } else if seen == 0 && connection.request.is_at_start() {
        connection.began = segment.seq;
        connection.requests_before = connection.requests;
        notes |= AT_START;
        if expected {
            notes |= EXPECTED;
        }
    } else if !connection.request.is_counted() {
        notes |= WITHIN;
    }
    work.note(notes);
    work.head_requests = connection.head_requests;
    work.heads = 0;
    work.first_interesting = 0;
    work.head_end = 0;
    work.interesting = 0;
    work.needle.port = u16::from_be_bytes(segment.destination_port);
    work.names = wanted.names;
    work.judged = wanted.lines;
    work.at = payload.at + seen;
    work.end = payload.at + len;
    let mut finished = scanning::read_requests(ctx, work);
    if connection.early != 0 && finished {
        let origin = segment.seq.wrapping_sub(payload.at);
        // SAFETY: the caller has a reference to the socket.
        finished = unsafe { early::read(ctx, origin, socket) };
    }

    if work.requests.wrapping_sub(connection.answered) > SOME_OUTSTANDING
        || connection.phase != Connection::PROVEN
    {
        connection.answered = connection.responses;
    }
    let outstanding = work.requests.wrapping_sub(connection.answered);
    // The app may not get an urgent byte where we see it (RFC 9293 §3.8.5).
    let urgent = segment.flags & TCP_URG != 0;
    // What follows the answer may be another protocol. Until then it is a request like others.
    let switches = work.request.is_switched() && work.heads == 0 && work.request.is_interesting();
    let given_up = !finished || work.request.is_raw() || outstanding > MAX_OUTSTANDING || urgent;
    let unjudged = work.heads == 0 && work.request.is_in_head();
    let is_wanted = work.first_interesting != 0 || unjudged || switches;
    let notes = work.notes();
    // What comes next can't be told without it. All others can be read again, should they come again.
    let is_open = !work.request.is_at_start() && !work.request.is_counted();
    let to = segment.seq.wrapping_add(work.end.wrapping_sub(payload.at));
    if given_up || is_wanted || is_open || notes & WITHIN != 0 {
        if !checksum::is_good(ctx, segment, payload) {
            count(Counter::BadChecksum);
            return FOLLOWED;
        }
        note_known(connection, segment.seq, to);
    } else if connection.early != 0 {
        note_known(connection, segment.seq.wrapping_add(len), to);
    }
    if given_up && (!switches || urgent) {
        give_up(connection, work.request, urgent);
        return FOLLOWED;
    }
    if outstanding > 1 && connection.phase < Connection::PROVEN {
        lose_sight(connection);
        return FOLLOWED;
    }
    let held_before = connection.holds != 0 && connection.held_seq == segment.seq;
    let mut not_held = if held_before { 0 } else { work.interesting };
    if held_before && connection.holds >= MAX_HOLDS {
        // The agent can't take it, or not in time; it shall not cost the client more.
        leave_alone(connection, Raw::HeldInVain);
        return FOLLOWED;
    }
    if notes & (AT_START | PASSED_BEFORE) == AT_START && is_wanted && !held_before {
        // An answer that has ended since the segment was looked at is noticed when it is held.
        if notes & EXPECTED != 0 && is_idle(connection) && connection.phase >= Connection::LIKELY {
            let is_part = unjudged && !work.request.is_interesting();
            match stop(ctx, segment, connection, tcp, is_part) {
                DROP => return HELD,
                COUNT => not_held = 1,
                _ => not_held = 0,
            }
        } else if unjudged || switches {
            not_held = 1;
        }
    }
    if switches {
        give_up(connection, work.request, false);
        count(Counter::InterestingHead);
        if not_held != 0 {
            count(Counter::RefusedAtBoundary);
        }
        return FOLLOWED;
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
    scanning::copy(&work.request, &mut connection.request);
    connection.head_requests = work.head_requests;
    connection.next = to;
    if work.heads != 0 {
        connection.body_from = segment.seq.wrapping_add(work.head_end.wrapping_sub(payload.at));
    }
    if work.heads != 0 && connection.phase != Connection::PROVEN {
        // SAFETY: no preconditions.
        connection.asked_at = unsafe { bpf_ktime_get_ns() };
    }
    // Last: the egress program may look at once.
    compiler_fence(Ordering::Release);
    connection.requests = work.requests;
    FOLLOWED
}

/// Of a segment: it begins where a request is due;
const AT_START: u32 = 1;
/// and is what the app expects, with all acknowledged that it has said.
const EXPECTED: u32 = 2;
/// It was passed on before, to the app, which may have it although it does not say so.
const PASSED_BEFORE: u32 = 4;
/// It begins within what must not be missed.
const WITHIN: u32 = 8;

/// What is to become of a segment that should not reach the app.
const DROP: u32 = 1;
/// It is not certain that a request was due.
const COUNT: u32 = 2;
/// It can't be held, which is counted.
const PASS_ON: u32 = 3;

/// `is_part`: nothing can be said of it yet.
#[inline(always)]
fn stop(
    ctx: &TcContext,
    segment: &Segment,
    connection: &mut Connection,
    tcp: *mut TcpSock,
    is_part: bool,
) -> u32 {
    if !hold::is_possible(segment) {
        return PASS_ON;
    }
    if connection.phase != Connection::PROVEN {
        return if silence::is_worth_a_probe(connection, segment) { DROP } else { COUNT };
    }
    if is_part && aside::put(ctx, segment, connection) != 0 {
        return DROP;
    }
    if hold(ctx, segment, connection, tcp) == hold::HELD { DROP } else { PASS_ON }
}

/// What was read or passed over from `from` to `to` is what the client sent.
#[inline(always)]
fn note_known(connection: &mut Connection, from: u32, to: u32) {
    let all = connection.known_to.wrapping_sub(connection.known_from);
    if from.wrapping_sub(connection.known_from) > all {
        connection.known_from = from;
    }
    connection.known_to = to;
}

/// All of it is what the client sent, as was seen when it was read or passed over.
#[inline(always)]
fn is_known(connection: &Connection, seq: u32, len: u32) -> bool {
    let all = connection.known_to.wrapping_sub(connection.known_from);
    let from = seq.wrapping_sub(connection.known_from);
    from < all && len <= all - from
}

/// The copies of early segments are of no use any more.
#[inline(always)]
fn is_past_early(connection: &Connection, seen: Seen) -> bool {
    // The app of a fresh connection may have spoken first.
    let unknown = connection.phase == Connection::UNKNOWN && seen != EARLY;
    unknown || connection.raw != 0 || (connection.next.wrapping_sub(connection.early_end) as i32) >= 0
}

/// The request is none, or none that can be followed.
#[inline(always)]
fn give_up(connection: &mut Connection, request: RequestScan, urgent: bool) {
    if urgent {
        leave_alone(connection, Raw::Urgent);
    } else if connection.phase == Connection::PROBATION || connection.phase == Connection::DOUBTED {
        lose_sight(connection);
    } else {
        leave_alone(connection, if request.is_switched() { Raw::Switched } else { Raw::NotHttp });
    }
}

/// Begins to follow the connection with this segment.
#[inline(always)]
fn find(connection: &mut Connection, segment: &Segment, certain: bool) {
    scanning::clear(&mut connection.request);
    connection.next = segment.seq;
    connection.requests = connection.responses;
    connection.answered = connection.responses;
    connection.found_at = connection.requests;
    connection.response_from = segment.ack;
    start_listening(connection, segment.ack);
    connection.looks_like = 0;
    (connection.unread, connection.unread_of) = (0, connection.requests);
    connection.phase = if certain { Connection::PROVEN } else { Connection::PROBATION };
    compiler_fence(Ordering::Release);
    // 0 is the epoch in which nothing is followed.
    let next = connection.epoch.wrapping_add(1);
    connection.epoch = if next == 0 { 1 } else { next };
}

/// Nothing was on the way when the inspection began, and nothing has been said since.
#[inline(never)]
fn was_quiet(tcp: *mut TcpSock, segment: &Segment) -> bool {
    let tuple = &segment.incoming();
    // SAFETY: the value is copied at once.
    let Some(existing) = (unsafe { EXISTING.get(tuple) }).copied() else { return false };
    // It says something once.
    let _ = EXISTING.remove(tuple);
    // SAFETY: the caller has a reference to the socket.
    unsafe {
        (*tcp).bytes_received == existing.bytes_received
            && (*tcp).bytes_acked == existing.bytes_acked
            && (*tcp).snd_una == segment.ack
    }
}

/// The first segment of a connection, in another protocol than HTTP/1.x. True: it is held.
#[inline(always)]
fn hold_opening(
    ctx: &TcContext,
    segment: &Segment,
    payload: Payload,
    connection: &mut Connection,
    tcp: *mut TcpSock,
    protocol: u32,
) -> bool {
    start_listening(connection, segment.ack);
    if !checksum::is_good(ctx, segment, payload) {
        count(Counter::BadChecksum);
        return false;
    }
    protocol::note(u16::from_be_bytes(segment.destination_port), protocol);
    // Without the service's key, parking TLS gains nothing; with it, its connections are the agent's from their start.
    if protocol != PORT_TLS
        && connection.holds == 0
        && hold::is_possible(segment)
        && hold(ctx, segment, connection, tcp) == hold::HELD
    {
        return true;
    }
    leave_alone(connection, if protocol == PORT_TLS { Raw::Tls } else { Raw::Http2 });
    false
}

#[inline(always)]
pub fn leave_alone(connection: &mut Connection, reason: Raw) {
    connection.raw = reason as u32;
    count(Counter::RawConnection);
}

/// What was read may not be what the app gets. It may have the same meaning, or another.
#[inline(never)]
fn doubt(connection: &mut Connection) {
    if connection.phase == Connection::PROVEN {
        connection.phase = Connection::DOUBTED;
        start_timing(connection);
    }
}

/// What the app said until now was not noted.
#[inline(always)]
fn start_timing(connection: &mut Connection) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    (connection.asked_at, connection.spoke_at) = (now, now);
}

#[inline(never)]
fn lose_sight(connection: &mut Connection) {
    unread::begin(connection);
    if connection.phase == Connection::PROVEN {
        start_timing(connection);
    }
    connection.phase = Connection::UNKNOWN;
    connection.early_end = connection.next;
    count(Counter::LostSight);
}

#[inline(always)]
fn begins_like_a_request(ctx: &TcContext, payload: Payload) -> bool {
    ctx.load::<u8>(payload.at as usize).is_ok_and(|byte| byte.wrapping_sub(b'A') < 26)
}
