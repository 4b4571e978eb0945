//! A segment that the eBPF program has held back: the head of a request that may be a developer's.

use super::options::{Timestamps, UnfitOptions, timestamps};
use redirector_common::{HeldSegment as Record, Tuple};
use std::mem::offset_of;
use thiserror::Error;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// What is known of the client's side of a connection, and the request that it waits for an answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSegment {
    pub tuple: Tuple,
    /// The first byte of the payload: what the app's socket would receive next.
    pub seq: u32,
    /// What the app's socket would send next; the client has all before it.
    pub ack: u32,
    /// Bytes that the app's socket had sent in all, modulo 2^32.
    pub said: u32,
    /// Bytes that it had received in all, modulo 2^32.
    pub received: u32,
    /// As it stands in the header: not yet scaled.
    pub window: u16,
    pub timestamps: Option<Timestamps>,
    /// The payload, or the beginning of it.
    pub payload: Vec<u8>,
}

/// Why a segment is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnfitSegment {
    #[error("the eBPF program's record has an unknown shape: rebuild with `cargo xtask build`")]
    Record,
    #[error("TCP flags {0:#04x}")]
    Flags(u8),
    #[error("{0}")]
    Options(UnfitOptions),
    #[error("no payload")]
    Empty,
}

/// The record without its payload, which the program cuts off behind what it used.
const FIXED: usize = offset_of!(Record, payload);

impl HeldSegment {
    /// `record` as it comes out of the ring buffer.
    ///
    /// # Errors
    /// With the tuple, so that the segment can be given back at once; without where the record is no record.
    pub fn parse(record: &[u8]) -> Result<Self, (Option<Tuple>, UnfitSegment)> {
        let Some((fixed, payload)) = record.split_at_checked(FIXED) else {
            return Err((None, UnfitSegment::Record));
        };
        let fixed = Fixed(fixed);
        let tuple = fixed.tuple();
        let unfit = |reason| (Some(tuple), reason);
        let [flags] = fixed.bytes(offset_of!(Record, flags));
        if flags & (FIN | SYN | RST | URG) != 0 || flags & ACK == 0 {
            return Err(unfit(UnfitSegment::Flags(flags)));
        }
        let [options_len] = fixed.bytes(offset_of!(Record, options_len));
        let options: [u8; 40] = fixed.bytes(offset_of!(Record, options));
        let options = options.get(..usize::from(options_len)).ok_or(unfit(UnfitSegment::Record))?;
        let timestamps = timestamps(options).map_err(|reason| unfit(UnfitSegment::Options(reason)))?;
        let length = u32::from_ne_bytes(fixed.bytes(offset_of!(Record, payload_len))) as usize;
        let payload = payload.get(..length.min(payload.len())).unwrap_or_default();
        if payload.is_empty() {
            return Err(unfit(UnfitSegment::Empty));
        }
        Ok(Self {
            tuple,
            seq: u32::from_ne_bytes(fixed.bytes(offset_of!(Record, seq))),
            ack: u32::from_ne_bytes(fixed.bytes(offset_of!(Record, ack))),
            said: u32::from_ne_bytes(fixed.bytes(offset_of!(Record, said))),
            received: u32::from_ne_bytes(fixed.bytes(offset_of!(Record, received))),
            window: u16::from_ne_bytes(fixed.bytes(offset_of!(Record, window))),
            timestamps,
            payload: payload.to_vec(),
        })
    }
}

/// Reads fields of a record, which need not be aligned.
struct Fixed<'a>(&'a [u8]);

impl Fixed<'_> {
    /// `at` is the offset of a field of this size.
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(found) = self.0.get(at..at + N) {
            bytes.copy_from_slice(found);
        }
        bytes
    }

    fn tuple(&self) -> Tuple {
        const AT: usize = offset_of!(Record, tuple);
        Tuple {
            client: self.bytes(AT + offset_of!(Tuple, client)),
            app: self.bytes(AT + offset_of!(Tuple, app)),
            client_port: u16::from_ne_bytes(self.bytes(AT + offset_of!(Tuple, client_port))),
            app_port: u16::from_ne_bytes(self.bytes(AT + offset_of!(Tuple, app_port))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use proptest::prelude::*;

    use super::*;

    fn record(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Record>()];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(Record, tuple) + offset_of!(Tuple, app), &[7; 16]);
        put(offset_of!(Record, tuple) + offset_of!(Tuple, client_port), &40_000_u16.to_ne_bytes());
        put(offset_of!(Record, seq), &1_u32.to_ne_bytes());
        put(offset_of!(Record, ack), &2_u32.to_ne_bytes());
        put(offset_of!(Record, said), &9_u32.to_ne_bytes());
        put(offset_of!(Record, window), &3_u16.to_ne_bytes());
        put(offset_of!(Record, flags), &[flags]);
        put(offset_of!(Record, options_len), &[options.len() as u8]);
        put(offset_of!(Record, options), options);
        put(offset_of!(Record, payload_len), &(payload.len() as u32).to_ne_bytes());
        put(FIXED, payload);
        bytes.truncate(FIXED + payload.len());
        bytes
    }

    #[test]
    fn a_record_is_read() {
        let options = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
        let held = HeldSegment::parse(&record(ACK | 8, &options, b"GET")).unwrap();
        assert_eq!((held.tuple.app, held.tuple.client_port), ([7; 16], 40_000));
        assert_eq!((held.seq, held.ack, held.window, held.payload.as_slice()), (1, 2, 3, b"GET".as_slice()));
        assert_eq!(held.said, 9);
        assert_eq!(held.timestamps, Some(Timestamps { value: 7, echo: 9 }));
    }

    #[test]
    fn segments_that_change_the_connection_are_given_back() {
        let reason = |record: &[u8]| {
            let (tuple, reason) = HeldSegment::parse(record).unwrap_err();
            assert!(tuple.is_some(), "nobody would give it back");
            reason
        };
        for flag in [FIN, SYN, RST, URG] {
            assert_eq!(reason(&record(ACK | flag, &[], b"x")), UnfitSegment::Flags(ACK | flag));
        }
        assert_eq!(reason(&record(0, &[], b"x")), UnfitSegment::Flags(0));
        assert_eq!(reason(&record(ACK, &[], b"")), UnfitSegment::Empty);
        assert!(matches!(reason(&record(ACK, &[30, 4, 0, 0], b"x")), UnfitSegment::Options(_)));
    }

    proptest! {
        #[test]
        fn no_record_makes_it_fail(record in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = HeldSegment::parse(&record);
        }
    }
}
