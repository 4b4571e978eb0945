//! Conditions on members of the `tracestate` header (W3C Trace Context Level 2, section "Tracestate Header").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::list::{list_members, split_member};
use super::pair::{check_pair, split_pair};
use crate::http1::RequestView;

/// Most members of one list. Empty ones don't count: they carry nothing and are there by accident.
const MAX_MEMBERS: usize = 32;
/// Longest key and longest value, in bytes.
const MAX_LEN: usize = 256;

/// Some member of the trace state has this key and this value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct TracestateCondition {
    key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    key: String,
    value: String,
}

impl TracestateCondition {
    /// Key and value by the grammar of the specification; a value with a space at its start, which some
    /// implementations drop, is refused as well.
    pub fn new(key: &str, value: &str) -> Result<Self, ConditionError> {
        check_pair(key, value)?;
        if !is_key(key.as_bytes()) {
            return Err(ConditionError::TracestateKey(key.to_owned()));
        }
        if !is_value(value.as_bytes()) || value.starts_with(' ') {
            return Err(ConditionError::TracestateValue { key: key.to_owned() });
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

    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        has_member(request, &self.key, &self.value)
    }
}

/// Some member is `key=value`, byte for byte: no percent-encoding, and whitespace only around members. `key` and
/// `value` are valid, so an invalid member equals neither. `traceparent` is not looked at: what others drop without it has
/// come as far as here.
pub(super) fn has_member(request: &RequestView<'_>, key: &str, value: &str) -> bool {
    any_member(request, key, &mut |candidate| candidate == value)
}

/// Whether `is` holds for the value of any member with this key. A list of more than 32 members is no trace state, and has
/// none.
pub(super) fn any_member(request: &RequestView<'_>, key: &str, is: &mut dyn FnMut(&str) -> bool) -> bool {
    let members = || list_members(request, "tracestate").filter(|member| !member.is_empty());
    let mut values = members().filter_map(split_member).filter(|(name, _)| *name == key.as_bytes());
    members().count() <= MAX_MEMBERS
        && values.any(|(_, value)| std::str::from_utf8(value).is_ok_and(&mut *is))
}

/// `( lcalpha / DIGIT ) 0*255( lcalpha / DIGIT / "_" / "-" / "*" / "/" / "@" )`
fn is_key(key: &[u8]) -> bool {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= MAX_LEN
        && key.first().is_some_and(|&byte| is_first(byte))
        && key.iter().all(|&byte| is_first(byte) || b"_-*/@".contains(&byte))
}

/// `0*255( chr ) nblk-chr`: printable ASCII without `,` and `=`, and no space at the end.
fn is_value(value: &[u8]) -> bool {
    value.len() <= MAX_LEN
        && value.last().is_some_and(|&byte| byte != b' ')
        && value.iter().all(|&byte| matches!(byte, 0x20..=0x7e) && !b",=".contains(&byte))
}

/// `KEY=VALUE`
impl FromStr for TracestateCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let (key, value) = split_pair(text)?;
        Self::new(key, value)
    }
}

impl TryFrom<Unchecked> for TracestateCondition {
    type Error = ConditionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ConditionError> {
        Self::new(&unchecked.key, &unchecked.value)
    }
}

impl From<TracestateCondition> for Unchecked {
    fn from(TracestateCondition { key, value }: TracestateCondition) -> Self {
        Self { key, value }
    }
}

/// `KEY=VALUE`
impl fmt::Display for TracestateCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}
