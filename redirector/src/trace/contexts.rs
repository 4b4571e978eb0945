//! The contexts that are looked for at a port, made ready once: what of them a request carries is asked for each that is
//! remembered.

use super::{mark::Mark, observation::cut};
use crate::{
    context::{Condition, InterceptKey, Matcher},
    http1::RequestView,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ops::Deref, sync::Arc};

/// Most conditions, and most names of headers, that are looked for besides keys.
const MAX_SOUGHT: usize = 128;

/// Most contexts, and most names of headers, that are remembered of one request. Who sends more than that means harm.
const MAX_CARRIED: usize = 8;

/// Longest name of a header that is remembered, in bytes.
const MAX_NAME: usize = 64;

/// Headers by which context travels, apart from those that intercepts name.
const COMMON_HEADERS: [&str; 4] = [InterceptKey::HEADER, "baggage", "traceparent", "tracestate"];

/// What all matchers of a port look for, and what any request may carry.
#[derive(Debug)]
pub struct Contexts {
    /// Each once; without those on paths and methods.
    conditions: Vec<(Mark, Condition)>,
    /// In lower case: the common ones first, then those that the matchers name.
    headers: Vec<String>,
    sought: Sought,
}

/// The contexts that were looked for, besides keys. Shared by all requests of the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeSet<Mark>", into = "BTreeSet<Mark>")]
pub struct Sought(Arc<BTreeSet<Mark>>);

impl Contexts {
    #[must_use]
    pub fn of<'a>(matchers: impl IntoIterator<Item = &'a Matcher>) -> Self {
        let mut named = BTreeSet::new();
        let mut conditions = Vec::new();
        let mut sought = BTreeSet::new();
        for condition in matchers.into_iter().flat_map(|matcher| &matcher.conditions) {
            if sought.len() >= MAX_SOUGHT {
                break;
            }
            let Some(mark) = Mark::of_condition(condition) else { continue };
            if sought.insert(mark.clone()) {
                conditions.push((mark, condition.clone()));
                named.extend(header_names(condition));
            }
        }
        let common = COMMON_HEADERS.map(str::to_owned);
        named.retain(|name| !common.contains(name));
        let headers = common.into_iter().chain(named).collect();
        Self { conditions, headers, sought: Sought(Arc::new(sought)) }
    }

    #[must_use]
    pub fn sought(&self) -> Sought {
        self.sought.clone()
    }

    /// Those that the request carries; of those that nobody looks for here, keys.
    #[must_use]
    pub fn carried_by(&self, request: &RequestView<'_>) -> BTreeSet<Mark> {
        let met = self.conditions.iter().filter(|(_, condition)| condition.matches(request));
        let mut carried: BTreeSet<Mark> = met.take(MAX_CARRIED).map(|(mark, _)| mark.clone()).collect();
        let mut keys = InterceptKey::carried_by(request, MAX_CARRIED).into_iter();
        while carried.len() < MAX_CARRIED
            && let Some(key) = keys.next()
        {
            carried.insert(self.mark_of(&key));
        }
        carried
    }

    /// Of those that are looked for it is known; there is no need to hash them for each request.
    fn mark_of(&self, key: &InterceptKey) -> Mark {
        let is_it = |condition: &Condition| matches!(condition, Condition::Key(sought) if sought == key);
        let known = self.conditions.iter().find(|(_, condition)| is_it(condition));
        known.map_or_else(|| Mark::of_key(key), |(mark, _)| mark.clone())
    }

    /// The headers by which context travels that the request has.
    #[must_use]
    pub fn headers_of(&self, request: &RequestView<'_>) -> BTreeSet<String> {
        let there = self.headers.iter().filter(|name| request.header_lines(name).next().is_some());
        there.take(MAX_CARRIED).map(|name| cut(name, MAX_NAME)).collect()
    }
}

impl Default for Contexts {
    fn default() -> Self {
        Self::of([])
    }
}

impl Deref for Sought {
    type Target = BTreeSet<Mark>;

    fn deref(&self) -> &BTreeSet<Mark> {
        &self.0
    }
}

impl From<BTreeSet<Mark>> for Sought {
    fn from(marks: BTreeSet<Mark>) -> Self {
        Self(Arc::new(marks))
    }
}

impl From<Sought> for BTreeSet<Mark> {
    fn from(sought: Sought) -> Self {
        Arc::unwrap_or_clone(sought.0)
    }
}

fn header_names(condition: &Condition) -> Vec<String> {
    match condition {
        Condition::Header(header) => vec![header.name().to_owned()],
        Condition::HeaderRegex(header) => vec![header.name().to_owned()],
        _ => condition.forms().unwrap_or_default().iter().flat_map(header_names).collect(),
    }
}
