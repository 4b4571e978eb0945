//! The promises of response framing: exact on what is valid, raw on what is ambiguous, the same for every cut.

mod http1;

use http1::{Cuts, Event, Message, any_response, cuts, http_like_bytes, run_responses, whole};
use proptest::prelude::*;
use redirector::http1::{MethodKind, RawReason, RequestContext, ResponseFramer, ResponseStep};

const GET: MethodKind = MethodKind::Other;

fn first_step(bytes: &[u8], method: MethodKind) -> ResponseStep {
    ResponseFramer::new().next(bytes, RequestContext { method }, false)
}

proptest! {
    #[test]
    fn valid_responses_are_framed_exactly(
        responses in prop::collection::vec(any_response(), 1..5),
        cuts in cuts(),
    ) {
        // HEAD and GET alternate as the generator says; each message carries its own request method.
        let stream: Vec<u8> = responses.iter().flat_map(Message::bytes).collect();
        let methods: Vec<MethodKind> =
            responses.iter().filter(|message| !message.interim).map(|message| message.method).collect();
        let mut expected: Vec<Event> = responses.iter().flat_map(Message::events).collect();
        expected.push(Event::Closed);
        prop_assert_eq!(run_responses(&stream, &methods, &cuts), expected);
    }

    #[test]
    fn any_cut_of_any_bytes_gives_the_same_events(
        stream in http_like_bytes(),
        method in prop::sample::select(vec![GET, MethodKind::Head, MethodKind::Connect]),
        cuts in cuts(),
    ) {
        let uncut = run_responses(&stream, &[method], &whole());
        let joined: Vec<u8> = uncut.iter().flat_map(Event::bytes).copied().collect();
        prop_assert!(stream.starts_with(&joined), "events hold bytes that were not sent");
        prop_assert_eq!(run_responses(&stream, &[method], &cuts), uncut);
    }

    #[test]
    fn damaged_responses_are_framed_the_same_for_every_cut(
        responses in prop::collection::vec(any_response(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cuts in cuts(),
    ) {
        let mut stream: Vec<u8> = responses.iter().flat_map(Message::bytes).collect();
        let at = at.index(stream.len());
        stream[at] = byte;
        prop_assert_eq!(run_responses(&stream, &[GET], &cuts), run_responses(&stream, &[GET], &whole()));
    }
}

#[test]
fn ambiguous_responses_are_raw() {
    use RawReason::*;
    for (head, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", BothLengths),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n", ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\n", ContentLength),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", TransferEncoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n", MalformedHeader),
        ("HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n", MalformedHeader),
        ("HTTP/1.1 200 OK\r\nX: 1\n\r\n", BareLineEnd),
        ("HTTP/1.1 200 OK\n\n", NotHttp1),
        ("HTTP/1.1 099 Low\r\n\r\n", NotHttp1),
        ("HTTP/1.1 20 OK\r\n\r\n", NotHttp1),
        ("HTTP/1.1 2000 OK\r\n\r\n", NotHttp1),
        ("HTTP/1.1  200 OK\r\n\r\n", NotHttp1),
        ("HTTP/2 200\r\n\r\n", NotHttp1),
        ("HTTP/1.2 200 OK\r\n\r\n", NotHttp1),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", NotHttp1),
        ("220 mail.example ESMTP\r\n", NotHttp1),
        ("\x15\x03\x03", NotHttp1),
    ] {
        assert_eq!(first_step(head.as_bytes(), GET), ResponseStep::Raw(reason), "{head:?}");
    }
}

#[test]
fn a_server_that_does_not_speak_http_is_raw_at_its_first_byte() {
    for bytes in [b"2".as_slice(), b"\x4a", b"S", b"HTTX", b"HTTP/1.1 x"] {
        assert!(matches!(first_step(bytes, GET), ResponseStep::Raw(_)), "{bytes:?}");
    }
}

#[test]
fn bodies_follow_method_and_status() {
    let body = |status: &str, method| {
        let stream = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi");
        run_responses(stream.as_bytes(), &[method], &whole())
            .iter()
            .filter_map(|event| match event {
                Event::Body(body) => Some(body.len()),
                _ => None,
            })
            .sum::<usize>()
    };
    assert_eq!(body("200 OK", GET), 2);
    assert_eq!(body("404 Not Found", GET), 2);
    assert_eq!(body("200", GET), 2);
    assert_eq!(body("200 \u{e9}t\u{e9}", GET), 2);
    assert_eq!(body("200 OK", MethodKind::Head), 0);
    assert_eq!(body("204 No Content", GET), 0);
    assert_eq!(body("304 Not Modified", GET), 0);
    assert_eq!(body("407 Refused", MethodKind::Connect), 2);
}

#[test]
fn interim_responses_precede_the_final_one() {
    let stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    let events = run_responses(stream, &[GET], &Cuts::every(1));
    let heads = events.iter().filter(|event| matches!(event, Event::Head(_))).count();
    let ends = events.iter().filter(|event| matches!(event, Event::End)).count();
    assert_eq!((heads, ends), (3, 1));

    let ResponseStep::Head(head) = first_step(stream, GET) else { panic!("no head") };
    assert!(head.interim && head.status == 100 && head.len == 25);
}

#[test]
fn after_a_switch_everything_is_raw() {
    for (status, method) in [("101 Switching Protocols", GET), ("200 OK", MethodKind::Connect)] {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 1\r\n\r\n").into_bytes();
        let stream = [head.as_slice(), b"HTTP/1.1 200 OK\r\n\r\n"].concat();
        for cuts in [whole(), Cuts::every(1)] {
            assert_eq!(run_responses(&stream, &[method], &cuts), [Event::Head(head.clone()), Event::Switch]);
        }
        let ResponseStep::Head(head) = first_step(&stream, method) else { panic!("no head") };
        assert!(!head.interim);
    }
}

#[test]
fn a_body_without_length_ends_with_the_stream() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let stream = [head.as_slice(), b"HTTP/1.1 200 OK\r\n\r\n"].concat();
    let expected = [Event::Head(head.to_vec()), Event::Body(head.to_vec()), Event::End, Event::Closed];
    for cuts in [whole(), Cuts::every(1)] {
        assert_eq!(run_responses(&stream, &[GET], &cuts), expected);
    }
    let ResponseStep::Head(head) = first_step(&stream, GET) else { panic!("no head") };
    assert!(head.until_close && head.close);
}

#[test]
fn connection_options_say_whether_the_server_closes() {
    let close = |head: &str| match first_step(head.as_bytes(), GET) {
        ResponseStep::Head(head) => head.close,
        other => panic!("{other:?}"),
    };
    assert!(!close("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    assert!(close("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    assert!(close("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
    assert!(!close("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn an_end_of_stream_within_a_response_is_a_truncation() {
    let complete: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    ];
    for stream in complete {
        assert_eq!(run_responses(stream.as_bytes(), &[GET], &whole()).last(), Some(&Event::Closed));
        for len in 1..stream.len() {
            for cuts in [whole(), Cuts::every(1)] {
                let events = run_responses(&stream.as_bytes()[..len], &[GET], &cuts);
                assert_eq!(events.last(), Some(&Event::Truncated), "{:?}", &stream[..len]);
            }
        }
    }
    assert_eq!(run_responses(b"", &[GET], &whole()), [Event::Closed]);
}
