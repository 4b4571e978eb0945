//! The connection to the app, which all live streams of a client's connection share.
//!
//! An app may end it at any time, as servers do after a number of requests or when they are restarted. Streams that come
//! afterwards get another one.

use super::{
    Connect,
    greeting::PeerSettings,
    limits,
    tap::{Tap, Tapped},
};
use crate::engine::{replay::Replay, upstream::Upstream};
use bytes::{Bytes, BytesMut};
use h2::client::{Connection, SendRequest};
use std::{
    cell::RefCell,
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
    time::timeout,
};

/// How long what is still to be sent may take when the client is gone.
pub(super) const LINGER: Duration = Duration::from_secs(2);

type Link = Rc<RefCell<SendRequest<Bytes>>>;

pub(super) struct App {
    connect: Connect,
    /// The client's, which the app is told.
    settings: PeerSettings,
    link: Mutex<Option<Link>>,
    drivers: RefCell<JoinSet<()>>,
    /// Told when a connection takes no more requests.
    ended: Rc<Notify>,
}

impl App {
    /// Speaks HTTP/2 on the first connection, over which the app may have sent `first` already. What it says is known by
    /// the tap.
    pub(super) async fn begin(
        connect: Connect,
        settings: PeerSettings,
        upstream: Upstream,
        first: BytesMut,
    ) -> io::Result<(Self, Rc<Tapped>)> {
        let app = Self {
            connect,
            settings,
            link: Mutex::default(),
            drivers: RefCell::default(),
            ended: Rc::default(),
        };
        let (link, tapped) = app.open(upstream, first).await?;
        *app.link.lock().await = Some(link);
        Ok((app, tapped))
    }

    /// What the client said first.
    pub(super) fn settings(&self) -> &PeerSettings {
        &self.settings
    }

    /// Gives a connection on which nothing has been said, in place of all others.
    pub(super) async fn replace(mut self) -> io::Result<Upstream> {
        self.drivers.get_mut().abort_all();
        (self.connect)().await
    }

    /// Where a request can be sent.
    pub(super) async fn sender(&self) -> io::Result<SendRequest<Bytes>> {
        let mut current = self.link.lock().await;
        if let Some(link) = &*current
            && is_open(link).await
        {
            return Ok(link.borrow().clone());
        }
        *current = None;
        let upstream = (self.connect)().await?;
        let (link, _) = self.open(upstream, BytesMut::new()).await?;
        let sender = link.borrow().clone();
        *current = Some(link);
        Ok(sender)
    }

    /// Resolves when the app's connection takes no more requests, once for each.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Ends all connections, when no stream needs them any more.
    pub(super) async fn close(&self) {
        *self.link.lock().await = None;
        let mut drivers = self.drivers.take();
        let _ = timeout(LINGER, async { while drivers.join_next().await.is_some() {} }).await;
    }

    async fn open(&self, upstream: Upstream, first: BytesMut) -> io::Result<(Link, Rc<Tapped>)> {
        let (io, tapped) = Tap::new(Replay::new(first, upstream));
        let (sender, connection) =
            limits::toward_server(&self.settings).handshake(io).await.map_err(io::Error::other)?;
        let link = Rc::new(RefCell::new(sender));
        let mut drivers = self.drivers.borrow_mut();
        // Those of connections that have ended meanwhile.
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(drive(connection, Rc::downgrade(&link), Rc::clone(&self.ended)));
        Ok((link, tapped))
    }
}

/// Runs a connection until it ends. GOAWAY is noticed when it comes, by its effect: h2 has no other sign of it.
async fn drive(
    mut connection: Connection<Tap<Replay<Upstream>>, Bytes>,
    link: Weak<RefCell<SendRequest<Bytes>>>,
    ended: Rc<Notify>,
) {
    let mut told = false;
    let result = poll_fn(|cx| {
        let done = Pin::new(&mut connection).poll(cx);
        // Nobody is to be told when it was us who let go of the connection.
        if !told && link.upgrade().is_some_and(|link| done.is_ready() || !poll_open(&link, cx)) {
            told = true;
            ended.notify_one();
        }
        done
    });
    if let Err(error) = result.await {
        tracing::debug!(%error, "the app's connection broke");
    }
}

async fn is_open(link: &Link) -> bool {
    poll_fn(|cx| Poll::Ready(poll_open(link, cx))).await
}

/// Does the connection take requests? (A handle that has no request waiting never has to wait itself.)
fn poll_open(link: &Link, cx: &mut Context<'_>) -> bool {
    !matches!(link.borrow_mut().poll_ready(cx), Poll::Ready(Err(_)))
}
