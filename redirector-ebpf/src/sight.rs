//! What is known of the requests of a connection: how it is put in doubt, and lost, for a while or for good. (How it is gained: see `finding`.)

use aya_ebpf::helpers::bpf_ktime_get_ns;
use redirector_common::{Connection, Counter, Raw, scan::RequestScan};

use crate::{counters::count, unread};

/// What was read may not be what the app gets. It may have the same meaning, or another.
#[inline(never)]
pub fn doubt(connection: &mut Connection) {
    if connection.phase == Connection::PROVEN {
        connection.phase = Connection::DOUBTED;
        start_timing(connection);
    }
}

#[inline(never)]
pub fn lose_sight(connection: &mut Connection) {
    unread::begin(connection);
    if connection.phase == Connection::PROVEN {
        start_timing(connection);
    }
    connection.phase = Connection::UNKNOWN;
    connection.early_end = connection.next;
    count(Counter::LostSight);
}

/// What the app said until now was not noted.
#[inline(always)]
fn start_timing(connection: &mut Connection) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    (connection.asked_at, connection.spoke_at) = (now, now);
}

/// The request is none, or none that can be followed.
#[inline(always)]
pub fn give_up(connection: &mut Connection, request: RequestScan, urgent: bool) {
    if urgent {
        leave_alone(connection, Raw::Urgent);
    } else if connection.phase == Connection::PROBATION || connection.phase == Connection::DOUBTED {
        lose_sight(connection);
    } else {
        leave_alone(connection, if request.is_switched() { Raw::Switched } else { Raw::NotHttp });
    }
}

#[inline(always)]
pub fn leave_alone(connection: &mut Connection, reason: Raw) {
    connection.raw = reason as u32;
    count(Counter::RawConnection);
}

/// What was read or passed over from `from` to `to` is what the client sent.
#[inline(always)]
pub fn note_known(connection: &mut Connection, from: u32, to: u32) {
    let all = connection.known_to.wrapping_sub(connection.known_from);
    if from.wrapping_sub(connection.known_from) > all {
        connection.known_from = from;
    }
    connection.known_to = to;
}

/// All of it is what the client sent, as was seen when it was read or passed over.
#[inline(always)]
pub fn is_known(connection: &Connection, seq: u32, len: u32) -> bool {
    let all = connection.known_to.wrapping_sub(connection.known_from);
    let from = seq.wrapping_sub(connection.known_from);
    from < all && len <= all - from
}
