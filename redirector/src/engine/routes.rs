//! The intercepts of one port.

use super::{intercept::Intercept, tls::Verdicts};
use crate::http1::RequestView;
use std::sync::{Arc, PoisonError, RwLock};

/// Oldest first: where two overlap, the older wins.
#[derive(Default)]
pub struct Routes {
    intercepts: RwLock<Arc<[Arc<Intercept>]>>,
    /// Which TLS connections are not worth a trial.
    pub(super) verdicts: Verdicts,
}

impl Routes {
    /// The intercept that takes the request, or `None` for the app.
    pub fn decide(&self, request: &RequestView<'_>) -> Option<Arc<Intercept>> {
        let intercepts = self.snapshot();
        intercepts.iter().find(|intercept| intercept.matcher.matches(request)).cloned()
    }

    pub fn add(&self, intercept: Arc<Intercept>) {
        let mut intercepts = self.intercepts.write().unwrap_or_else(PoisonError::into_inner);
        *intercepts = intercepts.iter().cloned().chain([intercept]).collect();
        self.verdicts.forget();
    }

    pub fn remove(&self, name: &str) {
        let mut intercepts = self.intercepts.write().unwrap_or_else(PoisonError::into_inner);
        *intercepts = intercepts.iter().filter(|intercept| intercept.name != name).cloned().collect();
    }

    /// Is there a key, so that TLS can be looked into?
    pub fn has_keys(&self) -> bool {
        self.snapshot().iter().any(|intercept| !intercept.keys.is_empty())
    }

    pub(super) fn snapshot(&self) -> Arc<[Arc<Intercept>]> {
        Arc::clone(&self.intercepts.read().unwrap_or_else(PoisonError::into_inner))
    }
}
