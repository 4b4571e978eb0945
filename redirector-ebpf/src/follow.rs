//! Door C: follows the requests and responses of connections that the app has, so that it is known where the next request
//! begins, and stops those that may be a developer's. (Responses: see `responses`.) A part of a head waits for the rest (`aside`).
//!
//! What comes before its turn is read when its turn comes (`early`). A gap that is not closed so, or a part of a request that the app
//! had to be sent again, ends what is known (`UNKNOWN`), or puts it in doubt (`DOUBTED`). It begins again with a segment that is
//! exactly what the app expects next, at a time when the app has said all it had to say, and that looks like a request;
//! after a whole exchange (`PROBATION`) it is `LIKELY`, and after a silence of the app `PROVEN`.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock as Sock, bpf_tcp_sock as TcpSock},
    helpers::generated::bpf_tcp_sock,
    programs::TcContext,
};
use redirector_common::{Connection, Counter, InspectedPort, Raw};

use crate::{
    aside, checksum,
    connection::{self, lock, unlock},
    counters::count,
    early, finding,
    inspected_ports::inspected,
    judge::{AGAIN, AT_START, EXPECTED, PASSED_BEFORE, WITHIN, judge},
    only_request, opening,
    packet::{self, Segment, TCP_RST, TCP_SYN, TCP_URG},
    place::{self, AppEnd, Place},
    scanning,
    sight::leave_alone,
    sockets::{self, TCP_ESTABLISHED, TCP_NEW_SYN_RECV},
    work::work,
};

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
/// The same, and it came before its turn. Not of [`request`].
pub const EARLY: Seen = 3;
/// More than this by the number of the slot in which there is what goes before it: see [`join`](crate::join).
pub const JOINS: Seen = 15;

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
            let Some(work) = work() else { return PASS };
            (*work).set_read(false);
            let mut connection = connection::known(socket);
            if connection.is_null() {
                if only_request::may_be(segment, tcp)
                    && only_request::is_only(ctx, segment, payload, wanted, &mut *work)
                {
                    count(Counter::Head);
                    return FOLLOWED;
                }
                if only_request::comes_again(segment, len, tcp) {
                    return FOLLOWED;
                }
                connection = connection::known_from_now(socket);
                if connection.is_null() {
                    return PASS;
                }
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
    // SAFETY: the caller has a reference to the socket.
    let app = unsafe { AppEnd { rcv_nxt: (*tcp).rcv_nxt, snd_nxt: (*tcp).snd_nxt } };
    let Some(work) = work() else { return FOLLOWED };
    // SAFETY: this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    let mut place = Place::NEW;
    if connection.phase != Connection::UNKNOWN {
        // Another processor was faster.
        work.set_read(false);
        place = match place::of(connection, segment, payload.len, app) {
            Ok(place) => place,
            Err(seen) => return seen,
        };
    }
    if connection.phase != Connection::UNKNOWN {
        place::prove(connection, segment, place.seen, app);
    }
    if connection.phase == Connection::UNKNOWN {
        if let Err(seen) = finding::look(ctx, segment, payload, connection, tcp, app) {
            return seen;
        }
        place.seen = 0;
    }

    let mut notes = place.passed_before as u32 * PASSED_BEFORE;
    let mut at_start = place.again;
    if place.again {
        notes = AGAIN;
    } else if place.seen == 0 && connection.request.is_at_start() {
        connection.began = segment.seq;
        connection.requests_before = connection.requests;
        at_start = true;
    } else if !connection.request.is_counted() {
        notes |= WITHIN;
    }
    if at_start {
        notes |= AT_START;
        if app.expects(segment, connection) {
            notes |= EXPECTED;
        }
    }
    work.note(notes);
    if !work.is_read() {
        if place.again {
            scanning::clear(&mut work.request);
            work.requests = connection.requests_before;
        } else {
            scanning::copy(&connection.request, &mut work.request);
            work.requests = connection.requests;
        }
        work.head_requests = connection.head_requests;
        let port = u16::from_be_bytes(segment.destination_port);
        work.begin(wanted, port, payload.at + place.seen, payload.at + payload.len);
        work.set_read(scanning::read_requests(ctx));
    }
    let mut finished = work.is_read();
    if connection.early != 0 && finished {
        let origin = segment.seq.wrapping_sub(payload.at);
        // SAFETY: the caller has a reference to the socket.
        finished = unsafe { early::read(ctx, origin, socket) };
    }
    judge(ctx, segment, payload, work, finished, connection, tcp)
}

/// The copies of early segments are of no use any more.
#[inline(always)]
fn is_past_early(connection: &Connection, seen: Seen) -> bool {
    // The app of a fresh connection may have spoken first.
    let unknown = connection.phase == Connection::UNKNOWN && seen != EARLY;
    unknown || connection.raw != 0 || (connection.next.wrapping_sub(connection.early_end) as i32) >= 0
}
