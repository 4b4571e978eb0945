//! Is the app done, on a connection of which not all was seen: it is older than the inspection, say.
//!
//! A client that always has two requests on the way looks like one that waits for each answer, only that each answer is
//! to the request before. The difference shows when the client has to wait: with a request of its own still on
//! the way the app says something, without one it is silent. So what may be a developer's request waits for a while, once for each such
//! connection, if there was no such silence before it.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use redirector_common::{Connection, Counter, Raw};

use crate::{counters::count, packet::Segment, sight::leave_alone};

/// The least silence that is one, and how many times the longest wait for the app it must be.
const SILENCE_NS: u64 = 150_000_000;
const TIMES: u64 = 2;

/// What client wait before they send the last segment again (RFC 6298 §2.4: a second; Linux: 200 ms, doubled each time), and how often
/// they are made to.
const MAX_PROBES: u32 = 2;
const LONGEST_NS: u64 = 550_000_000;

/// So often in a row a client may have sent a request again before there was a silence: with something that had come behind it, and
/// that said what it is.
const MAX_VAIN: u32 = 4;

/// So many clients' requests were found on the way; more is enough.
const MAX_FAILED: u32 = 2;

/// The app has been silent for so long that it has nothing more to say.
#[inline(always)]
pub fn is_proof(connection: &mut Connection) -> bool {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let is_proof = now.saturating_sub(connection.spoke_at) >= needed(connection);
    if is_proof {
        (connection.probes, connection.vain_probes) = (0, 0);
    }
    is_proof
}

/// The segment is to be dropped, to see whether the app is silent until the client sends it again.
#[inline(always)]
pub fn is_worth_a_probe(connection: &mut Connection, segment: &Segment) -> bool {
    if connection.probes != 0 && connection.probed_seq != segment.seq {
        connection.probes = 0;
        connection.vain_probes += 1;
    }
    if connection.probes >= MAX_PROBES
        || connection.vain_probes >= MAX_VAIN
        || needed(connection) > LONGEST_NS
    {
        return false;
    }
    connection.probed_seq = segment.seq;
    connection.probes += 1;
    count(Counter::SilenceAwaited);
    true
}

/// The app has said more than it was asked. Was that while it was listened to?
#[inline(always)]
pub fn is_broken(connection: &mut Connection) {
    if connection.probes == 0 {
        return;
    }
    connection.probes = 0;
    count(Counter::AppNotSilent);
    connection.failed_probes += 1;
    if connection.failed_probes >= MAX_FAILED {
        leave_alone(connection, Raw::Pipelined);
    }
}

#[inline(always)]
fn needed(connection: &Connection) -> u64 {
    let by_experience = connection.longest_answer * TIMES;
    if by_experience > SILENCE_NS { by_experience } else { SILENCE_NS }
}
