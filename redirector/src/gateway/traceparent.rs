//! `traceparent` (W3C Trace Context Level 2, section "Traceparent Header").

use http::HeaderValue;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt::Write as _;

/// The ids of a new trace and of its first hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceIds {
    trace: [u8; 16],
    parent: [u8; 8],
}

impl TraceIds {
    /// Random ones. Should the system have no random bytes, the ids are no secret: ones that are valid will do.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [1; 24];
        let _ = SystemRandom::new().fill(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The id of the trace, then that of the hop. All zeros are invalid, and are made something else.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let mut ids = Self { trace: [0; 16], parent: [0; 8] };
        ids.trace.copy_from_slice(&bytes[..16]);
        ids.parent.copy_from_slice(&bytes[16..]);
        if ids.trace == [0; 16] {
            ids.trace[15] = 1;
        }
        if ids.parent == [0; 8] {
            ids.parent[7] = 1;
        }
        ids
    }

    /// Version 00, sampled: whoever looks at a preview wants to be able to follow it, and visitors are few.
    #[must_use]
    pub fn traceparent(self) -> HeaderValue {
        let mut text = "00-".to_owned();
        let hex = |text: &mut String, bytes: &[u8]| {
            for byte in bytes {
                // Writing to a string can't fail.
                let _ = write!(text, "{byte:02x}");
            }
        };
        hex(&mut text, &self.trace);
        text.push('-');
        hex(&mut text, &self.parent);
        text.push_str("-01");
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, lower-case hex. Later versions may have more behind a `-`.
#[must_use]
pub fn is_valid_traceparent(value: &[u8]) -> bool {
    let is_hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let [v0, v1, b'-', rest @ ..] = value else { return false };
    let version = [*v0, *v1];
    if !is_hex(&version) || &version == b"ff" || rest.len() < 52 {
        return false;
    }
    let (trace, parent, flags) = (&rest[..32], &rest[33..49], &rest[50..52]);
    let length = match (&version, rest.get(52)) {
        (_, None) => true,
        (b"00", Some(_)) => false,
        (_, Some(next)) => *next == b'-',
    };
    length
        && rest[32] == b'-'
        && rest[49] == b'-'
        && [trace, parent, flags].into_iter().all(is_hex)
        && trace.iter().any(|byte| *byte != b'0')
        && parent.iter().any(|byte| *byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_specification_says_what_is_valid() {
        for value in [
            VALID,
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
        ] {
            assert!(is_valid_traceparent(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        ] {
            assert!(!is_valid_traceparent(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn new_ones_are_valid_and_differ() {
        let [one, two] = [TraceIds::random(), TraceIds::random()].map(TraceIds::traceparent);
        assert!(is_valid_traceparent(one.as_bytes()) && is_valid_traceparent(two.as_bytes()));
        assert_ne!(one, two);
        assert!(is_valid_traceparent(TraceIds::from_bytes([0; 24]).traceparent().as_bytes()));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = is_valid_traceparent(&value);
        }
    }
}
