//! What nf_tables and iptables rules have in common, as far as it decides where a TCP connection goes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::walk::Likelihood;

pub const TCP: u8 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// The first packet of a connection that comes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pub family: Family,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// As a person calls it: `ip nat`, `inet mesh`, `ip nat (iptables-legacy)`.
    pub name: String,
    pub families: Vec<Family>,
    pub chains: BTreeMap<String, Chain>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The priority at the PREROUTING hook, for a chain that the kernel itself enters there.
    pub prerouting: Option<i32>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub conditions: Vec<Condition>,
    pub verdict: Verdict,
}

/// One test of a rule; all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Protocol {
        protocol: u8,
        negated: bool,
    },
    DestinationPort {
        ports: Vec<RangeInclusive<u16>>,
        negated: bool,
    },
    Family {
        family: Family,
        negated: bool,
    },
    FromLoopback {
        negated: bool,
    },
    /// Cannot be judged by port alone, or is unknown to us: may hold or not. Text for people.
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Continue,
    /// The connection goes elsewhere; text for people.
    Redirect(String),
    Jump(String),
    Goto(String),
    Return,
    /// Accepted or dropped: no further rule of this hook's chain is asked.
    End,
}

impl Condition {
    #[must_use]
    pub fn holds(&self, connection: Connection) -> Likelihood {
        let held = match self {
            Self::Protocol { protocol, negated } => (*protocol == TCP) != *negated,
            Self::DestinationPort { ports, negated } => {
                ports.iter().any(|range| range.contains(&connection.port)) != *negated
            }
            Self::Family { family, negated } => (*family == connection.family) != *negated,
            Self::FromLoopback { negated } => *negated,
            Self::Other(_) => return Likelihood::Maybe,
        };
        if held { Likelihood::Always } else { Likelihood::Never }
    }
}

impl Rule {
    #[must_use]
    pub fn applies(&self, connection: Connection) -> Likelihood {
        let conditions = self.conditions.iter().map(|condition| condition.holds(connection));
        conditions.min().unwrap_or(Likelihood::Always)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.conditions {
            write!(f, "{condition} ")?;
        }
        match &self.verdict {
            Verdict::Continue => f.write_str("continue"),
            Verdict::Redirect(how) => f.write_str(how),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
            Verdict::Return => f.write_str("return"),
            Verdict::End => f.write_str("accept or drop"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |negated: &bool| if *negated { "not " } else { "" };
        match self {
            Self::Protocol { protocol: TCP, negated } => write!(f, "{}tcp", not(negated)),
            Self::Protocol { protocol, negated } => write!(f, "{}protocol {protocol}", not(negated)),
            Self::DestinationPort { ports, negated } => {
                let ports: Vec<String> = ports.iter().map(range_text).collect();
                write!(f, "{}dport {}", not(negated), ports.join(","))
            }
            Self::Family { family: Family::Ipv4, negated } => write!(f, "{}ipv4", not(negated)),
            Self::Family { family: Family::Ipv6, negated } => write!(f, "{}ipv6", not(negated)),
            Self::FromLoopback { negated } => write!(f, "{}from lo", not(negated)),
            Self::Other(text) => write!(f, "[{text}]"),
        }
    }
}

fn range_text(range: &RangeInclusive<u16>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}
