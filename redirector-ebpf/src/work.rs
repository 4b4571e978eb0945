//! What a scan works on.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, macros::map, maps::PerCpuArray};
use core::hint::black_box;
use redirector_common::{
    InspectedPort, Needle,
    scan::{BLOCK, Block, END, Event, HEAD, LineStarts, RequestScan, ResponseScan},
};

#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn work() -> Option<*mut Work> {
    WORK.get_ptr_mut(0)
}

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
    pub closes: u32,
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
    pub block_at: u32,
    pub block_end: u32,
    pub block: Block,
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
        let (at, end) = self.rest_of_block();
        at >= end
    }

    /// What was read of the block up to `next` ended a head, if `event` says so.
    #[inline(always)]
    pub fn count_request(&mut self, next: u32, event: Event) {
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
    pub fn count_response(&mut self, event: Event) {
        self.responses = self.responses.wrapping_add((event & END != 0) as u32);
    }

    /// So many of the next bytes need not be read: that is all of the block.
    #[inline(always)]
    pub fn is_left(&self, skippable: u32) -> bool {
        let (at, end) = self.rest_of_block();
        skippable >= end.saturating_sub(at)
    }

    /// So many of the next bytes need not be read. Leaves the block if that is all of it, and says how many are there then.
    #[inline(always)]
    pub fn leave_block(&mut self, skippable: u32) -> u32 {
        let (at, end) = self.rest_of_block();
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
    pub fn is_answer_to_head(&self) -> bool {
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

    /// Out of memory, so that the verifier knows nothing of them, and does not follow each way that led here.
    #[inline(always)]
    pub fn rest_of_block(&self) -> (u32, u32) {
        // SAFETY: they are initialised.
        unsafe { ((&raw const self.block_at).read_volatile(), (&raw const self.block_end).read_volatile()) }
    }

    /// False: there is nothing more to read.
    #[inline(always)]
    pub fn load_block(&mut self, packet: *mut __sk_buff, most: u32) -> bool {
        let left = self.end.saturating_sub(self.at);
        // The compiler is not to know the bounds: it would leave out the check that the verifier wants to see.
        let len = black_box(if left < most { left } else { most });
        if len == 0 || len > BLOCK as u32 {
            return false;
        }
        // SAFETY: the context is the one the kernel called us with; there is room for a block.
        let failed = unsafe {
            bpf_skb_load_bytes(packet.cast(), self.at, self.block.bytes.as_mut_ptr().cast(), len) != 0
        };
        if failed {
            return false;
        }
        self.block_at = 0;
        self.block_end = len;
        self.at += len;
        true
    }
}
