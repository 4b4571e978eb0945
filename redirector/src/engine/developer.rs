//! The developer's route: one request, through the tunnel, to the developer's local server.
//!
//! Each request has a stream, and so a connection to the local server, of its own: a local server that is
//! restarted at any moment never meets a stale connection.

use super::{
    connection::{Connection, Next},
    intercept::Intercept,
    live::First,
    refusal::{self, Refusal},
    socket::{Expect, Socket},
    tls::Ending,
};
use crate::{
    api::WhenAway,
    http1::{
        MethodKind, Pending, RequestContext, RequestFramer, RequestHead, RequestStep, ResponseFramer,
        ResponseStep,
    },
    protocol::Protocol,
    trace::{observation::Taken, recording::Recording},
    tunnel::{agent_end::OpeningStream, error::Refusal as StreamRefusal, meta::StreamMeta},
};
use bytes::{Buf as _, BytesMut};
use std::{io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::timeout,
};

/// How much of an answer is read from the tunnel at once, in bytes.
const READ: usize = 16 * 1024;

/// How long a client has for the rest of a request that was answered before its end.
const REST_OF_REQUEST: Duration = Duration::from_secs(30);

/// A request on its way to a developer. Its head is the first `head.len` bytes of the connection's buffer.
pub(super) struct DeveloperRequest {
    pub intercept: Arc<Intercept>,
    pub head: RequestHead,
    pub method: String,
    pub target: String,
    pub recording: Option<Recording>,
}

/// How the answer ended.
enum Answer {
    Complete {
        close: bool,
    },
    /// 101, or 2xx to CONNECT: the connection is the developer's from here on.
    Switched {
        from_developer: BytesMut,
    },
    /// It broke off in the middle, or can't be framed: the client has to see its connection end.
    Broken,
    /// Nothing has been sent to the client; the stream failed.
    Failed(io::Error),
    /// Nothing has been sent to the client; the local server closed its end.
    Nothing,
}

/// Carries the request at the front of the buffer, and its answer.
pub(super) async fn run(connection: &mut Connection<'_>, request: DeveloperRequest) -> io::Result<Next> {
    let DeveloperRequest { intercept, head, method, target, mut recording } = request;
    let Some(tunnel) = intercept.tunnel() else {
        return away(connection, &intercept, head, recording).await;
    };
    let meta = StreamMeta {
        intercept: intercept.name.clone(),
        client: connection.client_addr.0,
        original_destination: connection.original_dst.0,
        method,
        path: target,
        protocol: Protocol::Http1,
    };
    let Ok(stream) = tunnel.open(&meta) else {
        return away(connection, &intercept, head, recording).await;
    };
    let (mut from_developer, mut to_developer) = tokio::io::split(stream);

    let Connection { client, buf, framer, .. } = &mut *connection;
    // A request that can be repeated is kept until its answer has begun.
    let replay = head.safe_without_body.then(|| buf.split_to(head.len));
    let mut sent = Sent::Partly;
    let answer = {
        let context = RequestContext::from(&head);
        let mut answer = pin!(answer(client, context, &mut from_developer, recording.as_mut()));
        let early = {
            let mut send = pin!(send(client, replay.as_ref(), &head, buf, framer, &mut to_developer));
            tokio::select! {
                biased;
                early = &mut answer => {
                    let early = early?;
                    if matches!(early, Answer::Complete { close: false }) && !head.close {
                        // The connection goes on, so the rest of the request goes where its beginning went.
                        if let Ok(end) = timeout(REST_OF_REQUEST, send).await {
                            sent = end?;
                        }
                    }
                    Some(early)
                }
                end = &mut send => {
                    sent = end?;
                    None
                }
            }
        };
        match (early, &sent) {
            (Some(early), _) => early,
            (None, Sent::Wholly) => {
                tokio::select! {
                    biased;
                    answer = &mut answer => answer?,
                    end = client.ended() => {
                        end?;
                        // If the developer's side takes that no more, its answer says why.
                        let _ = to_developer.shutdown().await;
                        answer.await?
                    }
                }
            }
            (None, Sent::Partly) => answer.await?,
        }
    };
    // A head that is kept for a repetition is out of the buffer, and nothing comes behind it.
    let request_is_over = matches!(sent, Sent::Wholly) || head.safe_without_body;
    match answer {
        Answer::Complete { close } => {
            from_developer.unsplit(to_developer).finish();
            intercept.stats.answered(Protocol::Http1);
            // An answer that came before the whole request leaves bytes behind that belong to nothing.
            Ok(if close || head.close || !request_is_over { Next::Close } else { Next::Request })
        }
        Answer::Switched { from_developer: first } => {
            intercept.stats.answered(Protocol::Http1);
            drop(recording);
            match splice(client, buf, from_developer, to_developer, first).await {
                Ok(()) => Ok(Next::Close),
                Err(_) => Ok(Next::Reset),
            }
        }
        Answer::Broken => {
            intercept.stats.failed(Protocol::Http1);
            Ok(Next::Reset)
        }
        Answer::Nothing => {
            refuse(connection, &intercept, &Refusal::NoAnswer, &head, request_is_over, recording).await
        }
        Answer::Failed(error) => {
            let refusal = match StreamRefusal::from_io(&error) {
                Some(refusal) => Refusal::LocalServer { reason: refusal.reason.clone() },
                // The stream learns of the tunnel's end before the tunnel says so.
                None if error.kind() == io::ErrorKind::ConnectionAborted || !tunnel.is_alive() => {
                    Refusal::TunnelLost
                }
                None => Refusal::NoAnswer,
            };
            match replay {
                // Safe methods may be repeated by anyone (RFC 9110 §9.2.2), and the live service answers for a
                // developer who is away.
                Some(mut head_bytes) if refusal == Refusal::TunnelLost => {
                    head_bytes.unsplit(connection.buf.split());
                    connection.buf = head_bytes;
                    away(connection, &intercept, head, recording).await
                }
                _ => refuse(connection, &intercept, &refusal, &head, request_is_over, recording).await,
            }
        }
    }
}

/// The developer can't have the request, and nobody has answered it.
async fn away(
    connection: &mut Connection<'_>,
    intercept: &Intercept,
    head: RequestHead,
    mut recording: Option<Recording>,
) -> io::Result<Next> {
    match intercept.when_away {
        WhenAway::Live => {
            intercept.stats.away(Protocol::Http1);
            if let Some(recording) = &mut recording {
                recording.took(Taken::Away(intercept.name.clone()));
            }
            // The framer has passed this head: it is at its body, or at the end of a request without one.
            Ok(Next::Live(First { head, again: false, recording }))
        }
        WhenAway::Error => refuse(connection, intercept, &Refusal::Away, &head, false, recording).await,
    }
}

async fn refuse(
    connection: &Connection<'_>,
    intercept: &Intercept,
    refusal: &Refusal,
    head: &RequestHead,
    request_is_over: bool,
    mut recording: Option<Recording>,
) -> io::Result<Next> {
    intercept.stats.failed(Protocol::Http1);
    if let Some(recording) = &mut recording {
        recording.answered(refusal.status().as_u16());
    }
    tracing::info!(intercept = intercept.name, client = %connection.client_addr, ?refusal, "request refused");
    let close = head.close || !request_is_over;
    let response = refusal::response(&intercept.name, refusal, head.method == MethodKind::Head, close);
    connection.client.write_all(&response).await?;
    Ok(if close { Next::Close } else { Next::Request })
}

/// How much of the request the developer's side has got.
enum Sent {
    Wholly,
    /// The client or the developer's side ended first; if it was the latter, its answer says why.
    Partly,
}

/// Sends the request. Errors are the client's.
async fn send(
    client: &Socket,
    head_bytes: Option<&BytesMut>,
    head: &RequestHead,
    buf: &mut BytesMut,
    framer: &mut RequestFramer,
    developer: &mut WriteHalf<OpeningStream>,
) -> io::Result<Sent> {
    let head_sent = match head_bytes {
        Some(head_bytes) => developer.write_all(head_bytes).await,
        None => forward(developer, buf, head.len).await,
    };
    if head_sent.is_err() {
        return Ok(Sent::Partly);
    }
    loop {
        let passed_on = match framer.next(buf, |_| ()) {
            RequestStep::Body(len) => forward(developer, buf, len).await,
            RequestStep::NeedMore(Pending::Body) => {
                if client.read(buf, Expect::Body).await? == 0 {
                    let _ = developer.shutdown().await;
                    return Ok(Sent::Partly);
                }
                Ok(())
            }
            RequestStep::End => return Ok(Sent::Wholly),
            // A head can't come before the end of the body; what can't be framed has no end to wait for.
            RequestStep::Head { .. } | RequestStep::NeedMore(_) | RequestStep::Raw(_) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        if passed_on.is_err() {
            return Ok(Sent::Partly);
        }
    }
}

/// Moves the first `len` bytes of `buf` on. What is left in `buf` when this is dropped has not been sent.
async fn forward(
    developer: &mut WriteHalf<OpeningStream>,
    buf: &mut BytesMut,
    mut len: usize,
) -> io::Result<()> {
    while len > 0 {
        let written = developer.write(&buf[..len]).await?;
        buf.advance(written);
        len -= written;
    }
    Ok(())
}

/// Passes the answer on to the client.
async fn answer(
    client: &Socket,
    request: RequestContext,
    developer: &mut ReadHalf<OpeningStream>,
    mut recording: Option<&mut Recording>,
) -> io::Result<Answer> {
    let mut framer = ResponseFramer::new();
    let mut buf = BytesMut::new();
    let (mut cleared, mut eof, mut close) = (0, false, false);
    // Of the final answer; an interim one leaves room for another.
    let mut begun = false;
    loop {
        match framer.next(&buf[cleared..], request, eof) {
            ResponseStep::Head(head) => {
                cleared += head.len;
                begun |= !head.interim;
                if let Some(recording) = recording.as_mut().filter(|_| !head.interim) {
                    recording.answered(head.status);
                }
                close = head.close;
            }
            ResponseStep::Body(len) => cleared += len,
            ResponseStep::End => {
                client.write_all(&buf[..cleared]).await?;
                // Bytes behind the answer answer nothing.
                return Ok(Answer::Complete { close: close || buf.len() > cleared });
            }
            // The head is still in the buffer, and what is behind it is the other protocol's.
            ResponseStep::Switch => return Ok(Answer::Switched { from_developer: buf }),
            ResponseStep::Closed | ResponseStep::Truncated if !begun && buf.is_empty() => {
                return Ok(Answer::Nothing);
            }
            ResponseStep::Closed | ResponseStep::Truncated | ResponseStep::Raw(_) => {
                client.write_all(&buf).await?;
                return Ok(Answer::Broken);
            }
            ResponseStep::NeedMore => {
                client.write_all(&buf[..cleared]).await?;
                buf.advance(cleared);
                cleared = 0;
                buf.reserve(READ);
                match developer.read_buf(&mut buf).await {
                    Ok(read) => eof = read == 0,
                    Err(error) if !begun && buf.is_empty() => return Ok(Answer::Failed(error)),
                    Err(_) => return Ok(Answer::Broken),
                }
            }
        }
    }
}

/// Bytes both ways between client and developer, each end passed on when it comes.
async fn splice(
    client: &Socket,
    buf: &mut BytesMut,
    mut from_developer: ReadHalf<OpeningStream>,
    mut to_developer: WriteHalf<OpeningStream>,
    mut first: BytesMut,
) -> io::Result<()> {
    let up = async {
        loop {
            to_developer.write_all(buf).await?;
            to_developer.flush().await?;
            buf.clear();
            if client.read(buf, Expect::Body).await? == 0 {
                return to_developer.shutdown().await;
            }
        }
    };
    let down = async {
        loop {
            client.write_all(&first).await?;
            first.clear();
            first.reserve(READ);
            if from_developer.read_buf(&mut first).await? == 0 {
                client.finish(Ending::Clean).await;
                return Ok(());
            }
        }
    };
    tokio::try_join!(up, down).map(drop)
}
