//! An intercept as the engine sees it.

use super::{stats::InterceptStats, tls::InterceptKeys};
use crate::{api::WhenAway, context::Matcher, tunnel::agent_end::Tunnel};
use std::sync::{PoisonError, RwLock};

/// A matcher, and the way to the developer who asked for it.
pub struct Intercept {
    pub name: String,
    pub matcher: Matcher,
    pub when_away: WhenAway,
    /// For TLS on the port, everybody's.
    pub keys: InterceptKeys,
    pub stats: InterceptStats,
    tunnel: RwLock<Option<Tunnel>>,
}

impl Intercept {
    pub fn new(name: String, matcher: Matcher, when_away: WhenAway, stats: InterceptStats) -> Self {
        let keys = InterceptKeys::default();
        Self { name, matcher, when_away, keys, stats, tunnel: RwLock::default() }
    }

    #[must_use]
    pub fn with_keys(self, keys: InterceptKeys) -> Self {
        Self { keys, ..self }
    }

    /// The tunnel, if it is there and alive.
    pub fn tunnel(&self) -> Option<Tunnel> {
        let tunnel = self.tunnel.read().unwrap_or_else(PoisonError::into_inner);
        tunnel.as_ref().filter(|tunnel| tunnel.is_alive()).cloned()
    }

    /// Requests go through `tunnel` from now on.
    pub fn connect(&self, tunnel: Option<Tunnel>) {
        let tunnel = tunnel.map(|tunnel| tunnel.counted_in(self.stats.bytes()));
        *self.tunnel.write().unwrap_or_else(PoisonError::into_inner) = tunnel;
    }
}
