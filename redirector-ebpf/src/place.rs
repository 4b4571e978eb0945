//! Where a segment is in the stream of its connection's requests: new, known, known in part, before its turn.

use redirector_common::Connection;

use crate::{
    connection::{has_said, is_idle, may_have_said},
    follow::{EARLY, FOLLOWED, Seen},
    packet::Segment,
    sight::{doubt, is_known, lose_sight},
    silence,
};

/// Sequence numbers of the app's socket.
#[derive(Clone, Copy)]
pub struct AppEnd {
    /// Of the next byte that it expects.
    pub rcv_nxt: u32,
    /// Of the next byte that it sends.
    pub snd_nxt: u32,
}

#[derive(Clone, Copy)]
pub struct Place {
    /// Bytes of it that are known already.
    pub seen: u32,
    /// It was passed on to the app, which may have it although it does not say so.
    pub passed_before: bool,
    /// It is to be read once more.
    pub again: bool,
}

impl AppEnd {
    /// The segment is what the app expects, with all acknowledged that it has said.
    #[inline(always)]
    pub fn expects(&self, segment: &Segment, connection: &Connection) -> bool {
        segment.seq == self.rcv_nxt && self.is_answered(segment, connection)
    }

    /// The socket says what it has sent at less cost, but later: when it is done with sending, and is not held up in it. A client
    /// may be faster.
    #[inline(always)]
    fn is_answered(&self, segment: &Segment, connection: &Connection) -> bool {
        let ahead = segment.ack.wrapping_sub(self.snd_nxt) as i32;
        ahead == 0 || (ahead > 0 && has_said(connection, segment.ack))
    }
}

impl Place {
    /// All of it is new.
    pub const NEW: Self = Self { seen: 0, passed_before: false, again: false };
}

/// Of a segment with `len` bytes, on a connection that is not `UNKNOWN`, as it may be then. `Err`: there is nothing to read.
#[inline(always)]
pub fn of(connection: &mut Connection, segment: &Segment, len: u32, app: AppEnd) -> Result<Place, Seen> {
    let mut place = Place::NEW;
    if (segment.ack.wrapping_sub(app.snd_nxt) as i32) > 0 && !may_have_said(connection, segment.ack) {
        // For something that the app has not said: it will not take it.
        return Err(FOLLOWED);
    }
    if connection.broken_epoch == connection.epoch {
        silence::is_broken(connection);
        if connection.raw != 0 {
            return Err(FOLLOWED);
        }
        lose_sight(connection);
    } else {
        let behind = connection.next.wrapping_sub(segment.seq) as i32;
        if behind > 0 {
            let body = connection.request.is_counted()
                && (segment.seq.wrapping_sub(connection.body_from) as i32) >= 0;
            let read_before = if (behind as u32) < len { behind as u32 } else { len };
            if (segment.seq.wrapping_sub(app.rcv_nxt) as i32) >= 0
                && !body
                && !is_known(connection, segment.seq, read_before)
            {
                // What we read the first time has not got to the app: it may have been damaged. In a body that
                // would not matter. Or the kernel has put it aside, because a process is using the socket.
                place.passed_before = true;
                place.again = connection.phase >= Connection::PROVEN
                    && segment.seq == app.rcv_nxt
                    && segment.seq == connection.began;
                if !place.again {
                    if connection.phase >= Connection::PROVEN
                        && behind as u32 >= len
                        && connection.request.is_at_start()
                    {
                        // What came behind it was read already.
                        doubt(connection);
                        return Err(FOLLOWED);
                    }
                    lose_sight(connection);
                }
            } else if behind as u32 >= len {
                // We have it.
                return Err(FOLLOWED);
            } else {
                place.seen = behind as u32;
            }
        } else if behind < 0 {
            if (app.rcv_nxt.wrapping_sub(segment.seq) as i32) < 0 {
                // Too early: some other segment was lost or overtaken, or it is none of this connection's.
                return Err(EARLY);
            }
            // The rest came too early, and was passed on.
            if connection.request.pass_over(behind.wrapping_neg() as u32) {
                connection.next = segment.seq;
            } else {
                lose_sight(connection);
            }
        }
    }
    Ok(place)
}

/// With the segment it may be certain, or out of the question, that requests are where they seem to be.
#[inline(always)]
pub fn prove(connection: &mut Connection, segment: &Segment, seen: u32, app: AppEnd) {
    let expected = app.expects(segment, connection);
    if connection.phase == Connection::DOUBTED {
        let at_start = seen == 0 && connection.request.is_at_start();
        if at_start && expected && is_idle(connection) && silence::is_proof(connection) {
            connection.phase = Connection::PROVEN;
        }
    } else if connection.phase != Connection::PROVEN && connection.phase != Connection::UNKNOWN {
        let at_start = connection.request.is_at_start();
        if at_start && !is_idle(connection) {
            // The request that the app has not answered may have been a part of a body, and this the next. Or the client
            // does not wait for answers, and there may be more that wait.
            lose_sight(connection);
        } else if at_start && seen == 0 && expected && connection.requests != connection.found_at {
            connection.phase =
                if silence::is_proof(connection) { Connection::PROVEN } else { Connection::LIKELY };
        }
    }
}
