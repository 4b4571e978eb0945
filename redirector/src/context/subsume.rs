//! When one matcher claims everything that another one claims: two such intercepts cannot share a port.

use super::key::InterceptKey;
use super::matcher::{Condition, Matcher};

impl Matcher {
    /// Whether every request that matches `other` is known to match `self` too. True when each condition of `self`
    /// follows from one of `other`; without conditions `self` subsumes everything. Two matchers that don't subsume
    /// each other may still match the same request.
    #[must_use]
    pub fn subsumes(&self, other: &Self) -> bool {
        self.conditions.iter().all(|wide| other.conditions.iter().any(|narrow| wide.follows_from(narrow)))
    }
}

impl Condition {
    /// Whether every request that meets `narrow` meets `self`.
    fn follows_from(&self, narrow: &Self) -> bool {
        self == narrow
            || match (self, narrow) {
                // A key is met in any of three places; the same place spelled out is narrower.
                (Self::Key(key), Self::Header(header)) => {
                    (header.name(), header.value()) == (InterceptKey::HEADER, key.as_str())
                }
                (Self::Key(key), Self::Baggage(member)) => {
                    (member.key(), member.value()) == (InterceptKey::MEMBER, key.as_str())
                }
                (Self::Key(key), Self::Tracestate(member)) => {
                    (member.key(), member.value()) == (InterceptKey::MEMBER, key.as_str())
                }
                _ => false,
            }
    }
}
