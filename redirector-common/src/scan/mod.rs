//! Where the messages of an HTTP/1.x connection begin and end, and whether a request may be a developer's
//! (RFC 9112): the eBPF half's way to see what `redirector::http1` sees.
//!
//! Header lines that can't say how long a message is, and are not looked for, are not judged by their names: in a block most are text,
//! whatever they are; cut off at its end, or not all ASCII, they may be found not to be lines.
//!
//! Bytes go in in blocks, or one at a time, and nothing of them is kept, so a scan goes on wherever a segment ends. What else the framers of
//! `redirector::http1` don't understand is raw here too, and so is what would cost too much here: a body of 2 GiB, or bytes
//! beyond ASCII in a request target. Raw is for good.
//!
//! Written for the verifier: plain integers, no slices, no panics, few branches for a byte.

mod block;
mod body;
mod fast;
mod header;
mod message;
mod names;
mod request;
mod response;
mod skip;
mod starts;
mod words;

pub use block::{BLOCK, Block};
pub use message::{LARGEST_BODY, MAX_HEAD, MAX_HEADERS};
pub use names::name_hash;
pub use request::RequestScan;
pub use response::ResponseScan;
pub use starts::{LineStarts, MemberStarts};

/// What a byte ended. More than one bit may be set.
pub type Event = u32;

/// Nothing.
pub const NONE: Event = 0;
/// The head of a message; of a response, also an interim one.
pub const HEAD: Event = 1;
/// A whole message, body included.
pub const END: Event = 2;

/// The names that make a request interesting, by their [`name_hash`]: none, unless it is said.
pub trait Needles {
    /// A header of this name, in lower case, makes a request interesting.
    #[inline(always)]
    fn header(&self, _: u32) -> bool {
        false
    }
    /// The members of a header of this name, in lower case, are to be looked at.
    #[inline(always)]
    fn list(&self, _: u32) -> bool {
        false
    }
    /// A member with this key, as it is, makes a request interesting.
    #[inline(always)]
    fn member(&self, _: u32) -> bool {
        false
    }
    /// The name of a line that begins with this byte may be one of these, or decide on framing. False: it is not judged.
    #[inline(always)]
    fn may_begin(&self, _: u8) -> bool {
        true
    }
}

/// Nothing is looked for.
pub struct NoNeedles;

impl Needles for NoNeedles {}

/// The flags of a message with the version that these eight bytes are; `None`: they are none.
#[inline(always)]
fn version(word: u64) -> Option<u16> {
    if word == u64::from_le_bytes(*b"HTTP/1.1") {
        Some(0)
    } else if word == u64::from_le_bytes(*b"HTTP/1.0") {
        Some(message::HTTP_1_0)
    } else {
        None
    }
}
