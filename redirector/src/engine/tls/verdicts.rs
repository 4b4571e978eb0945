//! Whom not to try again for a while: each trial is a handshake that the app makes for nothing.

use crate::api::Uncovered;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a verdict holds.
const LASTS: Duration = Duration::from_secs(5);

/// More names than this are forgotten: they are the clients' to choose.
const MAX_NAMES: usize = 256;

/// Why the connections that ask for a server name are passed on, by name.
#[derive(Debug, Default)]
pub struct Verdicts(Mutex<HashMap<Option<String>, (Uncovered, Instant)>>);

impl Verdicts {
    pub(super) fn of(&self, name: Option<&str>) -> Option<Uncovered> {
        let verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (reason, since) = verdicts.get(&name.map(str::to_owned))?;
        (since.elapsed() < LASTS).then_some(*reason)
    }

    pub(super) fn note(&self, name: Option<&str>, reason: Uncovered) {
        let mut verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() >= MAX_NAMES {
            verdicts.clear();
        }
        verdicts.insert(name.map(str::to_owned), (reason, Instant::now()));
    }

    /// The keys are others now.
    pub(in crate::engine) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
