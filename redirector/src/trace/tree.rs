//! From what several hops have seen to the paths of requests.
//!
//! Which request caused which other one nobody says; it follows from three things, the first one that applies:
//!
//! 1. The client's address is that of a known hop: then the cause is a request that this hop was serving at that time,
//!    rather one of the same trace, or with the same context.
//! 2. Both are of the same trace, and the one was served while the other was: the cause is the last one that began
//!    (hops in between were not observed, or the address was translated).
//! 3. Both carry the same context, one of them has no trace id, and exactly one such request was being served.
//!
//! Where an address, or a gateway, says which of two requests came first, the clocks of different nodes may differ by
//! [`TOLERANCE`].

use super::{
    observation::{Observation, Taken},
    query::Window,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// How far the clocks of two nodes may be apart once their difference has been taken out.
const TOLERANCE: Duration = Duration::from_millis(20);

/// A target of one of the agents that were asked, by its number; names are those of one node only.
pub type Hop = (usize, String);

/// A request that was seen, and by which of those that were asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    pub source: usize,
    pub seen: Observation,
}

/// The addresses of the hops, by which they are known as clients.
pub type Addresses = BTreeMap<Hop, BTreeSet<IpAddr>>;

/// A request, and the requests that came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tree {
    #[serde(flatten)]
    pub seen: Observation,
    /// How it is known what it came of; `None` for the first one.
    pub cause: Option<Cause>,
    /// The context got lost on the way here: the hop that this came from dropped it.
    pub dropped: Option<Dropped>,
    /// Headers by which context travels that the hop this came from got, and did not pass on.
    pub missing: Vec<String>,
    pub children: Vec<Tree>,
}

/// How it is known which request another one came of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    Context,
    Trace,
    Address,
    AddressAndTrace,
}

/// How sure it is that the context got lost, and not that the hop asked on behalf of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dropped {
    /// The trace went on without it.
    Certainly,
    /// The hop was serving nothing else that was seen.
    Probably,
    /// So many other requests were being served there as well, or it is of another trace.
    Perhaps { others: usize },
}

/// The paths, the oldest first. Live requests are in them only where they are part of the path of a developer's.
#[must_use]
pub fn grow(mut all: Vec<Sighting>, addresses: &Addresses) -> Vec<Tree> {
    all.sort_by_key(|sighting| sighting.seen.started);
    let mut links: Vec<Option<Link>> = vec![None; all.len()];
    // Those that carry a context first: what they came of is not free any more to explain one that does not.
    for carries in [true, false] {
        for at in (0..all.len()).filter(|at| all[*at].seen.carries() == carries) {
            links[at] = cause(at, &all, &links, addresses);
        }
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    let mut roots = Vec::new();
    for (at, link) in links.iter().enumerate() {
        match link {
            Some(link) => children[link.parent].push(at),
            None => roots.push(at),
        }
    }
    let trees = roots.into_iter().map(|root| tree(root, &all, &links, &children));
    trees.filter(Tree::is_developers).collect()
}

/// When other requests were under way that belong to this one.
#[must_use]
pub fn around(seen: &Observation) -> Window {
    window(seen, TOLERANCE)
}

fn window(seen: &Observation, tolerance: Duration) -> Window {
    let from = seen.started.checked_sub(tolerance).unwrap_or(seen.started);
    let to = seen.ended().checked_add(tolerance).unwrap_or(seen.ended());
    Window { from, to }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    parent: usize,
    cause: Cause,
    dropped: Option<Dropped>,
}

fn cause(at: usize, all: &[Sighting], links: &[Option<Link>], addresses: &Addresses) -> Option<Link> {
    let child = &all[at];
    let client = child.seen.client.ip().to_canonical();
    let from: Vec<&Hop> =
        addresses.iter().filter(|(_, own)| own.contains(&client)).map(|(hop, _)| hop).collect();
    if child.is_origin() {
        return None;
    }
    let others = || (0..all.len()).filter(|other| *other != at && !is_within(*other, at, links));
    let is_there = |other: &usize| from.iter().any(|hop| all[*other].is_at(hop));
    let mut there: Vec<usize> =
        others().filter(is_there).filter(|other| all[*other].is_serving_at(child, TOLERANCE)).collect();
    let elsewhere = || {
        others().filter(|other| !is_there(other) && !all[*other].is_same_hop(child)).filter(|other| {
            // Nothing but the times says which of two came first, unless one is where paths begin.
            let tolerance = if all[*other].is_origin() { TOLERANCE } else { Duration::ZERO };
            all[*other].is_serving_at(child, tolerance)
        })
    };
    let same_trace = |other: &usize| child.seen.trace.is_some() && all[*other].seen.trace == child.seen.trace;
    let same_context = |other: &usize| !all[*other].seen.carried.is_disjoint(&child.seen.carried);
    // The last one that began.
    let last = |of: &[usize]| of.iter().copied().max_by_key(|other| all[*other].seen.started);

    if !from.is_empty() && !there.is_empty() {
        let of_trace: Vec<usize> = there.iter().copied().filter(same_trace).collect();
        if let Some(parent) = last(&of_trace) {
            let dropped = has_lost(&all[parent].seen, &child.seen).then_some(Dropped::Certainly);
            return Some(Link { parent, cause: Cause::AddressAndTrace, dropped });
        }
        if child.seen.carries() {
            let of_context: Vec<usize> = there.iter().copied().filter(same_context).collect();
            let parent = last(&of_context)?;
            return Some(Link { parent, cause: Cause::Address, dropped: None });
        }
        // One of another trace than the child's would have to have begun a new one: as likely as having dropped it. One
        // that has led to a request like this one, with its context, is explained.
        there.retain(|other| !has_led_to(*other, child, all, links));
        let parent = there.iter().copied().find(|other| has_lost(&all[*other].seen, &child.seen))?;
        let others = there.len() - 1;
        let other_trace = child.seen.trace.is_some() && all[parent].seen.trace.is_some();
        let is_sure = others == 0 && !other_trace;
        let dropped = if is_sure { Dropped::Probably } else { Dropped::Perhaps { others } };
        return Some(Link { parent, cause: Cause::Address, dropped: Some(dropped) });
    }
    let of_trace: Vec<usize> = elsewhere().filter(same_trace).collect();
    if let Some(parent) = last(&of_trace) {
        let dropped = has_lost(&all[parent].seen, &child.seen).then_some(Dropped::Certainly);
        return Some(Link { parent, cause: Cause::Trace, dropped });
    }
    // A client at a hop that was not seen serving anything is none of the requests elsewhere.
    let same_or_no_trace = |other: &usize| child.seen.trace.is_none() || all[*other].seen.trace.is_none();
    let of_context: Vec<usize> = elsewhere().filter(same_context).filter(same_or_no_trace).collect();
    match of_context[..] {
        [parent] if from.is_empty() => Some(Link { parent, cause: Cause::Context, dropped: None }),
        _ => None,
    }
}

/// Is `at` in the path below `root`?
fn is_within(at: usize, root: usize, links: &[Option<Link>]) -> bool {
    let mut up = Some(at);
    while let Some(now) = up {
        if now == root {
            return true;
        }
        up = links[now].map(|link| link.parent);
    }
    false
}

/// Has `parent` led to a request at the same place as `child`, with the context?
fn has_led_to(parent: usize, child: &Sighting, all: &[Sighting], links: &[Option<Link>]) -> bool {
    links.iter().enumerate().any(|(at, link)| {
        link.is_some_and(|link| link.parent == parent)
            && all[at].is_same_hop(child)
            && all[at].seen.port == child.seen.port
    })
}

/// The parent had a context that was looked for at the child, and is not there.
fn has_lost(parent: &Observation, child: &Observation) -> bool {
    let mut known =
        parent.carried.iter().filter(|mark| mark.is_of_key() || child.sought.contains(mark)).peekable();
    known.peek().is_some() && known.all(|mark| !child.carried.contains(mark))
}

fn tree(at: usize, all: &[Sighting], links: &[Option<Link>], children: &[Vec<usize>]) -> Tree {
    let seen = all[at].seen.clone();
    let missing = match links[at] {
        Some(link) => all[link.parent].seen.headers.difference(&seen.headers).cloned().collect(),
        None => Vec::new(),
    };
    Tree {
        seen,
        cause: links[at].map(|link| link.cause),
        dropped: links[at].and_then(|link| link.dropped),
        missing,
        children: children[at].iter().map(|child| tree(*child, all, links, children)).collect(),
    }
}

impl Sighting {
    fn is_at(&self, hop: &Hop) -> bool {
        self.source == hop.0 && self.seen.hop == hop.1
    }

    fn is_same_hop(&self, other: &Self) -> bool {
        self.source == other.source && self.seen.hop == other.seen.hop
    }

    /// A path begins here.
    fn is_origin(&self) -> bool {
        self.seen.route == Taken::Ingress
    }

    /// Was this being served when `child` began? `tolerance`: for clocks of different nodes.
    fn is_serving_at(&self, child: &Self, tolerance: Duration) -> bool {
        let tolerance = if self.source == child.source { Duration::ZERO } else { tolerance };
        let window = window(&self.seen, tolerance);
        window.from <= child.seen.started && child.seen.started <= window.to
    }
}

impl Tree {
    /// Some request of it is a developer's.
    #[must_use]
    pub fn is_developers(&self) -> bool {
        self.any(&Observation::is_developers)
    }

    /// Is any request of it like that?
    pub fn any(&self, is: &dyn Fn(&Observation) -> bool) -> bool {
        is(&self.seen) || self.children.iter().any(|child| child.any(is))
    }

    /// Did a developer get one of its requests?
    #[must_use]
    pub fn reaches_developer(&self) -> bool {
        self.any(&|seen| matches!(seen.route, Taken::Developer(_)))
    }

    /// Did some hop of it drop the context, for all that is known?
    #[must_use]
    pub fn drops(&self) -> bool {
        self.dropped.is_some() || self.children.iter().any(Self::drops)
    }
}
