//! Is a segment what its sender sent?

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_CSUM_LEVEL_QUERY},
    helpers::generated::{bpf_csum_diff, bpf_csum_level, bpf_loop, bpf_skb_load_bytes},
    macros::map,
    maps::PerCpuArray,
    programs::TcContext,
};
use core::{ffi::c_void, hint::black_box, mem::size_of};

use crate::{
    bare_ack::{BareAck, TcpHeader, store},
    follow::Payload,
    packet::{self, Segment},
    sockets::words,
};

/// Offset of the checksum in the TCP header.
const CHECKSUM: u32 = 16;
const IPPROTO_TCP: u32 = 6;

const BLOCK: usize = 64;
/// A packet of 64 KiB.
const MAX_BLOCKS: u32 = 1024;

#[map]
static SUM: PerCpuArray<Sum> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
struct Sum {
    sum: u32,
    at: u32,
    end: u32,
    padding: u32,
    block: [u32; BLOCK / 4],
}

/// The device has checked it, or nobody has to (the sender is on this machine and left the checksum to a device), or it is
/// right.
#[inline(always)]
pub fn is_good(ctx: &TcContext, segment: &Segment, payload: Payload) -> bool {
    redirector_is_good(ctx.skb.skb, segment, payload.at, payload.len) != 0
}

/// Exported, as those of `scanning` are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn redirector_is_good(packet: *mut __sk_buff, segment: *const Segment, at: u32, len: u32) -> u32 {
    // SAFETY: valid, unless it is null.
    let Some(segment) = (unsafe { segment.as_ref() }) else { return 0 };
    if packet.is_null() {
        return 0;
    }
    u32::from(is_right(&TcContext::new(packet), segment, Payload { at, len }))
}

#[inline(always)]
fn is_right(ctx: &TcContext, segment: &Segment, payload: Payload) -> bool {
    // SAFETY: the context is valid. The query changes nothing, and fails unless the device has checked.
    if unsafe { bpf_csum_level(ctx.as_ptr().cast(), u64::from(BPF_CSUM_LEVEL_QUERY)) } >= 0 {
        return true;
    }
    let Some([checksum]) = packet::load::<[u16; 1]>(ctx, segment.tcp_offset + CHECKSUM) else { return false };
    let pseudo = pseudo_header(segment, segment.tcp_header_len + payload.len);
    if pseudo < 0 {
        return false;
    }
    // Left to a device: the sum of the pseudo header alone, not complemented.
    if folded(pseudo as u32) == checksum {
        return true;
    }
    sum(ctx, segment, payload, pseudo as u32) == 0xffff
}

/// It was left to a device.
#[inline(never)]
pub fn is_for_device(ctx: &TcContext, segment: &Segment, len: u32) -> bool {
    let Some([checksum]) = packet::load::<[u16; 1]>(ctx, segment.tcp_offset + CHECKSUM) else { return false };
    let pseudo = pseudo_header(segment, segment.tcp_header_len + len);
    pseudo >= 0 && folded(pseudo as u32) == checksum
}

/// Writes the right one, or what is there when it is left to a device. False: it can't be.
#[inline(never)]
pub fn renew(ctx: &TcContext, segment: &Segment, payload: Payload, for_device: bool) -> bool {
    let at = segment.link + segment.tcp_offset + CHECKSUM;
    let pseudo = pseudo_header(segment, segment.tcp_header_len + payload.len);
    if pseudo < 0 {
        return false;
    }
    if for_device {
        return store(ctx, at, &folded(pseudo as u32)).is_some();
    }
    if store(ctx, at, &0_u16).is_none() {
        return false;
    }
    let sum = sum(ctx, segment, payload, pseudo as u32);
    sum <= 0xffff && store(ctx, at, &!(sum as u16)).is_some()
}

/// Of `pseudo` and the segment; more than 16 bits: it can't be computed.
#[inline(always)]
fn sum(ctx: &TcContext, segment: &Segment, payload: Payload, pseudo: u32) -> u32 {
    let Some(sum) = SUM.get_ptr_mut(0) else { return u32::MAX };
    // SAFETY: this processor's alone while the program runs.
    unsafe {
        (*sum).sum = pseudo;
        (*sum).at = payload.at - segment.tcp_header_len;
        (*sum).end = payload.at + payload.len;
        let mut packet = ctx.as_ptr();
        bpf_loop(MAX_BLOCKS, (add_block as *const ()).cast_mut().cast(), (&raw mut packet).cast(), 0);
        if (*sum).at == (*sum).end { u32::from(folded((*sum).sum)) } else { u32::MAX }
    }
}

/// Of a segment between the same ends as `segment`. `None`: it can't be computed.
#[inline(always)]
pub fn of_bare_ack(segment: &Segment, ack: &BareAck) -> Option<[u8; 2]> {
    let pseudo = pseudo_header(segment, ack.len());
    if pseudo < 0 {
        return None;
    }
    let words = (&raw const *ack).cast_mut().cast();
    // SAFETY: `ack.len()` is one of the two, and so many bytes are there.
    let sum = unsafe {
        if ack.has_timestamps() {
            bpf_csum_diff(core::ptr::null_mut(), 0, words, size_of::<BareAck>() as u32, pseudo as u32)
        } else {
            bpf_csum_diff(core::ptr::null_mut(), 0, words, size_of::<TcpHeader>() as u32, pseudo as u32)
        }
    };
    (sum >= 0).then(|| (!folded(sum as u32)).to_ne_bytes())
}

/// The sum of what RFC 9293 §3.1 and RFC 8200 §8.1 put before the segment; negative: it can't be computed.
#[inline(always)]
fn pseudo_header(segment: &Segment, tcp_len: u32) -> i64 {
    let (source, destination) = (words(segment.source), words(segment.destination));
    // Zeros don't change the sum, so IPv4 has the shape of IPv6.
    let mut pseudo = [
        source[0],
        source[1],
        source[2],
        source[3],
        destination[0],
        destination[1],
        destination[2],
        destination[3],
        tcp_len.to_be(),
        IPPROTO_TCP.to_be(),
    ];
    if !segment.is_v6 {
        (pseudo[2], pseudo[6]) = (0, 0);
    }
    // SAFETY: so many bytes are there.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, pseudo.as_mut_ptr(), 40, 0) }
}

unsafe extern "C" fn add_block(_: u32, packet: *mut c_void) -> i64 {
    let Some(sum) = SUM.get_ptr_mut(0) else { return 1 };
    // SAFETY: as above.
    let sum = unsafe { &mut *sum };
    let left = sum.end.saturating_sub(sum.at);
    let len = black_box(if left < BLOCK as u32 { left } else { BLOCK as u32 });
    if len == 0 || len > BLOCK as u32 {
        return 1;
    }
    // What a last, short block does not fill counts as zeros.
    sum.block = [0; BLOCK / 4];
    let block = sum.block.as_mut_ptr();
    // SAFETY: the context of `bpf_loop` is the packet; there is room for a block.
    unsafe {
        let packet = *packet.cast::<*mut c_void>();
        if bpf_skb_load_bytes(packet, sum.at, block.cast(), len) != 0 {
            return 1;
        }
        sum.sum = bpf_csum_diff(core::ptr::null_mut(), 0, block, BLOCK as u32, sum.sum) as u32;
    }
    sum.at += len;
    0
}

/// A ones' complement sum of 16 bits.
#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
