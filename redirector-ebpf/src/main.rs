//! The eBPF half of redirector.
//!
//! | program | hook | purpose |
//! | --- | --- | --- |
//! | `redirector_ingress` | TC ingress of a target's interfaces | hands new connections to the agent's listener |
//! | `redirector_inspect` | the same, TCX only (kernel 6.6), in its place | and reads the requests of the connections that the app has, holds those that may be a developer's, and sends parked connections to the agent |
//! | `redirector_egress` | TC egress of the same interfaces | follows the answers; puts the service's port on what the agent sends on parked connections |
//! | `redirector_rehearse` | none | reads given bytes as the two above do, for tests |
//! | `redirector_peer4`, `redirector_peer6` | cgroup `getpeername` | show the app the real client |
//!
//! Functions whose signature has an enum with data must be inlined: the kernel refuses the type information that the
//! compiler makes of one, and without it `bpf_loop` and socket storage.
#![no_std]
#![no_main]
// rustc believes that BPF can't exchange atomically, so `core::sync::atomic` lacks it; the kernel can since 5.12.
#![allow(internal_features)]
#![feature(core_intrinsics)]

mod answer;
mod aside;
mod assign;
mod bare_ack;
mod checksum;
mod connection;
mod counters;
mod early;
mod existing;
mod finding;
mod follow;
mod heartbeat;
mod hold;
mod icmp;
mod inspected_ports;
mod join;
mod judge;
mod needles;
mod only_request;
mod opening;
mod packet;
mod parked;
mod peername;
mod place;
mod protocol;
mod rehearsal;
mod responses;
mod scanning;
mod sight;
mod silence;
mod sockets;
mod unread;
mod work;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_flow_keys},
    macros::classifier,
    programs::TcContext,
};
use redirector_common::Counter;

use crate::{
    counters::count,
    packet::{Parsed, Segment},
    parked::Verdict,
};

/// Makes the object the same bytes each time. `__sk_buff`, of which the linker gets one for each unit of code, points to this
/// type, which nothing else has. LLVM would declare it once for each pointer, and number them in the order of their addresses
/// in its own memory.
#[unsafe(no_mangle)]
static FLOW_KEYS: &[bpf_flow_keys; 0] = &[];

#[classifier]
pub fn redirector_ingress(ctx: TcContext) -> i32 {
    let assign = |segment: &Segment| {
        assign::ingress(by_value(&ctx), segment);
        TC_ACT_UNSPEC
    };
    packet::parsed(&ctx, assign).unwrap_or_else(pass)
}

#[classifier]
pub fn redirector_inspect(ctx: TcContext) -> i32 {
    packet::seen(&ctx, |segment| inspect(&ctx, segment)).unwrap_or_else(|parsed| {
        if parsed == packet::OTHER {
            icmp::ingress(by_value(&ctx));
        }
        pass(parsed)
    })
}

/// What comes in and is no segment.
#[inline(always)]
fn pass(parsed: Parsed) -> i32 {
    if parsed == packet::UNREADABLE {
        count(Counter::Unreadable);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn inspect(ctx: &TcContext, segment: &mut Segment) -> i32 {
    let is_copy = opening::is_copy(ctx);
    if hold::was_held(segment.source_port) {
        match parked::ingress(by_value(ctx), segment) {
            Verdict::Pass => return TC_ACT_UNSPEC,
            Verdict::Drop => return TC_ACT_SHOT,
            Verdict::Next => {}
        }
    }
    let mut seen = follow::request(ctx, segment, is_copy);
    if seen > follow::JOINS {
        seen = join::join(by_value(ctx), segment, seen - follow::JOINS);
        if seen == join::JOINED {
            seen = follow::request(ctx, segment, false);
            if seen > follow::JOINS {
                join::leave(seen - follow::JOINS);
            }
        }
    }
    match seen {
        follow::HELD => return TC_ACT_SHOT,
        follow::PASS => assign::ingress(by_value(ctx), segment),
        _ => {}
    }
    TC_ACT_UNSPEC
}

/// For functions that are not inlined: for a reference it would have to be on the stack, which has little room.
#[inline(always)]
fn by_value(ctx: &TcContext) -> TcContext {
    TcContext::new(ctx.skb.skb)
}

#[classifier]
pub fn redirector_egress(ctx: TcContext) -> i32 {
    packet::seen(&ctx, |segment| leave(&ctx, segment)).unwrap_or(TC_ACT_UNSPEC)
}

#[inline(always)]
fn leave(ctx: &TcContext, segment: &Segment) -> i32 {
    let tuple = segment.outgoing();
    if hold::was_held(segment.destination_port)
        && let Some(verdict) = parked::egress(ctx, segment, &tuple)
    {
        return verdict;
    }
    if responses::read(ctx, segment, &tuple) { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// `bpf_sk_assign` and the socket lookups are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
