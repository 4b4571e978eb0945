//! All that makes a socket the other end of an existing connection, as pure data: what the client's held segment
//! says, put together with what the kernel knows of the app's socket.

use super::held::HeldSegment;
use crate::sock_diag::{SocketFacts, State};
use thiserror::Error;

/// The parameters of a connection at the moment at which it changes hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionState {
    /// The next byte to receive: the first of the held payload.
    pub receive_next: u32,
    /// The next byte to send; all before it has been acknowledged.
    pub send_next: u32,
    /// What the client lets us send, in bytes.
    pub send_window: u32,
    /// What the client may send, in bytes: never less than what it was told.
    pub receive_window: u32,
    /// The largest segment that the client takes, options included.
    pub mss: u16,
    /// Shift counts of what the client announces and of what we announce; zero where there is no scaling.
    pub send_scale: u8,
    pub receive_scale: u8,
    pub sack: bool,
    /// What our timestamps go on with, as `TCP_TIMESTAMP` takes it; `None`: the connection has none.
    pub clock: Option<u32>,
    pub congestion_control: String,
}

/// Why a connection stays with the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    #[error("the app's socket is not established any more")]
    NotEstablished,
    #[error("the app has sent something meanwhile")]
    AppHasSpoken,
    #[error("the app has received more meanwhile, perhaps the same segment")]
    AppHasReceived,
    #[error("the app's socket is bound to a device")]
    BoundToDevice,
    #[error("the kernel does not describe the connection well enough (Linux 6.2 needed)")]
    NotDescribed,
    #[error("congestion is notified explicitly (ECN), which can't be carried over")]
    Ecn,
    #[error("the segment and the app's socket disagree about timestamps")]
    Timestamps,
}

/// `TCPOLEN_TSTAMP_ALIGNED`: what timestamps take of each segment.
const TIMESTAMPS_LEN: u32 = 12;

/// The largest window that scaling can express (RFC 7323 §2.3).
const MAX_WINDOW: u32 = 1 << 30;

impl ConnectionState {
    /// # Errors
    /// Anything that the new socket could not be, and anything that says that the app is not idle.
    pub fn of(held: &HeldSegment, app: &SocketFacts) -> Result<Self, Unfit> {
        if app.state != State::Established {
            return Err(Unfit::NotEstablished);
        }
        if app.device != 0 {
            return Err(Unfit::BoundToDevice);
        }
        let facts = app.connection.as_ref().ok_or(Unfit::NotDescribed)?;
        // Not what is unacknowledged: an earlier acknowledgement may have been on its way when the segment was held.
        let said = (facts.acknowledged as u32).wrapping_add(app.unacknowledged);
        // What it writes while its segments are held back is not sent; and this is read last.
        if said != held.said || facts.unsent != 0 {
            return Err(Unfit::AppHasSpoken);
        }
        // A process may have been in its way when the program looked: the kernel keeps segments aside then.
        if facts.received as u32 != held.received {
            return Err(Unfit::AppHasReceived);
        }
        if facts.ecn {
            return Err(Unfit::Ecn);
        }
        let clock = match (facts.timestamps, held.timestamps) {
            (true, Some(timestamps)) => Some(clock(timestamps.echo, facts.round_trip, facts.microseconds)),
            (false, None) => None,
            _ => return Err(Unfit::Timestamps),
        };
        let options = if facts.timestamps { TIMESTAMPS_LEN } else { 0 };
        Ok(Self {
            receive_next: held.seq,
            send_next: held.ack,
            send_window: u32::from(held.window) << facts.send_scale.min(14),
            receive_window: facts.receive_window.min(MAX_WINDOW),
            mss: u16::try_from(facts.send_mss.saturating_add(options)).unwrap_or(u16::MAX),
            send_scale: facts.send_scale,
            receive_scale: facts.receive_scale,
            sack: facts.sack,
            clock,
            congestion_control: facts.congestion_control.clone(),
        })
    }
}

/// Our clock must not go back for the client (RFC 7323 §5). It has seen `echo`, and perhaps an acknowledgement that
/// was on its way when it sent that: one round trip later at most. In the value that `TCP_TIMESTAMP` takes the lowest
/// bit says that the clock counts microseconds (Linux 6.7).
fn clock(echo: u32, round_trip: u32, microseconds: bool) -> u32 {
    if microseconds {
        echo.wrapping_add(round_trip).wrapping_add(2) | 1
    } else {
        (echo.wrapping_add(round_trip / 1000).wrapping_add(3)) & !1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redirector_common::Tuple;

    use super::{super::options::Timestamps, *};
    use crate::sock_diag::facts::ConnectionFacts;

    fn held() -> HeldSegment {
        HeldSegment {
            tuple: Tuple { client: [0; 16], app: [0; 16], client_port: 1, app_port: 2 },
            seq: 1000,
            ack: 5000,
            said: 2300,
            received: 700,
            window: 502,
            timestamps: Some(Timestamps { value: 77, echo: 90_000 }),
            payload: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        }
    }

    fn facts() -> SocketFacts {
        SocketFacts {
            state: State::Established,
            unacknowledged: 300,
            device: 0,
            connection: Some(ConnectionFacts {
                acknowledged: (1 << 32) + 2000,
                unsent: 0,
                received: (1 << 32) + 700,
                timestamps: true,
                microseconds: false,
                sack: true,
                ecn: false,
                send_scale: 7,
                receive_scale: 10,
                send_mss: 1448,
                receive_window: 65_160,
                round_trip: 1500,
                congestion_control: "cubic".to_owned(),
            }),
        }
    }

    fn without(
        change: impl FnOnce(&mut SocketFacts, &mut ConnectionFacts),
    ) -> Result<ConnectionState, Unfit> {
        let mut app = facts();
        let mut connection = app.connection.take().unwrap();
        change(&mut app, &mut connection);
        app.connection = Some(connection);
        ConnectionState::of(&held(), &app)
    }

    #[test]
    fn what_both_sides_agreed_on_is_carried_over() {
        let expected = ConnectionState {
            receive_next: 1000,
            send_next: 5000,
            send_window: 502 << 7,
            receive_window: 65_160,
            mss: 1460,
            send_scale: 7,
            receive_scale: 10,
            sack: true,
            clock: Some(90_004),
            congestion_control: "cubic".to_owned(),
        };
        assert_eq!(ConnectionState::of(&held(), &facts()), Ok(expected));
    }

    #[test]
    fn a_connection_without_options_is_carried_over_without() {
        let segment = HeldSegment { timestamps: None, ..held() };
        let mut app = facts();
        let connection = app.connection.as_mut().unwrap();
        (connection.timestamps, connection.sack) = (false, false);
        (connection.send_scale, connection.receive_scale, connection.send_mss) = (0, 0, 1460);
        let state = ConnectionState::of(&segment, &app).unwrap();
        assert_eq!((state.clock, state.sack, state.mss, state.send_window), (None, false, 1460, 502));
    }

    #[test]
    fn whatever_is_in_doubt_stays_with_the_app() {
        assert_eq!(without(|app, _| app.state = State::CloseWait), Err(Unfit::NotEstablished));
        assert_eq!(without(|app, _| app.unacknowledged = 301), Err(Unfit::AppHasSpoken));
        assert_eq!(without(|_, connection| connection.unsent = 1), Err(Unfit::AppHasSpoken));
        assert_eq!(without(|_, connection| connection.received += 1), Err(Unfit::AppHasReceived));
        assert_eq!(without(|app, _| app.device = 3), Err(Unfit::BoundToDevice));
        assert_eq!(without(|_, connection| connection.ecn = true), Err(Unfit::Ecn));
        assert_eq!(without(|_, connection| connection.timestamps = false), Err(Unfit::Timestamps));
        let no_timestamps = HeldSegment { timestamps: None, ..held() };
        assert_eq!(ConnectionState::of(&no_timestamps, &facts()), Err(Unfit::Timestamps));
        let old_kernel = SocketFacts { connection: None, ..facts() };
        assert_eq!(ConnectionState::of(&held(), &old_kernel), Err(Unfit::NotDescribed));
    }

    proptest! {
        /// The client drops what is older than what it has seen (PAWS), and the kernel reads the lowest bit as the unit.
        #[test]
        fn the_clock_never_goes_back(echo: u32, round_trip in 0_u32..10_000_000, microseconds: bool) {
            let clock = clock(echo, round_trip, microseconds);
            let unit = if microseconds { 1 } else { 1000 };
            let ahead = clock.wrapping_sub(echo);
            prop_assert!(ahead > round_trip / unit && ahead <= round_trip / unit + 3, "{ahead}");
            prop_assert_eq!(clock & 1 == 1, microseconds);
        }

        #[test]
        fn numbers_are_taken_from_the_segment_as_they_are(seq: u32, ack: u32, window: u16, scale in 0_u8..15) {
            let segment = HeldSegment { seq, ack, window, ..held() };
            let mut app = facts();
            app.connection.as_mut().unwrap().send_scale = scale;
            let state = ConnectionState::of(&segment, &app).unwrap();
            prop_assert_eq!((state.receive_next, state.send_next), (seq, ack));
            prop_assert_eq!(state.send_window >> scale, u32::from(window));
        }
    }
}
