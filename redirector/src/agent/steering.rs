//! Which doors an intercept uses, and what all intercepts of a port together ask of the eBPF programs.

use crate::{
    api::Datapath,
    context::{Matcher, Needle},
};
use std::collections::BTreeSet;

/// The doors that an intercept has, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub datapath: Datapath,
    pub reason: String,
}

/// What a port needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// New connections go to the agent.
    pub assign: bool,
    /// Heads with one of these are looked at, on connections that the app has. Without any nothing is looked at.
    pub needles: BTreeSet<Needle>,
}

impl Choice {
    /// `inspection`: why connections of the target can't be inspected, if they can't.
    ///
    /// # Errors
    /// Why `inspect` is impossible; the others fall back to what is possible.
    pub fn new(asked: Datapath, matcher: &Matcher, inspection: Result<(), &str>) -> Result<Self, String> {
        let possible = match (inspection, matcher.needles()) {
            (Err(reason), _) => Err(reason.to_owned()),
            (Ok(()), None) => Err("there is no header to look for in what it matches".to_owned()),
            (Ok(()), Some(_)) => Ok(()),
        };
        let (datapath, reason) = match (asked, possible) {
            (Datapath::Proxy, _) | (Datapath::Inspect, Ok(())) => (asked, "as asked for".to_owned()),
            (Datapath::Auto, Ok(())) => {
                (asked, "new connections pass through the agent, older ones are inspected".to_owned())
            }
            (Datapath::Auto, Err(reason)) => {
                (Datapath::Proxy, format!("connections that existed before stay with the app: {reason}"))
            }
            (Datapath::Inspect, Err(reason)) => return Err(reason),
        };
        Ok(Self { datapath, reason })
    }
}

impl Steering {
    /// Of the intercepts of one port.
    pub fn of<'a>(intercepts: impl IntoIterator<Item = (Datapath, &'a Matcher)>) -> Self {
        let mut steering = Self::default();
        for (datapath, matcher) in intercepts {
            steering.assign |= datapath != Datapath::Inspect;
            if datapath != Datapath::Proxy {
                steering.needles.extend(matcher.needles().unwrap_or_default());
            }
        }
        steering
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Condition;

    fn header(text: &str) -> Matcher {
        Matcher { conditions: vec![Condition::Header(text.parse().unwrap())] }
    }

    const POSSIBLE: Result<(), &str> = Ok(());
    const OLD_KERNEL: Result<(), &str> = Err("this kernel is old");

    #[test]
    fn what_was_asked_for_is_what_there_is() {
        for asked in [Datapath::Proxy, Datapath::Inspect, Datapath::Auto] {
            assert_eq!(Choice::new(asked, &header("x-dev=a"), POSSIBLE).unwrap().datapath, asked);
        }
    }

    #[test]
    fn auto_falls_back_to_proxy_and_says_why() {
        let choice = Choice::new(Datapath::Auto, &header("x-dev=a"), OLD_KERNEL).unwrap();
        assert_eq!(choice.datapath, Datapath::Proxy);
        assert!(choice.reason.contains("this kernel is old"), "{choice:?}");
        let choice = Choice::new(Datapath::Auto, &Matcher::default(), POSSIBLE).unwrap();
        assert_eq!(choice.datapath, Datapath::Proxy);
        assert!(choice.reason.contains("no header to look for"), "{choice:?}");
    }

    #[test]
    fn inspect_is_refused_where_it_is_impossible() {
        assert!(Choice::new(Datapath::Inspect, &header("x-dev=a"), OLD_KERNEL).is_err());
        assert!(Choice::new(Datapath::Inspect, &Matcher::default(), POSSIBLE).is_err());
        assert!(Choice::new(Datapath::Proxy, &Matcher::default(), OLD_KERNEL).is_ok());
    }

    #[test]
    fn a_port_needs_what_any_of_its_intercepts_needs() {
        let (a, b, all) = (header("x-a=1"), header("x-b=1"), Matcher::default());
        let needle = |name: &str| Needle::Header(name.to_owned());
        let steering = Steering::of([(Datapath::Inspect, &a)]);
        assert_eq!(steering, Steering { assign: false, needles: [needle("x-a")].into() });
        let steering = Steering::of([(Datapath::Inspect, &a), (Datapath::Auto, &b), (Datapath::Proxy, &all)]);
        assert_eq!(steering, Steering { assign: true, needles: [needle("x-a"), needle("x-b")].into() });
        assert_eq!(Steering::of([(Datapath::Proxy, &a)]), Steering { assign: true, needles: [].into() });
    }
}
