//! Where [`Connection`]s are: with the app's sockets, gone when they are.

use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
        bpf_sock,
    },
    helpers::generated::{bpf_loop, bpf_sk_storage_get},
    macros::btf_map,
};
use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xchg},
    sync::atomic::{Ordering, compiler_fence},
};
use redirector_common::Connection;

/// See [`Connection`]. What a listening socket has, connections inherit that are accepted from it.
#[btf_map]
static CONNECTIONS: InheritedSkStorage = InheritedSkStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// aya's own definition lacks the flag.
#[repr(C)]
struct InheritedSkStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Connection,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers are never followed.
unsafe impl Sync for InheritedSkStorage {}

/// What is known of `socket`'s connection. Null: nothing, or no room.
///
/// # Safety
/// `socket` must be referenced as long as the result is used. (Of one that is not full nothing is known.)
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

/// Turns of waiting for another processor: longer than it has a packet, as a rule.
const MAX_TURNS: u32 = 4096;

/// Packets of a connection may come in on two processors at once: the one waits for the other. False: in vain; what is
/// passed on then is missing later.
#[inline(always)]
pub fn lock(connection: &mut Connection) -> bool {
    try_lock(connection) || wait_for_lock(connection) != 0
}

#[inline(always)]
fn try_lock(connection: &mut Connection) -> bool {
    let lock = &raw mut connection.lock;
    // SAFETY: aligned, and valid as long as the connection.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(lock, 1) == 0 }
}

#[inline(never)]
fn wait_for_lock(connection: &mut Connection) -> u32 {
    let mut wait = Wait { connection, locked: 0 };
    // SAFETY: the callback takes what is given.
    unsafe {
        bpf_loop(MAX_TURNS, (turn as *const ()).cast_mut().cast(), (&raw mut wait).cast(), 0);
    }
    wait.locked as u32
}

#[repr(C)]
struct Wait {
    connection: *mut Connection,
    locked: u64,
}

/// 0: go on.
#[inline(never)]
unsafe extern "C" fn turn(_: u32, wait: *mut c_void) -> i64 {
    let wait = wait.cast::<Wait>();
    // SAFETY: the context is a `Wait`.
    unsafe {
        let connection = &mut *(*wait).connection;
        if (&raw const connection.lock).read_volatile() != 0 || !try_lock(connection) {
            return 0;
        }
        (*wait).locked = 1;
    }
    1
}

#[inline(always)]
pub fn unlock(connection: &mut Connection) {
    order(connection);
    let lock = &raw mut connection.lock;
    // SAFETY: as above.
    unsafe { lock.write_volatile(0) };
}

/// The loader says 1 where processors may change the order in which others see what one writes (ARM64). The verifier knows it, and leaves
/// out what is not needed.
#[unsafe(no_mangle)]
static WEAKLY_ORDERED: u8 = 0;

/// What was written before it is seen before what is written after it. Only for who has the lock.
#[inline(always)]
pub fn order(connection: &mut Connection) {
    compiler_fence(Ordering::Release);
    // SAFETY: aligned, and never written.
    if unsafe { (&raw const WEAKLY_ORDERED).read_volatile() } != 0 {
        // BPF has no barriers (before Linux 6.15); an exchange is one. Nobody else writes a lock that is taken but with the same value.
        let lock = &raw mut connection.lock;
        // SAFETY: as above.
        unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(lock, 1) };
    }
}

/// In `sent_end`: it has a value.
const SAID: u64 = 1 << 32;

/// From now on `sent_end` is what the app has said, which so far ends at `end`.
#[inline(always)]
pub fn start_listening(connection: &mut Connection, end: u32) {
    let sent_end = &raw mut connection.sent_end;
    // SAFETY: aligned, and valid as long as the connection. The egress program may have been faster.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            sent_end,
            0,
            SAID | u64::from(end),
        )
    };
}

/// Says what the app is about to send; false: it has sent all of it before. A full barrier: see `hold`.
#[inline(always)]
pub fn will_send(connection: &mut Connection, end: u32) -> bool {
    let sent_end = &raw mut connection.sent_end;
    // SAFETY: as above.
    let said = unsafe { sent_end.read_volatile() };
    let again = said != 0 && (end.wrapping_sub(said as u32) as i32) <= 0;
    let new = if again { said } else { SAID | u64::from(end) };
    // SAFETY: as above.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(sent_end, new) };
    !again
}

/// The app has said what comes before `end`, or nothing was heard of it so far.
#[inline(always)]
pub fn may_have_said(connection: &Connection, end: u32) -> bool {
    let said = connection.sent_end;
    said == 0 || (end.wrapping_sub(said as u32) as i32) <= 0
}

/// The app has said nothing beyond `end`, and is not about to.
#[inline(always)]
pub fn has_said(connection: &Connection, end: u32) -> bool {
    let sent_end = &raw const connection.sent_end;
    // SAFETY: as above.
    unsafe { sent_end.read_volatile() == SAID | u64::from(end) }
}

/// The same, looked at after what was written before it. A full barrier: see `hold`.
#[inline(always)]
pub fn has_said_by_now(connection: &mut Connection, end: u32) -> bool {
    let sent_end = &raw mut connection.sent_end;
    let expected = SAID | u64::from(end);
    // SAFETY: as above; nothing is exchanged for another value.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            sent_end, expected, expected,
        )
        .1
    }
}

/// No request waits for its answer.
#[inline(always)]
pub fn is_idle(connection: &Connection) -> bool {
    connection.requests == connection.responses
}
