//! Protocols other than HTTP/1.x, by what a segment begins with.

use aya_ebpf::{macros::map, maps::HashMap, programs::TcContext};
use redirector_common::{PORT_HTTP2, PORT_TLS};

use crate::follow::Payload;

/// Bits of [`PORT_HTTP2`] and [`PORT_TLS`] by port (host order).
#[map]
static PORT_PROTOCOLS: HashMap<u16, u32> = HashMap::with_max_entries(256, 0);

/// Of the first segment of a connection. 0: none of them.
#[inline(always)]
pub fn of_opening(ctx: &TcContext, payload: Payload) -> u32 {
    /// The first record is a handshake, and its first message a ClientHello.
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let Ok([kind, major, minor, _, _, message]) = ctx.load::<[u8; 6]>(payload.at as usize) else { return 0 };
    if kind == HANDSHAKE && major == 3 && minor <= 4 && message == CLIENT_HELLO {
        return PORT_TLS;
    }
    if kind != b'P' {
        return 0;
    }
    match ctx.load::<[[u8; 8]; 2]>(payload.at as usize) {
        Ok([first, second]) if first == *b"PRI * HT" && second == *b"TP/2.0\r\n" => PORT_HTTP2,
        _ => 0,
    }
}

/// Of a segment in the middle of a connection, where it is a guess. 0: none of them.
#[inline(always)]
pub fn of_any(ctx: &TcContext, payload: Payload) -> u32 {
    /// Types of records: change_cipher_spec, alert, handshake, application_data (RFC 8446 §5.1).
    const RECORDS: core::ops::RangeInclusive<u8> = 20..=23;
    /// Types of frames, of which those of streams, headers and settings are common (RFC 9113 §6).
    const LAST_FRAME: u8 = 9;
    const LARGEST_FRAME: u8 = 0x40;
    let Ok([a, b, c, kind, _, stream, ..]) = ctx.load::<[u8; 9]>(payload.at as usize) else { return 0 };
    if RECORDS.contains(&a) && b == 3 && c <= 4 {
        return PORT_TLS;
    }
    // A length of at most 16 KiB, and a stream number without its reserved bit.
    if a == 0 && b <= LARGEST_FRAME && kind <= LAST_FRAME && stream & 0x80 == 0 { PORT_HTTP2 } else { 0 }
}

/// Tells the agent.
#[inline(always)]
pub fn note(port: u16, protocol: u32) {
    // SAFETY: the value is copied at once.
    let known = unsafe { PORT_PROTOCOLS.get(&port) }.copied().unwrap_or(0);
    if known & protocol == 0 {
        let _ = PORT_PROTOCOLS.insert(&port, &(known | protocol), 0);
    }
}
