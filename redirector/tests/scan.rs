//! The promises of the scanners that the eBPF programs read live connections with: they see what the framers see, or give
//! up, and never miss a request of an intercept.

mod http1;
mod scanning;

use http1::{Event, Message, any_request, any_response, http_like_bytes, run_requests, run_responses, whole};
use proptest::prelude::*;
use redirector::context::{Condition, Matcher};
use redirector::http1::{MAX_HEAD, MethodKind};
use redirector_common::scan::NoNeedles;
use scanning::{
    BLOCKS, By, Scanned, Seen, Wanted, any_matcher, matches_of, request_with_context, scan_requests,
    scan_responses,
};

/// The same from the framers' events.
fn seen_by_framers(events: &[Event]) -> Vec<Seen> {
    let mut at = 0;
    let mut seen = Vec::new();
    for event in events {
        at += event.bytes().len();
        match event {
            Event::Head(_) => seen.push(Seen::Head(at)),
            Event::End => seen.push(Seen::End(at)),
            _ => {}
        }
    }
    seen
}

/// Nothing is seen that the framers don't see; all of it is, or the scan has given up.
#[track_caller]
fn assert_agrees((scanned, raw): &Scanned, framed: &[Seen], stream: &[u8]) {
    let shown = String::from_utf8_lossy(stream);
    assert!(framed.starts_with(scanned), "{scanned:?} but {framed:?} in {shown:?}");
    assert!(*raw || scanned.len() == framed.len(), "{scanned:?} is short of {framed:?} in {shown:?}");
}

/// In blocks the same is seen as by bytes. But only whoever goes by bytes is certain to give up at a line without a name, which
/// says nothing of lengths.
#[track_caller]
fn assert_is_no_stricter(blocks: &Scanned, bytes: &Scanned, by: By) {
    assert!(
        blocks == bytes || (bytes.1 && blocks.0.starts_with(&bytes.0)),
        "{by:?}: {blocks:?}, not {bytes:?}"
    );
}

/// However it is read.
#[track_caller]
fn assert_gives_up(stream: &[u8]) {
    for by in BLOCKS.into_iter().chain([By::Byte]) {
        let ((seen, raw), _) = scan_requests(stream, &NoNeedles, by);
        assert!(raw && seen.is_empty(), "{by:?}: {seen:?} of {:?}", String::from_utf8_lossy(stream));
    }
}

#[track_caller]
fn assert_requests_agree(stream: &[u8]) -> Scanned {
    let (scanned, _) = scan_requests(stream, &NoNeedles, By::Byte);
    assert_agrees(&scanned, &seen_by_framers(&run_requests(stream, &whole())), stream);
    for by in BLOCKS {
        assert_is_no_stricter(&scan_requests(stream, &NoNeedles, by).0, &scanned, by);
    }
    scanned
}

#[track_caller]
fn assert_responses_agree(stream: &[u8], methods: &[MethodKind]) -> Scanned {
    let scanned = scan_responses(stream, methods, By::Byte);
    let events = run_responses(stream, methods, &whole());
    let mut framed = seen_by_framers(&events);
    // Only the framer is told that the stream is over, which ends a body without a length.
    if !scanned.1 && framed.len() == scanned.0.len() + 1 && framed.last() == Some(&Seen::End(stream.len())) {
        framed.pop();
    }
    // Lines that say nothing of the length need not be as the framer wants them: it may give up before the scan does.
    let gave_up = matches!(events.last(), Some(Event::Raw(_)));
    if !gave_up || !scanned.0.starts_with(&framed) {
        assert_agrees(&scanned, &framed, stream);
    }
    for by in BLOCKS {
        assert_is_no_stricter(&scan_responses(stream, methods, by), &scanned, by);
    }
    scanned
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn valid_requests_end_where_the_framer_says(requests in prop::collection::vec(any_request(), 1..5)) {
        let stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let (_, raw) = assert_requests_agree(&stream);
        prop_assert!(!raw, "gave up");
    }

    #[test]
    fn valid_responses_end_where_the_framer_says(responses in prop::collection::vec(any_response(), 1..5)) {
        let stream: Vec<u8> = responses.iter().flat_map(Message::bytes).collect();
        let finals = responses.iter().filter(|response| !response.interim);
        let methods: Vec<MethodKind> = finals.map(|response| response.method).collect();
        let (_, raw) = assert_responses_agree(&stream, &methods);
        prop_assert!(!raw, "gave up");
    }

    #[test]
    fn any_requests_are_seen_as_the_framer_sees_them_or_given_up(stream in http_like_bytes()) {
        assert_requests_agree(&stream);
    }

    #[test]
    fn any_responses_are_seen_as_the_framer_sees_them_or_given_up(stream in http_like_bytes(), head: bool) {
        assert_responses_agree(&stream, &[if head { MethodKind::Head } else { MethodKind::Other }]);
    }

    #[test]
    fn damaged_requests_are_seen_as_the_framer_sees_them_or_given_up(
        requests in prop::collection::vec(any_request(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\r\n:,; \t\x00\x7f0".to_vec())],
        instead: bool,
    ) {
        let mut stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let at = at.index(stream.len());
        if instead { stream[at] = byte } else { stream.insert(at, byte) }
        assert_requests_agree(&stream);
    }

    #[test]
    fn damaged_responses_are_seen_as_the_framer_sees_them_or_given_up(
        responses in prop::collection::vec(any_response(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\r\n:,; \t\x00\x7f0".to_vec())],
        instead: bool,
    ) {
        let mut stream: Vec<u8> = responses.iter().flat_map(Message::bytes).collect();
        let at = at.index(stream.len());
        if instead { stream[at] = byte } else { stream.insert(at, byte) }
        let finals = responses.iter().filter(|response| !response.interim);
        let methods: Vec<MethodKind> = finals.map(|response| response.method).collect();
        assert_responses_agree(&stream, &methods);
    }

    #[test]
    fn garbage_never_panics(stream in prop::collection::vec(any::<u8>(), 0..2048)) {
        assert_requests_agree(&stream);
        assert_responses_agree(&stream, &[MethodKind::Other]);
    }

    #[test]
    fn no_request_of_an_intercept_is_missed(
        matcher in any_matcher(),
        requests in prop::collection::vec(request_with_context(), 1..4),
    ) {
        let stream = requests.concat();
        let wanted = Wanted::of(&matcher);
        let ((seen, _), interesting) = scan_requests(&stream, &wanted, By::Byte);
        for by in BLOCKS {
            prop_assert_eq!(&scan_requests(&stream, &wanted, by).1, &interesting);
        }
        let matches = matches_of(&stream, &matcher);
        prop_assert!(seen.len() >= 2 * requests.len(), "gave up on {:?}", String::from_utf8_lossy(&stream));
        for (index, (matches, interesting)) in matches.iter().zip(&interesting).enumerate() {
            prop_assert!(!matches || *interesting, "request {index} of {:?}", String::from_utf8_lossy(&stream));
        }
    }

    #[test]
    fn requests_without_any_of_the_names_stay_live(requests in prop::collection::vec(any_request(), 1..4)) {
        let stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let key = Matcher { conditions: vec![Condition::Key("abcdefghijklmnop".parse().unwrap())] };
        let (_, interesting) = scan_requests(&stream, &Wanted::of(&key), By::Byte);
        prop_assert_eq!(interesting, vec![false; requests.len()]);
    }
}

#[test]
fn what_the_framer_takes_for_raw_is_given_up() {
    let lines = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\ncontent-length: 4",
        "Content-Length: 4, 4",
        "Content-Length:",
        "Content-Length: +4",
        "Content-Length: 4 4",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunke",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        " Content-Length: 4",
        "X: 1\r\n\tfolded",
        "Transfer-Encoding:\r\n chunked",
        "Content\rLength: 4",
        "X: 1\nTransfer-Encoding: chunked",
        "X: 1\rTransfer-Encoding: chunked",
    ];
    for lines in lines {
        let stream = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        assert_requests_agree(stream.as_bytes());
        assert_gives_up(stream.as_bytes());
    }
    for stream in [
        "\x16\x03\x01",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n",
        "GET /\u{e9} HTTP/1.1\r\n\r\n",
    ] {
        assert_gives_up(stream.as_bytes());
    }
}

#[test]
fn responses_whose_length_is_in_doubt_are_given_up() {
    let lines = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "transfer-encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\ncontent-length: 4",
        "Content-Length: 4, 4",
        "Content-Length:",
        "Content-Length : 4",
        "Content-Length\r\n",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding : chunked",
        " Content-Length: 4",
        "Server: a\r\n\tContent-Length: 4",
        "X: 1\nContent-Length: 4",
        "X: 1\rContent-Length: 4",
        "\u{1}Content-Length: 4",
    ];
    for lines in lines {
        let stream = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n1234");
        assert_responses_agree(stream.as_bytes(), &[MethodKind::Other]);
        for by in BLOCKS.into_iter().chain([By::Byte]) {
            let (seen, raw) = scan_responses(stream.as_bytes(), &[MethodKind::Other], by);
            assert!(raw && seen.is_empty(), "{by:?}: {seen:?} of {lines:?}");
        }
    }
}

#[test]
fn lines_of_requests_without_a_name_are_text_or_given_up() {
    for line in ["no colon", ": no name", "a name: 1"] {
        let stream = format!("GET / HTTP/1.1\r\n{line}\r\nContent-Length: 4\r\n\r\n1234");
        let whole = scan_requests(stream.as_bytes(), &NoNeedles, BLOCKS[0]).0;
        assert_eq!(whole, (vec![Seen::Head(stream.len() - 4), Seen::End(stream.len())], false), "{line:?}");
        assert_requests_agree(stream.as_bytes());
    }
}

#[test]
fn lines_of_responses_that_say_nothing_of_the_length_are_text() {
    let stream = b"HTTP/1.1 200 OK\r\nnot a line\r\nServer : a\r\nContent-Length: 4\r\n\r\n1234";
    let (seen, raw) = assert_responses_agree(stream, &[MethodKind::Other]);
    assert!(!raw && seen == [Seen::Head(stream.len() - 4), Seen::End(stream.len())], "{seen:?}");
}

#[test]
fn connections_that_change_their_protocol_are_given_up() {
    for head in ["GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n"] {
        let ((seen, raw), _) = scan_requests(head.as_bytes(), &NoNeedles, By::Byte);
        assert!(raw && seen.is_empty(), "{head:?}");
    }
    assert!(scan_responses(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &[MethodKind::Other], By::Byte).1);
}

#[test]
fn bodies_of_two_gibibytes_are_given_up() {
    for (length, raw) in [("2147483600", false), ("2147483648", true), ("99999999999", true)] {
        let head = format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(scan_requests(head.as_bytes(), &NoNeedles, By::Byte).0.1, raw, "{length}");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(scan_responses(response.as_bytes(), &[MethodKind::Other], By::Byte).1, raw, "{length}");
    }
    for (size, raw) in
        [("7fffffff", false), ("80000000", true), ("0000000000000001", false), ("00000000000000001", true)]
    {
        let head = format!("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n");
        assert_eq!(scan_requests(head.as_bytes(), &NoNeedles, By::Byte).0.1, raw, "{size}");
    }
}

#[test]
fn a_response_without_a_length_never_ends() {
    let stream = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(scan_responses(stream, &[MethodKind::Other], By::Byte), (vec![Seen::Head(19)], false));
}

#[test]
fn heads_are_bounded_as_the_framer_bounds_them() {
    let start = "GET / HTTP/1.1\r\nX: ";
    for (len, ends) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
        let head = format!("{start}{}\r\n\r\n", "x".repeat(len - start.len() - 4));
        let (seen, raw) = assert_requests_agree(head.as_bytes());
        assert_eq!((seen.len(), raw), if ends { (2, false) } else { (0, true) }, "{len}");
    }
    for (len, ends) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
        let lines = "X-Long: 0123456789abcdefghijklmnopqrstuvwxyz".repeat(7) + "\r\n";
        let lines = lines.repeat(200);
        let head = format!("{start}{}\r\n{lines}\r\n", "x".repeat(len - start.len() - lines.len() - 4));
        let (seen, raw) = assert_requests_agree(head.as_bytes());
        assert_eq!((seen.len(), raw), if ends { (2, false) } else { (0, true) }, "{len}");
    }
    for (lines, ends) in [(256, true), (257, false)] {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(lines));
        let (seen, raw) = assert_requests_agree(head.as_bytes());
        assert_eq!((seen.len(), raw), if ends { (2, false) } else { (0, true) }, "{lines}");
    }
}
