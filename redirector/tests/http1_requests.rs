//! The promises of request framing: exact on what is valid, raw on what is ambiguous, the same for every cut.

mod http1;

use http1::{Cuts, Event, Message, any_request, cuts, http_like_bytes, run_requests, whole};
use proptest::prelude::*;
use redirector::http1::{
    MAX_HEAD, MAX_HEADERS, MethodKind, Pending, RawReason, RequestFramer, RequestHead, RequestStep,
};

fn head(request: &[u8]) -> RequestHead {
    match RequestFramer::new().next(request, |_| ()) {
        RequestStep::Head { head, .. } => head,
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(request)),
    }
}

fn first_step(bytes: &[u8]) -> RequestStep<()> {
    RequestFramer::new().next(bytes, |_| ())
}

proptest! {
    #[test]
    fn valid_pipelines_are_framed_exactly(
        requests in prop::collection::vec(any_request(), 1..5),
        cuts in cuts(),
    ) {
        let stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let expected: Vec<Event> = requests.iter().flat_map(Message::events).collect();
        prop_assert_eq!(run_requests(&stream, &cuts), expected);
    }

    #[test]
    fn any_cut_of_any_bytes_gives_the_same_events(stream in http_like_bytes(), cuts in cuts()) {
        let uncut = run_requests(&stream, &whole());
        let joined: Vec<u8> = uncut.iter().flat_map(Event::bytes).copied().collect();
        prop_assert!(stream.starts_with(&joined), "events hold bytes that were not sent");
        prop_assert_eq!(run_requests(&stream, &cuts), uncut);
    }

    #[test]
    fn a_damaged_pipeline_is_framed_the_same_for_every_cut(
        requests in prop::collection::vec(any_request(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cuts in cuts(),
    ) {
        let mut stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let at = at.index(stream.len());
        stream[at] = byte;
        prop_assert_eq!(run_requests(&stream, &cuts), run_requests(&stream, &whole()));
    }

    #[test]
    fn garbage_never_panics(stream in prop::collection::vec(any::<u8>(), 0..2048), cuts in cuts()) {
        run_requests(&stream, &cuts);
    }
}

#[test]
fn smuggling_attempts_are_raw() {
    use RawReason::*;
    let cases: &[(&str, RawReason)] = &[
        ("Content-Length: 4\r\nTransfer-Encoding: chunked", BothLengths),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", BothLengths),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked", BothLengths),
        ("Content-Length: 4\r\nContent-Length: 5", ContentLength),
        ("Content-Length: 4\r\ncontent-length: 4", ContentLength),
        ("Content-Length: 4, 4", ContentLength),
        ("Content-Length: 4,", ContentLength),
        ("Content-Length:", ContentLength),
        ("Content-Length: +4", ContentLength),
        ("Content-Length: -1", ContentLength),
        ("Content-Length: 0x4", ContentLength),
        ("Content-Length: 4 4", ContentLength),
        ("Content-Length: 4.0", ContentLength),
        ("Content-Length: 1e1", ContentLength),
        ("Content-Length: \u{664}", ContentLength),
        ("Content-Length: 18446744073709551616", ContentLength),
        ("Content-Length: 99999999999999999999999999999999", ContentLength),
        ("Transfer-Encoding: identity", TransferEncoding),
        ("Transfer-Encoding: gzip, chunked", TransferEncoding),
        ("Transfer-Encoding: chunked, identity", TransferEncoding),
        ("Transfer-Encoding: chunked, chunked", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", TransferEncoding),
        ("Transfer-Encoding: xchunked", TransferEncoding),
        ("Transfer-Encoding: chunkedx", TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", TransferEncoding),
        ("Transfer-Encoding: chunked;q=1", TransferEncoding),
        ("Transfer-Encoding:", TransferEncoding),
        ("Transfer-Encoding : chunked", MalformedHeader),
        ("Content-Length : 4", MalformedHeader),
        ("Content-Length\t: 4", MalformedHeader),
        (" Content-Length: 4", MalformedHeader),
        ("X: 1\r\n Content-Length: 4", MalformedHeader),
        ("X: 1\r\n\tfolded", MalformedHeader),
        ("Transfer-Encoding:\r\n chunked", MalformedHeader),
        ("Transfer-Encoding: \u{b}chunked", MalformedHeader),
        ("Transfer-Encoding: chunked\u{0}", MalformedHeader),
        ("X: a\u{0}b", MalformedHeader),
        ("X: a\u{1}b", MalformedHeader),
        ("X: a\u{7f}b", MalformedHeader),
        (": empty name", MalformedHeader),
        ("no colon", MalformedHeader),
        ("X\u{e9}: 1", MalformedHeader),
        ("X: 1\nTransfer-Encoding: chunked", BareLineEnd),
        ("X: 1\n", BareLineEnd),
        ("X: 1\rTransfer-Encoding: chunked", BareLineEnd),
        ("X: 1\r\r\n", BareLineEnd),
        ("\n", BareLineEnd),
    ];
    for (lines, reason) in cases {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n");
        assert_eq!(first_step(request.as_bytes()), RequestStep::Raw(*reason), "{lines:?}");
    }
    let http10 = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(first_step(http10), RequestStep::Raw(TransferEncoding));
    for length in ["Content-Length: 4", "Content-Length: 0", "Transfer-Encoding: chunked"] {
        let connect = format!("CONNECT a:1 HTTP/1.1\r\n{length}\r\n\r\n");
        assert_eq!(first_step(connect.as_bytes()), RequestStep::Raw(ConnectWithBody), "{length}");
    }
}

#[test]
fn a_bad_chunk_is_raw_from_its_first_byte() {
    let long_extension = format!("5;{}\r\nhello\r\n", "x".repeat(4096));
    let endless_extension = format!("5;{}", "x".repeat(5000));
    let cases: &[(&str, &str)] = &[
        ("", "x\r\n"),
        ("", "\r\n"),
        ("", ";\r\n"),
        ("", " 5\r\nhello\r\n"),
        ("", "5 \r\nhello\r\n"),
        ("", "+5\r\nhello\r\n"),
        ("", "0x5\r\nhello\r\n"),
        ("", "5\nhello\r\n"),
        ("", "5\rhello\r\n"),
        ("", "5;a\nb\r\nhello\r\n"),
        ("", "5;a\rb\r\nhello\r\n"),
        ("", "5;a\0b\r\nhello\r\n"),
        ("", "00000000000000005\r\nhello\r\n"),
        ("", "fffffffffffffffff\r\n"),
        ("", &long_extension),
        ("", &endless_extension),
        ("5\r\nhello", "x"),
        ("5\r\nhello", "\n"),
        ("5\r\nhello", "\r5"),
        ("5\r\nhello\r\n", "-1\r\n"),
        ("5;ok=\"yes\"\r\nhello\r\n", "GET / HTTP/1.1\r\n"),
    ];
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (good, bad) in cases {
        let mut expected = vec![Event::Head(head.into())];
        expected.extend((!good.is_empty()).then(|| Event::Body(good.as_bytes().to_vec())));
        expected.push(Event::Raw(RawReason::MalformedChunk));
        let stream = format!("{head}{good}{bad}");
        for cuts in [whole(), Cuts::every(1), Cuts::every(7)] {
            assert_eq!(run_requests(stream.as_bytes(), &cuts), expected, "{good:?} {bad:?}");
        }
    }
}

#[test]
fn a_bad_trailer_is_raw_from_its_first_byte() {
    let too_long = format!("X: {}\r\n", "x".repeat(MAX_HEAD));
    for (good, bad) in [
        ("", "no colon\r\n\r\n"),
        ("", " folded: 1\r\n\r\n"),
        ("", "A : 1\r\n\r\n"),
        ("", "A: 1\n\r\n"),
        ("", "A: \x001\r\n\r\n"),
        ("A: 1\r\n", "\n"),
        ("A: 1\r\n", "GET / HTTP/1.1\r\n\r\n"),
        ("", &too_long),
    ] {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = format!("0\r\n{good}");
        let stream = format!("{head}{body}{bad}");
        let expected =
            [Event::Head(head.into()), Event::Body(body.into()), Event::Raw(RawReason::MalformedTrailer)];
        for cuts in [whole(), Cuts::every(1)] {
            assert_eq!(run_requests(stream.as_bytes(), &cuts), expected, "{good:?} {bad:.40?}");
        }
    }
}

#[test]
fn a_trailer_section_is_bounded_as_a_whole() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let line = format!("X: {}\r\n", "x".repeat(1024 - 5));
    let stream = |last: usize| {
        let last = format!("Y: {}\r\n", "y".repeat(last - 5));
        format!("{head}0\r\n{}{last}\r\n", line.repeat(MAX_HEAD / 1024 - 1))
    };
    for cuts in [whole(), Cuts::every(100)] {
        // The empty line at its end counts.
        let events = run_requests(stream(1022).as_bytes(), &cuts);
        assert_eq!(events.last(), Some(&Event::End));
        let events = run_requests(stream(1023).as_bytes(), &cuts);
        assert_eq!(events.last(), Some(&Event::Raw(RawReason::MalformedTrailer)));
    }
}

#[test]
fn what_cannot_be_http1_is_raw_at_its_first_impossible_byte() {
    use RawReason::*;
    // The last byte of each is the one that decides.
    let cases: &[(&[u8], RawReason)] = &[
        (b"\x16", Tls),
        (b"\x00", NotHttp1),
        (b"\xff", NotHttp1),
        (b" ", NotHttp1),
        (b"\n", NotHttp1),
        (b"\r\r", NotHttp1),
        (b"\r\n\r\n\r\n\r\n\r", NotHttp1),
        (b"PRI * HTTP/2", Http2),
        (b"GET / HTTP/2", Http2),
        (b"*1\r", NotHttp1),
        (b"EHLO mail.example\r", NotHttp1),
        (b"SSH-2.0-OpenSSH_9.2p1\r", NotHttp1),
        (b"GET(", NotHttp1),
        (b"GET  ", NotHttp1),
        (b"GET /\r", NotHttp1),
        (b"GET /\n", NotHttp1),
        (b"GET /\x00", NotHttp1),
        (b"GET /\x7f", NotHttp1),
        (b"GET /\t", NotHttp1),
        (b"GET /  ", NotHttp1),
        (b"GET / h", NotHttp1),
        (b"GET / HTTP/0", NotHttp1),
        (b"GET / HTTP/3", NotHttp1),
        (b"GET / HTTP/1.2", NotHttp1),
        (b"GET / HTTP/1.1 ", NotHttp1),
        (b"GET / HTTP/1.1\n", NotHttp1),
        (b"GET / HTTP/1.1\rX", NotHttp1),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", NotHttp1),
    ];
    for (bytes, reason) in cases {
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(first_step(bytes), RequestStep::Raw(*reason), "{shown:?}");
        let before = &bytes[..bytes.len() - 1];
        assert!(matches!(first_step(before), RequestStep::NeedMore(_)), "too early: {shown:?}");
        let mut framer = RequestFramer::new();
        for len in 0..bytes.len() {
            assert!(matches!(framer.next(&bytes[..len], |_| ()), RequestStep::NeedMore(_)), "{shown:?}");
        }
        assert_eq!(framer.next(bytes, |_| ()), RequestStep::Raw(*reason), "{shown:?} byte by byte");
    }
}

#[test]
fn raw_is_for_good() {
    let mut framer = RequestFramer::new();
    assert_eq!(framer.next(b"\x16", |_| ()), RequestStep::Raw(RawReason::Tls));
    assert_eq!(framer.next(b"GET / HTTP/1.1\r\n\r\n", |_| ()), RequestStep::Raw(RawReason::Tls));
}

#[test]
fn pending_says_what_is_known() {
    let mut framer = RequestFramer::new();
    let request = b"\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
    let mut pending = Vec::new();
    for len in 0..request.len() - 1 {
        match framer.next(&request[..len], |_| ()) {
            RequestStep::NeedMore(now) => pending.push(now),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pending[0], Pending::Empty);
    let path = "\r\nPOST /".len();
    assert!(pending[1..path].iter().all(|&now| now == Pending::Undecided));
    assert!(pending[path..].iter().all(|&now| now == Pending::Http));
    let len = request.len() - 1;
    assert!(
        matches!(framer.next(&request[..len], |_| ()), RequestStep::Head { head, .. } if head.len == len)
    );
    assert_eq!(framer.next(b"", |_| ()), RequestStep::NeedMore(Pending::Body));
    assert_eq!(framer.next(b"xGET", |_| ()), RequestStep::Body(1));
    assert_eq!(framer.next(b"GET", |_| ()), RequestStep::End);
    assert_eq!(framer.next(b"GET", |_| ()), RequestStep::NeedMore(Pending::Undecided));
}

#[test]
fn the_decision_is_made_once_with_all_lines_of_a_name() {
    let mut framer = RequestFramer::new();
    let request = b"GET /a?b=c HTTP/1.1\r\nX-User: alice\r\nHost: h\r\nx-user: \t bob \t\r\nX-USER:\r\n\r\n";
    for len in 0..request.len() {
        let step = framer.next(&request[..len], |_| panic!("decided on an incomplete head"));
        assert!(matches!(step, RequestStep::<()>::NeedMore(_)));
    }
    let step = framer.next(request, |view| {
        assert_eq!((view.method, view.target), ("GET", "/a?b=c"));
        assert_eq!(view.headers().count(), 4);
        view.header_lines("X-User").map(<[u8]>::to_vec).collect::<Vec<_>>()
    });
    let RequestStep::Head { decision, .. } = step else { panic!("{step:?}") };
    assert_eq!(decision, [b"alice".to_vec(), b"bob".to_vec(), Vec::new()]);
}

#[test]
fn heads_say_what_they_mean_for_the_connection() {
    let plain = head(b"GET / HTTP/1.1\r\n\r\n");
    assert!(plain.safe_without_body && !plain.has_body && !plain.wants_switch && !plain.close);
    assert_eq!(plain.method, MethodKind::Other);
    assert_eq!(head(b"HEAD / HTTP/1.1\r\n\r\n").method, MethodKind::Head);
    assert!(head(b"OPTIONS * HTTP/1.1\r\nContent-Length: 0\r\n\r\n").safe_without_body);
    assert!(!head(b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n").safe_without_body);
    assert!(!head(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").safe_without_body);
    assert!(!head(b"DELETE / HTTP/1.1\r\n\r\n").safe_without_body);
    // Methods are case-sensitive: this is not HEAD.
    assert_eq!(head(b"head / HTTP/1.1\r\n\r\n").method, MethodKind::Other);
    assert!(!head(b"get / HTTP/1.1\r\n\r\n").safe_without_body);

    let connect = head(b"CONNECT a:1 HTTP/1.1\r\n\r\n");
    assert!(connect.wants_switch && connect.method == MethodKind::Connect);
    assert!(head(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").wants_switch);

    assert!(head(b"GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n").close);
    assert!(head(b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n").close);
    assert!(!head(b"GET / HTTP/1.1\r\nConnection: closed\r\n\r\n").close);
    assert!(head(b"GET / HTTP/1.0\r\n\r\n").close);
    assert!(!head(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").close);

    assert!(head(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 9\r\n\r\n").expect_continue);
    assert!(!plain.expect_continue);
}

#[test]
fn a_head_of_the_longest_length_is_framed_and_one_byte_more_is_raw() {
    let head_of = |len: usize| {
        let frame = "GET / HTTP/1.1\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(len - frame)).into_bytes()
    };
    let longest = head_of(MAX_HEAD);
    let too_long = head_of(MAX_HEAD + 1);
    for cuts in [whole(), Cuts::every(1), Cuts::every(1000)] {
        assert_eq!(run_requests(&longest, &cuts), [Event::Head(longest.clone()), Event::End]);
        assert_eq!(run_requests(&too_long, &cuts), [Event::Raw(RawReason::HeadTooLong)]);
    }
    // Known as soon as a buffer of MAX_HEAD is full.
    assert_eq!(first_step(&too_long[..MAX_HEAD]), RequestStep::Raw(RawReason::HeadTooLong));
    // Endless targets too.
    let target = [b"GET /".as_slice(), &[b'a'; MAX_HEAD]].concat();
    assert_eq!(run_requests(&target, &Cuts::every(1)), [Event::Raw(RawReason::HeadTooLong)]);
}

#[test]
fn too_many_header_lines_are_raw() {
    let request = |lines: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(lines)).into_bytes();
    assert_eq!(head(&request(MAX_HEADERS)).len, request(MAX_HEADERS).len());
    assert_eq!(first_step(&request(MAX_HEADERS + 1)), RequestStep::Raw(RawReason::TooManyHeaders));
}

#[test]
fn the_largest_lengths_are_counted_without_overflow() {
    let mut framer = RequestFramer::new();
    let request = b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n";
    assert!(matches!(framer.next(request, |_| ()), RequestStep::Head { .. }));
    assert_eq!(framer.next(b"abc", |_| ()), RequestStep::Body(3));

    let mut framer = RequestFramer::new();
    let request = b"POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n";
    assert!(matches!(framer.next(request, |_| ()), RequestStep::Head { .. }));
    assert_eq!(framer.next(b"FFFFffffFFFFffff\r\nabc", |_| ()), RequestStep::Body(21));
    assert_eq!(framer.next(b"abc", |_| ()), RequestStep::Body(3));
}
