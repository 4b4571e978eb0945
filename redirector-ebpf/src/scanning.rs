//! Runs a scanner over the payload of a packet, a block at a time (`bpf_loop`, kernel 5.17).

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop, programs::TcContext};
use core::{ffi::c_void, hint::black_box};
use redirector_common::scan::{BLOCK, LineStarts, MemberStarts, RequestScan};

use crate::{
    needles::MapNeedles,
    work::{Work, work},
};

/// Turns of a scan in a packet of 64 KiB: blocks, names, values, bodies. More is given up.
pub const MAX_STEPS: u32 = 16_384;

/// Parts of messages that are read before a step ends.
const TURNS: u32 = 20;
/// Keys and values of members that are read in one call.
const PARTS: u32 = 8;
/// Heads of most responses fit into so many bytes; what follows them need not be copied.
const RESPONSE_BLOCK: u32 = 512;

/// Assigns by words: the compiler makes a loop over bytes of what it can't tell apart.
#[inline(always)]
pub fn copy<T: Copy>(from: &T, to: &mut T) {
    // SAFETY: both are valid, and apart.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 1) };
}

// The functions that are exported here are so for the verifier's sake. It looks at such a global function once, by itself,
// with nothing known of what it is called with, and takes what it returns for any number. Others it looks at again for each
// way that leads to them, and the ways multiply: through a line, through the lines of a head, through blocks.

/// Sets it to zeros, by words: see [`copy`].
#[inline(always)]
pub fn clear<T: Copy>(scan: &mut T) {
    let words = (&raw mut *scan).cast::<u64>();
    let mut word = 0;
    while word < size_of::<T>() / 8 {
        // SAFETY: within a value that consists of words.
        unsafe { words.add(word).write_volatile(0) };
        word += 1;
    }
}

/// Reads requests up to `work.end`; false: there is more in them than may be read in a packet.
#[inline(always)]
pub fn read_requests(ctx: &TcContext) -> bool {
    redirector_read_requests(ctx.skb.skb) != 0
}

/// Exported, and not inlined: it would take room on the stack from what else is called there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn redirector_read_requests(packet: *mut __sk_buff) -> u32 {
    let Some(work) = work() else { return 0 };
    run(&TcContext::new(packet), work, redirector_step_requests, request_step) as u32
}

/// The same with responses.
#[inline(always)]
pub fn read_responses(ctx: &TcContext, work: *mut Work) -> bool {
    run(ctx, work, redirector_step_responses, response_step)
}

/// A step: 0 means go on.
type Step = extern "C" fn(*mut __sk_buff) -> u32;
type Callback = unsafe extern "C" fn(u32, *mut c_void) -> i64;

/// Most payloads are read by one step, which is cheaper than `bpf_loop`.
#[inline(always)]
fn run(ctx: &TcContext, work: *mut Work, step: Step, callback: Callback) -> bool {
    // SAFETY: this processor's alone while the program runs.
    unsafe { ((*work).block_at, (*work).block_end) = (0, 0) };
    // SAFETY: as above.
    let is_done = || unsafe { (*work).at >= (*work).end && (*work).block_at >= (*work).block_end };
    if step(ctx.skb.skb) != 0 || is_done() {
        return is_done();
    }
    let mut packet = ctx.skb.skb;
    // SAFETY: the callbacks take what is given.
    unsafe {
        bpf_loop(MAX_STEPS, (callback as *const ()).cast_mut().cast(), (&raw mut packet).cast(), 0);
    }
    is_done()
}

#[inline(never)]
unsafe extern "C" fn request_step(_: u32, packet: *mut c_void) -> i64 {
    // SAFETY: it is the one that was given to `bpf_loop`. (The verifier wants to see that nothing but 0 and 1 is returned.)
    i64::from(black_box(redirector_step_requests(unsafe { *packet.cast() })) != 0)
}

#[inline(never)]
unsafe extern "C" fn response_step(_: u32, packet: *mut c_void) -> i64 {
    // SAFETY: as above.
    i64::from(black_box(redirector_step_responses(unsafe { *packet.cast() })) != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_step_requests(packet: *mut __sk_buff) -> u32 {
    let Some(work) = work() else { return 1 };
    // SAFETY: the map value is this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    if work.block_at >= work.block_end {
        skip_of_request(work);
        if !work.load_block(packet, BLOCK as u32) {
            return 1;
        }
    }
    if work.request.is_at_start() {
        let (at, end) = work.rest_of_block();
        work.block_at = work.request.read_start_line(&work.block, at, end);
    }
    let mut turns = 0;
    while turns < TURNS {
        turns += 1;
        let (at, end) = work.rest_of_block();
        if at >= end {
            break;
        }
        if !work.request.is_at_line() {
            if work.is_left(work.request.skippable()) {
                break;
            }
            if !work.request.is_in_list() || redirector_read_members() == 0 {
                redirector_read_request();
            }
            continue;
        }
        if redirector_skip_request_lines() == 0 && redirector_read_request_line() == 0 {
            redirector_read_request();
        }
    }
    skip_of_request(work);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_step_responses(packet: *mut __sk_buff) -> u32 {
    let Some(work) = work() else { return 1 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    if work.block_at >= work.block_end {
        skip_of_response(work);
        if !work.load_block(packet, RESPONSE_BLOCK) {
            return 1;
        }
    }
    if work.response.is_at_start() {
        let (at, end) = work.rest_of_block();
        work.block_at = work.response.read_status_line(&work.block, at, end);
    }
    let mut turns = 0;
    while turns < TURNS {
        turns += 1;
        let (at, end) = work.rest_of_block();
        if at >= end {
            break;
        }
        if !work.response.is_at_line() {
            if work.is_left(work.response.skippable()) {
                break;
            }
            redirector_read_response();
            continue;
        }
        if redirector_skip_response_lines() == 0 && redirector_read_response_line() == 0 {
            redirector_read_response();
        }
    }
    skip_of_response(work);
    0
}

/// Goes past header lines that are not to be judged, and reads the end of the head if they lead there. 0: a line is to be judged, or
/// is not whole.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_skip_request_lines() -> u32 {
    let Some(work) = work() else { return 1 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let (at, end) = work.rest_of_block();
    let lines_end = work.request.skip_lines(&work.block, at, end, LineStarts::from_bits(work.judged));
    let (next, event) = work.request.read_end(&work.block, lines_end, end);
    work.count_request(next, event);
    work.block_at = next;
    (next != lines_end || next >= end || work.request.is_raw()) as u32
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_skip_response_lines() -> u32 {
    let Some(work) = work() else { return 1 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let (at, end) = work.rest_of_block();
    let lines_end = work.response.skip_lines(&work.block, at, end);
    let (next, event) = work.response.read_end(&work.block, lines_end, end, work.is_answer_to_head());
    work.count_response(event);
    work.block_at = next;
    (next != lines_end || next >= end || work.response.is_raw()) as u32
}

/// Reads a header line that is to be judged. 0: it is not that simple.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_request_line() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let needles = MapNeedles { needle: &raw mut work.needle, names: work.names };
    let (at, end) = work.rest_of_block();
    if RequestScan::is_closing_line(&work.block, at, end) {
        work.closes = 1;
    }
    let mut next = work.request.skip_line(&work.block, at, end, MemberStarts::from_bits(work.judged_members));
    if next == at {
        next = work.request.read_line(&work.block, at, end, &needles);
    }
    work.block_at = next;
    (next != at) as u32
}

/// Reads a list, or some of it. 0: it is not that simple.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_members() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let needles = MapNeedles { needle: &raw mut work.needle, names: work.names };
    let mut parts = 0;
    while parts < PARTS {
        let (at, end) = work.rest_of_block();
        if at >= end || !work.request.is_in_list() {
            break;
        }
        let next = work.request.read_member(&work.block, at, end, &needles);
        work.block_at = next;
        if next == at {
            break;
        }
        parts += 1;
    }
    parts
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_response_line() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let (at, end) = work.rest_of_block();
    let mut next = work.response.skip_line(&work.block, at, end);
    if next == at {
        next = work.response.read_line(&work.block, at, end);
    }
    work.block_at = next;
    (next != at) as u32
}

/// Reads what else there is: at least a byte.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_request() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let needles = MapNeedles { needle: &raw mut work.needle, names: work.names };
    let (next, event) = work.request.read(&work.block, work.block_at, work.block_end, &needles);
    work.block_at = next;
    work.count_request(next, event);
    event
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_response() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let to_head = work.is_answer_to_head();
    let (next, event) = work.response.read(&work.block, work.block_at, work.block_end, to_head);
    work.block_at = next;
    work.count_response(event);
    event
}

/// Goes past what need not be read, if that is all of the block and some of what is behind it.
#[inline(always)]
fn skip_of_request(work: &mut Work) {
    let bytes = work.leave_block(work.request.skippable());
    if bytes > 0 {
        work.request.skip(bytes);
        work.at += bytes;
    }
}

/// As above.
#[inline(always)]
fn skip_of_response(work: &mut Work) {
    let bytes = work.leave_block(work.response.skippable());
    if bytes > 0 {
        let event = work.response.skip(bytes);
        work.count_response(event);
        work.at += bytes;
    }
}
