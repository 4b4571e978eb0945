//! When two intercepts cannot share a port: one of them would take all requests of the other.
//!
//! Where two merely overlap, the older wins, always ([`crate::engine::Routes`]).

use crate::context::Matcher;
use std::fmt;

/// One matcher claims all that the other one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    theirs: Matcher,
    ours: Matcher,
    /// Which of the two is the wider one.
    wider: Wider,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wider {
    Theirs,
    Ours,
    /// Each claims all that the other does.
    Neither,
}

impl Clash {
    /// Between an intercept that is there and one that is asked for, on the same port of the same target.
    pub fn between(theirs: &Matcher, ours: &Matcher) -> Option<Self> {
        let wider = match (theirs.subsumes(ours), ours.subsumes(theirs)) {
            (true, true) => Wider::Neither,
            (true, false) => Wider::Theirs,
            (false, true) => Wider::Ours,
            (false, false) => return None,
        };
        Some(Self { theirs: theirs.clone(), ours: ours.clone(), wider })
    }
}

/// Both matchers, and what to do.
impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { theirs, ours, wider } = self;
        match wider {
            Wider::Neither => write!(f, "it takes {theirs} already")?,
            Wider::Theirs => write!(f, "it takes {theirs}, and so all that yours asks for, {ours}")?,
            Wider::Ours => write!(f, "it takes {theirs}, all of which yours would take away with {ours}")?,
        }
        f.write_str("; match another value, or agree with its owner")
    }
}
