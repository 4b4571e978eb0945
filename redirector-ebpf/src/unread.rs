//! Chunked bodies of which a part can't be read: it came before its turn, and there was no room for a copy.
//!
//! Where they end is seen all the same: the last segment ends as they do (RFC 9112 §7.1), and is the first that does. If the app
//! has answered when nothing has come behind it, then the next request is due there. That may have been what a chunk ends with, by
//! chance, and there may be a request in what was not read: until the app has shown that it has nothing more to say, this is in
//! doubt.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::TcContext};
use redirector_common::Connection;

use crate::{connection::is_idle, packet::Segment};

/// What [`Connection::unread`] says. It can be read, or nothing is known;
const NONE: u32 = 0;
/// it can't be, and its end is to come;
const OPEN: u32 = 1;
/// what looks like its end was seen.
const ENDED: u32 = 2;

/// CR LF, the last chunk, no trailers.
const END: [u8; 7] = *b"\r\n0\r\n\r\n";

/// A segment can't be read, or not yet. `ends`: it looks like the last one of its body ([`is_end`]), and is not damaged.
#[inline(never)]
pub fn note(connection: &mut Connection, segment: &Segment, len: u32, ends: bool) {
    if is_idle(connection) {
        return;
    }
    if connection.unread_of != connection.requests {
        connection.unread_of = connection.requests;
        connection.unread = OPEN;
    }
    // SAFETY: no preconditions.
    connection.asked_at = unsafe { bpf_ktime_get_ns() };
    if connection.unread == OPEN && ends {
        connection.unread = ENDED;
        connection.unread_end = segment.seq.wrapping_add(len);
    }
}

/// The segment ends as a chunked body does. `end`: of its payload, which has `len` bytes, from the start of the packet.
#[inline(never)]
pub fn is_end(ctx: &TcContext, end: u32, len: u32) -> bool {
    let at = end.wrapping_sub(END.len() as u32) as usize;
    len >= END.len() as u32 && ctx.load::<[u8; END.len()]>(at).is_ok_and(|bytes| bytes == END)
}

/// Sight is lost. If that is within the chunked body of the only request that the app may not have answered, its end is looked for.
#[inline(always)]
pub fn begin(connection: &mut Connection) {
    let proven = connection.phase >= Connection::PROVEN;
    let outstanding = connection.requests.wrapping_sub(connection.responses);
    let request = &connection.request;
    let chunked = !request.is_at_start() && !request.is_in_head() && !request.is_counted();
    if !proven || outstanding > 1 || !chunked {
        connection.unread_of = connection.requests;
        connection.unread = NONE;
    } else if connection.unread_of != connection.requests {
        connection.unread_of = connection.requests;
        connection.unread = OPEN;
    }
}

/// There is something to [`note`].
#[inline(always)]
pub fn is_open(connection: &Connection) -> bool {
    connection.unread != NONE
}

/// With the segment, the next request is due: all before it was answered.
#[inline(always)]
pub fn has_ended(connection: &Connection, segment: &Segment) -> bool {
    let epoch = connection.epoch;
    connection.unread == ENDED
        && connection.unread_of == connection.requests
        && connection.unread_end == segment.seq
        // It had all of it, and so was not given an early answer to a part.
        && (connection.response_ack.wrapping_sub(segment.seq) as i32) >= 0
        && is_idle(connection)
        && connection.response.is_at_start()
        && connection.response_epoch == epoch
        && connection.broken_epoch != epoch
}
