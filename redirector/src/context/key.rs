//! The random key of an intercept that was asked for without conditions.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::place::Place;
use crate::http1::RequestView;

/// 32 symbols: every byte maps to one of them with the same chance.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// 26 symbols of 5 bits are 130 bits.
const RANDOM_LEN: usize = 26;
const MIN_LEN: usize = 16;
const MAX_LEN: usize = 64;

/// 16 to 64 of `a-z` and `0-9`: valid as it is in a header, in baggage and in trace state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterceptKey(String);

/// The operating system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers: check that getrandom(2) or /dev/urandom works here")]
pub struct NoRandomness;

impl InterceptKey {
    /// The header that carries a key as its whole value.
    pub const HEADER: &str = "x-redirector-intercept";
    /// The key of the baggage or trace state member that carries an intercept key as its value.
    pub const MEMBER: &str = "redirector";

    /// Where a request may carry it; the one that a client sends first.
    pub(super) const PLACES: &[Place] =
        &[Place::Header(Self::HEADER), Place::Baggage(Self::MEMBER), Place::Tracestate(Self::MEMBER)];

    /// A new key of 130 random bits.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0; RANDOM_LEN];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(bytes.iter().map(|&byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()))
    }

    /// The keys that the request carries, in whichever place; each once, and `most` at most.
    #[must_use]
    pub fn carried_by(request: &RequestView<'_>, most: usize) -> Vec<Self> {
        let mut keys = Vec::new();
        Self::any(request, |key| {
            if keys.len() < most && !keys.iter().any(|known: &Self| known.0 == key) {
                keys.push(Self(key.to_owned()));
            }
            keys.len() >= most
        });
        keys
    }

    /// Does the request carry a key?
    #[must_use]
    pub fn is_carried_by(request: &RequestView<'_>) -> bool {
        Self::any(request, |_| true)
    }

    /// Whether it `is` any of the keys that the request carries.
    fn any(request: &RequestView<'_>, mut is: impl FnMut(&str) -> bool) -> bool {
        Self::PLACES.iter().any(|place| place.any(request, &mut |value| is_key(value) && is(value)))
    }

    /// Is it shorter than those that are made up, and so perhaps one that can be guessed?
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.len() < RANDOM_LEN
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterceptKey {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for InterceptKey {
    type Error = ConditionError;

    fn try_from(text: String) -> Result<Self, ConditionError> {
        if is_key(&text) {
            Ok(Self(text))
        } else {
            Err(ConditionError::InterceptKey { min: MIN_LEN, max: MAX_LEN })
        }
    }
}

impl From<InterceptKey> for String {
    fn from(key: InterceptKey) -> Self {
        key.0
    }
}

impl fmt::Display for InterceptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_key(text: &str) -> bool {
    (MIN_LEN..=MAX_LEN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
