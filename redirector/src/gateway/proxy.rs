//! One request through the gateway: whose it is, what the ingress gets of it, and what the visitor gets back.

use super::{
    away::Agents,
    cookie,
    forwarded::{Seen, TrustedPeers, set_forwarded},
    hop_by_hop::{accepts_trailers, remove_hop_by_hop},
    injection::{inject, strip},
    link::PublicUrl,
    page::Page,
    password::Attempts,
    preview::{Access, LivePreview, PreviewWhenAway},
    record,
    redirects::keep_visitor,
    route::{self, Site},
    server::Place,
    store::PreviewStore,
    upgrade,
    upstream::{Body, Upstream},
    visit::Visit,
};
use crate::trace::{log::RequestLog, recording::Recording, traceparent::TraceIds};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::Authority};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::sync::Semaphore;

/// All that requests are answered by.
pub struct Gateway {
    pub site: Site,
    pub public_url: PublicUrl,
    /// May requests without a preview reach the live version?
    pub pass_through: bool,
    pub trusted: TrustedPeers,
    pub store: Arc<PreviewStore>,
    pub agents: Agents,
    pub upstream: Upstream,
    pub attempts: Mutex<Attempts>,
    /// Hashing a password takes memory: so many at a time.
    pub hashing: Semaphore,
    /// Where it listens.
    pub port: u16,
    /// Where requests of previews are remembered.
    pub log: Arc<RequestLog>,
}

/// The connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub tls: bool,
}

/// What of a request is needed once it is on its way.
struct OnItsWay {
    asked: Authority,
    is_preview_host: bool,
    preview: Option<Arc<LivePreview>>,
    by_cookie: bool,
}

impl Gateway {
    /// Never fails: problems are pages.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Connection,
        place: Place,
    ) -> Response<Body> {
        let wants_websocket = upgrade::asked(&request);
        if let Some(page) = refused(&request, wants_websocket.is_some()) {
            return answer_with(&page);
        }
        let asked = match route::authority(request.uri(), request.headers()) {
            Ok(asked) => asked,
            Err(error) => return answer_with(&Page::BadRequest { reason: &error.to_string() }),
        };
        let (request, visit) = self.visit(request, &asked, connection).await;
        let on_its_way = match visit {
            Visit::Answered(response) => return response,
            Visit::Live => OnItsWay { asked, is_preview_host: false, preview: None, by_cookie: false },
            Visit::Preview { live, by_cookie } => {
                if live.preview.when_away == PreviewWhenAway::Page
                    && self.agents.developer_is_there(&live.context).await == Some(false)
                {
                    return answer_with(&Page::Away { owner: &live.preview.owner });
                }
                OnItsWay { asked, is_preview_host: !by_cookie, preview: Some(live), by_cookie }
            }
        };
        match request {
            Some(request) => self.forward(request, on_its_way, (connection, place), wants_websocket).await,
            None => answer_with(&Page::Failed),
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        way: OnItsWay,
        (connection, place): (Connection, Place),
        websocket: Option<upgrade::Asked>,
    ) -> Response<Body> {
        let visitor = websocket.map(|_| hyper::upgrade::on(&mut request));
        let told = self.upstream.host(&way.asked, way.is_preview_host).into_owned();
        let scheme = self.scheme(connection);
        let (request, mut recording) = self.request_for_ingress(request, &way, connection, websocket);
        let (mut response, in_flight) = match self.upstream.send(request, &told).await {
            Ok(answer) => answer,
            Err(error) if is_visitors(&error) => {
                return answer_with(&Page::BadRequest { reason: "its body is broken" });
            }
            Err(error) => {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error), "the ingress gives no answer");
                return answer_with(&Page::NoIngress);
            }
        };
        if let Some(recording) = &mut recording {
            recording.answered(response.status().as_u16());
        }
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let ingress = switches.then(|| hyper::upgrade::on(&mut response));
        let (mut parts, body) = response.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        parts.extensions = http::Extensions::default();
        keep_visitor(&mut parts.headers, (self.upstream.scheme(), &told), (scheme, &way.asked));
        if let Some(live) = &way.preview {
            mark_preview(&mut parts.headers, live, way.by_cookie);
        }
        parts.version = Version::default();
        // With the body the request ends.
        let under_way = (recording, in_flight);
        let body = body.map_frame(move |frame| {
            let _ = &under_way;
            frame
        });
        let body = body.map_err(Into::into).boxed_unsync();
        match (websocket, visitor, ingress) {
            (Some(websocket), Some(visitor), Some(ingress)) => {
                parts.status = websocket.answer(&mut parts.headers);
                let store = Arc::clone(&self.store);
                tokio::spawn(async move {
                    upgrade::carry(websocket, visitor, ingress, way.preview, store).await;
                    drop(place);
                });
                Response::from_parts(parts, empty())
            }
            // It switches to what nobody asked for.
            (None, _, Some(_)) => answer_with(&Page::NoIngress),
            _ => Response::from_parts(parts, body),
        }
    }

    fn request_for_ingress(
        &self,
        request: Request<Incoming>,
        way: &OnItsWay,
        connection: Connection,
        websocket: Option<upgrade::Asked>,
    ) -> (Request<Body>, Option<Recording>) {
        let (mut parts, body) = request.into_parts();
        let headers = &mut parts.headers;
        let names = self.store.names();
        let version = self.upstream.version(websocket.is_some());
        let is_http2 = version == Version::HTTP_2;
        let accepts_trailers = accepts_trailers(headers);
        remove_hop_by_hop(headers);
        if is_http2 && accepts_trailers {
            // gRPC servers insist on it.
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        // The gateway itself has answered it.
        headers.remove(header::EXPECT);
        cookie::remove_cookies(headers);
        cookie::join_cookies(headers);
        strip(headers, &names);
        let seen =
            Seen { peer: connection.peer.ip(), host: way.asked.as_str(), scheme: self.scheme(connection) };
        set_forwarded(headers, seen, &self.trusted);
        let mut made = None;
        if let Some(live) = &way.preview {
            inject(headers, &live.context, || *made.insert(TraceIds::random()));
        }
        let recording = (way.preview.as_ref())
            .map(|live| record::recording(&self.log, self.port, &parts, live, connection, made));
        parts.version = version;
        parts.extensions = http::Extensions::default();
        let headers = &mut parts.headers;
        let body = match websocket {
            Some(websocket) => {
                websocket.ask(&mut parts.method, headers);
                headers.remove(header::CONTENT_LENGTH);
                empty()
            }
            None => {
                // Without it, hyper takes a GET of unknown length to have no body in HTTP/1.1.
                if !is_http2 && !body.is_end_stream() && !headers.contains_key(header::CONTENT_LENGTH) {
                    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                let frames = body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        strip(&mut trailers, &names);
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                });
                frames.map_err(Into::into).boxed_unsync()
            }
        };
        (Request::from_parts(parts, body), recording)
    }

    /// In which the visitor speaks, to us or to who is in front of us.
    pub fn scheme(&self, connection: Connection) -> &'static str {
        if connection.tls || self.public_url.is_secure() { "https" } else { "http" }
    }
}

/// The request's own body failed, not the ingress.
fn is_visitors(error: &hyper_util::client::legacy::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<hyper::Error>());
    source.is_some_and(hyper::Error::is_user)
}

/// Requests that are not passed on, whoever they are for.
fn refused(request: &Request<Incoming>, is_websocket: bool) -> Option<Page<'static>> {
    let bad = |reason| Some(Page::BadRequest { reason });
    match *request.method() {
        // TRACE would show the visitor what was put into the request (RFC 9110 §9.3.8).
        Method::TRACE => return Some(Page::MethodNotAllowed),
        Method::CONNECT if !is_websocket => return Some(Page::MethodNotAllowed),
        _ => {}
    }
    if !request.uri().path().starts_with('/') {
        return bad("its target is no path");
    }
    if request.headers().contains_key(header::CONTENT_LENGTH)
        && request.headers().contains_key(header::TRANSFER_ENCODING)
    {
        return bad("it has two lengths");
    }
    None
}

/// So that neither browsers nor whoever is in between show a preview to those who did not ask for it.
fn mark_preview(headers: &mut HeaderMap, live: &LivePreview, by_cookie: bool) {
    if by_cookie {
        // The live version has the same address.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.append(header::VARY, HeaderValue::from_static("cookie"));
    }
    if live.preview.access != Access::Public {
        // The address of a page is sent along with what it loads from elsewhere, and has the id in it.
        headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
        headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    }
}

pub fn answer_with(page: &Page<'_>) -> Response<Body> {
    page.response().map(|html| Full::new(Bytes::from(html)).map_err(|never| match never {}).boxed_unsync())
}

pub fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}
