//! Raw bytes both ways between client and app.

use super::duplex::{Expect, finish, read, reset_on_close, write_all};
use bytes::BytesMut;
use std::io;
use tokio::net::TcpStream;

/// Copies until both directions have ended, each end passed on when it comes; a reset is passed on as a reset.
///
/// `from_client` was read already and goes to the app first.
pub async fn splice(client: &TcpStream, app: &TcpStream, from_client: BytesMut, from_app: BytesMut) {
    let up = copy(client, app, from_client);
    let down = copy(app, client, from_app);
    if tokio::try_join!(up, down).is_err() {
        reset_on_close(client);
        reset_on_close(app);
    }
}

async fn copy(from: &TcpStream, to: &TcpStream, mut buf: BytesMut) -> io::Result<()> {
    loop {
        write_all(to, &buf).await?;
        buf.clear();
        if read(from, &mut buf, Expect::Raw).await? == 0 {
            finish(to);
            return Ok(());
        }
    }
}
