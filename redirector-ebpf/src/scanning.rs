//! Runs a scanner over the payload of a packet, a block at a time (`bpf_loop`, kernel 5.17).

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
    macros::map,
    maps::{HashMap, PerCpuArray},
    programs::TcContext,
};
use core::{ffi::c_void, hint::black_box};
use redirector_common::{
    Needle, name_bit,
    scan::{BLOCK, Block, END, HEAD, Needles, RequestScan, ResponseScan},
};

/// See [`Needle`]; only presence counts.
#[map]
static NEEDLES: HashMap<Needle, u32> = HashMap::with_max_entries(4096, 1);

#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Turns of a scan in a packet of 64 KiB: blocks, names, values, bodies. More is given up.
pub const MAX_STEPS: u32 = 16_384;

/// What the callbacks work on: in a map, because the verifier does not follow what is in there.
#[repr(C)]
pub struct Work {
    pub request: RequestScan,
    pub response: ResponseScan,
    /// The next byte, counted from the start of the packet, and the end of the payload.
    pub at: u32,
    pub end: u32,
    /// As in `Connection`.
    pub requests: u32,
    pub responses: u32,
    pub head_requests: u64,
    /// Heads that ended in this packet.
    pub heads: u32,
    /// Where the last of them ended, counted as `at` is.
    pub head_end: u32,
    /// Was the first of them interesting? How many were?
    pub first_interesting: u32,
    pub interesting: u32,
    pub port: u32,
    /// See [`name_bit`].
    pub names: u32,
    /// See [`Work::note`].
    notes: u32,
    /// What of `block` is to be read.
    block_at: u32,
    block_end: u32,
    block: Block,
}

impl Work {
    /// Keeps what the caller knows while it has the payload read. Here the verifier does not follow it, and does not look at
    /// what comes then for each way that led there.
    #[inline(always)]
    pub fn note(&mut self, notes: u32) {
        // SAFETY: it is a field of this.
        unsafe { (&raw mut self.notes).write_volatile(notes) };
    }

    #[inline(always)]
    pub fn notes(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const self.notes).read_volatile() }
    }

    #[inline(always)]
    pub fn has_read_block(&self) -> bool {
        let (at, end) = rest_of_block(self);
        at >= end
    }

    /// The block, to be filled.
    #[inline(always)]
    pub fn block_words(&mut self) -> *mut u64 {
        self.block.bytes.as_mut_ptr().cast()
    }

    /// So many bytes of what is in the block now follow what was read.
    #[inline(always)]
    pub fn begin_block(&mut self, len: u32) {
        self.block_at = 0;
        self.block_end = len;
        self.at = self.end + len;
        self.end = self.at;
    }
}

/// Parts of messages that are read before the callback is called again, and lines in each of them.
const TURNS: u32 = 8;
const LINES: u32 = 8;

#[inline(always)]
pub fn work() -> Option<*mut Work> {
    WORK.get_ptr_mut(0)
}

/// Assigns by words: the compiler makes a loop over bytes of what it can't tell apart.
#[inline(always)]
pub fn copy<T: Copy>(from: &T, to: &mut T) {
    // SAFETY: both are valid, and apart.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 1) };
}

/// Reads requests up to `work.end`; false: there is more in them than may be read in a packet.
#[inline(always)]
pub fn read_requests(ctx: &TcContext, work: *mut Work) -> bool {
    run(ctx, work, request_step)
}

/// The same with responses.
#[inline(always)]
pub fn read_responses(ctx: &TcContext, work: *mut Work) -> bool {
    run(ctx, work, response_step)
}

/// Most payloads are read by that many calls of a step, which are cheaper than `bpf_loop`.
const FIRST_STEPS: u32 = 2;

type Step = unsafe extern "C" fn(u32, *mut c_void) -> i64;

#[inline(always)]
fn run(ctx: &TcContext, work: *mut Work, step: Step) -> bool {
    let mut packet = ctx.as_ptr();
    let packet = (&raw mut packet).cast();
    // SAFETY: this processor's alone while the program runs.
    unsafe { ((*work).block_at, (*work).block_end) = (0, 0) };
    // SAFETY: as above.
    let is_done = || unsafe { (*work).at >= (*work).end && (*work).block_at >= (*work).block_end };
    for _ in 0..FIRST_STEPS {
        // SAFETY: the callbacks take what is given.
        if unsafe { step(0, packet) } != 0 || is_done() {
            return is_done();
        }
    }
    // SAFETY: as above.
    unsafe { bpf_loop(MAX_STEPS, (step as *const ()).cast_mut().cast(), packet, 0) };
    is_done()
}

/// 0: go on.
#[inline(never)]
unsafe extern "C" fn request_step(_: u32, packet: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    // SAFETY: the map value is this processor's alone while the program runs.
    let work = unsafe { &mut *work };
    if work.block_at >= work.block_end {
        let skipped = work.request.skippable();
        if skipped > 0 && skip(&mut work.at, work.end, skipped, |bytes| work.request.skip(bytes)) {
            return 0;
        }
        // SAFETY: the context is the packet.
        if unsafe { load_block(packet, work) } != 0 {
            return 1;
        }
    }
    read_block(work);
    0
}

/// Reads on in the block that was loaded last: perhaps not to its end.
#[inline(always)]
pub fn read_block(work: &Work) {
    for _ in 0..TURNS {
        if work.request.is_at_line() {
            redirector_read_request_lines();
        }
        if work.has_read_block() {
            break;
        }
        redirector_read_request();
        if work.has_read_block() {
            break;
        }
    }
}

#[inline(never)]
unsafe extern "C" fn response_step(_: u32, packet: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    if work.block_at >= work.block_end {
        let skipped = work.response.skippable();
        if skipped > 0 && skip(&mut work.at, work.end, skipped, |bytes| work.response.skip(bytes)) {
            return 0;
        }
        // SAFETY: as above.
        if unsafe { load_block(packet, work) } != 0 {
            return 1;
        }
    }
    for _ in 0..TURNS {
        if work.response.is_at_line() {
            redirector_read_response_lines();
        }
        if work.block_at >= work.block_end {
            break;
        }
        redirector_read_response();
        if work.block_at >= work.block_end {
            break;
        }
    }
    0
}

/// Reads header lines as long as they are simple. Exported, so that the verifier looks at it once, by itself (a global
/// function), and not on every path to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_request_lines() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let needles = MapNeedles { port: work.port as u16, names: work.names };
    for _ in 0..LINES {
        let (at, end) = rest_of_block(work);
        if at >= end {
            break;
        }
        let next = work.request.read_line(&work.block, at, end, &needles);
        work.block_at = next;
        if next == at || !work.request.is_at_line() {
            break;
        }
    }
    0
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_response_lines() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    for _ in 0..LINES {
        let (at, end) = rest_of_block(work);
        if at >= end {
            break;
        }
        let next = work.response.read_line(&work.block, at, end);
        work.block_at = next;
        if next == at || !work.response.is_at_line() {
            break;
        }
    }
    0
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_request() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let needles = MapNeedles { port: work.port as u16, names: work.names };
    let (next, event) = work.request.read(&work.block, work.block_at, work.block_end, &needles);
    work.block_at = next;
    if event & HEAD != 0 {
        let interesting = work.request.is_interesting() as u32;
        if work.heads == 0 {
            work.first_interesting = interesting;
        }
        work.heads += 1;
        work.head_end = work.at.wrapping_sub(work.block_end.wrapping_sub(next));
        work.interesting += interesting;
        let bit = 1 << (work.requests & 63);
        if work.request.is_head_request() {
            work.head_requests |= bit;
        } else {
            work.head_requests &= !bit;
        }
        work.requests = work.requests.wrapping_add(1);
    }
    event
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_read_response() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: as above.
    let work = unsafe { &mut *work };
    let to_head = (work.head_requests >> (work.responses & 63)) & 1 != 0;
    let (next, event) = work.response.read(&work.block, work.block_at, work.block_end, to_head);
    work.block_at = next;
    if event & END != 0 {
        work.responses = work.responses.wrapping_add(1);
    }
    event
}

/// Goes past bytes that need not be read; false: there are none left.
#[inline(always)]
fn skip(at: &mut u32, end: u32, skippable: u32, skip: impl FnOnce(u32)) -> bool {
    let left = end.saturating_sub(*at);
    let bytes = if skippable < left { skippable } else { left };
    if bytes == 0 {
        return false;
    }
    skip(bytes);
    *at += bytes;
    true
}

/// Out of memory, so that the verifier knows nothing of them, and does not follow each way that led here.
#[inline(always)]
fn rest_of_block(work: &Work) -> (u32, u32) {
    // SAFETY: they are initialised.
    unsafe { ((&raw const work.block_at).read_volatile(), (&raw const work.block_end).read_volatile()) }
}

/// 0: there is more to read.
///
/// # Safety
/// `packet` must point to the program's context.
#[inline(always)]
unsafe fn load_block(packet: *mut c_void, work: &mut Work) -> i64 {
    let left = work.end.saturating_sub(work.at);
    // The compiler is not to know the bounds: it would leave out the check that the verifier wants to see.
    let len = black_box(if left < BLOCK as u32 { left } else { BLOCK as u32 });
    if len == 0 || len > BLOCK as u32 {
        return 1;
    }
    // SAFETY: guaranteed by the caller; there is room for a block.
    let failed = unsafe {
        let packet = *packet.cast::<*mut c_void>();
        bpf_skb_load_bytes(packet, work.at, work.block.bytes.as_mut_ptr().cast(), len)
    };
    if failed != 0 {
        return 1;
    }
    work.block_at = 0;
    work.block_end = len;
    work.at += len;
    0
}

struct MapNeedles {
    port: u16,
    names: u32,
}

impl MapNeedles {
    #[inline(always)]
    fn has(&self, kind: u16, hash: u32) -> bool {
        let needle = Needle { port: self.port, kind, hash };
        // SAFETY: only presence is asked for.
        unsafe { NEEDLES.get(&needle) }.is_some()
    }
}

impl Needles for MapNeedles {
    #[inline(always)]
    fn header(&self, name: u32) -> bool {
        self.names & name_bit(name) != 0 && self.has(Needle::HEADER, name)
    }

    #[inline(always)]
    fn list(&self, name: u32) -> bool {
        self.names & name_bit(name) != 0 && self.has(Needle::LIST, name)
    }

    #[inline(always)]
    fn member(&self, key: u32) -> bool {
        self.names & name_bit(key) != 0 && self.has(Needle::MEMBER, key)
    }
}
