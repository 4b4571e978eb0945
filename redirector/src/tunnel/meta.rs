//! What the agent tells the developer's side about a request before its bytes, as HTTP/2 headers. Pure.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use super::error::Refusal;
use crate::protocol::Protocol;

const URI: &str = "http://redirector/v1/stream";
const PATH: &str = "/v1/stream";
const REASON: &str = "x-redirector-reason";
/// The path is for display only, the request itself follows verbatim. Bytes.
const MAX_PATH: usize = 2048;
/// Long enough for any error text. Bytes.
const MAX_REASON: usize = 1024;
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Where a request comes from and which intercept it matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMeta {
    /// The name of the intercept.
    pub intercept: String,
    /// Who sent the request, as the agent saw it.
    pub client: SocketAddr,
    /// The address and port the client dialled.
    pub original_destination: SocketAddr,
    pub method: String,
    /// For display: cut to 2048 bytes on its way.
    pub path: String,
    /// What the local server is spoken to in.
    pub protocol: Protocol,
}

/// The headers of a stream are not what this version of redirector sends.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MetaError {
    #[error("unknown kind of stream {0}; run the same version of redirector on both ends")]
    UnknownStream(String),
    #[error("the header {0} is missing or malformed; run the same version of redirector on both ends")]
    Header(&'static str),
}

mod name {
    pub(super) const INTERCEPT: &str = "x-redirector-intercept";
    pub(super) const CLIENT: &str = "x-redirector-client";
    pub(super) const ORIGINAL_DESTINATION: &str = "x-redirector-original-destination";
    pub(super) const METHOD: &str = "x-redirector-method";
    pub(super) const PATH: &str = "x-redirector-path";
    pub(super) const PROTOCOL: &str = "x-redirector-protocol";
}

impl StreamMeta {
    pub(super) fn to_request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(URI);
        let headers = request.headers_mut();
        headers.insert(name::INTERCEPT, encode(&self.intercept));
        headers.insert(name::CLIENT, encode(&self.client.to_string()));
        headers.insert(name::ORIGINAL_DESTINATION, encode(&self.original_destination.to_string()));
        headers.insert(name::METHOD, encode(&self.method));
        headers.insert(name::PATH, encode(clip(&self.path, MAX_PATH)));
        headers.insert(name::PROTOCOL, HeaderValue::from_static(self.protocol.as_str()));
        request
    }

    pub(super) fn from_request<B>(request: &Request<B>) -> Result<Self, MetaError> {
        if request.method() != Method::POST || request.uri().path() != PATH {
            let kind = format!("{} {}", request.method(), request.uri().path());
            return Err(MetaError::UnknownStream(kind));
        }
        let headers = request.headers();
        let address = |name| decode(headers, name)?.parse().map_err(|_| MetaError::Header(name));
        Ok(Self {
            intercept: decode(headers, name::INTERCEPT)?,
            client: address(name::CLIENT)?,
            original_destination: address(name::ORIGINAL_DESTINATION)?,
            method: decode(headers, name::METHOD)?,
            path: decode(headers, name::PATH)?,
            protocol: decode(headers, name::PROTOCOL)?
                .parse()
                .map_err(|_| MetaError::Header(name::PROTOCOL))?,
        })
    }
}

/// The answer to a stream that is taken.
pub(super) fn accepted() -> Response<()> {
    Response::new(())
}

impl Refusal {
    pub(super) fn to_response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        response.headers_mut().insert(REASON, encode(clip(&self.reason, MAX_REASON)));
        response
    }

    /// `None` when the stream was taken.
    pub(super) fn from_response<B>(response: &Response<B>) -> Option<Self> {
        if response.status() == StatusCode::OK {
            return None;
        }
        let reason =
            response.headers().get(REASON).and_then(|value| value.to_str().ok()).unwrap_or("no reason given");
        let reason = percent_decode_str(reason).decode_utf8_lossy().into_owned();
        Some(Self { status: response.status(), reason })
    }
}

fn encode(text: &str) -> HeaderValue {
    let encoded = utf8_percent_encode(text, ENCODED).to_string();
    // Only visible ASCII is left, which every header value may hold.
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn decode(headers: &HeaderMap, name: &'static str) -> Result<String, MetaError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).ok_or(MetaError::Header(name))?;
    let text = percent_decode_str(value).decode_utf8().map_err(|_| MetaError::Header(name))?;
    Ok(text.into_owned())
}

/// The longest start of `text` that fits in `max` bytes.
fn clip(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_metadata_arrives_as_it_was_sent(
            intercept in "\\PC{0,40}", client: SocketAddr, original_destination: SocketAddr,
            method in "[\\x00-\\x7f]{0,20}", path: String, http2: bool,
        ) {
            // A flow label or scope without a name does not survive the textual form.
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            let sent = StreamMeta {
                intercept, client: plain(client), original_destination: plain(original_destination), method,
                path: clip(&path, MAX_PATH).to_owned(),
                protocol: if http2 { Protocol::Http2 } else { Protocol::Http1 },
            };
            prop_assert_eq!(StreamMeta::from_request(&sent.to_request()).unwrap(), sent);
        }

        #[test]
        fn any_reason_arrives_as_it_was_given(reason in "\\PC{0,200}") {
            let sent = Refusal { status: StatusCode::BAD_GATEWAY, reason: clip(&reason, MAX_REASON).to_owned() };
            prop_assert_eq!(Refusal::from_response(&sent.to_response()), Some(sent));
        }
    }

    #[test]
    fn long_paths_are_cut_between_characters() {
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("aé", 3), "aé");
        assert_eq!(clip("", 0), "");
    }

    #[test]
    fn a_stream_of_another_kind_or_without_metadata_is_refused() {
        let mut request = Request::new(());
        assert!(matches!(StreamMeta::from_request(&request), Err(MetaError::UnknownStream(_))));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(URI);
        assert_eq!(StreamMeta::from_request(&request), Err(MetaError::Header(name::INTERCEPT)));
    }
}
