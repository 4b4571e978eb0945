//! One direction of a stream: content and trailers from one connection to another, no faster than the reader takes them.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use std::{
    cell::Cell,
    future::poll_fn,
    task::{Context, Poll},
};

/// Why a direction has not come to its end.
#[derive(Debug)]
pub(super) enum PumpError {
    /// The writer's side broke off.
    From(h2::Error),
    /// The reader's side takes no more.
    To(Result<Reason, h2::Error>),
}

/// Passes on what comes, and its end. The writer may send as much more as the reader's side has taken: what waits
/// here is bounded by the windows of one stream. `passed`: bytes of content.
pub(super) async fn pump(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    passed: &Cell<u64>,
) -> Result<(), PumpError> {
    loop {
        let chunk = poll_fn(|cx| match to.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(PumpError::To(reset))),
            Poll::Pending => from.poll_data(cx).map(Ok),
        });
        match chunk.await? {
            Some(Ok(chunk)) => {
                let ended = send(from, to, chunk, passed).await?;
                if ended {
                    return Ok(());
                }
            }
            Some(Err(error)) => return Err(PumpError::From(error)),
            None => {
                let sent = match from.trailers().await.map_err(PumpError::From)? {
                    Some(trailers) => to.send_trailers(trailers),
                    None => to.send_data(Bytes::new(), true),
                };
                return sent.map_err(|error| PumpError::To(Err(error)));
            }
        }
    }
}

/// Sends a chunk as windows open. True: it was the last, and said so as in the original.
async fn send(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    mut chunk: Bytes,
    passed: &Cell<u64>,
) -> Result<bool, PumpError> {
    loop {
        to.reserve_capacity(chunk.len());
        let admitted = if chunk.is_empty() { 0 } else { poll_fn(|cx| poll_capacity(to, cx)).await? };
        let piece = chunk.split_to(admitted.min(chunk.len()));
        let len = piece.len();
        let ended = chunk.is_empty() && from.is_end_stream();
        to.send_data(piece, ended).map_err(|error| PumpError::To(Err(error)))?;
        passed.set(passed.get() + len as u64);
        // Fails only when the stream is closed, and then nobody needs the window.
        let _ = from.flow_control().release_capacity(len);
        if chunk.is_empty() {
            return Ok(ended);
        }
    }
}

/// Waits until some of what was reserved may be sent.
fn poll_capacity(to: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<usize, PumpError>> {
    // `poll_capacity` reports only increases; what an earlier piece left over is not one.
    match to.capacity() {
        0 => {}
        capacity => return Poll::Ready(Ok(capacity)),
    }
    match to.poll_capacity(cx) {
        Poll::Ready(Some(Ok(capacity))) => Poll::Ready(Ok(capacity)),
        // The stream is closed; `poll_reset` knows why.
        Poll::Ready(Some(Err(_)) | None) => to.poll_reset(cx).map(|reset| Err(PumpError::To(reset))),
        Poll::Pending => match to.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(PumpError::To(reset))),
            Poll::Pending => Poll::Pending,
        },
    }
}
