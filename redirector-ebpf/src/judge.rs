//! What is to become of a segment that was read.

use aya_ebpf::{bindings::bpf_tcp_sock as TcpSock, helpers::bpf_ktime_get_ns, programs::TcContext};
use redirector_common::{Connection, Counter, Raw};

use crate::{
    aside, checksum,
    connection::order,
    counters::count,
    follow::{FOLLOWED, HELD, Payload, Seen},
    hold::{self, hold},
    packet::{Segment, TCP_URG},
    scanning,
    sight::{give_up, leave_alone, lose_sight, note_known},
    silence,
    work::Work,
};

/// Of a segment: it begins where a request is due;
pub const AT_START: u32 = 1;
/// and is what the app expects, with all acknowledged that it has said.
pub const EXPECTED: u32 = 2;
/// It was passed on before, to the app, which may have it although it does not say so.
pub const PASSED_BEFORE: u32 = 4;
/// It begins within what must not be missed.
pub const WITHIN: u32 = 8;
/// It begins the request that was read last, of which the app has nothing: what was read may have been damaged. (If the kernel has put
/// it aside, because a process is using the socket, the agent finds out, and gives it back.)
pub const AGAIN: u32 = 16;

/// A connection that was held as often in vain is left alone: each time the client has to send again.
const MAX_HOLDS: u32 = 2;

/// More requests without an answer than this are not followed.
const MAX_OUTSTANDING: u32 = 60;
/// So many may be without one as far as is known before it is looked whether they are.
const SOME_OUTSTANDING: u32 = 30;

/// What is to become of a segment that should not reach the app.
const DROP: u32 = 1;
/// It is not certain that a request was due.
const COUNT: u32 = 2;
/// It can't be held, which is counted.
const PASS_ON: u32 = 3;

/// `work` is what reading it has come to; `finished`: it was read to its end.
#[inline(always)]
pub fn judge(
    ctx: &TcContext,
    segment: &Segment,
    payload: Payload,
    work: &Work,
    finished: bool,
    connection: &mut Connection,
    tcp: *mut TcpSock,
) -> Seen {
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
        note_known(connection, segment.seq.wrapping_add(payload.len), to);
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
    if held_before && hold::stands(segment) {
        // On another processor, since this packet came in.
        return HELD;
    }
    let mut not_held = if held_before { 0 } else { work.interesting };
    if held_before && connection.holds >= MAX_HOLDS {
        // The agent can't take it, or not in time; it shall not cost the client more.
        leave_alone(connection, Raw::HeldInVain);
        return FOLLOWED;
    }
    if notes & (AT_START | PASSED_BEFORE) == AT_START && is_wanted && !held_before {
        let asked = if notes & AGAIN != 0 { connection.requests_before } else { connection.requests };
        // An answer that has ended since the segment was looked at is noticed when it is held.
        if notes & EXPECTED != 0 && asked == connection.responses && connection.phase >= Connection::LIKELY {
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
    order(connection);
    connection.requests = work.requests;
    FOLLOWED
}

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
    // Whether it is proven or not: a silence that a part waited for would be none, because the rest comes, at each request again.
    if is_part && aside::put(ctx, segment, connection) != 0 {
        return DROP;
    }
    if connection.phase != Connection::PROVEN {
        if !silence::is_worth_a_probe(connection, segment) {
            return COUNT;
        }
        aside::put_no_more(connection);
        return DROP;
    }
    if hold(ctx, segment, connection, tcp) == hold::HELD { DROP } else { PASS_ON }
}
