//! Raw bytes both ways between client and app.

use super::socket::{Expect, Socket};
use bytes::BytesMut;
use std::{cell::Cell, io};

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
pub(super) async fn splice(client: &Socket, app: &Socket, from_client: Direction, from_app: Direction) {
    let one_ended = Cell::new(false);
    let up = copy(client, app, from_client, &one_ended);
    let down = copy(app, client, from_app, &one_ended);
    if tokio::try_join!(up, down).is_err() {
        client.reset_on_close();
        app.reset_on_close();
    }
}

async fn copy(
    from: &Socket,
    to: &Socket,
    mut direction: Direction,
    one_ended: &Cell<bool>,
) -> io::Result<()> {
    loop {
        to.write_all(&direction.buf).await?;
        direction.buf.clear();
        if direction.ended || from.read(&mut direction.buf, Expect::Raw).await? == 0 {
            if one_ended.replace(true) {
                // Now both sockets are closed, which says the rest.
                to.say_end(from.ending()).await;
            } else {
                to.finish(from.ending()).await;
            }
            return Ok(());
        }
    }
}
