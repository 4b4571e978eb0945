//! HTTP/1.x framing without sockets and without a clock: where heads and bodies start and end (RFC 9112).
//!
//! The framers look at bytes that the caller has received and not yet passed on, and say what the first of them
//! are. They never copy, change or keep a byte: what the caller passes on is what came in. Whatever is not
//! understood beyond doubt is answered with [`RawReason`] at the exact offset where the doubt starts, and from
//! there on the connection is raw bytes. A request that two parsers could frame differently is never routed.
//!
//! Buffers of [`MAX_HEAD`] bytes are enough: no framer asks for more to be held back.

mod body;
mod chunked;
mod fields;
mod head;
mod line;
mod raw;
mod request;
mod response;
mod start_line;

pub use raw::RawReason;
pub use request::{MethodKind, Pending, RequestFramer, RequestHead, RequestStep, RequestView};
pub use response::{RequestContext, ResponseFramer, ResponseHead, ResponseStep};
pub(crate) use start_line::is_token_byte;

/// Longest head in bytes, from the first byte (leading empty lines included) to the end of the empty line that
/// ends it. A trailer section has the same bound. What is longer is raw.
pub const MAX_HEAD: usize = 64 * 1024;

/// Most header lines in one head; a head with more is raw.
pub const MAX_HEADERS: usize = 256;
