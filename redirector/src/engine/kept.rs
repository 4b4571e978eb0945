//! A request that may be sent to the app a second time.
//!
//! A connection to the app may be idle while its client is busy with a developer, and then the app may end it. A request
//! that meets this end is repeated over another connection, if its method is safe and nothing of the answer has come
//! (RFC 9110 §9.2.2).

use crate::http1::RequestHead;
use bytes::BytesMut;

/// The one request of which the app owes an answer.
pub(super) struct Kept {
    head: RequestHead,
    bytes: BytesMut,
    /// While it is being written: how many bytes are behind it in the client's buffer.
    behind: Option<usize>,
}

impl Kept {
    /// `buf` begins with the request's head. `None`: it can't be repeated.
    pub(super) fn of(head: RequestHead, buf: &BytesMut) -> Option<Self> {
        head.safe_without_body.then(|| Self {
            bytes: BytesMut::from(&buf[..head.len]),
            behind: Some(buf.len() - head.len),
            head,
        })
    }

    /// All of it has left the client's buffer.
    pub(super) fn mark_written(&mut self) {
        self.behind = None;
    }

    /// Back to the front of the client's buffer.
    pub(super) fn put_back(self, buf: &mut BytesMut) -> RequestHead {
        let Self { head, mut bytes, behind } = self;
        let unwritten = behind.map_or(0, |behind| buf.len().saturating_sub(behind));
        bytes.extend_from_slice(&buf[unwritten..]);
        *buf = bytes;
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{RequestFramer, RequestStep};
    use bytes::Buf as _;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn kept(text: &str) -> (Option<Kept>, BytesMut) {
        let buf = BytesMut::from(text);
        match RequestFramer::new().next(&buf, |_| ()) {
            RequestStep::Head { head, .. } => (Kept::of(head, &buf), buf),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn however_much_of_it_was_written_it_is_put_back_whole() {
        for written in 0..=GET.len() {
            let (request, mut buf) = kept(&format!("{GET}next"));
            buf.advance(written);
            request.unwrap().put_back(&mut buf);
            assert_eq!(buf, format!("{GET}next"), "{written} written");
        }
    }

    #[test]
    fn what_came_after_it_was_written_stays_behind_it() {
        let (request, mut buf) = kept(GET);
        let mut request = request.unwrap();
        buf.advance(GET.len());
        request.mark_written();
        buf.extend_from_slice(b"next");
        request.put_back(&mut buf);
        assert_eq!(buf, format!("{GET}next"));
    }

    #[test]
    fn only_what_may_be_repeated_is_kept() {
        for text in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        ] {
            assert!(kept(text).0.is_none(), "{text}");
        }
    }
}
