//! One stream of a client: decides where it goes, and carries it on the live route.

use super::{
    developer,
    exchange::{ExchangeEnd, Progress, exchange},
    head,
    session::Shared,
};
use crate::{
    engine::decision::{Decided, Decision, decide},
    protocol::Protocol,
    trace::recording::Recording,
};
use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::Request;
use std::{future::poll_fn, rc::Rc, task::Poll, time::Instant};
use tokio::task::yield_now;

/// Fresh connections to the app for one request that has not been looked at.
const ATTEMPTS: usize = 3;

/// A request of the client, and where its answer goes.
pub(super) struct Stream {
    pub head: Request<()>,
    pub body: RecvStream,
    /// The request has no content.
    pub ended: bool,
    pub respond: SendResponse<Bytes>,
    /// When its head was there.
    pub came: Instant,
    pub recording: Option<Recording>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    Done,
    /// The app's connection broke, or there is none.
    AppBroke,
}

pub(super) async fn serve(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    shared: Rc<Shared>,
) -> Served {
    let came = Instant::now();
    let (parts, body) = request.into_parts();
    let head = Request::from_parts(parts, ());
    let ended = body.is_end_stream();
    let mut stream = Stream { head, body, ended, respond, came, recording: None };
    // A client that has cancelled already wants nothing.
    if stream.is_reset().await {
        return Served::Done;
    }
    shared.context.stats.requests.bump(Protocol::Http2);
    let decided =
        head::view(&stream.head, |view| decide(view, Protocol::Http2, shared.client_addr, &shared.context));
    let Decided { decision, recording } = decided;
    stream.recording = recording;
    match decision {
        Decision::Live => {}
        Decision::Developer { intercept, method, target } => {
            shared.developer_last.set(true);
            match developer::run(stream, intercept, method, target, &shared).await {
                Some(away) => {
                    stream = away;
                    stream.came = Instant::now();
                }
                None => return Served::Done,
            }
        }
    }
    shared.developer_last.set(false);
    shared.context.stats.live.bump(Protocol::Http2);
    shared.live.set(shared.live.get() + 1);
    let served = live(stream, &shared).await;
    shared.live.set(shared.live.get() - 1);
    served
}

async fn live(mut stream: Stream, shared: &Shared) -> Served {
    for _ in 0..ATTEMPTS {
        let mut sender = match shared.app.sender().await {
            Ok(sender) => sender,
            Err(error) => {
                tracing::debug!(client = %shared.client_addr, %error, "no connection to the app");
                return Served::AppBroke;
            }
        };
        let (response, mut to_app) = match sender.send_request(head::forwarded(&stream.head), stream.ended) {
            Ok(sent) => sent,
            // The app's connection has ended just now.
            Err(error) if error.is_io() || error.is_go_away() => continue,
            Err(error) => {
                tracing::debug!(client = %shared.client_addr, %error, "a request that can't be sent on");
                stream.respond.send_reset(Reason::INTERNAL_ERROR);
                return Served::Done;
            }
        };
        drop(sender);
        let request_added = stream.came.elapsed();
        let progress = Progress::default();
        let Stream { body, respond, ended, recording, .. } = &mut stream;
        let end = exchange(body, respond, response, &mut to_app, *ended, &progress).await;
        if let Some(status) = progress.status.get() {
            if let Some(recording) = recording {
                recording.answered(status);
            }
            let added = request_added + progress.answer_added.get();
            shared.context.stats.added_latency.observe(Protocol::Http2, added);
        }
        match end {
            ExchangeEnd::Answered | ExchangeEnd::ClientGone => {}
            ExchangeEnd::ClientReset(reason) => to_app.send_reset(reason),
            ExchangeEnd::ServerReset(reason) => reset_client(respond, reason).await,
            ExchangeEnd::NotProcessed if *ended => continue,
            ExchangeEnd::NotProcessed => break,
            ExchangeEnd::ServerBroke => return Served::AppBroke,
        }
        return Served::Done;
    }
    // The client may repeat it (RFC 9113 §8.7).
    stream.respond.send_reset(Reason::REFUSED_STREAM);
    Served::Done
}

/// Passes a reset on, behind what has been passed on before: h2 forgets what it has not written yet, so its
/// connection, which has been woken up, gets a turn to write.
pub(super) async fn reset_client(respond: &mut SendResponse<Bytes>, reason: Reason) {
    yield_now().await;
    respond.send_reset(reason);
}

impl Stream {
    async fn is_reset(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.respond.poll_reset(cx).is_ready())).await
    }
}
