//! What is known of a connection that the app has. It lives with the app's socket, and goes with it.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use core::intrinsics::{AtomicOrdering, atomic_xchg};
use redirector_common::scan::{RequestScan, ResponseScan};

#[btf_map]
static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

/// Requests are written by the ingress program, under `lock`; responses by the egress program, which the kernel runs once at
/// a time for a socket. All zeros is a connection of which nothing is known.
#[repr(C)]
pub struct Connection {
    lock: u64,
    /// One of the phases below.
    pub phase: u32,
    /// Left alone for good.
    pub raw: u32,
    /// Where the next byte for `request` is.
    pub next: u32,
    pub request: RequestScan,
    /// Heads of requests so far.
    pub requests: u32,
    /// `requests` when the connection was first seen, or found again.
    pub found_at: u32,
    /// Of the latest 64 requests, by their number: were they HEAD requests?
    pub head_requests: u64,
    /// How many segments were held, and the sequence number of the last of them.
    pub holds: u32,
    pub held_seq: u32,
    /// Changes when the egress program is to start anew, at `response_from`.
    pub epoch: u32,
    pub response_from: u32,
    pub response_epoch: u32,
    /// Where the next byte for `response` is.
    pub response_next: u32,
    pub response: ResponseScan,
    /// Responses that were complete.
    pub responses: u32,
    /// The epoch in which a part of a response was missed.
    pub broken_epoch: u32,
    /// The end of what the app has sent, or is just sending.
    pub sent_end: u64,
}

/// Where the next request begins is not known.
pub const UNKNOWN: u32 = 0;
/// A request began where one may begin. Until it and its response have ended as they should, it may have been a body
/// that looked like one.
pub const PROBATION: u32 = 1;
/// Where the next request begins is certain.
pub const PROVEN: u32 = 2;

/// What is known of `socket`'s connection. Null: nothing, or no room.
///
/// # Safety
/// `socket` must be a full socket, and be referenced as long as the result is used.
#[inline(always)]
pub unsafe fn known(socket: *mut bpf_sock) -> *mut Connection {
    // SAFETY: guaranteed by the caller.
    unsafe { storage(socket, 0) }
}

/// As [`known`], and begins to know it.
///
/// # Safety
/// As [`known`].
#[inline(always)]
pub unsafe fn known_from_now(socket: *mut bpf_sock) -> *mut Connection {
    // SAFETY: guaranteed by the caller.
    unsafe { storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) }
}

#[inline(always)]
unsafe fn storage(socket: *mut bpf_sock, flags: u64) -> *mut Connection {
    let map = (&raw const CONNECTIONS).cast_mut().cast();
    // SAFETY: guaranteed by the caller; without an initial value it is zeros.
    unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), flags) }.cast()
}

impl Connection {
    /// Packets of a connection may come in on two processors at once. The one that finds it locked passes its packet on,
    /// which the other then finds missing.
    #[inline(always)]
    pub fn try_lock(&mut self) -> bool {
        let lock = &raw mut self.lock;
        // SAFETY: aligned, and valid as long as `self`.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(lock, 1) == 0 }
    }

    #[inline(always)]
    pub fn unlock(&mut self) {
        let lock = &raw mut self.lock;
        // SAFETY: as above.
        unsafe { lock.write_volatile(0) };
    }

    /// Says what the app is about to send. A full barrier: see `hold`.
    #[inline(always)]
    pub fn will_send(&mut self, end: u32) {
        let sent_end = &raw mut self.sent_end;
        // SAFETY: as above.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(sent_end, u64::from(end)) };
    }

    /// No request waits for its answer.
    #[inline(always)]
    pub fn is_idle(&self) -> bool {
        self.requests == self.responses
    }
}
