//! Between requests of a connection that only developers use: the app is not bothered until it is needed.

use super::{
    connection::Connection,
    decision::{Decided, Decision, decide},
    developer::DeveloperRequest,
    live::{First, UNDECIDED},
    socket::Expect,
    stats::bump,
};
use crate::{
    api::Uncovered,
    http1::{Pending, RequestStep},
    protocol::Protocol,
    trace::recording::Recording,
};
use std::{io, time::Duration};
use tokio::time::timeout;

/// What servers commonly grant an idle connection.
const IDLE: Duration = Duration::from_secs(75);

/// What the client sent.
pub(super) enum Waited {
    Developer(DeveloperRequest),
    /// A request for the app; its head is at the front of the buffer.
    Live(First),
    /// Bytes for the app to judge; the reason, if they can't be the beginning of a request.
    NotUnderstood(Option<Uncovered>),
    /// Nothing: it has ended its half or was idle for too long, or the agent drains.
    Over,
}

impl Waited {
    /// It met an intercept, or an observer.
    pub(super) fn was_looked_for(&self) -> bool {
        match self {
            Self::Developer(_) => true,
            Self::Live(First { recording, .. }) => recording.as_ref().is_some_and(Recording::met_somebody),
            Self::NotUnderstood(_) | Self::Over => false,
        }
    }
}

pub(super) async fn run(connection: &mut Connection<'_>) -> io::Result<Waited> {
    let Connection { client, client_addr, context, buf, framer, speaks_http, parked, .. } = connection;
    let mut drain = context.drain.clone();
    loop {
        let pending =
            match framer.next(buf, |request| decide(request, Protocol::Http1, *client_addr, context)) {
                RequestStep::Head { head, decision: Decided { decision, recording } } => {
                    context.stats.requests.bump(Protocol::Http1);
                    *speaks_http = true;
                    return Ok(match decision {
                        Decision::Live => Waited::Live(First { head, again: false, recording }),
                        Decision::Developer { intercept, method, target } => {
                            Waited::Developer(DeveloperRequest { intercept, head, method, target, recording })
                        }
                    });
                }
                RequestStep::End => continue,
                RequestStep::Raw(reason) => return Ok(Waited::NotUnderstood(Some(reason.into()))),
                RequestStep::Body(_) => return Ok(Waited::NotUnderstood(None)),
                RequestStep::NeedMore(pending) => pending,
            };
        let read = client.read(buf, Expect::Head);
        let read = match pending {
            Pending::Empty => {
                tokio::select! {
                    read = timeout(IDLE, read) => match read {
                        Ok(read) => read?,
                        Err(_) => {
                            if *parked {
                                bump(&context.stats.parking.retired);
                            }
                            return Ok(Waited::Over);
                        }
                    },
                    _ = drain.wait_for(|drain| *drain) => return Ok(Waited::Over),
                }
            }
            Pending::Undecided if !*speaks_http => match timeout(UNDECIDED, read).await {
                Ok(read) => read?,
                Err(_) => return Ok(Waited::NotUnderstood(Some(Uncovered::NotHttp))),
            },
            _ => read.await?,
        };
        if read == 0 {
            // What there is of a request is the app's to judge.
            return Ok(if buf.is_empty() { Waited::Over } else { Waited::NotUnderstood(None) });
        }
    }
}
