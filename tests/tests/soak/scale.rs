//! How large the runs are, and what decides them.

use std::env;

/// The numbers of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// For each app: connections whose first request matches.
    pub fresh: usize,
    /// For each app: connections that are older than the intercept.
    pub long_lived: usize,
    /// For each app: how many intercepts these are shared out to, one after the other.
    pub intercepts: usize,
    /// How often the agent is killed or stopped.
    pub deaths: usize,
    /// From one step of a move at which the agent stops to the next.
    pub steps_between: usize,
    /// Requests on the bad wire.
    pub requests: usize,
}

const SMALL: Scale =
    Scale { fresh: 500, long_lived: 100, intercepts: 2, deaths: 10, steps_between: 12, requests: 5_000 };
const FULL: Scale = Scale {
    fresh: 10_000,
    long_lived: 1_000,
    intercepts: 10,
    deaths: 200,
    steps_between: 1,
    requests: 100_000,
};

impl Scale {
    /// `$REDIRECTOR_SOAK` is `full` in `cargo xtask soak`.
    pub fn chosen() -> Self {
        match env::var("REDIRECTOR_SOAK").as_deref() {
            Ok("full") => FULL,
            _ => SMALL,
        }
    }
}

/// The argument of `--datapath`: `$REDIRECTOR_SOAK_DATAPATH`, or `inspect`.
pub fn datapath() -> String {
    env::var("REDIRECTOR_SOAK_DATAPATH").unwrap_or_else(|_| "inspect".to_owned())
}

/// Decides all that is left to chance: `$REDIRECTOR_SOAK_SEED`, or another one each time. Says which one it is.
pub fn seed() -> u64 {
    let given = env::var("REDIRECTOR_SOAK_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("REDIRECTOR_SOAK_SEED={seed}");
    seed
}
