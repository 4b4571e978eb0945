//! Holds a segment back and tells the agent of it.
//!
//! The app may be about to send something (the end of an idle connection, say) while its client's request is held. The
//! egress program says what it sends (`Connection::sent_end`) before it looks into `HOLDS`, and here `HOLDS` is written before
//! what is sent is looked at: one of the two sees the other.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_tcp_sock,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_ringbuf_output, bpf_skb_load_bytes},
    },
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
    programs::TcContext,
};
use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_or},
    mem::offset_of,
};
use redirector_common::{
    Connection, Counter, HELD_PAYLOAD, HOLD_DEADLINE_NS, Held, HeldSegment, PORT_WORDS, Tuple, port_bit,
};

use crate::{
    connection::has_said_by_now,
    counters::count,
    follow::Payload,
    heartbeat::agent_alive,
    packet::{self, Segment, TCP_ACK, TCP_FIN, TCP_URG},
};

/// Connections with a segment that is held back. Whoever deletes the entry has the connection.
#[map]
static HOLDS: HashMap<Tuple, Held> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Records of [`HeldSegment`], cut off behind the payload.
#[map]
static HELD_SEGMENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

#[map]
static RECORD: PerCpuArray<HeldSegment> = PerCpuArray::with_max_entries(1, 0);

/// A bit for each client port, set if anything was ever held on a connection with it. All others are neither in `HOLDS` nor in `FLOWS`,
/// which saves their packets the look. (A variable is found without a look into a map; bits, because they stay in the processor's cache.)
static mut HELD_PORTS: [u64; PORT_WORDS as usize] = [0; PORT_WORDS as usize];

const BPF_F_NO_PREALLOC: u32 = 1;
/// Insert only what is not there.
const BPF_NOEXIST: u64 = 1;
/// Offset of the window in the TCP header, and its length without options.
const WINDOW: u32 = 14;
const FIXED: u32 = 20;

pub const HELD: u32 = 1;
const NOT_HELD: u32 = 0;

/// There is an agent that could take the segment, if it were held.
#[inline(always)]
pub fn is_possible(segment: &Segment) -> bool {
    if segment.flags & (TCP_FIN | TCP_URG) != 0 || segment.flags & TCP_ACK == 0 {
        count(Counter::HoldFailed);
        return false;
    }
    if !agent_alive() {
        count(Counter::AgentSilent);
        return false;
    }
    true
}

/// [`HELD`]: the agent knows of the segment, which must be dropped. Not inlined: what it needs of the stack shall not be missing
/// on the way of every packet.
#[inline(never)]
pub fn hold(ctx: &TcContext, segment: &Segment, connection: &mut Connection, tcp: *mut bpf_tcp_sock) -> u32 {
    let Some(record) = RECORD.get_ptr_mut(0) else { return NOT_HELD };
    // SAFETY: this processor's alone while the program runs.
    let record = unsafe { &mut *record };
    let tuple = &segment.incoming();
    let Some(len) = segment.payload_len(ctx) else { return NOT_HELD };
    let payload = Payload { at: segment.link + segment.payload_offset(), len };
    let record_len = fill(record, ctx, segment, tuple, payload);
    // SAFETY: the caller has a reference to the socket.
    // (All was said that the segment acknowledges. What is acknowledged meanwhile changes neither sum.)
    record.said = unsafe {
        let on_the_way = segment.ack.wrapping_sub((*tcp).snd_una);
        ((*tcp).bytes_acked as u32).wrapping_add(on_the_way)
    };
    // SAFETY: as above.
    record.received = unsafe { (*tcp).bytes_received as u32 };
    // SAFETY: no preconditions.
    let held = Held { at_ns: unsafe { bpf_ktime_get_ns() } };
    note_held(segment.source_port);
    if record_len == 0 || HOLDS.insert(tuple, &held, BPF_NOEXIST).is_err() {
        count(Counter::HoldFailed);
        return NOT_HELD;
    }
    // SAFETY: the caller has a reference to the socket.
    let snd_nxt = unsafe { (&raw const (*tcp).snd_nxt).read_volatile() };
    // (It may not be done with saying it: see `AppEnd`.)
    let app_is_silent =
        has_said_by_now(connection, segment.ack) && (snd_nxt.wrapping_sub(segment.ack) as i32) <= 0;
    if !app_is_silent || !send(record, record_len) {
        let _ = HOLDS.remove(tuple);
        count(Counter::HoldFailed);
        return NOT_HELD;
    }
    connection.held_seq = segment.seq;
    connection.holds += 1;
    count(Counter::Held);
    HELD
}

/// Something was held on a connection with this client's port, some time or other.
#[inline(always)]
pub fn was_held(client_port: [u8; 2]) -> bool {
    let (word, bit) = held_port(client_port);
    // SAFETY: aligned words are not torn.
    unsafe { (&raw const HELD_PORTS[word]).read_volatile() & bit != 0 }
}

#[inline(always)]
fn note_held(client_port: [u8; 2]) {
    let (word, bit) = held_port(client_port);
    // SAFETY: as above.
    unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut HELD_PORTS[word], bit) };
}

/// Of the number that the port is in network order: older verifiers (6.12's) forget the bounds of one whose bytes were swapped.
#[inline(always)]
fn held_port(client_port: [u8; 2]) -> (usize, u64) {
    let (word, bit) = port_bit(u16::from_ne_bytes(client_port));
    (word as usize, bit)
}

#[inline(always)]
pub fn is_held(tuple: &Tuple, client_port: [u8; 2]) -> bool {
    // SAFETY: only presence is asked for.
    was_held(client_port) && unsafe { HOLDS.get(tuple) }.is_some()
}

/// Its connection is held. Not inlined: the tuple would take room on the stack of what runs for every packet.
#[inline(never)]
pub fn stands(segment: &Segment) -> bool {
    is_held(&segment.incoming(), segment.source_port)
}

/// What became of the hold of a connection that a segment came in for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    None,
    Stands,
    /// It was over, and is ended.
    Ended,
}

#[inline(always)]
pub fn check(tuple: &Tuple) -> Hold {
    // SAFETY: the value is read once.
    let Some(held) = (unsafe { HOLDS.get(tuple) }) else { return Hold::None };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.saturating_sub(held.at_ns) < HOLD_DEADLINE_NS || HOLDS.remove(tuple).is_err() {
        return Hold::Stands;
    }
    count(Counter::HoldExpired);
    Hold::Ended
}

/// The length of the record that is filled; 0: it could not be.
#[inline(always)]
fn fill(
    record: &mut HeldSegment,
    ctx: &TcContext,
    segment: &Segment,
    tuple: &Tuple,
    payload: Payload,
) -> u32 {
    let Some([window]) = packet::load::<[[u8; 2]; 1]>(ctx, segment.tcp_offset + WINDOW) else { return 0 };
    record.tuple = *tuple;
    record.seq = segment.seq;
    record.ack = segment.ack;
    record.window = u16::from_be_bytes(window);
    record.flags = segment.flags;
    record.is_v6 = segment.is_v6 as u8;
    record.padding = [0; 3];
    // The compiler is not to know the bounds: it would leave out the checks that the verifier wants to see.
    let options = black_box(segment.tcp_header_len.wrapping_sub(FIXED));
    record.options_len = options as u8;
    if options != 0 {
        let to = (&raw mut record.options).cast();
        let at = payload.at - segment.payload_offset() + segment.tcp_offset + FIXED;
        if options > 40 || !load(ctx, at, to, options) {
            return 0;
        }
    }
    let len = black_box(if payload.len > HELD_PAYLOAD as u32 { HELD_PAYLOAD as u32 } else { payload.len });
    if len == 0 || len > HELD_PAYLOAD as u32 {
        return 0;
    }
    record.payload_len = len;
    if !load(ctx, payload.at, (&raw mut record.payload).cast(), len) {
        return 0;
    }
    offset_of!(HeldSegment, payload) as u32 + len
}

#[inline(always)]
fn load(ctx: &TcContext, at: u32, to: *mut core::ffi::c_void, len: u32) -> bool {
    // SAFETY: the callers have room for `len` bytes.
    unsafe { bpf_skb_load_bytes(ctx.as_ptr(), at, to, len) == 0 }
}

#[inline(always)]
fn send(record: &mut HeldSegment, len: u32) -> bool {
    let len = black_box(len);
    if len == 0 || len > core::mem::size_of::<HeldSegment>() as u32 {
        return false;
    }
    let ring = (&raw const HELD_SEGMENTS).cast_mut().cast();
    // SAFETY: the record has so many bytes, all of them written now or by an earlier packet.
    unsafe { bpf_ringbuf_output(ring, (&raw mut *record).cast(), u64::from(len), 0) == 0 }
}
