//! The intercepts of one port.

use super::intercept::Intercept;
use crate::http1::RequestView;
use std::sync::{Arc, PoisonError, RwLock};

/// Oldest first: where two overlap, the older wins.
#[derive(Default)]
pub struct Routes(RwLock<Arc<[Arc<Intercept>]>>);

impl Routes {
    /// The intercept that takes the request, or `None` for the app.
    pub fn decide(&self, request: &RequestView<'_>) -> Option<Arc<Intercept>> {
        let intercepts = self.snapshot();
        intercepts.iter().find(|intercept| intercept.matcher.matches(request)).cloned()
    }

    pub fn add(&self, intercept: Arc<Intercept>) {
        let mut intercepts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *intercepts = intercepts.iter().cloned().chain([intercept]).collect();
    }

    pub fn remove(&self, name: &str) {
        let mut intercepts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *intercepts = intercepts.iter().filter(|intercept| intercept.name != name).cloned().collect();
    }

    fn snapshot(&self) -> Arc<[Arc<Intercept>]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
