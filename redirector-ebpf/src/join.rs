//! Makes one segment of two, as a network device does of segments that come at once: of what is put aside and of what goes on from it,
//! which is at hand.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
    macros::map,
    maps::PerCpuArray,
    programs::TcContext,
};
use core::hint::black_box;
use redirector_common::Counter;

use crate::{
    aside::{self, LONGEST, LONGEST_JOINED, Part},
    bare_ack::{set_length, store},
    checksum,
    counters::count,
    follow::{FOLLOWED, HELD, Payload, Seen},
    packet::Segment,
};

/// Offset of the sequence number in the TCP header.
const SEQ: u32 = 4;

/// The payload of the segment at hand, while its packet is made another one.
#[map]
static SECOND: PerCpuArray<[u8; LONGEST_JOINED as usize]> = PerCpuArray::with_max_entries(1, 0);

/// The packet is another one now, to be looked at as if it had come in like that.
pub const JOINED: Seen = u32::MAX;

/// Puts what is in the slot, which is claimed, before the payload of the packet; if both are too long together, in its place, which the
/// client sends again then. If that has not made it [`JOINED`], it is as it was (`FOLLOWED`), or is to be dropped (`HELD`).
#[inline(never)]
pub fn join(ctx: TcContext, segment: &mut Segment, slot: u32) -> Seen {
    let ctx = &ctx;
    let part = aside::part(slot);
    if part.is_null() {
        return FOLLOWED;
    }
    let mut seen = FOLLOWED;
    // SAFETY: it is claimed.
    unsafe {
        if let Some(len) = segment.payload_len(ctx) {
            seen = prepend(ctx, segment, len, part);
        }
        aside::free(part);
    }
    seen
}

/// What is in the slot, which is claimed, is not wanted any more.
#[inline(never)]
pub fn leave(slot: u32) {
    let part = aside::part(slot);
    if !part.is_null() {
        // SAFETY: it is claimed.
        unsafe { aside::free(part) };
    }
}

/// # Safety
/// The part must be claimed.
#[inline(always)]
unsafe fn prepend(ctx: &TcContext, segment: &mut Segment, len: u32, part: *mut Part) -> Seen {
    let Some(second) = SECOND.get_ptr_mut(0) else { return FOLLOWED };
    let at = segment.link + segment.payload_offset();
    // SAFETY: guaranteed by the caller.
    let (seq, part_len) = unsafe { ((*part).seq, (*part).len) };
    let done = segment.seq.wrapping_sub(seq);
    let whole = done.wrapping_add(len) <= LONGEST_JOINED;
    // The compiler is not to know the bounds: it would leave out the checks that the verifier wants to see.
    let last_of_first = black_box(if whole { done } else { part_len }.wrapping_sub(1));
    let last = black_box(if whole { len.wrapping_sub(1) } else { 0 });
    if last_of_first >= LONGEST || last >= LONGEST_JOINED {
        return FOLLOWED;
    }
    let (first, rest) = (last_of_first + 1, if whole { last + 1 } else { 0 });
    let for_device = checksum::is_for_device(ctx, segment, len);
    let packet = ctx.as_ptr().cast();
    // SAFETY: the context is valid; there is room for so many bytes, as was checked.
    unsafe {
        if (whole && bpf_skb_load_bytes(ctx.as_ptr(), at, second.cast(), last + 1) != 0)
            // Without what Ethernet fills short packets with.
            || (ctx.len() > at + len && bpf_skb_change_tail(packet, at + len, 0) != 0)
            // What a device has summed up is not to be kept for other bytes.
            || (!whole && bpf_skb_change_tail(packet, at, 0) != 0)
            || bpf_skb_change_tail(packet, at + first + rest, 0) != 0
        {
            // The client sends both again.
            return HELD;
        }
        if bpf_skb_store_bytes(packet, at, (&raw const (*part).bytes).cast(), first, 0) != 0
            || (whole && bpf_skb_store_bytes(packet, at + first, second.cast(), last + 1, 0) != 0)
        {
            return HELD;
        }
    }
    segment.total_len = segment.total_len - len + first + rest;
    let payload = Payload { at, len: first + rest };
    segment.seq = seq;
    let end = segment.payload_offset() + payload.len;
    let is_right = store(ctx, segment.link + segment.tcp_offset + SEQ, &seq.to_be_bytes()).is_some()
        && set_length(ctx, segment, segment.link, end).is_some()
        && checksum::renew(ctx, segment, payload, for_device);
    if !is_right {
        return HELD;
    }
    if whole {
        count(Counter::Joined);
    }
    JOINED
}
