//! Bytes that are not a clean request reach the app as they were sent: what they mean is for the app to say. And they
//! never reach a developer, whatever context they seem to carry.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use lab::{Agent, Lab, Peer, Server};

use crate::scene::{LOCAL, PORT, Route, for_alice, in_lab};

/// A head with alice's context; `fields` and what follows the head are up to the test.
fn head(fields: &str, rest: &[u8]) -> Vec<u8> {
    [format!("POST / HTTP/1.1\r\nHost: a\r\nx-dev: alice\r\n{fields}\r\n").as_bytes(), rest].concat()
}

/// Sends each input on a connection of its own and asserts that the app received exactly it.
#[track_caller]
fn assert_app_receives(inputs: &[(&str, Vec<u8>)]) {
    in_lab(|lab| {
        let app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let alices =
            Server::start(&lab.dev.netns, SocketAddr::from(([127, 0, 0, 1], LOCAL)), answer_no_content);
        let mut agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        for (number, (what, input)) in inputs.iter().enumerate() {
            let mut connection = lab.client.connect(lab.pod.at(PORT));
            connection.send(input);
            connection.finish_sending();
            let peer = app.peer(number);
            peer.wait_for_end();
            let received = peer.received();
            assert!(
                received == *input,
                "{what}: sent {:?}, received {:?}",
                String::from_utf8_lossy(&input[..input.len().min(300)]),
                String::from_utf8_lossy(&received[..received.len().min(300)])
            );
        }
        assert_eq!(alices.peers().len(), 0, "nothing of it was routed");
        assert_alice_is_routed(lab);
        agent.assert_running();
    });
}

#[track_caller]
fn assert_alice_is_routed(lab: &Lab) {
    assert_eq!(
        lab.client.connect(lab.pod.at(PORT)).ask(Route::Alice.get("/")).status,
        204,
        "the agent still routes"
    );
}

fn answer_no_content(mut stream: &TcpStream, peer: &Peer) -> std::io::Result<()> {
    let _ = peer.wait_for(1);
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    while !peer.ended() {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn garbage_reaches_the_app_byte_for_byte() {
    assert_app_receives(&[
        ("every byte", (0..=255).cycle().take(100_000).collect()),
        ("zeros", vec![0; 70_000]),
        ("one NUL", b"\0".to_vec()),
        ("empty lines", b"\r\n\r\n\n\n\r\n".to_vec()),
        ("line ends without end", b"\r\n".repeat(50_000)),
        ("a word", b"hello".to_vec()),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\nx-dev: alice\r\n\r\n".to_vec()),
        ("half an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n".to_vec()),
        ("a broken HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("HTTP/0.9", b"GET /\r\n".to_vec()),
        ("an answer", b"HTTP/1.1 200 OK\r\nx-dev: alice\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("another version", b"GET / HTTP/3.7\r\nx-dev: alice\r\n\r\n".to_vec()),
        (
            "a method without end",
            [b"A".repeat(80_000).as_slice(), b" / HTTP/1.1\r\nx-dev: alice\r\n\r\n"].concat(),
        ),
        ("nothing", Vec::new()),
    ]);
}

#[test]
fn heads_that_never_end_reach_the_app() {
    assert_app_receives(&[
        ("half a method", b"GE".to_vec()),
        ("half a head", b"GET / HTTP/1.1\r\nHost: a".to_vec()),
        ("half a head with context", b"GET / HTTP/1.1\r\nHost: a\r\nx-dev: alice\r\n".to_vec()),
        ("a head short of its last byte", b"GET / HTTP/1.1\r\nHost: a\r\nx-dev: alice\r\n\r".to_vec()),
    ]);
}

#[test]
fn oversized_heads_reach_the_app() {
    let fields = |count: usize, size: usize| -> String {
        (0..count).map(|number| format!("X-{number}: {}\r\n", "y".repeat(size))).collect()
    };
    assert_app_receives(&[
        ("one long field", head(&fields(1, 70_000), b"")),
        ("many fields", head(&fields(70, 1000), b"body")),
        ("a megabyte", head(&fields(1000, 1000), &head("", b""))),
        (
            "a long target",
            format!("GET /{} HTTP/1.1\r\nx-dev: alice\r\n\r\n", "z".repeat(70_000)).into_bytes(),
        ),
    ]);
}

#[test]
fn ambiguous_lengths_are_never_routed() {
    let inner = head("", b"");
    assert_app_receives(&[
        ("both lengths", head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
        ("both lengths, other order", head("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", &inner)),
        ("two lengths", head("Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!")),
        ("a list of lengths", head("Content-Length: 5, 6\r\n", b"hello!")),
        ("a signed length", head("Content-Length: +5\r\n", b"hello")),
        ("a negative length", head("Content-Length: -1\r\n", &inner)),
        ("a hexadecimal length", head("Content-Length: 0x5\r\n", b"hello")),
        ("an empty length", head("Content-Length:\r\n", &inner)),
        ("a length beyond 64 bits", head("Content-Length: 99999999999999999999999\r\n", &inner)),
        ("an unknown coding", head("Transfer-Encoding: xchunked\r\n", &inner)),
        ("chunked not last", head("Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n")),
        ("chunked twice", head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
        (
            "chunked in HTTP/1.0",
            b"POST / HTTP/1.0\r\nx-dev: alice\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
    ]);
}

#[test]
fn malformed_fields_are_never_routed() {
    assert_app_receives(&[
        ("a folded line", head("X-Folded: a\r\n b\r\n", b"")),
        ("a space before the colon", head("X-Space : a\r\n", b"")),
        ("a line without a colon", head("just words\r\n", b"")),
        ("a field without a name", head(": a\r\n", b"")),
        ("a NUL in a name", head("X-\0: a\r\n", b"")),
        ("a NUL in a value", head("X-Nul: a\0b\r\n", b"")),
        ("a bare CR in a value", head("X-Cr: a\rb\r\n", b"")),
        ("a space before the first field", b"GET / HTTP/1.1\r\n x-dev: alice\r\n\r\n".to_vec()),
        ("a NUL in the target", b"GET /\0 HTTP/1.1\r\nx-dev: alice\r\n\r\n".to_vec()),
        ("a target with a space", b"GET /a b HTTP/1.1\r\nx-dev: alice\r\n\r\n".to_vec()),
    ]);
}

#[test]
fn odd_but_valid_live_requests_reach_the_app_byte_for_byte() {
    let live = |text: &[u8]| [b"POST / HTTP/1.1\r\nHost: a\r\n".as_slice(), text].concat();
    assert_app_receives(&[
        (
            "invalid UTF-8 in a value",
            live(b"X-Bin: \xff\xfe\x80\r\nx-dev: \xff\r\nContent-Length: 2\r\n\r\nhi"),
        ),
        ("empty lines before the request", [b"\r\n\r\n".as_slice(), &live(b"\r\n")].concat()),
        ("bare line feeds", b"GET / HTTP/1.1\nHost: a\n\n".to_vec()),
        ("a bad chunk", live(b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size beyond 64 bits", live(b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx")),
        ("a chunk without its end", live(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n")),
        ("a short body", live(b"Content-Length: 100\r\n\r\nshort")),
        ("more than the body", live(b"Content-Length: 2\r\n\r\nhi\0\0\0\xff")),
        ("a body that never ends", live(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel")),
        ("a thousand fields", live(&[b"a:\r\n".repeat(1000).as_slice(), b"\r\n"].concat())),
    ]);
}

#[test]
fn invalid_utf8_beside_the_context_does_not_hide_it() {
    in_lab(|lab| {
        let _app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let alices =
            Server::start(&lab.dev.netns, SocketAddr::from(([127, 0, 0, 1], LOCAL)), answer_no_content);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let request = b"GET / HTTP/1.1\r\nx-bin: \xff\xfe\r\nx-dev: alice\r\n\r\n";
        assert_eq!(lab.client.connect(lab.pod.at(PORT)).ask(request).status, 204);
        assert_eq!(alices.peer(0).wait_for(request.len()), request);
    });
}

#[test]
fn bad_answers_of_the_app_reach_the_client_byte_for_byte() {
    const ANSWERS: [&[u8]; 9] = [
        b"no HTTP at all\0\xff",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more",
        b"HTTP/1.1 999 \xff\r\nX-\0: a\r\n\r\nbody",
        b"HTTP/1.1 200",
    ];
    in_lab(|lab| {
        // The request names the answer it wants.
        let _app = Server::start(&lab.pod.netns, lab.pod.at(PORT), |mut stream: &TcpStream, peer: &Peer| {
            while !peer.received().ends_with(b"\r\n\r\n") && !peer.ended() {
                thread::sleep(Duration::from_millis(5));
            }
            let number = peer.received().get(5).and_then(|digit| char::from(*digit).to_digit(10));
            stream.write_all(number.and_then(|number| ANSWERS.get(number as usize)).unwrap_or(&ANSWERS[0]))
        });
        let _alices =
            Server::start(&lab.dev.netns, SocketAddr::from(([127, 0, 0, 1], LOCAL)), answer_no_content);
        let mut agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        for (number, answer) in ANSWERS.iter().enumerate() {
            let mut connection = lab.client.connect(lab.pod.at(PORT));
            connection.send(Route::Live.get(&format!("/{number}")));
            assert_eq!(connection.rest(), *answer, "answer {number}");
        }
        assert_alice_is_routed(lab);
        agent.assert_running();
    });
}

#[test]
fn garbage_at_the_developers_port_harms_nobody() {
    crate::scene::intercepted_by_each_datapath(|scene| {
        for garbage in [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            &[0; 100_000],
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
            b"",
        ] {
            let mut connection = scene.lab.dev.connect(scene.agent.address());
            let _ = connection.try_send(garbage);
            let _ = connection.stream().shutdown(std::net::Shutdown::Write);
            let answer = connection.try_rest().unwrap_or_default();
            let token = scene.agent.token();
            assert!(!answer.windows(token.len()).any(|window| window == token.as_bytes()));
        }
        scene.assert_routing();
    });
}
