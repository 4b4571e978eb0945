//! The first part of a request head that comes in several segments, until the rest comes.
//!
//! By a part of a head nobody can tell whose the request is, and no part of a developer's may be the app's. So the part is dropped, as if
//! it had been lost on the way, and a copy of it is put aside. What comes next is made one segment with it (`join`), and judged as
//! any other is. When the rest does not come, or the copy is gone, the client sends the part again, as it does with what was lost: it
//! is held then, and the agent takes the connection.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_skb_load_bytes},
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
    programs::TcContext,
};
use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_cxchg},
};
use redirector_common::{AddressBytes, Connection, word_at};

use crate::packet::{Segment, TCP_FIN, TCP_URG};

/// Bytes that may be put aside: of a part, or of several that are one by now.
pub const LONGEST: u32 = 13 * 1024;
/// Bytes that several may have together: the kernel lets a packet grow to 16 KiB less what it keeps beside it and the headers.
pub const LONGEST_JOINED: u32 = 15 * 1024;
/// None of them is acknowledged before the last: a client sends at most ten then (RFC 6928).
const MOST_PARTS: u32 = 9;

/// A probe for lost tails is one (RFC 8985 §7), and the wire may repeat; clients with short timers send more.
const MOST_REPEATS: u32 = 3;

/// What comes later waited for something: for its first part to be acknowledged (Nagle's algorithm, RFC 9293 §3.7.4), or for a
/// retransmission, of which none is due earlier (Linux: `TCP_RTO_MIN`, 200 ms).
const LATE_NS: u64 = 150_000_000;
/// So long nothing of a client that was late is put aside, but held at once.
const REMEMBERED_NS: u64 = 10_000_000_000;
/// What was put aside before that will not be asked for: clients have sent it again.
const STALE_NS: u64 = 500_000_000;

/// A power of two: 832 KiB.
const SLOTS: u32 = 64;
/// How many are tried.
const TRIES: u32 = 4;

#[map]
static PARTS: Array<Part> = Array::with_max_entries(SLOTS, 0);

/// How many ids each processor has given.
#[map]
static PART_IDS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// When a client was last late.
#[map]
static LATE_CLIENTS: LruHashMap<AddressBytes, u64> = LruHashMap::with_max_entries(1024, 0);

#[repr(C)]
pub struct Part {
    /// [`FREE`], [`BUSY`], or the number that its connection knows it by (`Connection::aside`). No two are the same.
    id: u64,
    at_ns: u64,
    /// Of the first byte.
    pub seq: u32,
    pub len: u32,
    pub bytes: [u8; LONGEST as usize],
}

/// See [`claim`].
pub const KNOWN: u32 = u32::MAX;

const FREE: u64 = 0;
/// Being written or read.
const BUSY: u64 = u64::MAX;

/// Keeps a copy of a segment with the beginning of a head, of a connection that is locked; 0: it can't. It must not be damaged, have
/// no other flags than ACK and PSH, and begin where a head is due.
#[inline(never)]
pub fn put(ctx: &TcContext, segment: &Segment, connection: &mut Connection) -> u32 {
    let Some(len) = segment.payload_len(ctx) else { return 0 };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if connection.aside_parts != 0 && connection.aside_from == segment.seq {
        // More of it, or it once more.
        if connection.aside_parts < MOST_PARTS && now.saturating_sub(connection.aside_since) > LATE_NS {
            note_late(segment, now);
            connection.aside_parts = 0;
        }
    } else {
        connection.aside_from = segment.seq;
        connection.aside_since = now;
        connection.aside_parts = 0;
    }
    if connection.aside_parts >= MOST_PARTS || was_late(segment, now) {
        return 0;
    }
    let slot = find_slot(segment, connection, now);
    let Some(part) = PARTS.get_ptr_mut(slot) else { return 0 };
    // SAFETY: the slot is this processor's alone.
    if connection.aside != 0 && unsafe { (*part).seq == segment.seq && (*part).len >= len } {
        // It is there, and maybe what follows it. A client that asks for it again and again waits for that.
        connection.aside_repeats += 1;
        if connection.aside_repeats > MOST_REPEATS {
            note_late(segment, now);
            connection.aside = 0;
            set_id(part, FREE);
            return 0;
        }
        set_id(part, connection.aside);
        return 1;
    }
    connection.aside = 0;
    // The compiler is not to know the bounds: it would leave out the checks that the verifier wants to see.
    let last = black_box(len.wrapping_sub(1));
    let at = segment.link + segment.payload_offset();
    // SAFETY: as above; it has room for so many bytes, as is checked.
    unsafe {
        if last >= LONGEST
            || bpf_skb_load_bytes(ctx.as_ptr(), at, (&raw mut (*part).bytes).cast(), last + 1) != 0
        {
            set_id(part, FREE);
            return 0;
        }
        // The preface of HTTP/2 (RFC 9113 §3.4) has no head, and is for the agent.
        if word_at((&raw const (*part).bytes).cast()) as u32 == u32::from_le_bytes(*b"PRI ") {
            set_id(part, FREE);
            return 0;
        }
        ((*part).seq, (*part).len, (*part).at_ns) = (segment.seq, last + 1, now);
        connection.aside = new_id();
        connection.aside_slot = slot;
        connection.aside_parts += 1;
        connection.aside_repeats = 0;
        set_id(part, connection.aside);
    }
    1
}

/// The number of the slot, from 1 on, with the copy that the segment, which came too early, goes on from. It is the caller's then, who
/// [frees](free) it. 0: there is none; [`KNOWN`]: the segment is put aside itself.
#[inline(never)]
pub fn claim(segment: &Segment, len: u32, connection: &mut Connection) -> u32 {
    let (id, slot) = (connection.aside, connection.aside_slot);
    let Some(part) = PARTS.get_ptr_mut(slot) else { return 0 };
    if !swap(part, id, BUSY) {
        // Another connection has the slot.
        connection.aside = 0;
        return 0;
    }
    // SAFETY: the slot is this processor's alone.
    let (seq, part_len) = unsafe { ((*part).seq, (*part).len) };
    // Its beginning may be known.
    let done = segment.seq.wrapping_sub(seq);
    let end = done.wrapping_add(len);
    let follows = done <= part_len;
    // An urgent byte is told by its distance from the first (RFC 9293 §3.8.5), and of more than 64 KiB the header has no length.
    let fits = segment.flags & TCP_URG == 0 && segment.total_len != 0;
    let too_long = end > LONGEST_JOINED;
    if seq != connection.next {
        // The app has got it some other way.
        connection.aside = 0;
        set_id(part, FREE);
        return 0;
    }
    if !follows || !fits || end <= part_len || (too_long && segment.flags & TCP_FIN != 0) {
        set_id(part, id);
        return if follows && end <= part_len { KNOWN } else { 0 };
    }
    if too_long {
        if connection.phase != Connection::PROVEN {
            // It can't be held. The first part comes again, and is read with this one (`early`).
            connection.aside = 0;
            set_id(part, FREE);
            return 0;
        }
        put_no_more(connection);
    }
    connection.aside = 0;
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.saturating_sub(connection.aside_since) > LATE_NS {
        note_late(segment, now);
    }
    slot + 1
}

/// When what begins where the last one did comes in again, it is not put aside, and its client is not late.
#[inline(always)]
pub fn put_no_more(connection: &mut Connection) {
    connection.aside_parts = MOST_PARTS;
}

/// What is in the slot of this number. Null: there is no such slot.
#[inline(always)]
pub fn part(slot: u32) -> *mut Part {
    PARTS.get_ptr_mut(slot.wrapping_sub(1)).unwrap_or(core::ptr::null_mut())
}

/// # Safety
/// The slot must be claimed.
#[inline(always)]
pub unsafe fn free(part: *mut Part) {
    set_id(part, FREE);
}

/// The one that the connection has; or, and then it has none any more, a free one, or one whose copy is of no use. `SLOTS`: there
/// is none. It is [`BUSY`].
#[inline(always)]
fn find_slot(segment: &Segment, connection: &mut Connection, now: u64) -> u32 {
    if connection.aside != 0
        && let Some(part) = PARTS.get_ptr_mut(connection.aside_slot)
        && swap(part, connection.aside, BUSY)
    {
        return connection.aside_slot;
    }
    connection.aside = 0;
    let first = u32::from(u16::from_be_bytes(segment.source_port));
    let mut tried = 0;
    while tried < TRIES {
        let slot = (first + tried) & (SLOTS - 1);
        tried += 1;
        let Some(part) = PARTS.get_ptr_mut(slot) else { return SLOTS };
        // SAFETY: aligned words are not torn, and the slot is not used unless it is still as it was.
        let (id, at_ns) =
            unsafe { ((&raw const (*part).id).read_volatile(), (&raw const (*part).at_ns).read_volatile()) };
        if (id == FREE || (id != BUSY && now.saturating_sub(at_ns) > STALE_NS)) && swap(part, id, BUSY) {
            return slot;
        }
    }
    SLOTS
}

#[inline(always)]
fn swap(part: *mut Part, from: u64, to: u64) -> bool {
    // SAFETY: aligned, and valid as long as the program.
    unsafe {
        let id = &raw mut (*part).id;
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(id, from, to).1
    }
}

/// Behind all that was done with the slot.
#[inline(always)]
fn set_id(part: *mut Part, id: u64) {
    swap(part, BUSY, id);
}

#[inline(always)]
fn new_id() -> u64 {
    let Some(ids) = PART_IDS.get_ptr_mut(0) else { return FREE };
    // SAFETY: this processor's alone while the program runs.
    unsafe {
        *ids += 1;
        *ids << 16 | u64::from(bpf_get_smp_processor_id() & 0xffff)
    }
}

#[inline(always)]
fn note_late(segment: &Segment, now: u64) {
    let _ = LATE_CLIENTS.insert(&segment.source, &now, 0);
}

#[inline(always)]
fn was_late(segment: &Segment, now: u64) -> bool {
    // SAFETY: the value is read once.
    let late = unsafe { LATE_CLIENTS.get(&segment.source) };
    late.is_some_and(|at| now.saturating_sub(*at) < REMEMBERED_NS)
}
