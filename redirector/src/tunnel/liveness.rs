//! Is the other end of the tunnel still there? Sans-IO: time comes in as arguments.
//!
//! A PING goes out when nothing was heard for `interval`; the peer is dead when, with a PING unanswered, nothing at
//! all is heard for `deadline`. Any byte counts as a sign of life: on a slow link the PONG may be queued for seconds
//! behind data.

use std::time::{Duration, Instant};

/// When to ask and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessConfig {
    pub interval: Duration,
    pub deadline: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), deadline: Duration::from_secs(4) }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a PING and ask again.
    Ping,
    /// Nothing before this instant, unless something arrives.
    Wait(Instant),
    /// The peer is gone.
    Dead,
}

/// The state of one connection.
#[derive(Clone, Debug)]
pub struct Liveness {
    config: LivenessConfig,
    last_heard: Instant,
    /// When the unanswered PING was sent.
    pinged: Option<Instant>,
}

impl Liveness {
    #[must_use]
    pub fn new(config: LivenessConfig, now: Instant) -> Self {
        Self { config, last_heard: now, pinged: None }
    }

    /// Bytes of whatever kind arrived.
    pub fn heard(&mut self, at: Instant) {
        self.last_heard = self.last_heard.max(at);
    }

    /// The PING was answered.
    pub fn ponged(&mut self, at: Instant) {
        self.heard(at);
        self.pinged = None;
    }

    /// What to do at `now`. [`Action::Ping`] is taken as done.
    pub fn poll(&mut self, now: Instant) -> Action {
        let Some(pinged) = self.pinged else {
            let due = self.last_heard + self.config.interval;
            if now < due {
                return Action::Wait(due);
            }
            self.pinged = Some(now);
            return Action::Ping;
        };
        // Counted from the PING, not from the last byte: a laptop waking from sleep asks before it judges.
        let dead = pinged.max(self.last_heard) + self.config.deadline;
        if now < dead { Action::Wait(dead) } else { Action::Dead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> (Liveness, Instant) {
        let now = Instant::now();
        (Liveness::new(LivenessConfig::default(), now), now)
    }

    #[test]
    fn a_silent_peer_is_asked_and_then_dead() {
        let (mut liveness, t) = start();
        assert_eq!(liveness.poll(t), Action::Wait(t + SECOND));
        assert_eq!(liveness.poll(t + SECOND), Action::Ping);
        assert_eq!(liveness.poll(t + SECOND), Action::Wait(t + 5 * SECOND));
        assert_eq!(liveness.poll(t + 5 * SECOND), Action::Dead);
    }

    #[test]
    fn a_peer_that_answers_is_asked_again_an_interval_later() {
        let (mut liveness, t) = start();
        assert_eq!(liveness.poll(t + SECOND), Action::Ping);
        liveness.ponged(t + 2 * SECOND);
        assert_eq!(liveness.poll(t + 2 * SECOND), Action::Wait(t + 3 * SECOND));
        assert_eq!(liveness.poll(t + 3 * SECOND), Action::Ping);
    }

    #[test]
    fn bytes_count_as_life_while_the_pong_is_stuck_behind_them() {
        let (mut liveness, t) = start();
        assert_eq!(liveness.poll(t + SECOND), Action::Ping);
        for second in 2..60 {
            liveness.heard(t + second * SECOND);
            assert_eq!(liveness.poll(t + second * SECOND), Action::Wait(t + (second + 4) * SECOND));
        }
        assert_eq!(liveness.poll(t + 63 * SECOND), Action::Dead);
    }

    #[test]
    fn after_a_long_sleep_the_peer_is_asked_before_it_is_judged() {
        let (mut liveness, t) = start();
        assert_eq!(liveness.poll(t + 3600 * SECOND), Action::Ping);
        assert_eq!(liveness.poll(t + 3600 * SECOND), Action::Wait(t + 3604 * SECOND));
    }
}
