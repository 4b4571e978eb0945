//! Raw bytes both ways between client and app.

use super::duplex::{Expect, finish, read, reset_on_close, write_all};
use bytes::BytesMut;
use std::{cell::Cell, io};
use tokio::net::TcpStream;

/// One direction of a connection, as far as it has come.
#[derive(Default)]
pub(super) struct Direction {
    /// Read already, to be written first.
    pub buf: BytesMut,
    /// The end has been read, too.
    pub ended: bool,
}

/// Copies until both directions have ended, each end passed on when it comes; a reset is passed on as a reset.
/// Both sockets are to be closed when this returns.
pub(super) async fn splice(client: &TcpStream, app: &TcpStream, from_client: Direction, from_app: Direction) {
    let one_ended = Cell::new(false);
    let up = copy(client, app, from_client, &one_ended);
    let down = copy(app, client, from_app, &one_ended);
    if tokio::try_join!(up, down).is_err() {
        reset_on_close(client);
        reset_on_close(app);
    }
}

async fn copy(
    from: &TcpStream,
    to: &TcpStream,
    mut direction: Direction,
    one_ended: &Cell<bool>,
) -> io::Result<()> {
    loop {
        write_all(to, &direction.buf).await?;
        direction.buf.clear();
        if direction.ended || read(from, &mut direction.buf, Expect::Raw).await? == 0 {
            // After the second end both sockets are closed, which says the same.
            if one_ended.replace(true) {
                return Ok(());
            }
            finish(to);
            return Ok(());
        }
    }
}
