//! The few answers that are our own. Each names the intercept and says what to do.

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
}

/// A complete HTTP/1.1 response. `close`: something of the request is left that has nobody to go to, so the
/// connection can't be used again.
pub fn response(intercept: &str, refusal: &Refusal, head_only: bool, close: bool) -> Vec<u8> {
    let (status, text) = match refusal {
        Refusal::LocalServer { reason } => (
            "502 Bad Gateway",
            format!(
                "redirector: intercept \"{intercept}\" took this request, but the developer's local server \
                 could not be reached: {reason}.\nStart the local server, or stop the intercept to reach the \
                 live service.\n"
            ),
        ),
        Refusal::TunnelLost => (
            "502 Bad Gateway",
            format!(
                "redirector: intercept \"{intercept}\" took this request, but the tunnel to the developer was \
                 lost before the answer.\nRepeat the request: while the developer is away the live service \
                 answers.\n"
            ),
        ),
        Refusal::Away => (
            "503 Service Unavailable",
            format!(
                "redirector: intercept \"{intercept}\" matches this request, its developer is away and asked \
                 for an error in that case.\nRun `redirector intercept` again, or remove the intercept.\n"
            ),
        ),
        Refusal::NoAnswer => (
            "502 Bad Gateway",
            format!(
                "redirector: intercept \"{intercept}\" took this request, but the developer's local server \
                 closed the connection without an answer.\nLook at the local server's log.\n"
            ),
        ),
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nx-redirector: \
         {}\r\n{}\r\n",
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
fn header_safe(name: &str) -> String {
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
