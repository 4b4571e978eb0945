//! One request and its answer, between the client's stream and a server's.

use super::pump::{PumpError, pump};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::Response;
use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

/// What has passed of an exchange.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Of the final answer, once its head has gone to the client.
    pub status: Cell<Option<u16>>,
    /// Bytes of content.
    pub request_bytes: Cell<u64>,
    /// Bytes of content.
    pub response_bytes: Cell<u64>,
    /// From when the head of the final answer came to when it was handed on.
    pub answer_added: Cell<Duration>,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum ExchangeEnd {
    /// The whole answer has been passed on.
    Answered,
    /// The client cancelled, with this code.
    ClientReset(Reason),
    /// The client's connection ended.
    ClientGone,
    /// The server ended the stream, with this code.
    ServerReset(Reason),
    /// The server says by GOAWAY that it has not looked at the request.
    NotProcessed,
    /// The server's connection ended.
    ServerBroke,
}

/// Passes request and answer on, until both have ended or one side breaks off. `ended`: the request has no content.
pub(super) async fn exchange(
    body: &mut RecvStream,
    respond: &mut SendResponse<Bytes>,
    response: ResponseFuture,
    to_server: &mut SendStream<Bytes>,
    ended: bool,
    progress: &Progress,
) -> ExchangeEnd {
    let (mut sent, mut answered) = (ended, false);
    let mut request = pin!(pump(body, to_server, &progress.request_bytes));
    let mut answer = pin!(answer(response, respond, progress));
    loop {
        tokio::select! {
            biased;
            end = &mut answer, if !answered => match end {
                Ok(()) => answered = true,
                Err(end) => return end,
            },
            end = &mut request, if !sent => match end {
                Ok(()) => sent = true,
                Err(PumpError::From(error)) => return client_end(&error),
                // It takes no more but may still answer, or has answered; the answer tells how it ended.
                Err(PumpError::To(_)) => sent = true,
            },
            // A request that was answered before its end goes on, as long as the server takes it.
            else => return ExchangeEnd::Answered,
        }
    }
}

/// Passes interim answers and the final one on.
async fn answer(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    progress: &Progress,
) -> Result<(), ExchangeEnd> {
    let response = loop {
        match next_head(&mut response, respond).await? {
            // Fails only when the client's stream is gone, which the next look at it tells.
            Head::Interim(interim) => drop(respond.send_informational(interim)),
            Head::Final(response) => break response,
        }
    };
    let came = Instant::now();
    let (parts, mut content) = response.into_parts();
    let status = parts.status.as_u16();
    let ended = content.is_end_stream();
    let mut to_client =
        respond.send_response(Response::from_parts(parts, ()), ended).map_err(|_| ExchangeEnd::ClientGone)?;
    progress.answer_added.set(came.elapsed());
    progress.status.set(Some(status));
    if ended {
        return Ok(());
    }
    pump(&mut content, &mut to_client, &progress.response_bytes).await.map_err(|error| match error {
        PumpError::From(error) => server_end(&error),
        PumpError::To(Ok(reason)) => ExchangeEnd::ClientReset(reason),
        PumpError::To(Err(error)) => client_end(&error),
    })
}

enum Head {
    Interim(Response<()>),
    Final(Response<RecvStream>),
}

async fn next_head(
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Result<Head, ExchangeEnd> {
    poll_fn(|cx| {
        match respond.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => return Poll::Ready(Err(ExchangeEnd::ClientReset(reason))),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(client_end(&error))),
            Poll::Pending => {}
        }
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => Poll::Ready(Ok(Head::Interim(interim))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(server_end(&error))),
            Poll::Ready(None) => Pin::new(&mut *response)
                .poll(cx)
                .map(|response| response.map(Head::Final).map_err(|error| server_end(&error))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn client_end(error: &h2::Error) -> ExchangeEnd {
    match error.reason() {
        Some(reason) if error.is_reset() => ExchangeEnd::ClientReset(reason),
        _ => ExchangeEnd::ClientGone,
    }
}

fn server_end(error: &h2::Error) -> ExchangeEnd {
    match error.reason() {
        Some(reason) if error.is_reset() => ExchangeEnd::ServerReset(reason),
        // Only streams above the last one that it will process learn of a GOAWAY (RFC 9113 §6.8).
        Some(_) if error.is_go_away() && error.is_remote() => ExchangeEnd::NotProcessed,
        _ => ExchangeEnd::ServerBroke,
    }
}
