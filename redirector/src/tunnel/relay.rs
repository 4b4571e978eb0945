//! Copies between a tunnel stream and the local server, both ways, with half-close and bounded buffers.

use std::io;

use h2::Reason;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::sync::Notify;

use super::error::StreamError;
use super::local_server::LocalStream;
use super::report::Report;
use super::response_status::ResponseStatus;
use super::stream::TunnelStream;

/// Bytes read from the local server at a time.
const BUFFER: usize = 16 << 10;

/// What passed.
#[derive(Debug, Default)]
pub struct Traffic {
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub status: ResponseStatus,
    /// What the agent said at the end.
    pub report: Option<Report>,
}

/// How the exchange ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// The local server closed, or the agent said that it is done.
    Finished,
    /// The agent's side cancelled, or the tunnel ended.
    Cancelled(io::Error),
    /// The local server's connection broke.
    LocalReset(io::Error),
}

/// Copies until both directions have ended or one has failed. A reset by the agent resets the local connection; when
/// the local server breaks off, the agent's side reads what came before and then a ConnectionReset.
pub async fn relay(mut stream: TunnelStream, local: LocalStream, traffic: &mut Traffic) -> RelayEnd {
    let Traffic { request_bytes, response_bytes, status, report } = traffic;
    let mut answered = false;
    let (mut from_local, mut to_local) = split(local);
    let result = {
        let (send, recv) = (&mut stream.send, &mut stream.recv);
        // Once the answer is out, the response's side only keeps watch while the request's side finishes.
        let request_done = Notify::new();
        let request = async {
            let _done = NotifyOnDrop(&request_done);
            loop {
                let data = recv.fill_buf().await.map_err(RelayEnd::Cancelled)?;
                if data.is_empty() {
                    // The server may have closed already.
                    let _ = to_local.shutdown().await;
                    *report = recv.report();
                    // The agent wants no more of the answer.
                    return if report.is_some() { Err(RelayEnd::Finished) } else { Ok(()) };
                }
                let written = async {
                    let written = to_local.write(data).await?;
                    to_local.flush().await?;
                    Ok::<_, io::Error>(written)
                };
                match written.await {
                    Ok(written) => {
                        recv.consume(written);
                        *request_bytes += written as u64;
                    }
                    // It takes no more but may still answer; the reading side will tell how it ended.
                    Err(_) => return Ok(()),
                }
            }
        };
        let response = async {
            let mut buffer = vec![0; BUFFER];
            loop {
                let read = tokio::select! {
                    biased;
                    error = send.failed() => return Err(RelayEnd::Cancelled(error)),
                    read = from_local.read(&mut buffer) => read.map_err(RelayEnd::LocalReset)?,
                };
                if read == 0 {
                    send.shutdown().await.map_err(RelayEnd::Cancelled)?;
                    answered = true;
                    return tokio::select! {
                        () = request_done.notified() => Ok(()),
                        error = send.failed() => Err(RelayEnd::Cancelled(error)),
                    };
                }
                status.feed(&buffer[..read]);
                send.write_all(&buffer[..read]).await.map_err(RelayEnd::Cancelled)?;
                *response_bytes += read as u64;
            }
        };
        tokio::try_join!(request, response)
    };
    match result {
        Ok(((), ())) => RelayEnd::Finished,
        Err(RelayEnd::Finished) => {
            // Fails only when the stream is gone.
            let _ = stream.send.shutdown().await;
            RelayEnd::Finished
        }
        Err(RelayEnd::Cancelled(error)) => {
            if answered || StreamError::reset_reason(&error) == Some(Reason::NO_ERROR) {
                return RelayEnd::Finished;
            }
            // Closes with RST, so that the server learns that nobody waits for the answer.
            from_local.unsplit(to_local).reset_on_close();
            RelayEnd::Cancelled(error)
        }
        Err(end) => {
            stream.break_off();
            end
        }
    }
}

struct NotifyOnDrop<'a>(&'a Notify);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
