//! WebSockets: by Upgrade in HTTP/1.1 (RFC 6455) and by extended CONNECT in HTTP/2 (RFC 8441); to the ingress always by
//! Upgrade.

use super::{
    hop_by_hop::{ask_for_websocket, asks_for_websocket},
    preview::LivePreview,
    store::PreviewStore,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::{
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, split},
    sync::Notify,
    time::{sleep, timeout},
};

/// How long either side may take to become a WebSocket after it was said to be one.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the ingress may take to answer the last words of a visitor.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How a visitor asks for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    ByUpgrade,
    ByConnect,
}

/// What is asked for; `None`: a plain request.
pub fn asked<B>(request: &Request<B>) -> Option<Asked> {
    let connect = request.extensions().get::<Protocol>();
    if request.method() == Method::CONNECT && connect.is_some_and(|protocol| protocol.as_str() == "websocket")
    {
        return Some(Asked::ByConnect);
    }
    // With a body there would be two opinions on where the WebSocket begins.
    let has_body = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .iter()
        .any(|name| request.headers().get(name).is_some_and(|length| length != "0"));
    (request.method() == Method::GET
        && request.version() == http::Version::HTTP_11
        && asks_for_websocket(request.headers())
        && !has_body)
        .then_some(Asked::ByUpgrade)
}

impl Asked {
    /// Completes the head of the request that the ingress gets.
    pub fn ask(self, method: &mut Method, headers: &mut HeaderMap) {
        ask_for_websocket(headers);
        if self == Self::ByConnect {
            *method = Method::GET;
            // It keeps caches from answering, and is no secret: zeros will do if there are no random bytes.
            let mut key = [0; 16];
            let _ = SystemRandom::new().fill(&mut key);
            if let Ok(key) = HeaderValue::from_str(&STANDARD.encode(key)) {
                headers.insert(header::SEC_WEBSOCKET_KEY, key);
            }
        }
    }

    /// How long the visitor's end may be kept from the ingress. Browsers end an HTTP/2 stream with their last words, a
    /// Close, and many proxies (nginx is one) take the end of one direction for that of both: the app's answer to these
    /// words would be lost, and with it the WebSocket's clean end.
    fn patience(self) -> Duration {
        match self {
            Self::ByUpgrade => Duration::ZERO,
            Self::ByConnect => ANSWER_TIMEOUT,
        }
    }

    /// Completes the head of the answer that the visitor gets, when the ingress has switched.
    #[must_use]
    pub fn answer(self, headers: &mut HeaderMap) -> StatusCode {
        match self {
            Self::ByUpgrade => {
                ask_for_websocket(headers);
                StatusCode::SWITCHING_PROTOCOLS
            }
            Self::ByConnect => {
                headers.remove(header::SEC_WEBSOCKET_ACCEPT);
                StatusCode::OK
            }
        }
    }
}

/// Carries a WebSocket until both sides end, or its preview does.
pub async fn carry(
    asked: Asked,
    visitor: OnUpgrade,
    ingress: OnUpgrade,
    preview: Option<Arc<LivePreview>>,
    store: Arc<PreviewStore>,
) {
    let both = async { tokio::try_join!(visitor, ingress) };
    let (visitor, ingress): (Upgraded, Upgraded) = match timeout(SWITCH_TIMEOUT, both).await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => return tracing::debug!(%error, "a WebSocket did not come about"),
        Err(_) => return tracing::debug!("a WebSocket did not come about in time"),
    };
    tokio::select! {
        ended = copy_both_ways(TokioIo::new(visitor), TokioIo::new(ingress), asked.patience()) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a WebSocket broke");
            }
        }
        () = end_of(preview, &store) => {}
    }
}

/// To the end of both. The ingress hears of the visitor's end only after its own, or after `patience`.
async fn copy_both_ways(
    visitor: impl AsyncRead + AsyncWrite,
    ingress: impl AsyncRead + AsyncWrite,
    patience: Duration,
) -> io::Result<()> {
    let (mut from_visitor, mut to_visitor) = split(visitor);
    let (mut from_ingress, mut to_ingress) = split(ingress);
    let answered = Notify::new();
    let up = async {
        copy(&mut from_visitor, &mut to_ingress).await?;
        let _ = timeout(patience, answered.notified()).await;
        to_ingress.shutdown().await
    };
    let down = async {
        copy(&mut from_ingress, &mut to_visitor).await?;
        answered.notify_one();
        to_visitor.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

async fn end_of(preview: Option<Arc<LivePreview>>, store: &PreviewStore) {
    let Some(live) = preview else { return std::future::pending().await };
    let left = live.preview.expires.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
    tokio::select! {
        () = sleep(left) => {}
        () = store.removed(live.hash) => {}
    }
}
