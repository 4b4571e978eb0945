//! The client's connection preface (RFC 9113 §3.4). Pure.

/// What an HTTP/2 client sends first; its SETTINGS frame follows.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a client are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrefaceStep {
    NeedMore,
    Whole,
    /// Some other protocol, or a broken client.
    Other,
}

pub(super) fn read_preface(bytes: &[u8]) -> PrefaceStep {
    let len = bytes.len().min(PREFACE.len());
    match bytes[..len] == PREFACE[..len] {
        false => PrefaceStep::Other,
        true if len == PREFACE.len() => PrefaceStep::Whole,
        true => PrefaceStep::NeedMore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_preface_is_known_when_it_is_whole_and_not_before() {
        for len in 0..PREFACE.len() {
            assert_eq!(read_preface(&PREFACE[..len]), PrefaceStep::NeedMore, "{len}");
        }
        assert_eq!(read_preface(PREFACE), PrefaceStep::Whole);
        assert_eq!(read_preface(&[PREFACE, &b"\0\0\0\x04"[..]].concat()), PrefaceStep::Whole);
    }

    proptest! {
        #[test]
        fn one_wrong_byte_is_another_protocol(at in 0..PREFACE.len(), byte: u8, len in 0..=PREFACE.len()) {
            prop_assume!(byte != PREFACE[at] && at < len);
            let mut bytes = PREFACE.to_vec();
            bytes[at] = byte;
            prop_assert_eq!(read_preface(&bytes[..len]), PrefaceStep::Other);
        }
    }
}
