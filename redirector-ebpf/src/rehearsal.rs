//! Runs the scanners without a connection, for `BPF_PROG_TEST_RUN`; never attached.

use aya_ebpf::{
    macros::{classifier, map},
    maps::Array,
    programs::TcContext,
};
use redirector_common::{
    InspectedPort, Rehearsal,
    scan::{LineStarts, RequestScan, ResponseScan},
};

use crate::{scanning, work::work};

/// [`LineStarts`] of more lines of requests to look at, and [`MemberStarts`] of the members of lists.
#[map]
static STARTS: Array<u64> = Array::with_max_entries(2, 0);

/// Scans what follows the Ethernet header, whose first byte is the mode. The verdict is what was seen: see [`Rehearsal`].
#[classifier]
pub fn redirector_rehearse(ctx: TcContext) -> i32 {
    const ETHERNET: u32 = 14;
    let Ok(mode) = ctx.load::<u8>(0) else { return 0 };
    let Some(work) = work() else { return 0 };
    // SAFETY: this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    let lines = STARTS.get(0).copied().unwrap_or(0) | LineStarts::OF_REQUESTS.to_bits();
    let members = STARTS.get(1).copied().unwrap_or(0) as u32;
    work.begin(InspectedPort { names: u32::MAX, members, lines }, 0, ETHERNET, ctx.len());
    (work.requests, work.responses) = (0, 0);
    let (finished, ended, raw, at_start);
    if mode == Rehearsal::REQUESTS {
        work.request = RequestScan::default();
        finished = scanning::read_requests(&ctx);
        (ended, raw, at_start) = (work.heads, work.request.is_raw(), work.request.is_at_start());
    } else {
        work.response = ResponseScan::default();
        work.head_requests = if mode == Rehearsal::RESPONSES_TO_HEAD { u64::MAX } else { 0 };
        finished = scanning::read_responses(&ctx, work);
        (ended, raw, at_start) = (work.responses, work.response.is_raw(), work.response.is_at_start());
    }
    let seen = Rehearsal { ended: ended as u8, interesting: work.interesting as u8, finished, raw, at_start };
    seen.to_verdict() as i32
}
