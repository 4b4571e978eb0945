//! The few answers that are our own. Each names the intercept and says what to do.

use http::StatusCode;

/// Why a request that matched could not be answered by the developer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The developer's machine answered, but its local server did not.
    LocalServer { reason: String },
    /// The tunnel went away after the request had been sent.
    TunnelLost,
    /// The developer is away and asked for errors in that case.
    Away,
    /// The local server closed before it had answered.
    NoAnswer,
    /// The request is HTTP/2, and the local server did not answer in it.
    NotHttp2,
    /// The request is a WebSocket over HTTP/2, and the local server does not allow these.
    NoExtendedConnect,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Away => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the client is told: what happened, and what to do.
    pub fn text(&self, intercept: &str) -> String {
        match self {
            Self::LocalServer { reason } => format!(
                "redirector: intercept \"{intercept}\" took this request, but the developer's local server \
                 could not be reached: {reason}.\nStart the local server, or stop the intercept to reach the \
                 live service.\n"
            ),
            Self::TunnelLost => format!(
                "redirector: intercept \"{intercept}\" took this request, but the tunnel to the developer was \
                 lost before the answer.\nRepeat the request: while the developer is away the live service \
                 answers.\n"
            ),
            Self::Away => format!(
                "redirector: intercept \"{intercept}\" matches this request, its developer is away and asked \
                 for an error in that case.\nRun `redirector intercept` again, or remove the intercept.\n"
            ),
            Self::NoAnswer => format!(
                "redirector: intercept \"{intercept}\" took this request, but the developer's local server \
                 closed the connection without an answer.\nLook at the local server's log.\n"
            ),
            Self::NotHttp2 => format!(
                "redirector: intercept \"{intercept}\" took this HTTP/2 request, but the developer's local \
                 server did not answer in HTTP/2.\nIt must speak HTTP/2 without TLS (h2c with prior knowledge) \
                 on the address given with --to, as gRPC servers do.\n"
            ),
            Self::NoExtendedConnect => format!(
                "redirector: intercept \"{intercept}\" took this request for a WebSocket over HTTP/2, which \
                 the developer's local server does not allow.\nEnable extended CONNECT (RFC 8441) in the local \
                 server.\n"
            ),
        }
    }
}

/// A complete HTTP/1.1 response. `close`: something of the request is left that has nobody to go to, so the
/// connection can't be used again.
pub fn response(intercept: &str, refusal: &Refusal, head_only: bool, close: bool) -> Vec<u8> {
    let text = refusal.text(intercept);
    let mut response = format!(
        "HTTP/1.1 {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nx-redirector: \
         {}\r\n{}\r\n",
        refusal.status(),
        text.len(),
        header_safe(intercept),
        if close { "connection: close\r\n" } else { "" }
    );
    if !head_only {
        response.push_str(&text);
    }
    response.into_bytes()
}

/// Intercept names are checked at creation; this keeps a header a header whatever they are.
pub(super) fn header_safe(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_intercept_and_frames_its_text() {
        let refusal = Refusal::LocalServer { reason: "connection refused".to_owned() };
        let response = String::from_utf8(response("alice", &refusal, false, true)).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 502 "));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(body.contains("\"alice\"") && body.contains("connection refused"));
    }

    #[test]
    fn a_name_cannot_add_header_lines() {
        let response =
            String::from_utf8(response("a\r\nset-cookie: x", &Refusal::TunnelLost, true, true)).unwrap();
        assert!(!response.contains("\r\nset-cookie"));
    }
}
