//! A first request may come before the app's socket: with the end of the handshake, or instead of it.
//!
//! So it is on every connection to an app that has `TCP_DEFER_ACCEPT` (Apache httpd, by default), and where the client's ACK
//! was lost. The socket is needed to hold the request. What makes it is an ACK; but with `TCP_DEFER_ACCEPT` the kernel ignores an ACK for
//! the first byte, and waits for more. One for the second byte is enough, and says nothing to the app: so the packet becomes that, and
//! a copy of what it was comes in again behind it.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_clone_redirect, bpf_csum_diff, bpf_l3_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use core::{hint::black_box, mem::size_of};

use crate::{
    checksum::{folded, pseudo_header_sum},
    packet::{self, Segment, TCP_ACK, TCP_FIN, TCP_URG},
};

/// The mark of copies.
const AGAIN: u32 = 0x7265_6470;

/// Offsets of the length and the checksum in the IPv4 header, and of the length in the IPv6 header.
const V4_LENGTH: u32 = 2;
const V4_CHECKSUM: u32 = 10;
const V6_LENGTH: u32 = 4;
const V6_HEADER: u32 = 40;

/// The longest TCP header, in words.
const WORDS: usize = 15;
/// The length of the TCP header without options.
const FIXED: u32 = 20;

/// What became of a segment with data that came in for a handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is as it was.
    No,
    /// It is an ACK without data, to be passed on.
    ByThis,
    /// It is damaged, to be dropped; there is a copy.
    Damaged,
}

/// The packet is a copy: it is not to be copied again.
#[inline(always)]
pub fn is_again(ctx: &TcContext) -> bool {
    // SAFETY: the context is the one the kernel called us with.
    let again = unsafe { (*ctx.skb.skb).mark } == AGAIN;
    if again {
        ctx.set_mark(0);
    }
    again
}

#[inline(never)]
pub fn end(ctx: &TcContext, segment: &Segment) -> Ended {
    // SAFETY: the context is the one the kernel called us with.
    let (mark, interface) = unsafe { ((*ctx.skb.skb).mark, (*ctx.skb.skb).ifindex) };
    if mark != 0 || segment.flags & TCP_ACK == 0 || segment.flags & (TCP_FIN | TCP_URG) != 0 {
        return Ended::No;
    }
    ctx.set_mark(AGAIN);
    // SAFETY: the context is valid.
    let failed = unsafe { bpf_clone_redirect(ctx.as_ptr().cast(), interface, u64::from(BPF_F_INGRESS)) };
    ctx.set_mark(0);
    if failed != 0 {
        return Ended::No;
    }
    if strip(ctx, segment).is_some() { Ended::ByThis } else { Ended::Damaged }
}

/// Makes the segment an ACK for the second byte of what the client says.
#[inline(always)]
fn strip(ctx: &TcContext, segment: &Segment) -> Option<()> {
    let link = packet::link_len(ctx);
    if link == packet::UNKNOWN_LINK {
        return None;
    }
    let tcp = link + segment.tcp_offset;
    if segment.tcp_header_len < FIXED {
        return None;
    }
    // The compiler is not to know the bounds: it would leave out the check that the verifier wants to see.
    let header_len = black_box(segment.tcp_header_len);
    if header_len == 0 || header_len > (WORDS * 4) as u32 {
        return None;
    }
    let mut header = [0_u32; WORDS];
    let end = segment.payload_offset();
    // SAFETY: the context is valid, and there is room for so many bytes.
    unsafe {
        if bpf_skb_change_tail(ctx.as_ptr().cast(), link + end, 0) != 0
            || bpf_skb_load_bytes(ctx.as_ptr(), tcp, header.as_mut_ptr().cast(), header_len) != 0
        {
            return None;
        }
    }
    header[1] = segment.seq.wrapping_add(1).to_be();
    let [offset, _, window_high, window_low] = header[3].to_ne_bytes();
    header[3] = u32::from_ne_bytes([offset, TCP_ACK, window_high, window_low]);
    // The checksum, and the urgent pointer.
    header[4] = 0;
    let pseudo = pseudo_header_sum(segment, header_len)?;
    // SAFETY: so many bytes are there.
    let sum =
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, header.as_mut_ptr(), (WORDS * 4) as u32, pseudo) };
    if sum < 0 {
        return None;
    }
    let [first, second] = (!folded(sum as u32)).to_ne_bytes();
    header[4] = u32::from_ne_bytes([first, second, 0, 0]);
    let fixed = [header[0], header[1], header[2], header[3], header[4]];
    store(ctx, tcp, &fixed)?;
    if segment.is_v6 {
        return store(ctx, link + V6_LENGTH, &((end - V6_HEADER) as u16).to_be_bytes());
    }
    let [old] = packet::load::<[u16; 1]>(ctx, V4_LENGTH)?;
    let new = (end as u16).to_be();
    // SAFETY: the context is valid.
    let failed = unsafe {
        bpf_l3_csum_replace(ctx.as_ptr().cast(), link + V4_CHECKSUM, u64::from(old), u64::from(new), 2) != 0
            || bpf_skb_store_bytes(ctx.as_ptr().cast(), link + V4_LENGTH, (&raw const new).cast(), 2, 0) != 0
    };
    (!failed).then_some(())
}

#[inline(always)]
fn store<T>(ctx: &TcContext, offset: u32, value: &T) -> Option<()> {
    let from = (&raw const *value).cast();
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the pointer is valid for the length given with it.
    let failed =
        unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), offset, from, size_of::<T>() as u32, flags) };
    (failed == 0).then_some(())
}
