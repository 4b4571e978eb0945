//! The status of an HTTP/1.x response, picked from its bytes as they pass. Pure; changes and delays nothing.

const MAX_LINE: usize = 32;

/// Feed it the response from its first byte on; it knows the first final (not 1xx, except 101) status.
#[derive(Clone, Debug, Default)]
pub struct ResponseStatus {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// In a status line, with its beginning so far.
    Line(Vec<u8>),
    /// In the head of an interim response; how much of the empty line that ends it has been seen.
    Interim(Newlines),
    Known(u16),
    NotHttp,
}

/// Line ends in a row, carriage returns skipped.
#[derive(Clone, Copy, Debug)]
enum Newlines {
    None,
    One,
}

impl Default for State {
    fn default() -> Self {
        Self::Line(Vec::new())
    }
}

impl ResponseStatus {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the response, split anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match &mut self.state {
                State::Line(line) if line.len() < MAX_LINE && byte != b'\n' => line.push(byte),
                State::Line(line) => {
                    self.state = match parse(line) {
                        // RFC 9110 §15.2: interim responses precede the one that counts; 101 is the last of its kind.
                        // The rest of a long line is part of what is skipped.
                        Some(100 | 102..=199) if byte == b'\n' => State::Interim(Newlines::One),
                        Some(100 | 102..=199) => State::Interim(Newlines::None),
                        Some(status) => State::Known(status),
                        None => State::NotHttp,
                    };
                }
                State::Interim(newlines) => match (byte, *newlines) {
                    (b'\n', Newlines::One) => self.state = State::default(),
                    (b'\n', Newlines::None) => *newlines = Newlines::One,
                    (b'\r', _) => {}
                    _ => *newlines = Newlines::None,
                },
                State::Known(_) | State::NotHttp => return,
            }
        }
    }

    /// The status, once it has passed. `None` also when this is not HTTP/1.x.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.state {
            State::Known(status) => Some(status),
            _ => None,
        }
    }
}

/// `HTTP/1.x SP 3DIGIT`, then a space or the end of the line (RFC 9112 §4).
fn parse(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [minor, b' ', digits @ ..] = rest else { return None };
    let (code, after) = digits.split_at_checked(3)?;
    let valid = minor.is_ascii_digit()
        && code.iter().all(u8::is_ascii_digit)
        && matches!(after, [] | [b' ' | b'\r', ..]);
    valid.then(|| code.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(response: &[u8]) -> Option<u16> {
        let mut status = ResponseStatus::new();
        status.feed(response);
        status.status()
    }

    #[test]
    fn the_status_is_that_of_the_first_final_response() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 404\n\n"), Some(404));
        assert_eq!(status(b"HTTP/1.1 503 A rather long reason phrase, longer than we keep"), Some(503));
        assert_eq!(status(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n"), Some(201));
        assert_eq!(
            status(b"HTTP/1.1 103 Early Hints, with quite a long reason\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"),
            Some(200)
        );
        assert_eq!(status(b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n"), Some(101));
    }

    #[test]
    fn what_is_not_http_has_no_status() {
        for bytes in
            [&b""[..], b"HTTP/1.1 200", b"HTTP/2 200\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 2000\r\n", b"\n"]
        {
            assert_eq!(status(bytes), None, "{bytes:?}");
        }
        assert_eq!(status(b"junk\r\nHTTP/1.1 200 OK\r\n"), None);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_status(cuts in proptest::collection::vec(0_usize..90, 0..6)) {
            let response = b"HTTP/1.1 100 Continue\r\na: b\r\n\r\nHTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(response.len())).collect();
            cuts.extend([0, response.len()]);
            cuts.sort_unstable();
            let mut status = ResponseStatus::new();
            for pair in cuts.windows(2) {
                status.feed(&response[pair[0]..pair[1]]);
            }
            prop_assert_eq!(status.status(), Some(418));
        }

        #[test]
        fn any_bytes_are_fed_without_panic(bytes: Vec<u8>) {
            status(&bytes);
        }
    }
}
