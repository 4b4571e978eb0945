//! The egress half of `follow`: the answers of the app.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::TcContext};
use redirector_common::{Connection, Raw, Tuple};

use crate::{
    connection::{self, will_send},
    hold,
    inspected_ports::inspected,
    packet::{self, Segment, TCP_FIN, TCP_RST, TCP_SYN},
    scanning,
    sight::leave_alone,
    work::work,
};

/// A segment from the app. True: the connection is held, drop it.
#[inline(never)]
pub fn read(ctx: &TcContext, segment: &Segment, tuple: &Tuple) -> bool {
    if segment.flags & (TCP_SYN | TCP_RST) != 0 || inspected(tuple.app_port).is_none() {
        return false;
    }
    // SAFETY: the context is the one the kernel called us with; the socket of a packet lives as long as the packet.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return false;
        }
        // If it is not full, the helper says that nothing is known.
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
        return hold::is_held(tuple, segment.destination_port);
    };
    let fin = (segment.flags & TCP_FIN != 0) as u32;
    if len + fin == 0 {
        return false;
    }
    // In this order: see `hold`.
    let is_new = will_send(connection, segment.seq.wrapping_add(len + fin));
    if hold::is_held(tuple, segment.destination_port) {
        return true;
    }
    // The client's acknowledgement may be in the very segment that waits for the app to be silent: the app then sends again
    // what it has said.
    if is_new && connection.phase != Connection::PROVEN {
        note_silence(connection);
    }
    let epoch = connection.epoch;
    if epoch == 0 || connection.broken_epoch == epoch {
        return false;
    }
    if connection.response_epoch != epoch {
        connection.response_epoch = epoch;
        connection.response_next = connection.response_from;
        scanning::clear(&mut connection.response);
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
    let link = segment.link;
    if link == packet::UNKNOWN_LINK {
        connection.broken_epoch = epoch;
        return false;
    }
    if connection.response.is_at_start() {
        connection.response_ack = segment.ack;
    }
    let Some(work) = work() else { return false };
    // SAFETY: this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    scanning::copy(&connection.response, &mut work.response);
    work.responses = connection.responses;
    work.head_requests = connection.head_requests;
    work.at = link + segment.payload_offset() + seen;
    work.end = link + segment.payload_offset() + len;
    let finished = scanning::read_responses(ctx, work);

    // More answers than requests: it speaks first, or unasked.
    let unanswered = connection.requests.wrapping_sub(work.responses) as i32;
    let unasked = unanswered < 0 || (unanswered == 0 && !work.response.is_at_start());
    if !finished || work.response.is_raw() || unasked {
        // Or it has got a request of which we have not read the end, because that came before the rest.
        let has_more = (segment.ack.wrapping_sub(connection.next) as i32) > 0;
        if connection.phase == Connection::PROVEN && !has_more {
            let switched = work.response.is_switched();
            leave_alone(connection, if switched { Raw::Switched } else { Raw::NotHttp });
        } else {
            connection.broken_epoch = epoch;
        }
        return false;
    }
    scanning::copy(&work.response, &mut connection.response);
    connection.response_next = segment.seq.wrapping_add(len);
    connection.responses = work.responses;
    false
}

/// See `silence`.
#[inline(always)]
fn note_silence(connection: &mut Connection) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let (asked_at, spoke_at) = (connection.asked_at, connection.spoke_at);
    let since = if asked_at > spoke_at { asked_at } else { spoke_at };
    let waited = now.saturating_sub(since);
    if since != 0 && waited > connection.longest_answer {
        connection.longest_answer = waited;
    }
    connection.spoke_at = now;
}
