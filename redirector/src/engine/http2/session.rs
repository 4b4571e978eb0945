//! A client's connection: takes its streams, and ends it as the app or the agent wants it ended.

use super::{
    app::{App, LINGER},
    stream::{self, Served},
};
use crate::engine::{
    addresses::{ClientAddr, OriginalDst},
    connection::PortContext,
    replay::Replay,
    socket::Socket,
};
use bytes::Bytes;
use h2::server::Connection;
use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll};
use tokio::{task::JoinSet, time::timeout};

pub(super) struct Session {
    pub client: Connection<Replay<Socket>, Bytes>,
    pub client_addr: ClientAddr,
    pub original_dst: OriginalDst,
    pub app: App,
    pub context: PortContext,
}

/// What the streams of a connection share.
pub(super) struct Shared {
    pub client_addr: ClientAddr,
    pub original_dst: OriginalDst,
    pub app: App,
    pub context: PortContext,
    /// Streams at the app.
    pub live: Cell<usize>,
    /// The last stream went to a developer: the app's connection may be idle while the client's is not.
    pub developer_last: Cell<bool>,
}

impl Session {
    /// Runs until the connection has ended on both sides.
    pub(super) async fn run(self: Box<Self>) {
        let Self { mut client, client_addr, original_dst, app, context } = *self;
        let mut drain = context.drain.clone();
        let (live, developer_last) = (Cell::default(), Cell::default());
        let shared = Rc::new(Shared { client_addr, original_dst, app, context, live, developer_last });
        let mut streams = JoinSet::new();
        let mut draining = false;
        loop {
            tokio::select! {
                accepted = client.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        streams.spawn_local(stream::serve(request, respond, Rc::clone(&shared)));
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%client_addr, %original_dst, %error, "connection broke");
                        break;
                    }
                    None => break,
                },
                Some(end) = streams.join_next() => if matches!(end, Ok(Served::AppBroke)) {
                    // To a client that is connected to the app itself this is the end of its connection. What has been
                    // answered before is still sent.
                    let _ = poll_fn(|cx| Poll::Ready(client.poll_closed(cx))).await;
                    break;
                },
                () = shared.app.ended() => if shared.live.get() > 0 || !shared.developer_last.get() {
                    client.graceful_shutdown();
                },
                _ = drain.wait_for(|drain| *drain), if !draining => {
                    draining = true;
                    client.graceful_shutdown();
                }
            }
        }
        drop(client);
        // Each of them learns of the end by itself, and says at the other side how it ended.
        let _ = timeout(LINGER, async { while streams.join_next().await.is_some() {} }).await;
        streams.shutdown().await;
        shared.app.close().await;
    }
}
