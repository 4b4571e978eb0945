//! The keys that came with an intercept, and go with it.

use super::key::TlsKey;
use crate::engine::routes::Routes;
use rustls::pki_types::CertificateDer;
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, task::spawn_blocking};

/// Files are not read again sooner than this.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Reads the keys anew. It may block, and tells by itself why it failed.
type Read = Arc<dyn Fn() -> Option<Vec<TlsKey>> + Send + Sync>;

/// The keys of one intercept.
#[derive(Default)]
pub struct InterceptKeys {
    keys: RwLock<Vec<Arc<TlsKey>>>,
    again: Option<Again>,
}

struct Again {
    read: Read,
    last: Mutex<Instant>,
}

impl fmt::Debug for InterceptKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InterceptKeys").field(&self.list()).finish()
    }
}

impl InterceptKeys {
    pub fn new(keys: Vec<TlsKey>) -> Self {
        Self { keys: RwLock::new(keys.into_iter().map(Arc::new).collect()), again: None }
    }

    /// Keys from files that may change: `read` is asked again when the app shows a certificate that is not among them.
    #[must_use]
    pub fn read_again_by(self, read: impl Fn() -> Option<Vec<TlsKey>> + Send + Sync + 'static) -> Self {
        let again = Again { read: Arc::new(read), last: Mutex::new(Instant::now()) };
        Self { again: Some(again), ..self }
    }

    pub fn list(&self) -> Vec<Arc<TlsKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn for_certificate(&self, certificate: &CertificateDer<'_>) -> Option<Arc<TlsKey>> {
        self.list().into_iter().find(|key| key.fits(certificate))
    }

    /// The same, from files that have changed meanwhile.
    async fn read_again(&self, certificate: &CertificateDer<'_>) -> Option<Arc<TlsKey>> {
        let again = self.again.as_ref()?;
        // Who comes while they are being read waits for the outcome.
        let mut last = again.last.lock().await;
        if let Some(key) = self.for_certificate(certificate) {
            return Some(key);
        }
        if last.elapsed() < READ_AGAIN {
            return None;
        }
        *last = Instant::now();
        let read = Arc::clone(&again.read);
        let keys = spawn_blocking(move || read()).await.ok()??;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into_iter().map(Arc::new).collect();
        tracing::info!("the target's TLS keys were read again");
        self.for_certificate(certificate)
    }
}

/// The key of a certificate that the app has shown, whoever brought it.
pub(super) async fn find(routes: &Routes, certificate: &CertificateDer<'_>) -> Option<Arc<TlsKey>> {
    let intercepts = routes.snapshot();
    if let Some(key) = intercepts.iter().find_map(|intercept| intercept.keys.for_certificate(certificate)) {
        return Some(key);
    }
    for intercept in intercepts.iter() {
        if let Some(key) = intercept.keys.read_again(certificate).await {
            return Some(key);
        }
    }
    None
}
