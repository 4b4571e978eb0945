//! From the first bytes of a connection to HTTP/2 on both sides, or to the insight that it is something else.
//!
//! The client is answered only when the app has shown that it speaks HTTP/2: what the client is told comes from the
//! app. Until then the connection can still become raw bytes, without a difference that the client could see.

use super::{
    Candidate,
    app::App,
    greeting::{Greeting, PeerSettings, read_greeting},
    limits,
    preface::{PREFACE, PrefaceStep, read_preface},
    session::Session,
};
use crate::engine::{
    connection::PortContext,
    live::UNDECIDED,
    replay::Replay,
    socket::{Expect, Socket},
    upstream::Upstream,
};
use bytes::BytesMut;
use std::{io, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// How long the app may take for its SETTINGS, which servers send at once. After that the client is told the defaults.
const APP_SILENCE: Duration = Duration::from_secs(3);

pub(super) enum TakenUp {
    Http2(Box<Session>),
    Raw(Box<Raw>),
}

/// A connection that is passed on as raw bytes, and what has been read of it.
pub(super) struct Raw {
    pub client: Socket,
    pub app: Upstream,
    pub from_client: BytesMut,
    pub from_app: BytesMut,
}

/// Errors are those of the client's or the app's connection.
pub(super) async fn take_up(candidate: Candidate, context: &PortContext) -> io::Result<TakenUp> {
    let Candidate { client, client_addr, original_dst, app, mut from_client, from_app, connect } = candidate;
    let Some(client_settings) = read_client(&client, &mut from_client).await? else {
        return Ok(TakenUp::Raw(Box::new(Raw { client, app, from_client, from_app })));
    };
    let (app, tapped) = App::begin(connect, client_settings, app, from_app).await?;
    let app_settings = match timeout(APP_SILENCE, tapped.settings()).await {
        Ok(Some(settings)) => settings,
        // It has seen what an HTTP/2 client sends, and may have ended its side: another connection gets the client's
        // bytes, and the client its answer.
        Ok(None) => {
            let app = app.replace().await?;
            let from_app = BytesMut::new();
            return Ok(TakenUp::Raw(Box::new(Raw { client, app, from_client, from_app })));
        }
        Err(_) => PeerSettings::default(),
    };
    let client = Replay::new(from_client, client);
    let client = limits::toward_client(&app_settings).handshake(client).await.map_err(io::Error::other)?;
    let context = context.clone();
    Ok(TakenUp::Http2(Box::new(Session { client, client_addr, original_dst, app, context })))
}

/// Reads until the client's preface is whole, and its SETTINGS behind it; `None`: it is no HTTP/2 client. One that
/// takes its time with the SETTINGS counts as one with the defaults.
async fn read_client(client: &Socket, buf: &mut BytesMut) -> io::Result<Option<PeerSettings>> {
    let deadline = Instant::now() + UNDECIDED;
    loop {
        let preface = read_preface(buf);
        match preface {
            PrefaceStep::Other => return Ok(None),
            PrefaceStep::Whole => match read_greeting(&buf[PREFACE.len()..]) {
                Greeting::Settings(settings) => return Ok(Some(settings)),
                // Its own mistake, which gets the answer that HTTP/2 has for it.
                Greeting::Other => return Ok(Some(PeerSettings::default())),
                Greeting::Undecided | Greeting::Begun => {}
            },
            PrefaceStep::NeedMore => {}
        }
        let read = timeout_at(deadline, client.read(buf, Expect::Head)).await;
        // Its end, if it is that, comes again.
        if read.unwrap_or(Ok(0))? == 0 {
            return Ok((preface == PrefaceStep::Whole).then(PeerSettings::default));
        }
    }
}
