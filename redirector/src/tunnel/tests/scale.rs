use std::future::poll_fn;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::support::{
    echo, echoes, meta, pair, pair_over, patient, pattern, raise_descriptor_limit, refusing_port, server,
    soon,
};
use crate::tunnel::agent_end::AgentEnd;
use crate::tunnel::developer_end::DeveloperEnd;
use crate::tunnel::error::OpenError;
use crate::tunnel::wire;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_at_a_time_keep_their_bytes_apart() {
    raise_descriptor_limit();
    let pair = pair(server(echo).await).await;
    let mut tasks = JoinSet::new();
    for seed in 0..1000 {
        let stream = pair.open();
        tasks.spawn(async move { echoes(stream, &pattern(seed, 10_000 + seed)).await });
    }
    soon(async {
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_mebibytes_pass_both_ways_at_once() {
    let pair = pair(server(echo).await).await;
    let data = pattern(0, 50 << 20);
    soon(echoes(pair.open(), &data)).await;
}

#[tokio::test]
async fn the_tunnel_works_over_a_pipe_that_holds_almost_nothing() {
    let (agent, developer) = tokio::io::duplex(100);
    let pair = pair_over(agent, developer, server(echo).await).await;
    soon(echoes(pair.open(), &pattern(0, 300_000))).await;
}

#[tokio::test]
async fn ten_thousand_cancelled_requests_leave_the_tunnel_up() {
    raise_descriptor_limit();
    let pair = pair(server(echo).await).await;
    for batch in 0..10 {
        let mut streams = Vec::new();
        for _ in 0..1000 {
            let mut stream = pair.open();
            stream.write_all(b"never mind").await.unwrap();
            // Half of them are cancelled before the other side has even heard of them.
            if batch % 2 == 0 {
                drop(stream);
            } else {
                streams.push(stream);
            }
        }
        tokio::task::yield_now().await;
    }
    soon(echoes(pair.open(), &pattern(0, 1 << 20))).await;
    assert!(pair.tunnel.is_alive());
}

#[tokio::test]
async fn requests_cancelled_while_the_developer_was_away_leave_the_tunnel_up() {
    let to = server(echo).await;
    // Holds all of it while the developer's end does not run.
    let (agent, developer) = tokio::io::duplex(16 << 20);
    let (tunnel, driver) = AgentEnd::handshake(agent, patient()).await.unwrap();
    let driver = tokio::spawn(driver);
    for _ in 0..3000 {
        let mut stream = tunnel.open(&meta()).unwrap();
        // Taken once the headers are out. h2 drops a stream that is cancelled before that without a word.
        soon(stream.write_all(b"x")).await.unwrap();
        tokio::task::yield_now().await;
    }
    let serving = tokio::spawn(DeveloperEnd::new(to.to_string().parse().unwrap()).serve(developer, |_| {}));
    soon(echoes(tunnel.open(&meta()).unwrap(), &pattern(0, 1 << 20))).await;
    assert!(tunnel.is_alive() && !serving.is_finished());
    driver.abort();
}

#[tokio::test]
async fn ten_thousand_refused_requests_leave_the_tunnel_up() {
    let (_guard, to) = refusing_port();
    let pair = pair(to).await;
    for _ in 0..10_000 {
        let mut stream = pair.open();
        stream.write_all(b"never mind").await.unwrap();
        let error = soon(tokio::io::AsyncReadExt::read_u8(&mut stream)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    assert!(pair.tunnel.is_alive());
}

#[tokio::test]
async fn a_stalled_stream_full_of_tiny_frames_leaves_the_tunnel_up() {
    let (agent, developer) = tokio::io::duplex(1 << 16);
    let (tunnel, driver) = AgentEnd::handshake(agent, patient()).await.unwrap();
    let driver = tokio::spawn(driver);
    let server = tokio::spawn(async move {
        let mut connection = wire::server().handshake::<_, Bytes>(developer).await.unwrap();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                // A window full of events of one byte each.
                for _ in 0..(256 << 10) {
                    send.reserve_capacity(1);
                    while send.capacity() == 0 {
                        poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                    }
                    send.send_data(Bytes::from_static(b"x"), false).unwrap();
                }
                send.send_data(Bytes::new(), true).unwrap();
            });
        }
    });
    let mut stalled = tunnel.open(&meta()).unwrap();
    stalled.shutdown().await.unwrap();
    // The other stream's frames come after the stalled one's: when it is through, those have arrived.
    for _ in 0..3 {
        let mut other = tunnel.open(&meta()).unwrap();
        other.shutdown().await.unwrap();
        let mut received = Vec::new();
        soon(tokio::io::AsyncReadExt::read_to_end(&mut other, &mut received)).await.unwrap();
        assert_eq!(received.len(), 256 << 10);
    }
    let mut received = Vec::new();
    soon(tokio::io::AsyncReadExt::read_to_end(&mut stalled, &mut received)).await.unwrap();
    assert_eq!(received.len(), 256 << 10);
    driver.abort();
    server.abort();
}

#[tokio::test]
async fn a_full_tunnel_says_so_at_once_and_takes_more_when_streams_end() {
    let (agent, _developer) = tokio::io::duplex(1 << 16);
    let (tunnel, _driver) = AgentEnd::handshake(agent, patient()).await.unwrap();
    let mut streams: Vec<_> = (0..4096).map(|_| tunnel.open(&meta()).unwrap()).collect();
    assert!(matches!(tunnel.open(&meta()), Err(OpenError::Busy(4096))));
    streams.pop();
    assert!(tunnel.open(&meta()).is_ok());
}
