//! The developer's route: one stream, through the tunnel, to the developer's local server.
//!
//! As with HTTP/1.1 each request has a stream of the tunnel, and so a connection to the local server, of its own. The
//! local server is spoken to in HTTP/2 at once, without a round trip to find out whether it knows it.

use super::{
    exchange::{ExchangeEnd, Progress, exchange},
    head, limits,
    local::Local,
    refusal,
    session::Shared,
    stream::{Stream, reset_client},
    tap::{Tap, Tapped},
};
use crate::{
    api::WhenAway,
    engine::{intercept::Intercept, refusal::Refusal},
    protocol::Protocol,
    trace::observation::Taken,
    tunnel::{
        agent_end::{OpeningStream, Tunnel},
        error::Refusal as StreamRefusal,
        meta::StreamMeta,
        report::Report,
    },
};
use bytes::Bytes;
use h2::{Reason, RecvStream, client::SendRequest};
use std::{
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::{task::spawn_local, time::timeout};

/// How long a local server may take for its SETTINGS when they must be known: for extended CONNECT.
const SERVER_SILENCE: Duration = Duration::from_secs(5);

/// How long, and for how many bytes, a client has for the rest of a request before it is refused.
const NEAR_END: Duration = Duration::from_millis(500);
const NEAR_END_BYTES: usize = 1 << 20;

/// How long it has afterwards.
const REST_OF_REQUEST: Duration = Duration::from_secs(30);

/// How long the developer's end may take to let go of the local server. Nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a request ended that the local server could be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// With the local server's answer, which may be a reset.
    Answered,
    /// The client went away before an answer.
    Cancelled,
}

/// Carries the stream. `Some`: nothing has been answered, and the app is to answer.
pub(super) async fn run(
    mut stream: Stream,
    intercept: Arc<Intercept>,
    method: String,
    target: String,
    shared: &Shared,
) -> Option<Stream> {
    let meta = StreamMeta {
        intercept: intercept.name.clone(),
        client: shared.client_addr.0,
        original_destination: shared.original_dst.0,
        method,
        path: target,
        protocol: Protocol::Http2,
    };
    let opened = intercept.tunnel().and_then(|tunnel| Some((tunnel.open(&meta).ok()?, tunnel)));
    let Some((opening, tunnel)) = opened else { return away(stream, &intercept).await };

    let progress = Progress::default();
    let carried = carry(&mut stream, opening, &tunnel, &progress, shared).await;
    if let (Some(recording), Some(status)) = (&mut stream.recording, progress.status.get()) {
        recording.answered(status);
    }
    match carried {
        Ok(Carried::Answered) => {
            intercept.stats.answered(Protocol::Http2);
            None
        }
        Ok(Carried::Cancelled) => None,
        // The answer has begun: the client has to see it break off.
        Err(refusal) if progress.status.get().is_some() => {
            tracing::info!(intercept = intercept.name, client = %shared.client_addr, ?refusal, "answer broken off");
            intercept.stats.failed(Protocol::Http2);
            reset_client(&mut stream.respond, Reason::INTERNAL_ERROR).await;
            None
        }
        // Safe methods may be repeated by anyone, and the live service answers for a developer who is away.
        Err(Refusal::TunnelLost) if stream.ended && head::is_safe(&stream.head) => {
            away(stream, &intercept).await
        }
        Err(refusal) => {
            tracing::info!(intercept = intercept.name, client = %shared.client_addr, ?refusal, "request refused");
            refuse(stream, &intercept, &refusal).await;
            None
        }
    }
}

/// The developer can't have the request, and nobody has answered it.
async fn away(mut stream: Stream, intercept: &Intercept) -> Option<Stream> {
    match intercept.when_away {
        WhenAway::Live => {
            intercept.stats.away(Protocol::Http2);
            if let Some(recording) = &mut stream.recording {
                recording.took(Taken::Away(intercept.name.clone()));
            }
            Some(stream)
        }
        WhenAway::Error => {
            refuse(stream, intercept, &Refusal::Away).await;
            None
        }
    }
}

async fn refuse(mut stream: Stream, intercept: &Intercept, refusal: &Refusal) {
    intercept.stats.failed(Protocol::Http2);
    // An answer before the end of the request is allowed (RFC 9113 §8.1), but curl 7.88 loses it, or waits for more.
    if !stream.head.headers().contains_key(http::header::EXPECT) {
        let _ = timeout(NEAR_END, discard(&mut stream.body, NEAR_END_BYTES)).await;
    }
    if let Some(recording) = &mut stream.recording {
        recording.answered(refusal.status().as_u16());
    }
    let (response, text) = refusal::response(&intercept.name, refusal, head::is_grpc(&stream.head));
    let text = text.filter(|_| stream.head.method() != http::Method::HEAD);
    // All this fails only when the client is gone.
    if let Ok(mut content) = stream.respond.send_response(response, text.is_none())
        && let Some(text) = text
    {
        let _ = content.send_data(Bytes::from(text), true);
    }
    // A stream that is let go before its end is reset, and h2 then forgets what it has not written yet.
    let _ = timeout(REST_OF_REQUEST, discard(&mut stream.body, usize::MAX)).await;
}

/// Takes up to `max` bytes of what the client still sends and nobody wants.
async fn discard(body: &mut RecvStream, mut max: usize) {
    while let Some(Ok(content)) = body.data().await {
        // Fails only when the stream is closed.
        let _ = body.flow_control().release_capacity(content.len());
        match max.checked_sub(content.len()) {
            Some(less) => max = less,
            None => return,
        }
    }
}

/// Speaks HTTP/2 with the local server over the tunnel's stream, for this one request.
async fn carry(
    stream: &mut Stream,
    opening: OpeningStream,
    tunnel: &Tunnel,
    progress: &Progress,
    shared: &Shared,
) -> Result<Carried, Refusal> {
    let (local, verdict) = Local::new(opening);
    let (io, tapped) = Tap::new(local);
    let handshake = limits::toward_server(shared.app.settings()).handshake::<_, Bytes>(io).await;
    let Ok((sender, mut connection)) = handshake else { return Err(why(&tapped, tunnel)) };

    let mut over = false;
    let end = {
        let mut request = pin!(request(stream, sender, &tapped, progress));
        poll_fn(|cx| {
            // How it ended shows in the request.
            over = over || Pin::new(&mut connection).poll(cx).is_ready();
            request.as_mut().poll(cx)
        })
        .await?
    };
    let begun = progress.status.get().is_some();
    let (carried, cut_off) = match end {
        ExchangeEnd::Answered => (Carried::Answered, false),
        ExchangeEnd::ServerReset(_) => (Carried::Answered, true),
        ExchangeEnd::ClientReset(_) | ExchangeEnd::ClientGone if begun => (Carried::Answered, true),
        ExchangeEnd::ClientReset(_) | ExchangeEnd::ClientGone => (Carried::Cancelled, true),
        ExchangeEnd::NotProcessed => return Err(Refusal::NoAnswer),
        ExchangeEnd::ServerBroke => return Err(why(&tapped, tunnel)),
    };
    verdict.set(Report {
        status: progress.status.get(),
        request_bytes: progress.request_bytes.get(),
        response_bytes: progress.response_bytes.get(),
        cut_off,
    });
    if !over {
        // Without a request the connection ends by itself. It outlives the client's.
        spawn_local(timeout(FAREWELL, connection));
    }
    Ok(carried)
}

/// Sends the request, and passes the answer on. Resets go from either side to the other.
async fn request(
    stream: &mut Stream,
    mut sender: SendRequest<Bytes>,
    tapped: &Tapped,
    progress: &Progress,
) -> Result<ExchangeEnd, Refusal> {
    let Stream { head, body, ended, respond, .. } = stream;
    if head::is_extended_connect(head) {
        let settings = tokio::select! {
            settings = timeout(SERVER_SILENCE, tapped.settings()) => settings.unwrap_or_default(),
            reset = poll_fn(|cx| respond.poll_reset(cx)) => {
                return Ok(reset.map_or(ExchangeEnd::ClientGone, ExchangeEnd::ClientReset));
            }
        };
        match settings {
            Some(settings) if settings.enable_connect_protocol => {}
            Some(_) => return Err(Refusal::NoExtendedConnect),
            None => return Ok(ExchangeEnd::ServerBroke),
        }
    }
    let Ok((response, mut to_local)) = sender.send_request(head::forwarded(head), *ended) else {
        return Ok(ExchangeEnd::ServerBroke);
    };
    let end = exchange(body, respond, response, &mut to_local, *ended, progress).await;
    match end {
        ExchangeEnd::ClientReset(reason) => to_local.send_reset(reason),
        ExchangeEnd::ServerReset(reason) => reset_client(respond, reason).await,
        _ => {}
    }
    Ok(end)
}

/// Why the local server's connection ended before an answer.
fn why(tapped: &Tapped, tunnel: &Tunnel) -> Refusal {
    let failure = tapped.take_failure();
    if let Some(refusal) = failure.as_ref().and_then(StreamRefusal::from_io) {
        return Refusal::LocalServer { reason: refusal.reason.clone() };
    }
    // The stream learns of the tunnel's end before the tunnel says so.
    let aborted = failure.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionAborted);
    match () {
        () if aborted || !tunnel.is_alive() => Refusal::TunnelLost,
        () if tapped.speaks_http2() => Refusal::NoAnswer,
        () => Refusal::NotHttp2,
    }
}
