//! The answers that are our own, as HTTP/2 and gRPC clients understand them. Pure.

use crate::engine::refusal::{Refusal, header_safe};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What gRPC wants encoded in a message: `%` and all but printable ASCII ("gRPC over HTTP2", Responses).
const GRPC_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');
const GRPC_UNAVAILABLE: &str = "14";

/// The head of an answer, and its text if it has one.
pub(super) fn response(intercept: &str, refusal: &Refusal, grpc: bool) -> (Response<()>, Option<String>) {
    let text = refusal.text(intercept);
    let mut response = Response::new(());
    let fields = response.headers_mut();
    set(fields, HeaderName::from_static("x-redirector"), &header_safe(intercept));
    if grpc {
        // An answer without content has its trailers in its head.
        set(fields, header::CONTENT_TYPE, "application/grpc");
        set(fields, HeaderName::from_static("grpc-status"), GRPC_UNAVAILABLE);
        let message = utf8_percent_encode(text.trim_end(), GRPC_MESSAGE).to_string();
        set(fields, HeaderName::from_static("grpc-message"), &message);
        return (response, None);
    }
    set(fields, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(fields, header::CONTENT_LENGTH, &text.len().to_string());
    *response.status_mut() = refusal.status();
    (response, Some(text))
}

/// All values here are visible ASCII, which every header value may hold.
fn set(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;

    #[test]
    fn grpc_clients_get_a_status_and_the_same_text() {
        let refusal = Refusal::LocalServer { reason: "100 % gone: ü".to_owned() };
        let (plain, text) = response("alice", &refusal, false);
        let text = text.unwrap();
        assert_eq!(plain.status(), 502);
        assert_eq!(plain.headers()["content-length"], text.len().to_string());
        assert!(text.contains("\"alice\"") && text.contains("100 % gone: ü"));

        let (grpc, content) = response("alice", &refusal, true);
        assert_eq!((grpc.status().as_u16(), content), (200, None));
        assert_eq!(grpc.headers()["grpc-status"], "14");
        let message = grpc.headers()["grpc-message"].to_str().unwrap();
        assert_eq!(percent_decode_str(message).decode_utf8().unwrap(), text.trim_end());
    }

    #[test]
    fn a_name_can_be_anything() {
        let (response, _) = response("a\r\nb ü", &Refusal::TunnelLost, false);
        assert_eq!(response.headers()["x-redirector"], "a__b__");
    }
}
