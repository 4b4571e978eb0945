//! How many bytes went to a server and came from it.

use crate::api::Bytes;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of all connections on one route. Counted once for each read and each write.
#[derive(Debug, Default)]
pub struct ByteCounts {
    sent: AtomicU64,
    received: AtomicU64,
}

impl ByteCounts {
    /// Bytes of requests.
    pub fn sent(&self, amount: usize) {
        self.sent.fetch_add(amount as u64, Relaxed);
    }

    /// Bytes of responses.
    pub fn received(&self, amount: usize) {
        self.received.fetch_add(amount as u64, Relaxed);
    }

    pub fn read(&self) -> Bytes {
        Bytes { request: self.sent.load(Relaxed), response: self.received.load(Relaxed) }
    }
}
