//! Begins to follow a connection: at its first bytes, or where a request begins after the app has said all it had to say.

use aya_ebpf::{bindings::bpf_tcp_sock as TcpSock, programs::TcContext};
use redirector_common::{Connection, Counter, PORT_TLS, Raw};

use crate::{
    checksum,
    connection::{order, start_listening},
    counters::count,
    existing,
    follow::{EARLY, FOLLOWED, HELD, Payload, Seen},
    hold::{self, hold},
    packet::Segment,
    place::AppEnd,
    protocol, scanning,
    sight::leave_alone,
    unread,
};

/// Looks whether a request begins with the segment. `Err`: there is nothing to read.
#[inline(always)]
pub fn look(
    ctx: &TcContext,
    segment: &Segment,
    payload: Payload,
    connection: &mut Connection,
    tcp: *mut TcpSock,
    app: AppEnd,
) -> Result<(), Seen> {
    if unread::is_open(connection) {
        let ends = unread::is_end(ctx, payload.at + payload.len, payload.len)
            && checksum::is_good(ctx, segment, payload);
        unread::note(connection, segment, payload.len, ends);
    }
    // SAFETY: as above.
    let fresh = unsafe { (*tcp).bytes_received == 0 && (*tcp).data_segs_out == 0 };
    if !app.expects(segment, connection) {
        if fresh && segment.ack == app.snd_nxt && (app.rcv_nxt.wrapping_sub(segment.seq) as i32) < 0 {
            connection.next = app.rcv_nxt;
            return Err(EARLY);
        }
        return Err(FOLLOWED);
    }
    if fresh {
        let protocol = protocol::of_opening(ctx, payload);
        if protocol != 0 {
            let held = hold_opening(ctx, segment, payload, connection, tcp, protocol);
            return Err(if held { HELD } else { FOLLOWED });
        }
    } else if !begins_like_a_request(ctx, payload) {
        connection.looks_like = protocol::of_any(ctx, payload);
        return Err(FOLLOWED);
    }
    let certain = fresh || existing::was_quiet(tcp, segment);
    let ended = unread::has_ended(connection, segment);
    find(connection, segment, certain);
    if ended && !certain {
        connection.phase = Connection::DOUBTED;
    }
    Ok(())
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
    order(connection);
    // 0 is the epoch in which nothing is followed.
    let next = connection.epoch.wrapping_add(1);
    connection.epoch = if next == 0 { 1 } else { next };
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
fn begins_like_a_request(ctx: &TcContext, payload: Payload) -> bool {
    ctx.load::<u8>(payload.at as usize).is_ok_and(|byte| byte.wrapping_sub(b'A') < 26)
}
