//! Answers what the app still sends on a connection that the agent has, in its client's place: it was received.
//!
//! The packet itself becomes the answer, and turns around on its interface. Dropping it would have the app's
//! side send it again and again.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT},
    helpers::generated::{bpf_redirect, bpf_skb_load_bytes},
    programs::TcContext,
};

use crate::{
    bare_ack::{BareAck, TcpHeader, store},
    packet::{self, Segment, TCP_FIN, TCP_RST},
};

/// The mark of packets that have turned around, while they do. Packets from outside have none.
const TURNED_AROUND: u32 = 0x7265_6469;

/// Offsets in the IPv4 header and the IPv6 header.
const V4_ADDRESSES: u32 = 12;
const V6_ADDRESSES: u32 = 8;

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
    let mut ack = BareAck::like(ctx, segment)?;
    // What leaves this machine's TCP has its checksum left to a device, which counts as checked where it comes in.
    let TcpHeader { source, destination, checksum, .. } = packet::load(ctx, segment.tcp_offset)?;
    ack.header = TcpHeader {
        source: destination,
        destination: source,
        seq: ack.header.ack,
        ack: segment.seq.wrapping_add(sent).to_be_bytes(),
        window: [0xff, 0xff],
        checksum,
        ..ack.header
    };
    // The same clocks, the other way round.
    (ack.timestamps.value, ack.timestamps.echo) = (ack.timestamps.echo, ack.timestamps.value);
    ack.replace(ctx, segment, link)?;
    swap_addresses(ctx, segment, link)?;
    if link != 0 {
        let [destination, source]: [[u8; 6]; 2] = load_absolute(ctx, 0)?;
        store(ctx, 0, &[source, destination])?;
    }
    ctx.set_mark(TURNED_AROUND);
    // SAFETY: the context is valid.
    Some(unsafe { bpf_redirect((*ctx.skb.skb).ifindex, u64::from(BPF_F_INGRESS)) } as i32)
}

/// Swapping them leaves the sum of an IPv4 header as it is.
#[inline(always)]
fn swap_addresses(ctx: &TcContext, segment: &Segment, link: u32) -> Option<()> {
    if segment.is_v6 {
        return store(ctx, link + V6_ADDRESSES, &[segment.destination, segment.source]);
    }
    let [source, destination]: [[u8; 4]; 2] = packet::load(ctx, V4_ADDRESSES)?;
    store(ctx, link + V4_ADDRESSES, &[destination, source])
}

#[inline(always)]
fn load_absolute(ctx: &TcContext, offset: u32) -> Option<[[u8; 6]; 2]> {
    let mut value = [[0; 6]; 2];
    // SAFETY: there is room for twelve bytes.
    let failed = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), offset, value.as_mut_ptr().cast(), 12) };
    (failed == 0).then_some(value)
}
