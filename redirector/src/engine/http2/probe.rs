//! Tries the app once: does it speak HTTP/2 with prior knowledge (RFC 9113 §3.3)?

use super::{Greeting, preface::PREFACE, read_greeting};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A SETTINGS frame without settings.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Whether the app at `address` answers a client of HTTP/2 in HTTP/2. Call it inside the target's network namespace.
pub async fn speaks_http2(address: SocketAddr) -> bool {
    matches!(timeout(PATIENCE, ask(address)).await, Ok(Ok(true)))
}

async fn ask(address: SocketAddr) -> io::Result<bool> {
    let mut app = TcpStream::connect(address).await?;
    app.write_all(&[PREFACE, &SETTINGS[..]].concat()).await?;
    let mut said = Vec::new();
    loop {
        match read_greeting(&said) {
            Greeting::Settings(_) | Greeting::Begun => return Ok(true),
            Greeting::Other => return Ok(false),
            Greeting::Undecided if app.read_buf(&mut said).await? == 0 => return Ok(false),
            Greeting::Undecided => {}
        }
    }
}
