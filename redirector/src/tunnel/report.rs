//! What the agent says about a request when it is over, where the bytes of the stream don't show it: as the trailers of
//! the agent's direction. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

/// How a request went, as the agent saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of the final answer.
    pub status: Option<u16>,
    /// Content, without heads and framing. Bytes.
    pub request_bytes: u64,
    /// Content, without heads and framing. Bytes.
    pub response_bytes: u64,
    /// The client cancelled, or the local server reset the stream.
    pub cut_off: bool,
}

mod name {
    pub(super) const OVER: &str = "x-redirector-over";
    pub(super) const STATUS: &str = "x-redirector-status";
    pub(super) const REQUEST_BYTES: &str = "x-redirector-request-bytes";
    pub(super) const RESPONSE_BYTES: &str = "x-redirector-response-bytes";
}

const COMPLETE: &str = "complete";
const CUT_OFF: &str = "cut-off";

impl Report {
    pub(super) fn to_trailers(self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        let over = if self.cut_off { CUT_OFF } else { COMPLETE };
        trailers.insert(HeaderName::from_static(name::OVER), HeaderValue::from_static(over));
        let mut number =
            |name, value| trailers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        number(name::REQUEST_BYTES, self.request_bytes);
        number(name::RESPONSE_BYTES, self.response_bytes);
        if let Some(status) = self.status {
            number(name::STATUS, status.into());
        }
        trailers
    }

    /// `None` when these are the trailers of something else. What is missing is not known.
    pub(super) fn from_trailers(trailers: &HeaderMap) -> Option<Self> {
        let over = trailers.get(name::OVER)?;
        let number = |name| trailers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        Some(Self {
            status: number(name::STATUS).and_then(|status| status.try_into().ok()),
            request_bytes: number(name::REQUEST_BYTES).unwrap_or_default(),
            response_bytes: number(name::RESPONSE_BYTES).unwrap_or_default(),
            cut_off: over != COMPLETE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_report_arrives_as_it_was_sent(
            status in proptest::option::of(100_u16..1000), request_bytes: u64, response_bytes: u64, cut_off: bool,
        ) {
            let report = Report { status, request_bytes, response_bytes, cut_off };
            prop_assert_eq!(Report::from_trailers(&report.to_trailers()), Some(report));
        }
    }

    #[test]
    fn other_trailers_are_no_report() {
        assert_eq!(Report::from_trailers(&HeaderMap::new()), None);
    }
}
