//! Connections whose first request says that it is the only one (`Connection: close`): nothing is kept of them, which would cost more than
//! to read it. Should another follow all the same, its connection is one that existed before: see `finding`.

use aya_ebpf::{bindings::bpf_tcp_sock as TcpSock, programs::TcContext};
use redirector_common::InspectedPort;

use crate::{
    follow::Payload,
    packet::{Segment, TCP_URG},
    scanning,
    work::Work,
};

/// The segment is the first one on a connection of which nothing is known.
///
/// # Safety
/// The caller must have a reference to the socket.
#[inline(always)]
pub unsafe fn may_be(segment: &Segment, tcp: *mut TcpSock) -> bool {
    // SAFETY: guaranteed by the caller. (One comparison: the verifier would look at what follows once for each.)
    unsafe {
        let data = (*tcp).bytes_received | u64::from((*tcp).data_segs_out);
        let apart = (*tcp).rcv_nxt ^ segment.seq | (*tcp).snd_nxt ^ segment.ack;
        data | u64::from(apart) | u64::from(segment.flags & TCP_URG) == 0
    }
}

/// The app has all of the segment, and nothing is known of its connection.
///
/// # Safety
/// As [`may_be`].
#[inline(always)]
pub unsafe fn comes_again(segment: &Segment, len: u32, tcp: *mut TcpSock) -> bool {
    // SAFETY: guaranteed by the caller.
    let rcv_nxt = unsafe { (*tcp).rcv_nxt };
    (rcv_nxt.wrapping_sub(segment.seq.wrapping_add(len)) as i32) >= 0
}

/// Reads the segment. True: it has the connection's only request. Else [`Work`] knows whether it was read.
#[inline(always)]
pub fn is_only(
    ctx: &TcContext,
    segment: &Segment,
    payload: Payload,
    wanted: InspectedPort,
    work: &mut Work,
) -> bool {
    scanning::clear(&mut work.request);
    work.requests = 0;
    work.head_requests = 0;
    let port = u16::from_be_bytes(segment.destination_port);
    work.begin(wanted, port, payload.at, payload.at + payload.len);
    work.look_for_close();
    let finished = scanning::read_requests(ctx);
    // What is odd in lines that are looked at for this alone does not count.
    work.set_read(finished && !work.request.is_raw());
    finished && work.is_only_request()
}
