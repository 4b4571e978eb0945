//! What comes before its turn: segments that an earlier one, lost or overtaken, is still to come before.
//!
//! They are passed on at once. The app's kernel puts them aside until their turn, and a copy of them is put aside here, so that
//! they can be read then: in a chunked body, or behind the end of a request, nothing is known without them. The copies of
//! all connections are in one place, where new ones take that of the oldest. Where a connection's are is with its socket, as long
//! as there are any. If there is no room for one, see `unread`.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_loop, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skb_load_bytes},
    },
    macros::{btf_map, map},
    maps::Array,
    programs::TcContext,
};
use core::{
    ffi::c_void,
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xsub},
};
use redirector_common::{Connection, scan::BLOCK, word_at};

use crate::{follow::Payload, packet::Segment, scanning, unread, work::work};

/// From the first byte that is missing. More no app has room for, as a rule.
const FARTHEST: u32 = 1 << 20;

/// See [`Early`].
#[btf_map]
static EARLY: SkStorage<Early> = SkStorage::new();

/// Up to when what there is of [`Early`] is paid for, in nanoseconds of `CLOCK_MONOTONIC`: each is [`PRICE_NS`], which is paid back
/// when it is freed. So there are never more than [`MOST`] and one for each second since: those that went with their sockets.
#[map]
static PAID: Array<u64> = Array::with_max_entries(1, 0);

const PRICE_NS: u64 = 1_000_000_000;
/// So many connections may have copies: half a MiB.
const MOST: u64 = 256;

/// So many segments of each.
const MAX_PARTS: u32 = 120;
/// Bytes of all copies, but for the end of the last one; and of the longest one.
const ROOM: u32 = 1 << 21;
const LONGEST: u32 = 1 << 16;
const NO_ROOM: u64 = u64::MAX;
/// Other processors may want some, too.
const MAX_TURNS: u32 = 8;
/// So that a copy need not be in two pieces, and a block can be read from any byte.
const BYTES: usize = (ROOM + LONGEST) as usize + BLOCK;

/// The bytes of the copies, as many as there were last.
#[map]
static COPIES: Array<Copies> = Array::with_max_entries(1, 0);

#[repr(C, align(8))]
struct Copies {
    /// How many bytes there have been.
    used: u64,
    bytes: [u8; BYTES],
}

/// What is not kept can't be read, and sight is lost.
#[repr(C)]
pub struct Early {
    parts: u32,
    /// The part that was read last, and how many were tried since then.
    cursor: u32,
    tried: u32,
    padding: u32,
    part: [Part; MAX_PARTS as usize],
}

/// With what the kernel keeps beside it. (Before Linux 6.8 a socket has 20 KiB for all of this kind: `net.core.optmem_max`.)
const _: () = assert!(size_of::<Early>() + 100 < 2048);

#[repr(C)]
#[derive(Clone, Copy)]
struct Part {
    seq: u32,
    len: u32,
    /// How many bytes there had been in [`Copies`] before it.
    at: u64,
}

/// What [`read_step`] works on, beside [`Work`](crate::work::Work).
#[repr(C)]
struct Reading {
    packet: *mut __sk_buff,
    early: *mut Early,
    /// The sequence number of what is at 0 in the packet, as it were.
    origin: u64,
}

/// Whether a copy of it may be needed: not of what is all within a body of a known length, or a chunk.
#[inline(always)]
pub fn matters(connection: &Connection, segment: &Segment, payload: Payload) -> bool {
    let gap = segment.seq.wrapping_sub(connection.next);
    gap <= FARTHEST && payload.len <= LONGEST && !connection.request.is_within_body(gap + payload.len)
}

/// The app may have room for it, so that it is of this connection.
#[inline(always)]
pub fn is_near(connection: &Connection, segment: &Segment) -> bool {
    segment.seq.wrapping_sub(connection.next) <= FARTHEST
}

/// Keeps a copy of a segment, which must not be damaged. `at`: of its payload, from the start of the packet.
///
/// # Safety
/// `socket` must be the full socket of the connection, and be referenced.
#[inline(never)]
pub unsafe fn put_aside(
    ctx: &TcContext,
    segment: &Segment,
    at: u32,
    connection: &mut Connection,
    socket: *mut bpf_sock,
) {
    let Some(len) = segment.payload_len(ctx) else { return };
    // That there is room, and that it stays, is not certain.
    unread::note(connection, segment, len, unread::is_end(ctx, at.wrapping_add(len), len));
    // SAFETY: guaranteed by the caller.
    let mut early = unsafe { storage(socket, 0) };
    if early.is_null() {
        if !pay() {
            return;
        }
        // SAFETY: as above.
        early = unsafe { storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
        if early.is_null() {
            pay_back();
            return;
        }
    }
    // SAFETY: valid as long as the socket; the connection is locked.
    let early = unsafe { &mut *early };
    let end = segment.seq.wrapping_add(len);
    if connection.early == 0 || (end.wrapping_sub(connection.early_end) as i32) > 0 {
        connection.early_end = end;
    }
    connection.early = 1;
    // The compiler is not to know the bounds: it would leave out the checks that the verifier wants to see.
    let (part, last) = (black_box(early.parts), black_box(len.wrapping_sub(1)));
    if part >= MAX_PARTS || last >= LONGEST {
        return;
    }
    let len = last + 1;
    let Some(copies) = COPIES.get_ptr_mut(0) else { return };
    // SAFETY: aligned, and valid as long as the program.
    let before = unsafe { begin_copy(copies, len) };
    if before == NO_ROOM {
        return;
    }
    let to = black_box(before as u32 & (ROOM - 1));
    if to >= ROOM {
        return;
    }
    // SAFETY: within the arrays, as was checked.
    unsafe {
        let to = (&raw mut (*copies).bytes).cast::<u8>().add(to as usize).cast();
        if bpf_skb_load_bytes(ctx.as_ptr(), at, to, len) != 0 {
            return;
        }
        if !is_there(copies, before) {
            // Others were that much faster that this may have been written over theirs: none of the copies counts.
            begin_copy(copies, ROOM);
            return;
        }
        early.part.as_mut_ptr().add(part as usize).write(Part { seq: segment.seq, len, at: before });
    }
    early.parts = part + 1;
}

/// Takes room for so many bytes; says how many there had been before, or [`NO_ROOM`].
#[inline(always)]
unsafe fn begin_copy(copies: *mut Copies, len: u32) -> u64 {
    // SAFETY: aligned, and valid as long as the program.
    let mut before = unsafe { (&raw const (*copies).used).read_volatile() };
    let mut turns = 0;
    while turns < MAX_TURNS {
        turns += 1;
        // SAFETY: as above.
        let now = unsafe { exchange(copies, before, before + u64::from(len)) };
        if now == before {
            return before;
        }
        before = now;
    }
    NO_ROOM
}

/// Nothing was written over the copy so far. A full barrier: ask after it was read.
#[inline(always)]
unsafe fn is_there(copies: *mut Copies, at: u64) -> bool {
    // SAFETY: guaranteed by the caller; nothing is exchanged for another value.
    unsafe { exchange(copies, 0, 0) }.wrapping_sub(at) <= u64::from(ROOM)
}

#[inline(always)]
unsafe fn exchange(copies: *mut Copies, from: u64, to: u64) -> u64 {
    // SAFETY: aligned, and valid as long as the program.
    let used = unsafe { &raw mut (*copies).used };
    // SAFETY: as above.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(used, from, to).0 }
}

/// Reads on where the scan of the packet has ended, as far as there are copies. False: as [`scanning::read_requests`].
/// `origin`: the sequence number of the packet's first byte, as it were.
///
/// # Safety
/// As [`put_aside`].
#[inline(always)]
pub unsafe fn read(ctx: &TcContext, origin: u32, socket: *mut bpf_sock) -> bool {
    // SAFETY: guaranteed by the caller.
    let early = unsafe { storage(socket, 0) };
    if early.is_null() {
        return true;
    }
    // SAFETY: valid as long as the socket; the connection is locked.
    unsafe { ((*early).cursor, (*early).tried) = (0, 0) };
    let mut reading = Reading { packet: ctx.skb.skb, early, origin: u64::from(origin) };
    // SAFETY: the callback takes what is given.
    unsafe {
        bpf_loop(
            scanning::MAX_STEPS,
            (read_step as *const ()).cast_mut().cast(),
            (&raw mut reading).cast(),
            0,
        )
    };
    // SAFETY: this processor's alone while the program runs.
    work().is_some_and(|work| unsafe { (*work).has_read_block() })
}

/// Frees the copies.
///
/// # Safety
/// As [`put_aside`].
#[inline(always)]
pub unsafe fn forget(connection: &mut Connection, socket: *mut bpf_sock) {
    connection.early = 0;
    let map = (&raw const EARLY).cast_mut().cast();
    // SAFETY: guaranteed by the caller.
    let freed = unsafe { bpf_sk_storage_delete(map, socket.cast()) == 0 };
    if freed {
        pay_back();
    }
}

/// False: there are too many, or another processor was quicker.
#[inline(always)]
fn pay() -> bool {
    let Some(paid) = PAID.get_ptr_mut(0) else { return false };
    // SAFETY: no preconditions; an aligned word is not torn.
    let (now, before) = unsafe { (bpf_ktime_get_ns(), paid.read_volatile()) };
    let from = if before > now { before } else { now };
    if from - now > (MOST - 1) * PRICE_NS {
        return false;
    }
    let to = from + PRICE_NS;
    // SAFETY: aligned, and valid as long as the program.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(paid, before, to).1 }
}

#[inline(always)]
fn pay_back() {
    if let Some(paid) = PAID.get_ptr_mut(0) {
        // SAFETY: as above. (It was paid, so it is not below zero.)
        unsafe { atomic_xsub::<u64, u64, { AtomicOrdering::Relaxed }>(paid, PRICE_NS) };
    }
}

#[inline(always)]
unsafe fn storage(socket: *mut bpf_sock, flags: u64) -> *mut Early {
    let map = (&raw const EARLY).cast_mut().cast();
    // SAFETY: guaranteed by the caller; without an initial value it is zeros.
    unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), flags) }.cast()
}

/// Reads a block, or looks for the next. 0: go on.
#[inline(never)]
unsafe extern "C" fn read_step(_: u32, reading: *mut c_void) -> i64 {
    let Some(work) = work() else { return 1 };
    let reading = reading.cast::<Reading>();
    // SAFETY: the context is a `Reading`, and `work` is this processor's alone.
    unsafe {
        if (*work).has_read_block() {
            return find_block(&mut *reading);
        }
        scanning::redirector_step_requests((*reading).packet);
    }
    0
}

/// Looks whether the part at hand is the one that goes on. 0: go on. (Apart, so that there is room on the stack.)
#[inline(never)]
fn find_block(reading: &mut Reading) -> i64 {
    let Some(work) = work() else { return 1 };
    // SAFETY: this processor's alone while the program runs; the storage is valid.
    let (work, early, origin) = unsafe { (&mut *work, &mut *reading.early, reading.origin as u32) };
    let cursor = black_box(early.cursor);
    if cursor >= MAX_PARTS {
        return 1;
    }
    // SAFETY: within the array, as was checked.
    let Part { seq, len, at } = unsafe { *early.part.as_ptr().add(cursor as usize) };
    let next = origin.wrapping_add(work.end);
    let done = next.wrapping_sub(seq);
    if cursor < early.parts && (done as i32) < 0 && work.request.pass_over(done.wrapping_neg()) {
        // Of what is in between there is no copy: it is of a chunk, and may not even have come.
        work.end = seq.wrapping_sub(origin);
        work.at = work.end;
        early.tried = 0;
        return 0;
    }
    if cursor >= early.parts || done >= len {
        early.cursor = if cursor + 1 < early.parts { cursor + 1 } else { 0 };
        early.tried += 1;
        return (early.tried >= early.parts) as i64;
    }
    early.tried = 0;
    let Some(copies) = COPIES.get_ptr_mut(0) else { return 1 };
    let from = black_box((at as u32 & (ROOM - 1)).wrapping_add(done));
    if from >= ROOM + LONGEST {
        return 1;
    }
    // SAFETY: a block fits behind it, and into the other.
    unsafe {
        let from = (&raw const (*copies).bytes).cast::<u8>().add(from as usize);
        for word in 0..BLOCK / 8 {
            work.block_words().add(word).write(word_at(from.add(word * 8)));
        }
        if !is_there(copies, at) {
            return 1;
        }
    }
    let left = len - done;
    work.begin_block(if left < BLOCK as u32 { left } else { BLOCK as u32 });
    0
}
