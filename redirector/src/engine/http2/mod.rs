//! HTTP/2 with prior knowledge (RFC 9113): each stream of a connection is routed by its own head.
//!
//! The client's connection ends here and another one leads to the app, both by `h2`. Each side is told what the other
//! one announced, and gets the other's content at the pace at which it is taken, its trailers, interim answers, resets
//! and GOAWAY. Matched streams go through the tunnel, each with a connection to the local server of its own.
//!
//! | file | purpose |
//! | --- | --- |
//! | `preface` | the client's first 24 bytes |
//! | `greeting` | the first SETTINGS frame of either side |
//! | `tap` | looks at the first bytes of a stream as they pass |
//! | `probe` | tries once whether an app speaks it |
//! | `take_up` | from the first bytes to an HTTP/2 connection on both sides, or to none |
//! | `limits` | how our ends of connections are set up |
//! | `session` | a client's connection: its streams, its end |
//! | `app` | the connection to the app, replaced when it ends |
//! | `stream` | one stream: where it goes, the live route |
//! | `developer` | one stream on the developer's route |
//! | `local` | the tunnel's stream below a local server's connection |
//! | `exchange` | a request and its answer between two connections |
//! | `pump` | content and trailers in one direction |
//! | `head` | a request's head, as matchers see it and as it is sent on |
//! | `refusal` | the answers that are our own, in HTTP/2 and gRPC |

mod app;
mod developer;
mod exchange;
mod greeting;
mod head;
mod limits;
mod local;
mod preface;
mod probe;
mod pump;
mod refusal;
mod session;
mod stream;
mod take_up;
mod tap;

use super::{
    addresses::{ClientAddr, OriginalDst},
    connection::PortContext,
    socket::Socket,
    splice::{Direction, splice},
    upstream::Upstream,
};
use crate::api::Uncovered;
use bytes::BytesMut;
use std::{future::Future, io, pin::Pin, rc::Rc};
use take_up::{Raw, TakenUp, take_up};

pub(super) use greeting::{Greeting, read_greeting};
pub use probe::speaks_http2;

/// Makes a connection to the app, in the way in which the first one was made.
pub(super) type Connect = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Upstream>>>>>;

/// A connection whose client seems to speak HTTP/2. It is served on a `LocalSet`.
pub(super) struct Candidate {
    pub client: Socket,
    pub client_addr: ClientAddr,
    pub original_dst: OriginalDst,
    /// Nothing has been sent to it.
    pub app: Upstream,
    /// Everything that the client has sent.
    pub from_client: BytesMut,
    /// Everything that the app has sent.
    pub from_app: BytesMut,
    pub connect: Connect,
}

/// Serves the connection until it ends. It is passed on as raw bytes when either side does not speak HTTP/2 after all.
pub(super) async fn serve(candidate: Candidate, context: &PortContext) -> io::Result<()> {
    match take_up(candidate, context).await? {
        TakenUp::Http2(session) => session.run().await,
        TakenUp::Raw(raw) => {
            let Raw { client, app, from_client, from_app } = *raw;
            context.stats.uncovered.bump(Uncovered::Http2);
            let direction = |buf| Direction { buf, ended: false };
            splice(&client, &app.socket, direction(from_client), direction(from_app)).await;
        }
    }
    Ok(())
}
