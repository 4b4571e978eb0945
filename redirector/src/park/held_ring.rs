//! The ring buffer that the eBPF program puts held segments into, for a task to wait for.

use aya::maps::{MapData, RingBuf};
use std::io;
use tokio::io::unix::AsyncFd;

/// The receiving end; there is one of each ring.
pub struct HeldRing(AsyncFd<RingBuf<MapData>>);

impl HeldRing {
    /// # Errors
    /// When the runtime can't wait for it.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring buffer owns its descriptor, which stays the same and open until it is dropped.
        let ring = unsafe { AsyncFd::register(ring) }?;
        Ok(Self(ring))
    }

    /// Waits, and gives all records that are there to `each`. Cancel-safe.
    ///
    /// # Errors
    /// When there is no runtime any more.
    pub async fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut ready = self.0.readable_mut().await?;
        while let Some(record) = ready.get_inner_mut().next() {
            each(&record);
        }
        ready.clear_ready();
        Ok(())
    }
}
