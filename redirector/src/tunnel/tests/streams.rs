use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, Notify, mpsc};

use super::support::{Pair, echo, echoes, meta, pair, patient, pattern, refusing_port, server, soon};
use crate::tunnel::agent_end::AgentEnd;
use crate::tunnel::developer_end::{Outcome, RoutedRequest};
use crate::tunnel::error::{OpenError, Refusal, StreamError, TunnelError};
use crate::tunnel::report::Report;
use crate::tunnel::stream::TunnelStream;
use crate::tunnel::wire;

async fn finished(pair: &mut Pair) -> RoutedRequest {
    soon(pair.finished.recv()).await.expect("the developer's end reports the request")
}

#[tokio::test]
async fn a_request_reaches_the_local_server_and_is_reported() {
    let to = server(|mut stream| async move {
        let mut request = vec![0; 18];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request, b"GET / HTTP/1.1\r\n\r\n");
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    })
    .await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut response = String::new();
    soon(stream.read_to_string(&mut response)).await.unwrap();
    assert_eq!(response, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    drop(stream);

    let request = finished(&mut pair).await;
    let sent = meta();
    assert_eq!((request.intercept, request.client), (sent.intercept, sent.client));
    assert_eq!((request.method, request.path), (sent.method, sent.path));
    assert_eq!(request.status, Some(404));
    assert_eq!((request.request_bytes, request.response_bytes), (18, 45));
    assert_eq!(request.outcome, Outcome::Ok);
}

#[tokio::test]
async fn what_the_agent_says_at_the_end_is_what_is_reported() {
    let to = server(echo).await;
    for cut_off in [false, true] {
        let mut pair = pair(to).await;
        let mut stream = pair.open();
        stream.write_all(b"frames").await.unwrap();
        let mut frames = [0; 6];
        soon(stream.read_exact(&mut frames)).await.unwrap();
        let report = Report { status: Some(204), request_bytes: 3, response_bytes: 2, cut_off };
        stream.conclude(report).unwrap();
        let mut rest = Vec::new();
        soon(stream.read_to_end(&mut rest)).await.unwrap();

        let request = finished(&mut pair).await;
        assert_eq!(request.status, Some(204));
        assert_eq!((request.request_bytes, request.response_bytes), (3, 2));
        assert_eq!(request.outcome, if cut_off { Outcome::Reset } else { Outcome::Ok });
    }
}

#[tokio::test]
async fn the_client_may_close_its_side_first() {
    let to = server(|mut stream| async move {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        stream.write_all(format!("got {}", request.len()).as_bytes()).await.unwrap();
    })
    .await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(&pattern(1, 100_000)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut response = String::new();
    soon(stream.read_to_string(&mut response)).await.unwrap();
    assert_eq!(response, "got 100000");
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn the_server_may_close_its_side_first() {
    let (report, mut received) = mpsc::unbounded_channel();
    let to = server(move |mut stream| {
        let report = report.clone();
        async move {
            stream.write_all(b"done").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            report.send(request).unwrap();
        }
    })
    .await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    let mut response = Vec::new();
    soon(stream.read_to_end(&mut response)).await.unwrap();
    assert_eq!(response, b"done");
    let upload = pattern(2, 1 << 20);
    soon(stream.write_all(&upload)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), upload);
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Ok);
}

/// A server that says what its read ended with, after `greeting`.
async fn witness(
    greeting: &'static [u8],
) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Option<ErrorKind>>) {
    let (report, seen) = mpsc::unbounded_channel();
    let to = server(move |mut stream| {
        let report = report.clone();
        async move {
            stream.write_all(greeting).await.unwrap();
            let end = loop {
                match stream.read_u8().await {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        // A half-close may be followed by a reset, which only writing shows.
                        match stream.write_all(b"?").await {
                            Ok(()) => break None,
                            Err(error) => break Some(error.kind()),
                        }
                    }
                    Err(error) => break Some(error.kind()),
                }
            };
            let _ = report.send(end);
        }
    })
    .await;
    (to, seen)
}

#[tokio::test]
async fn a_client_that_goes_away_resets_the_local_connection() {
    let (to, mut seen) = witness(b"hello").await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"abc").await.unwrap();
    let mut greeting = [0; 5];
    soon(stream.read_exact(&mut greeting)).await.unwrap();
    drop(stream);
    assert_eq!(soon(seen.recv()).await.unwrap(), Some(ErrorKind::ConnectionReset));
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Reset);
}

#[tokio::test]
async fn a_client_that_goes_away_after_its_whole_request_still_resets_a_silent_server() {
    let (report, mut seen) = mpsc::unbounded_channel();
    let to = server(move |mut stream| {
        let report = report.clone();
        async move {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            report.send(None).unwrap();
            // Nothing to read any more: the reset shows as an error of the socket.
            let ready = stream.ready(tokio::io::Interest::ERROR).await.unwrap();
            assert!(ready.is_error() || ready.is_write_closed());
            report.send(stream.take_error().unwrap().map(|error| error.kind())).unwrap();
        }
    })
    .await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"request").await.unwrap();
    stream.shutdown().await.unwrap();
    soon(seen.recv()).await.unwrap();
    drop(stream);
    // After a FIN of its own, Linux reports the RST of a peer as a broken pipe.
    let error = soon(seen.recv()).await.unwrap();
    assert!(matches!(error, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "{error:?}");
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Reset);
}

#[tokio::test]
async fn a_finished_exchange_on_an_open_connection_is_not_a_cancelled_one() {
    let (to, mut seen) = witness(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"abc").await.unwrap();
    let mut response = [0; 27];
    soon(stream.read_exact(&mut response)).await.unwrap();
    stream.finish();
    assert_eq!(soon(seen.recv()).await.unwrap(), None, "the server sees a clean end");
    let request = finished(&mut pair).await;
    assert_eq!((request.outcome, request.status), (Outcome::Ok, Some(204)));
}

#[tokio::test]
async fn a_server_that_breaks_off_resets_the_request() {
    let to = server(|mut stream| async move {
        stream.write_all(b"partial").await.unwrap();
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    let mut part = [0; 7];
    soon(stream.read_exact(&mut part)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    soon(async { while stream.write_all(b"more").await.is_ok() {} }).await;
    assert_eq!(soon(stream.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Reset);
    assert!(pair.tunnel.is_alive());
}

/// What the agent's end reads from a stream on which the developer's end wrote 60,000 bytes and then did `end`.
async fn received_after(end: fn(TunnelStream)) -> (usize, io::Error) {
    let (agent, developer) = tokio::io::duplex(1 << 16);
    let (tunnel, driver) = AgentEnd::handshake(agent, patient()).await.unwrap();
    let driver = tokio::spawn(driver);
    let serving = tokio::spawn(async move {
        let mut connection = wire::server().handshake::<_, Bytes>(developer).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let send = respond.send_response(http::Response::new(()), false).unwrap();
        let mut stream = TunnelStream::new(send, request.into_body());
        // The window and the send buffer admit all of it before the connection sends any.
        stream.write_all(&[1; 60_000]).await.unwrap();
        end(stream);
        drop(respond);
        while connection.accept().await.is_some() {}
    });
    let mut stream = tunnel.open(&meta()).unwrap();
    let mut received = Vec::new();
    let error = soon(stream.read_to_end(&mut received)).await.unwrap_err();
    driver.abort();
    serving.abort();
    (received.len(), error)
}

#[tokio::test]
async fn bytes_from_before_the_server_broke_off_arrive_and_then_the_reset() {
    let (received, error) = received_after(TunnelStream::break_off).await;
    assert_eq!((received, error.kind()), (60_000, ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_dropped_stream_is_cut_off_at_once() {
    let (received, error) = received_after(drop).await;
    assert_eq!((received, StreamError::reset_reason(&error)), (0, Some(Reason::CANCEL)));
}

#[tokio::test]
async fn an_answer_given_before_the_upload_was_read_arrives_whole() {
    let answer = Arc::new(pattern(3, 200_000));
    let leave = Arc::new(Notify::new());
    let to = server({
        let (answer, leave) = (answer.clone(), leave.clone());
        move |mut stream| {
            let (answer, leave) = (answer.clone(), leave.clone());
            async move {
                stream.write_all(&answer).await.unwrap();
                stream.shutdown().await.unwrap();
                // Goes away with most of the request unread.
                leave.notified().await;
            }
        }
    })
    .await;
    let mut pair = pair(to).await;
    let (mut from, mut to) = tokio::io::split(pair.open());
    let upload = tokio::spawn(async move { to.write_all(&vec![0; 50 << 20]).await });
    let mut response = Vec::new();
    soon(from.read_to_end(&mut response)).await.unwrap();
    assert_eq!(response, *answer);
    leave.notify_one();
    assert!(soon(upload).await.unwrap().is_err(), "nobody reads the rest");
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Ok);
    assert!(pair.tunnel.is_alive());
}

#[tokio::test]
async fn a_refused_local_connection_is_told_with_its_reason() {
    let (_guard, to) = refusing_port();
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"optimistic").await.unwrap();
    let error = soon(stream.read_u8()).await.unwrap_err();
    let refusal = Refusal::from_io(&error).expect("a typed refusal").clone();
    assert_eq!(refusal.status, 502);
    assert!(refusal.reason.contains(&to.to_string()) && refusal.reason.contains("--to"), "{refusal}");
    // A second read says the same, and so does a write once the stream is closed.
    assert_eq!(Refusal::from_io(&soon(stream.read_u8()).await.unwrap_err()), Some(&refusal));
    let error = soon(async {
        loop {
            if let Err(error) = stream.write_all(b"more").await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(Refusal::from_io(&error), Some(&refusal), "{error}");
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Refused(refusal.reason));
    assert!(pair.tunnel.is_alive());
}

#[tokio::test]
async fn one_stalled_stream_in_either_direction_does_not_stall_others() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let to = server(move |mut stream| {
        let kept = kept.clone();
        async move {
            match stream.read_u8().await {
                Ok(b'S') => kept.lock().await.push(stream),
                Ok(b'D') => while stream.write_all(&[7; 10_000]).await.is_ok() {},
                _ => echo(stream).await,
            }
        }
    })
    .await;
    let pair = pair(to).await;
    let mut unread = pair.open();
    unread.write_all(b"D").await.unwrap();
    let mut stalled = pair.open();
    stalled.write_all(b"S").await.unwrap();
    let stalled = tokio::spawn(async move { stalled.write_all(&vec![1; 64 << 20]).await });

    let data = pattern(4, 20 << 20);
    let mut stream = pair.open();
    stream.write_all(b"E").await.unwrap();
    soon(echoes(stream, &data)).await;
    assert!(!stalled.is_finished(), "the stalled stream did stall");
    stalled.abort();
    let mut byte = [0; 1];
    soon(unread.read_exact(&mut byte)).await.unwrap();
    assert_eq!(byte, [7]);
}

#[tokio::test]
async fn cancelled_downloads_give_their_window_back() {
    let to = server(|mut stream| async move {
        match stream.read_u8().await {
            Ok(b'D') => while stream.write_all(&[7; 10_000]).await.is_ok() {},
            _ => echo(stream).await,
        }
    })
    .await;
    let pair = pair(to).await;
    // 100 windows of 256 KiB are more than the connection's 16 MiB.
    for _ in 0..100 {
        let mut stream = pair.open();
        stream.write_all(b"D").await.unwrap();
        let mut some = vec![0; 200_000];
        soon(stream.read_exact(&mut some)).await.unwrap();
    }
    let mut stream = pair.open();
    stream.write_all(b"E").await.unwrap();
    soon(echoes(stream, &pattern(5, 20 << 20))).await;
}

#[tokio::test]
async fn a_closed_tunnel_fails_everything_at_once_and_says_why() {
    let to = server(echo).await;
    let mut pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"a").await.unwrap();
    soon(stream.read_u8()).await.unwrap();
    assert!(pair.tunnel.is_alive());

    pair.tunnel.close();
    assert!(!pair.tunnel.is_alive());
    assert!(matches!(soon(pair.tunnel.closed()).await, TunnelError::ClosedHere));
    assert!(matches!(soon(&mut pair.agent).await.unwrap(), TunnelError::ClosedHere));
    assert_eq!(soon(stream.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(stream.write_all(b"b").await.is_err());
    assert!(matches!(pair.tunnel.open(&meta()), Err(OpenError::Gone(TunnelError::ClosedHere))));
    let reason = soon(&mut pair.developer).await.unwrap();
    assert!(matches!(reason, TunnelError::ClosedByPeer), "{reason:?}");
    assert_eq!(finished(&mut pair).await.outcome, Outcome::Reset);
}

#[tokio::test]
async fn a_dropped_driver_ends_the_tunnel() {
    let to = server(echo).await;
    let pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"a").await.unwrap();
    soon(stream.read_u8()).await.unwrap();
    pair.agent.abort();
    assert!(matches!(soon(pair.tunnel.closed()).await, TunnelError::ClosedHere));
    assert!(soon(stream.read_u8()).await.is_err());
    assert!(matches!(soon(pair.developer).await.unwrap(), TunnelError::ClosedByPeer));
}

#[tokio::test]
async fn a_developer_that_leaves_is_noticed_at_once() {
    let to = server(echo).await;
    let pair = pair(to).await;
    let mut stream = pair.open();
    stream.write_all(b"a").await.unwrap();
    soon(stream.read_u8()).await.unwrap();
    pair.developer.abort();
    let reason = soon(pair.tunnel.closed()).await;
    assert!(matches!(reason, TunnelError::ClosedByPeer | TunnelError::Io(_)), "{reason:?}");
    assert!(soon(stream.read_u8()).await.is_err());
}
