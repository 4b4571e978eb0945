//! Door C, in a simple form: heads that begin with a segment are searched for names.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_loop, bpf_skb_load_bytes},
    },
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
    programs::TcContext,
};
use core::ffi::c_void;
use redirector_common::{HELD_PAYLOAD, Held, HeldSegment, Needle, Tuple};

use crate::{
    ingress::{agent_alive, idle_at},
    packet::{self, Segment, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    parking::{ETHERNET, HOLDS},
};

#[map]
static INSPECTED_PORTS: HashMap<u16, u32> = HashMap::with_max_entries(256, 0);
#[map]
static NEEDLES: HashMap<Needle, u32> = HashMap::with_max_entries(4096, 1);
#[map]
static HELD_SEGMENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);
#[map]
static SCRATCH: PerCpuArray<[u8; HELD_PAYLOAD]> = PerCpuArray::with_max_entries(1, 0);
/// Heads that were held once.
#[map]
static HELD_ONCE: LruHashMap<Tuple, u32> = LruHashMap::with_max_entries(65_536, 0);

const TCP_URG: u8 = 0x20;

struct Scan {
    port: u16,
    in_name: bool,
    hit: bool,
    ended: bool,
    hash: u32,
    line: u32,
}

/// Holds the segment, if it is the head of a request that may be a developer's.
pub fn hold(ctx: &TcContext, segment: &Segment, tuple: &Tuple) -> bool {
    // SAFETY: only presence is asked for.
    if unsafe { INSPECTED_PORTS.get(&tuple.app_port) }.is_none() {
        return false;
    }
    if segment.flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_URG) != 0 || segment.flags & TCP_ACK == 0 {
        return false;
    }
    try_hold(ctx, segment, tuple).is_some()
}

#[inline(always)]
fn try_hold(ctx: &TcContext, segment: &Segment, tuple: &Tuple) -> Option<()> {
    let length = segment.payload_len(ctx)?;
    if length == 0 || !agent_alive() {
        return None;
    }
    let [seq, ack]: [[u8; 4]; 2] = packet::load(ctx, segment.tcp_offset + 4)?;
    let (seq, ack) = (u32::from_be_bytes(seq), u32::from_be_bytes(ack));
    // SAFETY: the value is read once.
    if unsafe { HELD_ONCE.get(tuple) } == Some(&seq) {
        return None;
    }
    let unacknowledged = idle_at(ctx, segment, seq, ack)?;
    let at = segment.tcp_offset + segment.tcp_header_len;
    let scratch = SCRATCH.get_ptr_mut(0)?;
    let length = load_payload(ctx, at, scratch.cast(), length)?;
    // SAFETY: the map value lives as long as the program.
    if !unsafe { (*scratch)[0] }.is_ascii_uppercase() {
        return None;
    }
    let mut scan = Scan { port: tuple.app_port, in_name: false, hit: false, ended: false, hash: 0, line: 0 };
    // SAFETY: the callback takes what is given.
    unsafe { bpf_loop(length, step as *const () as *mut c_void, (&raw mut scan).cast(), 0) };
    if scan.ended && !scan.hit {
        return None;
    }
    let [window]: [[u8; 2]; 1] = packet::load(ctx, segment.tcp_offset + 14)?;
    let mut entry = HELD_SEGMENTS.reserve::<HeldSegment>(0)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted.
    unsafe {
        (*record).tuple = *tuple;
        (*record).seq = seq;
        (*record).ack = ack;
        (*record).unacknowledged = unacknowledged;
        (*record).window = u16::from_be_bytes(window);
        (*record).flags = segment.flags;
        (*record).is_v6 = segment.is_v6 as u8;
        (*record).padding = [0; 3];
        // What is read too much is payload. (A length that varies is hard to prove to the verifier.)
        (*record).options_len = (segment.tcp_header_len - 20) as u8;
        let options = (&raw mut (*record).options).cast::<c_void>();
        let from = ETHERNET + segment.tcp_offset + 20;
        if bpf_skb_load_bytes(ctx.as_ptr(), from, options, 40) != 0
            && (bpf_skb_load_bytes(ctx.as_ptr(), from, options, 12) != 0 || segment.tcp_header_len > 32)
        {
            entry.discard(0);
            return None;
        }
        match load_payload(ctx, at, (&raw mut (*record).payload).cast(), length) {
            Some(length) => (*record).payload_len = length,
            None => {
                entry.discard(0);
                return None;
            }
        }
        let held = Held { at_ns: bpf_ktime_get_ns() };
        if HOLDS.insert(tuple, &held, 1).is_err() {
            entry.discard(0);
            return None;
        }
    }
    let _ = HELD_ONCE.insert(tuple, &seq, 0);
    entry.submit(0);
    Some(())
}

#[inline(always)]
fn load_payload(ctx: &TcContext, at: u32, to: *mut c_void, length: u32) -> Option<u32> {
    // The compiler is not to know the bounds: it would leave out the check that the verifier wants to see.
    let length =
        core::hint::black_box(if length > HELD_PAYLOAD as u32 { HELD_PAYLOAD as u32 } else { length });
    if length == 0 || length > HELD_PAYLOAD as u32 {
        return None;
    }
    // SAFETY: there is room for `HELD_PAYLOAD` bytes.
    let failed = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), ETHERNET + at, to.cast(), length) };
    (failed == 0).then_some(length)
}

unsafe extern "C" fn step(index: u32, scan: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` passes what it was given.
    let scan = unsafe { &mut *scan.cast::<Scan>() };
    let Some(scratch) = SCRATCH.get_ptr(0) else { return 1 };
    // SAFETY: within the array.
    let byte = unsafe { *scratch.cast::<u8>().add(index as usize & (HELD_PAYLOAD - 1)) };
    match byte {
        b'\n' => {
            if scan.line == 0 && index > 2 {
                scan.ended = true;
                return 1;
            }
            scan.line = 0;
            scan.in_name = true;
            scan.hash = 0x811c_9dc5;
            return 0;
        }
        b'\r' => return 0,
        b':' if scan.in_name => {
            scan.in_name = false;
            let header = Needle { port: scan.port, kind: Needle::HEADER, hash: scan.hash };
            let list = Needle { port: scan.port, kind: Needle::LIST, hash: scan.hash };
            // SAFETY: only presence is asked for.
            if unsafe { NEEDLES.get(&header).is_some() || NEEDLES.get(&list).is_some() } {
                scan.hit = true;
                return 1;
            }
        }
        _ => scan.hash = (scan.hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193),
    }
    scan.line += 1;
    0
}
