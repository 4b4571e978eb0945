//! Conditions on members of the `baggage` header (W3C Baggage, section "Header Content").

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::list::{is_token, list_members, split_member, trim_ows};
use super::pair::{check_pair, split_pair};
use crate::http1::RequestView;

/// What is no `baggage-octet`, and `%` itself.
const ENCODED: AsciiSet = CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');

/// Some member of the baggage has this key and this value. Keys are case-sensitive; duplicates are legal and each
/// counts; `value` is the decoded one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct BaggageCondition {
    key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    key: String,
    value: String,
}

impl BaggageCondition {
    /// `key` is a token; `value` any text, as it is before percent-encoding.
    pub fn new(key: &str, value: &str) -> Result<Self, ConditionError> {
        check_pair(key, value)?;
        if !is_token(key.as_bytes()) {
            return Err(ConditionError::BaggageKey(key.to_owned()));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }

    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The member as it travels: the value percent-encoded where it must be.
    #[must_use]
    pub fn member(&self) -> String {
        format!("{}={}", self.key, utf8_percent_encode(&self.value, &ENCODED))
    }

    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        has_member(request, &self.key, &self.value)
    }
}

/// Some member has exactly this key, and this value when decoded.
///
/// `list-member = key OWS "=" OWS value *( OWS ";" OWS property )`: split at the first `=`, because values may hold
/// more of them; properties cut off; percent-encoded octets that are no UTF-8 become U+FFFD. The specified 64
/// members and 8192 bytes are the least a platform must carry, so there is no bound here but that of the head.
/// Octets that a sender should have encoded are taken as they are: comparing exactly, they can't be mistaken.
pub(super) fn has_member(request: &RequestView<'_>, key: &str, value: &str) -> bool {
    values_of(request, key).any(|candidate| candidate == value)
}

/// Whether `is` holds for the value of any member with this key, percent-decoded.
pub(super) fn any_member(request: &RequestView<'_>, key: &str, is: &mut dyn FnMut(&str) -> bool) -> bool {
    values_of(request, key).any(|value| is(&value))
}

fn values_of<'a>(request: &RequestView<'a>, key: &str) -> impl Iterator<Item = Cow<'a, str>> {
    let members = list_members(request, "baggage").filter_map(split_member);
    members.filter(move |(candidate, _)| trim_ows(candidate) == key.as_bytes()).map(|(_, rest)| {
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        percent_decode(trim_ows(&rest[..end])).decode_utf8_lossy()
    })
}

/// `KEY=VALUE`
impl FromStr for BaggageCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let (key, value) = split_pair(text)?;
        Self::new(key, value)
    }
}

impl TryFrom<Unchecked> for BaggageCondition {
    type Error = ConditionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ConditionError> {
        Self::new(&unchecked.key, &unchecked.value)
    }
}

impl From<BaggageCondition> for Unchecked {
    fn from(BaggageCondition { key, value }: BaggageCondition) -> Self {
        Self { key, value }
    }
}

/// `KEY=VALUE`
impl fmt::Display for BaggageCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}
