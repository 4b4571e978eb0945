//! The intercepts of one port.

use super::{intercept::Intercept, tls::Verdicts};
use crate::{http1::RequestView, trace::contexts::Contexts};
use std::sync::{Arc, PoisonError, RwLock};

/// Oldest first: where two overlap, the older wins.
#[derive(Default)]
pub struct Routes {
    intercepts: RwLock<Arc<[Arc<Intercept>]>>,
    /// Those who only want to know of requests.
    observers: RwLock<Arc<[Arc<Intercept>]>>,
    /// What all of them look for.
    contexts: RwLock<Arc<Contexts>>,
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
        drop(intercepts);
        self.gather_contexts();
        self.verdicts.forget();
    }

    /// Requests of the port are remembered from now on, whoever gets them.
    pub fn observe(&self, observer: Arc<Intercept>) {
        let mut observers = self.observers.write().unwrap_or_else(PoisonError::into_inner);
        *observers = observers.iter().cloned().chain([observer]).collect();
        drop(observers);
        self.gather_contexts();
    }

    pub fn remove(&self, name: &str) {
        for list in [&self.intercepts, &self.observers] {
            let mut list = list.write().unwrap_or_else(PoisonError::into_inner);
            *list = list.iter().filter(|intercept| intercept.name != name).cloned().collect();
        }
        self.gather_contexts();
    }

    fn gather_contexts(&self) {
        // Whoever is the last to change something is also the last to gather.
        let mut contexts = self.contexts.write().unwrap_or_else(PoisonError::into_inner);
        let (intercepts, observers) = (self.snapshot(), self.observers());
        *contexts = Arc::new(Contexts::of(intercepts.iter().chain(observers.iter()).map(|one| &one.matcher)));
    }

    pub(super) fn contexts(&self) -> Arc<Contexts> {
        Arc::clone(&self.contexts.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_observed(&self) -> bool {
        !self.observers.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn observers(&self) -> Arc<[Arc<Intercept>]> {
        Arc::clone(&self.observers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Is there a key, so that TLS can be looked into?
    pub fn has_keys(&self) -> bool {
        self.snapshot().iter().any(|intercept| !intercept.keys.is_empty())
    }

    pub(super) fn snapshot(&self) -> Arc<[Arc<Intercept>]> {
        Arc::clone(&self.intercepts.read().unwrap_or_else(PoisonError::into_inner))
    }
}
