//! The one library that does the cryptography of all TLS here.

use rustls::crypto::{CryptoProvider, ring::default_provider};
use std::sync::Arc;

/// Passed to each configuration: a process-wide default would be somebody else's choice.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}
