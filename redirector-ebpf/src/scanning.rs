//! Runs a scanner over the payload of a packet, a block at a time (`bpf_loop`, kernel 5.17).

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
    macros::map,
    maps::{HashMap, PerCpuArray},
    programs::TcContext,
};
use core::{ffi::c_void, hint::black_box};
use redirector_common::{
    InspectedPort, Needle, name_bit,
    scan::{BLOCK, Block, END, Event, HEAD, LineStarts, MemberStarts, Needles, RequestScan, ResponseScan},
};

/// See [`Needle`]; only presence counts.
#[map]
static NEEDLES: HashMap<Needle, u32> = HashMap::with_max_entries(4096, 1);

#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Turns of a scan in a packet of 64 KiB: blocks, names, values, bodies. More is given up.
pub const MAX_STEPS: u32 = 16_384;

/// What a scan works on: in a map, because the verifier does not follow what is in there.
///
/// What is set to zero for each packet is not side by side: the compiler makes a call of that, which goes byte by byte.
#[repr(C)]
pub struct Work {
    pub request: RequestScan,
    pub response: ResponseScan,
    /// As in `Connection`.
    pub head_requests: u64,
    /// Heads that ended in this packet.
    pub heads: u32,
    /// As in `Connection`.
    pub requests: u32,
    /// Where the last of the heads ended, counted as `at` is.
    pub head_end: u32,
    pub responses: u32,
    /// Was the first of the heads interesting?
    pub first_interesting: u32,
    /// What is looked for: here, because the stack has no room for it.
    pub needle: Needle,
    /// How many were?
    pub interesting: u32,
    /// One of those that were judged said that no other follows.
    closes: u32,
    /// See [`Work::set_read`].
    is_read: u32,
    /// See [`name_bit`].
    pub names: u32,
    /// [`LineStarts`] of the lines of a request to look at.
    pub judged: u64,
    /// [`MemberStarts`] of the members of lists to look at.
    pub judged_members: u32,
    /// See [`Work::note`].
    notes: u32,
    /// The next byte, counted from the start of the packet, and the end of the payload.
    pub at: u32,
    pub end: u32,
    /// What of `block` is to be read.
    block_at: u32,
    block_end: u32,
    block: Block,
}

impl Work {
    /// A segment with requests to `port` (host order) is to be read from `at` to `end`.
    #[inline(always)]
    pub fn begin(&mut self, wanted: InspectedPort, port: u16, at: u32, end: u32) {
        self.heads = 0;
        self.first_interesting = 0;
        self.head_end = 0;
        self.interesting = 0;
        self.needle.port = port;
        self.names = wanted.names;
        self.judged = wanted.lines;
        self.judged_members = wanted.members;
        self.at = at;
        self.end = end;
    }

    /// From now on lines are looked at that say that no other request follows.
    #[inline(always)]
    pub fn look_for_close(&mut self) {
        self.judged |= LineStarts::OF_CLOSING_REQUESTS.to_bits();
        self.closes = 0;
    }

    /// All that was read is one request of no interest, to its end, and it says that no other follows.
    #[inline(always)]
    pub fn is_only_request(&self) -> bool {
        self.closes != 0 && self.heads == 1 && self.interesting == 0 && self.request.is_at_start()
    }

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

    /// The segment was read before more was known of its connection. In here for the same reason.
    #[inline(always)]
    pub fn set_read(&mut self, is_read: bool) {
        // SAFETY: as above.
        unsafe { (&raw mut self.is_read).write_volatile(is_read as u32) };
    }

    #[inline(always)]
    pub fn is_read(&self) -> bool {
        // SAFETY: as above.
        unsafe { (&raw const self.is_read).read_volatile() != 0 }
    }

    #[inline(always)]
    pub fn has_read_block(&self) -> bool {
        let (at, end) = rest_of_block(self);
        at >= end
    }

    /// What was read of the block up to `next` ended a head, if `event` says so.
    #[inline(always)]
    fn count_request(&mut self, next: u32, event: Event) {
        if event & HEAD == 0 {
            return;
        }
        let interesting = self.request.is_interesting() as u32;
        if self.heads == 0 {
            self.first_interesting = interesting;
        }
        self.heads += 1;
        self.head_end = self.at.wrapping_sub(self.block_end.wrapping_sub(next));
        self.interesting += interesting;
        let bit = 1 << (self.requests & 63);
        if self.request.is_head_request() {
            self.head_requests |= bit;
        } else {
            self.head_requests &= !bit;
        }
        self.requests = self.requests.wrapping_add(1);
    }

    #[inline(always)]
    fn count_response(&mut self, event: Event) {
        self.responses = self.responses.wrapping_add((event & END != 0) as u32);
    }

    /// So many of the next bytes need not be read: that is all of the block.
    #[inline(always)]
    fn is_left(&self, skippable: u32) -> bool {
        let (at, end) = rest_of_block(self);
        skippable >= end.saturating_sub(at)
    }

    /// So many of the next bytes need not be read. Leaves the block if that is all of it, and says how many are there then.
    #[inline(always)]
    fn leave_block(&mut self, skippable: u32) -> u32 {
        let (at, end) = rest_of_block(self);
        let rest = end.saturating_sub(at);
        if skippable < rest {
            return 0;
        }
        self.at = self.at.wrapping_sub(rest);
        self.block_at = end;
        let left = self.end.saturating_sub(self.at);
        if skippable < left { skippable } else { left }
    }

    #[inline(always)]
    fn is_answer_to_head(&self) -> bool {
        (self.head_requests >> (self.responses & 63)) & 1 != 0
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

/// Parts of messages that are read before a step ends.
const TURNS: u32 = 20;
/// Keys and values of members that are read in one call.
const PARTS: u32 = 8;
/// Heads of most responses fit into so many bytes; what follows them need not be copied.
const RESPONSE_BLOCK: u32 = 512;

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
        if !load_block(packet, work, BLOCK as u32) {
            return 1;
        }
    }
    if work.request.is_at_start() {
        let (at, end) = rest_of_block(work);
        work.block_at = work.request.read_start_line(&work.block, at, end);
    }
    let mut turns = 0;
    while turns < TURNS {
        turns += 1;
        let (at, end) = rest_of_block(work);
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
        if !load_block(packet, work, RESPONSE_BLOCK) {
            return 1;
        }
    }
    if work.response.is_at_start() {
        let (at, end) = rest_of_block(work);
        work.block_at = work.response.read_status_line(&work.block, at, end);
    }
    let mut turns = 0;
    while turns < TURNS {
        turns += 1;
        let (at, end) = rest_of_block(work);
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
    let (at, end) = rest_of_block(work);
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
    let (at, end) = rest_of_block(work);
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
    let (at, end) = rest_of_block(work);
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
        let (at, end) = rest_of_block(work);
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
    let (at, end) = rest_of_block(work);
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

/// Out of memory, so that the verifier knows nothing of them, and does not follow each way that led here.
#[inline(always)]
fn rest_of_block(work: &Work) -> (u32, u32) {
    // SAFETY: they are initialised.
    unsafe { ((&raw const work.block_at).read_volatile(), (&raw const work.block_end).read_volatile()) }
}

/// False: there is nothing more to read.
#[inline(always)]
fn load_block(packet: *mut __sk_buff, work: &mut Work, most: u32) -> bool {
    let left = work.end.saturating_sub(work.at);
    // The compiler is not to know the bounds: it would leave out the check that the verifier wants to see.
    let len = black_box(if left < most { left } else { most });
    if len == 0 || len > BLOCK as u32 {
        return false;
    }
    // SAFETY: the context is the one the kernel called us with; there is room for a block.
    let failed =
        unsafe { bpf_skb_load_bytes(packet.cast(), work.at, work.block.bytes.as_mut_ptr().cast(), len) != 0 };
    if failed {
        return false;
    }
    work.block_at = 0;
    work.block_end = len;
    work.at += len;
    true
}

struct MapNeedles {
    needle: *mut Needle,
    names: u32,
}

impl MapNeedles {
    #[inline(always)]
    fn has(&self, kind: u16, hash: u32) -> bool {
        // SAFETY: this processor's alone while the program runs; of the map only presence is asked for.
        unsafe {
            (*self.needle).kind = kind;
            (*self.needle).hash = hash;
            NEEDLES.get(&*self.needle).is_some()
        }
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
