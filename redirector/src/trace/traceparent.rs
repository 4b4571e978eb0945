//! `traceparent` (W3C Trace Context Level 2, section "Traceparent Header").

use http::HeaderValue;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The id of a trace; not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceId([u8; 16]);

/// The id of one hop's part of a trace, its span; not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpanId([u8; 8]);

/// The text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id of a trace is 32 hex digits, that of a span 16, not all of them 0")]
pub struct NotAnId;

/// The ids of a trace and of the hop that sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceIds {
    pub trace: TraceId,
    pub parent: SpanId,
}

impl TraceIds {
    /// Those of a new trace and of its first hop: random ones. Should the system have no random bytes, the ids are no
    /// secret: ones that are valid will do.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [1; 24];
        let _ = SystemRandom::new().fill(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The id of the trace, then that of the hop. All zeros are invalid, and are made something else.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let (mut trace, mut parent) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&bytes[..16]);
        parent.copy_from_slice(&bytes[16..]);
        if trace == [0; 16] {
            trace[15] = 1;
        }
        if parent == [0; 8] {
            parent[7] = 1;
        }
        Self { trace: TraceId(trace), parent: SpanId(parent) }
    }

    /// Reads the value of the header; `None` if it is invalid.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        if !is_valid_traceparent(value) {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        Some(Self { trace: text[3..35].parse().ok()?, parent: text[36..52].parse().ok()? })
    }

    /// Version 00, sampled: whoever looks at a preview wants to be able to follow it, and visitors are few.
    #[must_use]
    pub fn traceparent(self) -> HeaderValue {
        let text = format!("00-{}-{}-01", self.trace, self.parent);
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// What both kinds of ids have: lower-case hex digits as text, and as JSON.
macro_rules! id {
    ($id:ident, $len:literal) => {
        impl $id {
            #[must_use]
            pub fn to_bytes(self) -> [u8; $len] {
                self.0
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $id {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let mut bytes = [0; $len];
                if text.len() != 2 * $len || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(NotAnId);
                }
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| NotAnId)?;
                }
                if bytes == [0; $len] { Err(NotAnId) } else { Ok(Self(bytes)) }
            }
        }

        impl TryFrom<String> for $id {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.to_string()
            }
        }
    };
}

id!(TraceId, 16);
id!(SpanId, 8);

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

    #[test]
    fn the_ids_are_those_in_the_header() {
        let ids = TraceIds::parse(VALID.as_bytes()).unwrap();
        assert_eq!(ids.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(ids.parent.to_string(), "b7ad6b7169203331");
        assert_eq!(serde_json::to_value(ids.parent).unwrap(), "b7ad6b7169203331");
        for id in ["", "0af7", "00000000000000000000000000000000", "0af7651916cd43dd8448eb211c80319g"] {
            assert_eq!(id.parse::<TraceId>(), Err(NotAnId), "{id}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = TraceIds::parse(&value);
        }

        #[test]
        fn what_is_made_is_read(bytes in proptest::array::uniform24(proptest::prelude::any::<u8>())) {
            let ids = TraceIds::from_bytes(bytes);
            proptest::prop_assert_eq!(TraceIds::parse(ids.traceparent().as_bytes()), Some(ids));
        }
    }
}
