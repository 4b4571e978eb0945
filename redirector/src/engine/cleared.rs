//! What of a buffer of the live route may be passed on, and how long the heads in it have been here (see
//! [`AddedLatency`](super::added_latency::AddedLatency)).

use super::{socket::Socket, stats::PortStats};
use crate::{
    http1::{RequestContext, RequestHead},
    protocol::Protocol,
    trace::recording::Recording,
};
use bytes::BytesMut;
use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

/// A request that the app has not answered yet.
pub(super) struct Unanswered {
    pub context: RequestContext,
    pub recording: Option<Recording>,
    /// How long its head was here; zero until it has been written.
    pub added: Duration,
}

impl Unanswered {
    pub(super) fn new(head: &RequestHead, recording: Option<Recording>) -> Self {
        Self { context: RequestContext::from(head), recording, added: Duration::ZERO }
    }
}

/// Bytes at the front of the client's buffer that are to go to the app: written in one piece where possible.
pub(super) struct ClearedRequests {
    len: usize,
    /// How many heads are among them.
    heads: usize,
    read: Instant,
}

impl ClearedRequests {
    pub(super) fn new() -> Self {
        Self { len: 0, heads: 0, read: Instant::now() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn add_head(&mut self, len: usize) {
        self.len += len;
        self.heads += 1;
    }

    pub(super) fn add_body(&mut self, len: usize) {
        self.len += len;
    }

    /// The next head is complete from now on.
    pub(super) fn mark_read(&mut self) {
        self.read = Instant::now();
    }

    /// Leaves nothing cleared.
    pub(super) async fn write(
        &mut self,
        app: &Socket,
        buf: &mut BytesMut,
        unanswered: &RefCell<VecDeque<Unanswered>>,
    ) -> io::Result<()> {
        app.drain_to(buf, self.len).await?;
        self.len = 0;
        if self.heads > 0 {
            let added = self.read.elapsed();
            // What the app has answered already, before it was written whole, is no longer there.
            for request in unanswered.borrow_mut().iter_mut().rev().take(self.heads) {
                request.added = added;
            }
            self.heads = 0;
        }
        Ok(())
    }
}

/// Bytes at the front of the app's buffer that are to go to the client.
pub(super) struct ClearedResponses {
    len: usize,
    /// For each final head among them: how long the head of its request was here.
    heads: Vec<Duration>,
    read: Instant,
}

impl ClearedResponses {
    pub(super) fn new() -> Self {
        Self { len: 0, heads: Vec::new(), read: Instant::now() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// `request`: how long the head of the request was here.
    pub(super) fn add_head(&mut self, len: usize, request: Duration) {
        self.len += len;
        self.heads.push(request);
    }

    /// Of a body, or an interim answer.
    pub(super) fn add_body(&mut self, len: usize) {
        self.len += len;
    }

    /// The next head has come now.
    pub(super) fn mark_read(&mut self) {
        self.read = Instant::now();
    }

    /// Leaves nothing cleared.
    pub(super) async fn write(
        &mut self,
        client: &Socket,
        buf: &mut BytesMut,
        stats: &PortStats,
    ) -> io::Result<()> {
        client.drain_to(buf, self.len).await?;
        self.len = 0;
        if !self.heads.is_empty() {
            let added = self.read.elapsed();
            for request in self.heads.drain(..) {
                stats.added_latency.observe(Protocol::Http1, request + added);
            }
        }
        Ok(())
    }
}
