//! When one matcher claims everything that another one claims: two such intercepts cannot share a port.

use super::key::InterceptKey;
use super::matcher::{Condition, Matcher};

impl Matcher {
    /// Whether every request that matches `other` is known to match `self` too. True when each condition of `self`
    /// follows from one of `other`; without conditions `self` subsumes everything. Nothing is claimed that is not
    /// certain: two matchers that don't subsume each other may still match the same requests, even all of them.
    #[must_use]
    pub fn subsumes(&self, other: &Self) -> bool {
        self.conditions.iter().all(|wide| {
            wide.always_holds() || other.conditions.iter().any(|narrow| wide.follows_from(narrow))
        })
    }
}

impl Condition {
    fn always_holds(&self) -> bool {
        matches!(self, Self::PathPrefix(prefix) if prefix.is_root())
    }

    /// Whether every request that meets `narrow` meets `self`.
    fn follows_from(&self, narrow: &Self) -> bool {
        // What holds in any of several forms may hold in each of them, and holds in no other.
        if let Some(forms) = narrow.forms() {
            return forms.iter().all(|form| self.follows_from(form));
        }
        if let Some(forms) = self.forms() {
            return forms.iter().any(|form| form.follows_from(narrow));
        }
        match (self, narrow) {
            (Self::AnyKey, Self::Header(narrow)) => {
                narrow.name() == InterceptKey::HEADER && is_key(narrow.value())
            }
            (Self::AnyKey, Self::Baggage(narrow)) => {
                narrow.key() == InterceptKey::MEMBER && is_key(narrow.value())
            }
            (Self::AnyKey, Self::Tracestate(narrow)) => {
                narrow.key() == InterceptKey::MEMBER && is_key(narrow.value())
            }
            (Self::HeaderRegex(wide), Self::Header(narrow)) => {
                wide.name() == narrow.name() && wide.pattern().matches(narrow.value().as_bytes())
            }
            (Self::PathPrefix(wide), Self::PathPrefix(narrow)) => wide.takes(narrow.as_str()),
            (Self::PathPrefix(wide), Self::Path(narrow)) => wide.takes(narrow.as_str()),
            (Self::PathRegex(wide), Self::Path(narrow)) => wide.pattern().matches(narrow.as_str().as_bytes()),
            (Self::Methods(wide), Self::Methods(narrow)) => {
                narrow.methods().iter().all(|method| wide.takes(method.as_str()))
            }
            _ => self == narrow,
        }
    }
}

fn is_key(value: &str) -> bool {
    value.parse::<InterceptKey>().is_ok()
}
