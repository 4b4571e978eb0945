//! Answers what the app still sends on a connection that the agent has, in its client's place: it was received.
//!
//! The packet itself becomes the answer, and turns around on its interface. Dropping it would have the app's
//! side send it again and again.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT},
    helpers::generated::{
        bpf_l3_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use core::mem::size_of;

use crate::packet::{self, Segment, TCP_ACK, TCP_FIN, TCP_RST};

/// The mark of packets that have turned around, while they do. Packets from outside have none.
const TURNED_AROUND: u32 = 0x7265_6469;

/// Offsets and lengths in the IPv4 header, the IPv6 header, and the TCP header.
const V4_LENGTH: u32 = 2;
const V4_CHECKSUM: u32 = 10;
const V4_ADDRESSES: u32 = 12;
const V6_LENGTH: u32 = 4;
const V6_ADDRESSES: u32 = 8;
const V6_HEADER: u32 = 40;
const TCP_FIXED: u32 = 20;

/// NOP, NOP, timestamps, 10 bytes: as Linux lays the option out (RFC 7323 appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];

/// The TCP header without its options.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpHeader {
    source: [u8; 2],
    destination: [u8; 2],
    seq: [u8; 4],
    ack: [u8; 4],
    data_offset: u8,
    flags: u8,
    window: [u8; 2],
    checksum: [u8; 2],
    urgent: [u8; 2],
}

/// A packet of [`turn_around`] comes in: it is for the app's socket.
#[inline(always)]
pub fn is_ours(ctx: &TcContext) -> bool {
    // SAFETY: the context is the one the kernel called us with.
    let ours = unsafe { (*ctx.skb.skb).mark } == TURNED_AROUND;
    if ours {
        ctx.set_mark(0);
    }
    ours
}

/// The verdict for the packet: what needs no answer is dropped.
#[inline(never)]
pub fn turn_around(ctx: &TcContext, segment: &Segment) -> i32 {
    try_to_turn(ctx, segment).unwrap_or(TC_ACT_SHOT)
}

#[inline(always)]
fn try_to_turn(ctx: &TcContext, segment: &Segment) -> Option<i32> {
    if segment.flags & TCP_RST != 0 {
        return None;
    }
    let sent = segment.payload_len(ctx)? + (segment.flags & TCP_FIN != 0) as u32;
    if sent == 0 {
        return None;
    }
    let link = packet::link_len(ctx);
    if link == packet::UNKNOWN_LINK {
        return None;
    }
    let old: TcpHeader = packet::load(ctx, segment.tcp_offset)?;
    let clocks = clocks(ctx, segment);
    let options_len = if clocks.is_some() { 12 } else { 0 };
    let end = segment.tcp_offset + TCP_FIXED + options_len;
    let skb = ctx.as_ptr().cast();
    // SAFETY: the context is valid.
    if unsafe { bpf_skb_change_tail(skb, link + end, 0) } != 0 {
        return None;
    }
    let new = TcpHeader {
        source: old.destination,
        destination: old.source,
        seq: old.ack,
        ack: segment.seq.wrapping_add(sent).to_be_bytes(),
        data_offset: (((TCP_FIXED + options_len) / 4) << 4) as u8,
        flags: TCP_ACK,
        window: [0xff, 0xff],
        // What leaves this machine's TCP has its checksum left to a device, which counts as checked where it comes in.
        checksum: old.checksum,
        urgent: [0, 0],
    };
    store(ctx, link + segment.tcp_offset, &new)?;
    if let Some(clocks) = clocks {
        store(ctx, link + segment.tcp_offset + TCP_FIXED, &clocks)?;
    }
    turn_network_header(ctx, segment, link, end)?;
    if link != 0 {
        let [destination, source]: [[u8; 6]; 2] = load_absolute(ctx, 0)?;
        store(ctx, 0, &[source, destination])?;
    }
    ctx.set_mark(TURNED_AROUND);
    // SAFETY: the context is valid.
    Some(unsafe { bpf_redirect((*ctx.skb.skb).ifindex, u64::from(BPF_F_INGRESS)) } as i32)
}

/// The timestamps option of the answer: the same clocks, the other way round.
#[inline(always)]
fn clocks(ctx: &TcContext, segment: &Segment) -> Option<[[u8; 4]; 3]> {
    if segment.tcp_header_len < TCP_FIXED + 12 {
        return None;
    }
    let [option, value, echo]: [[u8; 4]; 3] = packet::load(ctx, segment.tcp_offset + TCP_FIXED)?;
    (option == TIMESTAMPS).then_some([option, echo, value])
}

/// `end`: of the packet, from the network header.
#[inline(always)]
fn turn_network_header(ctx: &TcContext, segment: &Segment, link: u32, end: u32) -> Option<()> {
    if segment.is_v6 {
        store(ctx, link + V6_LENGTH, &((end - V6_HEADER) as u16).to_be_bytes())?;
        return store(ctx, link + V6_ADDRESSES, &[segment.destination, segment.source]);
    }
    let old: [u8; 2] = packet::load(ctx, V4_LENGTH)?;
    let new = (end as u16).to_be_bytes();
    let (from, to) = (u64::from(u16::from_ne_bytes(old)), u64::from(u16::from_ne_bytes(new)));
    // SAFETY: the context is valid. Swapping the addresses leaves the sum as it is.
    if unsafe { bpf_l3_csum_replace(ctx.as_ptr().cast(), link + V4_CHECKSUM, from, to, 2) } != 0 {
        return None;
    }
    store(ctx, link + V4_LENGTH, &new)?;
    let [source, destination]: [[u8; 4]; 2] = packet::load(ctx, V4_ADDRESSES)?;
    store(ctx, link + V4_ADDRESSES, &[destination, source])
}

#[inline(always)]
fn store<T>(ctx: &TcContext, offset: u32, value: &T) -> Option<()> {
    let from = (&raw const *value).cast();
    // SAFETY: the pointer is valid for the length given with it.
    let failed = unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), offset, from, size_of::<T>() as u32, 0) };
    (failed == 0).then_some(())
}

#[inline(always)]
fn load_absolute(ctx: &TcContext, offset: u32) -> Option<[[u8; 6]; 2]> {
    let mut value = [[0; 6]; 2];
    // SAFETY: there is room for twelve bytes.
    let failed = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), offset, value.as_mut_ptr().cast(), 12) };
    (failed == 0).then_some(value)
}
