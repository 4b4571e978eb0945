//! Conditions on the method (RFC 9110 §9.1: a case-sensitive token).

use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};

use super::error::ConditionError;

/// Most methods of one condition, and the longest of them. (A longer one is not taken for HTTP.)
const MAX_METHODS: usize = 16;
const MAX_LEN: usize = 32;

/// Those of RFC 9110 §9 and RFC 5789. Who writes them small means them.
const KNOWN: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

/// The method is one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct MethodsCondition(
    /// In the order of the alphabet, each once.
    Vec<Method>,
);

impl MethodsCondition {
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Result<Self, ConditionError> {
        let mut methods: Vec<Method> = methods.into_iter().collect();
        methods.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        methods.dedup();
        if !(1..=MAX_METHODS).contains(&methods.len()) {
            return Err(ConditionError::MethodCount { max: MAX_METHODS });
        }
        Ok(Self(methods))
    }

    /// In the order of the alphabet.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.0
    }

    #[must_use]
    pub fn takes(&self, method: &str) -> bool {
        self.0.iter().any(|candidate| candidate.as_str() == method)
    }
}

/// A method as it is typed.
pub fn parse_method(text: &str) -> Result<Method, ConditionError> {
    let method = Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| text.len() <= MAX_LEN)
        .ok_or_else(|| ConditionError::Method(text.to_owned()))?;
    if KNOWN.iter().any(|known| *known != method && known.as_str().eq_ignore_ascii_case(text)) {
        return Err(ConditionError::MethodCase(text.to_owned()));
    }
    Ok(method)
}

impl TryFrom<Vec<String>> for MethodsCondition {
    type Error = ConditionError;

    fn try_from(methods: Vec<String>) -> Result<Self, ConditionError> {
        let methods: Result<Vec<Method>, _> = methods.iter().map(|method| parse_method(method)).collect();
        Self::new(methods?)
    }
}

impl From<MethodsCondition> for Vec<String> {
    fn from(condition: MethodsCondition) -> Self {
        condition.0.iter().map(|method| method.as_str().to_owned()).collect()
    }
}

/// `GET or POST`
impl fmt::Display for MethodsCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<&str> = self.0.iter().map(Method::as_str).collect();
        f.write_str(&methods.join(" or "))
    }
}
