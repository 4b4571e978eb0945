//! The live route: requests flow to the app and answers to the client, byte for byte, until a request comes
//! that belongs to a developer.
//!
//! Both directions run at once in one task. They share only the list of requests that the app has not
//! answered yet: it tells the answers apart, and says when the app owes nothing more. What was read and not
//! yet written stays in the buffers of the caller, so either direction can be dropped at any await.

use super::{
    addresses::ClientAddr,
    cleared::{ClearedRequests, ClearedResponses, Unanswered},
    connection::{Connection, Next, PortContext},
    decision::{Decided, Decision, decide},
    developer::DeveloperRequest,
    http2::{Greeting, read_greeting},
    kept::Kept,
    socket::{Expect, Socket},
    splice::Direction,
    stats::bump,
};
use crate::{
    api::Uncovered,
    http1::{
        Pending, RawReason, RequestFramer, RequestHead, RequestStep, RequestView, ResponseFramer,
        ResponseStep,
    },
    protocol::Protocol,
    trace::recording::Recording,
};
use bytes::BytesMut;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::pin,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// How long first bytes may look like the beginning of a request line without being one. A client of some
/// other protocol that waits for an answer to such bytes waits this long; an HTTP client sends its method
/// in one piece. Only before the first request: a client that has made one speaks HTTP.
pub(super) const UNDECIDED: Duration = Duration::from_millis(200);

/// How long an HTTP/2 server's greeting waits for the client's: what servers commonly grant a silent client.
const GREETING: Duration = Duration::from_secs(60);

/// No server says more before its client has said anything. Bytes.
const MAX_GREETING: usize = 64 * 1024;
/// A parked connection whose last request was for the app is ended when it has been idle for this long, as servers do
/// with idle connections: the client's next one is the app's own.
const RETIRE: Duration = Duration::from_secs(15);

/// Pipelined requests beyond this wait: the list must not be the client's to grow.
const MAX_UNANSWERED: usize = 1024;

/// Why the live phase ended.
pub(super) enum LiveEnd {
    /// The request at the front of the buffer belongs to a developer, and the app owes no answer.
    Developer(DeveloperRequest),
    /// The app ended its idle connection, which was not idle to the client.
    AppIdle,
    /// So it did, and the request at the front of the buffer met that end: it is to be sent to the app again.
    Again(First),
    /// The client's first bytes, still in the buffer, are those of another protocol, and the app has seen nothing yet.
    Other {
        reason: RawReason,
        /// All that the app has said: nothing, or the beginning of what HTTP/2 servers say first.
        from_app: BytesMut,
    },
    Next(Next),
}

/// What both directions share.
struct Shared {
    /// Some request of the connection has gone to a developer.
    after_developer: bool,
    client: ClientAddr,
    unanswered: RefCell<VecDeque<Unanswered>>,
    /// The last request asked to switch protocols: nothing after it is interpreted until it is answered.
    switching: Cell<bool>,
    /// No more requests go to the app in this phase.
    stopping: Cell<bool>,
    /// Nothing of a request has been read.
    idle: Cell<bool>,
    /// A request has gone to the app.
    used: Cell<bool>,
    /// The client has sent a request.
    speaks_http: Cell<bool>,
    /// The only request of which the app owes an answer, as long as it may be sent again.
    kept: RefCell<Option<Kept>>,
    wake_requests: Notify,
    wake_responses: Notify,
}

/// A request that was decided for the app before this phase. Its head is at the front of the buffer.
pub(super) struct First {
    pub head: RequestHead,
    /// It is sent again, so it is counted already.
    pub again: bool,
    pub recording: Option<Recording>,
}

impl Shared {
    /// The head of the final answer to the oldest request came.
    fn answered(&self, status: u16) {
        if let Some(recording) =
            self.unanswered.borrow_mut().front_mut().and_then(|request| request.recording.as_mut())
        {
            recording.answered(status);
        }
    }
}

enum RequestsEnd {
    Developer(DeveloperRequest),
    NotUnderstood(RawReason),
    /// The client has sent its last byte.
    Ended,
    /// The request that is kept could not be written.
    AppGone(io::Error),
}

enum ResponsesEnd {
    /// Nothing is owed, and no more requests go to the app.
    Settled,
    /// The app switched protocols, as the client asked.
    Switched,
    /// The app has sent bytes that are not understood.
    NotUnderstood(RawReason),
    /// The app has sent bytes and owed nothing: a server that speaks first, or one that lost patience.
    Unasked,
    /// The app has sent its last byte, and owed nothing.
    Ended,
    /// The app has sent its last byte, and owed an answer or had said that it would close.
    Closed,
    /// The connection is idle, and the agent drains or has no use for it any more.
    Drained,
}

/// Which direction ended the phase, and how.
enum PhaseEnd {
    /// Both: the app owes nothing, and the next request is a developer's.
    Developer(DeveloperRequest),
    NotUnderstood(RawReason),
    ClientEnded,
    App(ResponsesEnd),
    /// The connection to the app broke, or, when something has been answered, that to the client.
    AppBroke(io::Error),
}

/// Runs until the app's part of the connection is over or a developer's request is due.
///
/// `after_developer`: some request of this connection has gone to a developer.
pub(super) async fn run(
    connection: &mut Connection<'_>,
    app: &Socket,
    first: Option<First>,
    after_developer: bool,
) -> io::Result<LiveEnd> {
    let Connection { client, client_addr, context, buf, framer, speaks_http, app_used, parked, .. } =
        connection;
    // What was read and not yet written outlives the two directions below.
    let mut from_app = BytesMut::new();
    let shared = Shared {
        after_developer,
        client: *client_addr,
        idle: Cell::new(buf.is_empty()),
        used: Cell::new(*app_used),
        speaks_http: Cell::new(*speaks_http),
        unanswered: RefCell::default(),
        switching: Cell::default(),
        stopping: Cell::default(),
        kept: RefCell::default(),
        wake_requests: Notify::new(),
        wake_responses: Notify::new(),
    };

    let end = {
        let mut requests = pin!(requests(client, app, buf, framer, first, context, &shared));
        let mut responses = pin!(responses(app, client, &mut from_app, context, &shared, *parked));
        tokio::select! {
            biased;
            end = &mut requests => match end? {
                RequestsEnd::Developer(request) => {
                    shared.kept.take();
                    // The app answers first what it got first.
                    shared.stopping.set(true);
                    shared.wake_responses.notify_one();
                    match responses.await? {
                        ResponsesEnd::Settled | ResponsesEnd::Drained => PhaseEnd::Developer(request),
                        end => PhaseEnd::App(end),
                    }
                }
                RequestsEnd::NotUnderstood(reason) => PhaseEnd::NotUnderstood(reason),
                RequestsEnd::Ended => PhaseEnd::ClientEnded,
                RequestsEnd::AppGone(error) => PhaseEnd::AppBroke(error),
            },
            end = &mut responses => end.map_or_else(PhaseEnd::AppBroke, PhaseEnd::App),
        }
    };
    if let PhaseEnd::App(ResponsesEnd::Closed) | PhaseEnd::AppBroke(_) = end
        && let Some(kept) = shared.kept.take()
    {
        // It is the only one that is not answered.
        let recording = shared.unanswered.borrow_mut().pop_front().and_then(|request| request.recording);
        return Ok(LiveEnd::Again(First { head: kept.put_back(buf), again: true, recording }));
    }
    *app_used |= shared.used.get();
    *speaks_http = shared.speaks_http.get();
    // Nothing has passed yet: what the client speaks can still be taken up from its first byte.
    if let PhaseEnd::NotUnderstood(reason) = end
        && !*speaks_http
        && may_be_taken_up(reason, &from_app)
    {
        return Ok(LiveEnd::Other { reason, from_app });
    }
    let mut splice = |client_ended, app_ended, uncovered| {
        let from_app = Direction { buf: from_app.split(), ended: app_ended };
        LiveEnd::Next(Next::Splice { from_app, client_ended, uncovered })
    };
    let idle = after_developer && shared.idle.get() && connection.buf.is_empty();
    Ok(match end {
        PhaseEnd::Developer(request) => LiveEnd::Developer(request),
        PhaseEnd::ClientEnded => splice(true, false, None),
        PhaseEnd::NotUnderstood(reason) => splice(false, false, Some(reason.into())),
        PhaseEnd::App(ResponsesEnd::Ended | ResponsesEnd::Unasked) if idle => LiveEnd::AppIdle,
        PhaseEnd::App(ResponsesEnd::Ended | ResponsesEnd::Closed) => splice(false, true, None),
        PhaseEnd::App(ResponsesEnd::Unasked) => splice(false, false, Some(Uncovered::ServerFirst)),
        PhaseEnd::App(ResponsesEnd::NotUnderstood(reason)) => splice(false, false, Some(reason.into())),
        PhaseEnd::App(ResponsesEnd::Switched | ResponsesEnd::Settled) => splice(false, false, None),
        PhaseEnd::App(ResponsesEnd::Drained) => LiveEnd::Next(Next::Close),
        PhaseEnd::AppBroke(error) => return Err(error),
    })
}

/// Can the client's protocol be understood, and is what the app has said part of it?
fn may_be_taken_up(reason: RawReason, from_app: &[u8]) -> bool {
    match reason {
        RawReason::Tls => from_app.is_empty(),
        RawReason::Http2 => read_greeting(from_app) != Greeting::Other,
        _ => false,
    }
}

/// Client to app, until a developer's request is at the front of `buf`.
async fn requests(
    client: &Socket,
    app: &Socket,
    buf: &mut BytesMut,
    framer: &mut RequestFramer,
    first: Option<First>,
    context: &PortContext,
    shared: &Shared,
) -> io::Result<RequestsEnd> {
    let mut cleared = ClearedRequests::new();
    let mut at_boundary = false;
    // The app may be about to end what is an idle connection to it, and not to the client.
    let may_be_stale =
        || shared.after_developer && shared.used.get() && shared.unanswered.borrow().is_empty();
    if let Some(First { head, again, recording }) = first {
        at_boundary = head.safe_without_body;
        let stale = may_be_stale();
        if !again {
            context.stats.live.bump(Protocol::Http1);
        }
        admit(&head, recording, &mut cleared, shared);
        if stale && let Err(error) = write_kept(app, buf, head, &mut cleared, shared).await {
            return Ok(RequestsEnd::AppGone(error));
        }
    }
    loop {
        let must_wait = || shared.switching.get() || shared.unanswered.borrow().len() >= MAX_UNANSWERED;
        if at_boundary && must_wait() {
            cleared.write(app, buf, &shared.unanswered).await?;
            while must_wait() {
                shared.wake_requests.notified().await;
            }
            // For its answers to come, which is the app's time.
            cleared.mark_read();
        }
        at_boundary = false;
        let decision = |request: &RequestView<'_>| decide(request, Protocol::Http1, shared.client, context);
        match framer.next(&buf[cleared.len()..], decision) {
            RequestStep::Head { head, decision: Decided { decision, recording } } => {
                context.stats.requests.bump(Protocol::Http1);
                shared.speaks_http.set(true);
                match decision {
                    Decision::Developer { intercept, method, target } => {
                        cleared.write(app, buf, &shared.unanswered).await?;
                        return Ok(RequestsEnd::Developer(DeveloperRequest {
                            intercept,
                            head,
                            method,
                            target,
                            recording,
                        }));
                    }
                    Decision::Live => {
                        let stale = may_be_stale();
                        context.stats.live.bump(Protocol::Http1);
                        admit(&head, recording, &mut cleared, shared);
                        if stale && let Err(error) = write_kept(app, buf, head, &mut cleared, shared).await {
                            return Ok(RequestsEnd::AppGone(error));
                        }
                    }
                }
            }
            RequestStep::Body(len) => cleared.add_body(len),
            RequestStep::End => at_boundary = true,
            RequestStep::NeedMore(pending) => {
                cleared.write(app, buf, &shared.unanswered).await?;
                shared.idle.set(pending == Pending::Empty);
                let expect = if pending == Pending::Body { Expect::Body } else { Expect::Head };
                let read = if pending == Pending::Undecided && !shared.speaks_http.get() {
                    match timeout(UNDECIDED, client.read(buf, expect)).await {
                        Ok(read) => read?,
                        Err(_) => return Ok(RequestsEnd::NotUnderstood(RawReason::NotHttp1)),
                    }
                } else {
                    client.read(buf, expect).await?
                };
                if read == 0 {
                    return Ok(RequestsEnd::Ended);
                }
                cleared.mark_read();
                shared.idle.set(false);
            }
            RequestStep::Raw(reason) => {
                tracing::debug!(?reason, "from here on raw");
                return Ok(RequestsEnd::NotUnderstood(reason));
            }
        }
    }
}

/// How long what the app has said unasked is held back until the client's first bytes tell what it belongs to. Nothing
/// but HTTP/2 begins with a whole SETTINGS frame, and no client of that waits for it.
fn greeting_patience(greeting: Greeting) -> Duration {
    match greeting {
        Greeting::Other => Duration::ZERO,
        Greeting::Undecided => UNDECIDED,
        Greeting::Begun | Greeting::Settings(_) => GREETING,
    }
}

/// Writes the admitted request with all that is cleared before it, and keeps it if it may be sent again.
async fn write_kept(
    app: &Socket,
    buf: &mut BytesMut,
    head: RequestHead,
    cleared: &mut ClearedRequests,
    shared: &Shared,
) -> io::Result<()> {
    if cleared.len() == head.len {
        *shared.kept.borrow_mut() = Kept::of(head, buf);
    }
    cleared.write(app, buf, &shared.unanswered).await?;
    if let Some(kept) = shared.kept.borrow_mut().as_mut() {
        kept.mark_written();
    }
    Ok(())
}

/// Notes that the app owes an answer. Before the request is written: the answer may come at any time after.
fn admit(head: &RequestHead, recording: Option<Recording>, cleared: &mut ClearedRequests, shared: &Shared) {
    shared.kept.take();
    cleared.add_head(head.len);
    shared.used.set(true);
    shared.switching.set(head.wants_switch);
    shared.unanswered.borrow_mut().push_back(Unanswered::new(head, recording));
    shared.wake_responses.notify_one();
}

/// App to client.
async fn responses(
    app: &Socket,
    client: &Socket,
    buf: &mut BytesMut,
    context: &PortContext,
    shared: &Shared,
    parked: bool,
) -> io::Result<ResponsesEnd> {
    let mut framer = ResponseFramer::new();
    let mut cleared = ClearedResponses::new();
    let mut expect = Expect::Head;
    let mut eof = false;
    // The end of the connection has been agreed on: the app's end of it is no mere idleness.
    let mut closing = false;
    // One for the whole phase: to begin waiting takes a lock that all connections share.
    let mut drain = context.drain.clone();
    let mut drained = pin!(drain.wait_for(|drain| *drain));
    loop {
        let request = shared.unanswered.borrow().front().map(|request| (request.context, request.added));
        let Some((request, added)) = request else {
            cleared.write(client, buf, &context.stats).await?;
            if !buf.is_empty() {
                let unasked = eof || shared.stopping.get() || shared.speaks_http.get();
                if unasked || buf.len() >= MAX_GREETING {
                    return Ok(ResponsesEnd::Unasked);
                }
                // HTTP/2 servers may speak first (RFC 9113 §3.4), and then the client is about to send its preface.
                let greeting = read_greeting(buf);
                tokio::select! {
                    biased;
                    () = shared.wake_responses.notified() => {}
                    read = app.read(buf, Expect::Head), if greeting != Greeting::Other => eof = read? == 0,
                    () = sleep(greeting_patience(greeting)) => return Ok(ResponsesEnd::Unasked),
                    _ = &mut drained, if shared.idle.get() => return Ok(ResponsesEnd::Drained),
                }
                continue;
            }
            if eof {
                return Ok(if closing { ResponsesEnd::Closed } else { ResponsesEnd::Ended });
            }
            if shared.stopping.get() {
                return Ok(ResponsesEnd::Settled);
            }
            tokio::select! {
                biased;
                () = shared.wake_responses.notified() => {}
                read = app.read(buf, Expect::Head) => {
                    eof = read? == 0;
                    cleared.mark_read();
                }
                _ = &mut drained, if shared.idle.get() => return Ok(ResponsesEnd::Drained),
                () = sleep(RETIRE), if parked && shared.idle.get() => {
                    bump(&context.stats.parking.retired);
                    return Ok(ResponsesEnd::Drained);
                }
            }
            continue;
        };
        match framer.next(&buf[cleared.len()..], request, eof) {
            ResponseStep::Head(head) => {
                if head.interim {
                    cleared.add_body(head.len);
                } else {
                    cleared.add_head(head.len, added);
                    shared.answered(head.status);
                }
                closing |= !head.interim && head.close;
                expect = Expect::Body;
                if !head.interim && shared.switching.get() && shared.unanswered.borrow().len() == 1 {
                    shared.switching.set(false);
                    shared.wake_requests.notify_one();
                }
            }
            ResponseStep::Body(len) => cleared.add_body(len),
            ResponseStep::End => {
                expect = Expect::Head;
                shared.unanswered.borrow_mut().pop_front();
                shared.wake_requests.notify_one();
            }
            ResponseStep::Switch => {
                // Both directions change their meaning: the caller splices what is left in the buffers.
                shared.switching.set(true);
                return Ok(ResponsesEnd::Switched);
            }
            ResponseStep::Raw(reason) => {
                tracing::debug!(?reason, "the app's answer is not understood: from here on raw");
                return Ok(ResponsesEnd::NotUnderstood(reason));
            }
            ResponseStep::Truncated | ResponseStep::Closed => return Ok(ResponsesEnd::Closed),
            ResponseStep::NeedMore => {
                cleared.write(client, buf, &context.stats).await?;
                eof = app.read(buf, expect).await? == 0;
                if !eof {
                    shared.kept.take();
                }
                cleared.mark_read();
            }
        }
    }
}
