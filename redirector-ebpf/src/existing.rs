//! Connections that were there before the inspection of their port, and on which nothing was on the way.

use aya_ebpf::{bindings::bpf_tcp_sock as TcpSock, macros::map, maps::HashMap};
use redirector_common::{Existing, Tuple};

use crate::packet::Segment;

/// See [`Existing`].
#[map]
static EXISTING: HashMap<Tuple, Existing> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

const BPF_F_NO_PREALLOC: u32 = 1;

/// Nothing was on the way when the inspection began, and nothing has been said since.
#[inline(never)]
pub fn was_quiet(tcp: *mut TcpSock, segment: &Segment) -> bool {
    let tuple = &segment.incoming();
    // SAFETY: the value is copied at once.
    let Some(existing) = (unsafe { EXISTING.get(tuple) }).copied() else { return false };
    // It says something once.
    let _ = EXISTING.remove(tuple);
    // SAFETY: the caller has a reference to the socket.
    unsafe {
        (*tcp).bytes_received == existing.bytes_received
            && (*tcp).bytes_acked == existing.bytes_acked
            && (*tcp).snd_una == segment.ack
    }
}
