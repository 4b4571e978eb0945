//! Follows a connection through the chains of a table, from the PREROUTING hook on.

use std::collections::HashMap;

use super::rule::{Chain, Connection, Rule, Table, Verdict};

/// How many of the connections to one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likelihood {
    Never,
    Maybe,
    Always,
}

/// The first rule on the way that sends connections elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    pub chain: &'a str,
    pub rule: &'a Rule,
    /// Every connection to the port gets there, as far as can be told; else some may.
    pub certain: bool,
}

/// Chains deeper than this are not followed; nf_tables itself allows 16. Keeps a hostile ruleset from our stack.
const MAX_DEPTH: usize = 64;

#[must_use]
pub fn find_redirect(table: &Table, connection: Connection) -> Option<Found<'_>> {
    if !table.families.contains(&connection.family) {
        return None;
    }
    let mut hooked: Vec<(i32, &str, &Chain)> = table
        .chains
        .iter()
        .filter_map(|(name, chain)| Some((chain.prerouting?, name.as_str(), chain)))
        .collect();
    hooked.sort_by_key(|(priority, ..)| *priority);
    let mut walk = Walk { table, connection, known: HashMap::new() };
    hooked.into_iter().find_map(|(_, name, chain)| walk.chain(name, chain, 0).found)
}

struct Walk<'a> {
    table: &'a Table,
    connection: Connection,
    /// What came of each chain, seen from its start: asked once however often it is jumped to.
    known: HashMap<&'a str, Outcome<'a>>,
}

/// What becomes of connections that enter a chain.
#[derive(Clone, Copy)]
struct Outcome<'a> {
    found: Option<Found<'a>>,
    /// Whether they come back to the chain that jumped.
    back: Likelihood,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &'a str, chain: &'a Chain, depth: usize) -> Outcome<'a> {
        // How many get to the rule at hand, and how many were accepted or dropped before.
        let mut here = Likelihood::Always;
        let mut ended = Likelihood::Never;
        for rule in &chain.rules {
            let applies = rule.applies(self.connection);
            let hit = here.min(applies);
            if hit == Likelihood::Never {
                continue;
            }
            let back = match &rule.verdict {
                Verdict::Continue => continue,
                Verdict::Redirect(_) => {
                    let found = Found { chain: name, rule, certain: hit == Likelihood::Always };
                    return Outcome { found: Some(found), back: Likelihood::Never };
                }
                Verdict::End => Likelihood::Never,
                Verdict::Return => Likelihood::Always,
                Verdict::Jump(to) | Verdict::Goto(to) => {
                    let inner = self.jump(to, depth + 1);
                    if let Some(found) = inner.found {
                        let certain = found.certain && hit == Likelihood::Always;
                        return Outcome { found: Some(Found { certain, ..found }), back: Likelihood::Never };
                    }
                    inner.back
                }
            };
            ended = ended.max(hit.min(back.opposite()));
            let on = if matches!(rule.verdict, Verdict::Jump(_)) { back } else { Likelihood::Never };
            here = here.min(on.max(applies.opposite()));
        }
        Outcome { found: None, back: ended.opposite() }
    }

    fn jump(&mut self, to: &str, depth: usize) -> Outcome<'a> {
        let Some((name, chain)) = self.table.chains.get_key_value(to) else {
            return Outcome { found: None, back: Likelihood::Always };
        };
        if let Some(known) = self.known.get(name.as_str()) {
            return *known;
        }
        if depth > MAX_DEPTH {
            return Outcome { found: None, back: Likelihood::Maybe };
        }
        let outcome = self.chain(name, chain, depth);
        self.known.insert(name, outcome);
        outcome
    }
}

impl Likelihood {
    fn opposite(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Maybe => Self::Maybe,
            Self::Always => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Condition, Family, TCP};
    use super::*;

    fn table(chains: &[(&str, &[Rule])]) -> Table {
        let chains = chains
            .iter()
            .map(|(name, rules)| {
                let prerouting = (*name == "PREROUTING").then_some(-100);
                (name.to_string(), Chain { prerouting, rules: rules.to_vec() })
            })
            .collect();
        Table { name: "ip nat".into(), families: vec![Family::Ipv4], chains }
    }

    fn rule(conditions: &[Condition], verdict: Verdict) -> Rule {
        Rule { conditions: conditions.to_vec(), verdict }
    }

    fn port(port: u16) -> Condition {
        Condition::DestinationPort { ports: vec![port..=port], negated: false }
    }

    fn tcp() -> Condition {
        Condition::Protocol { protocol: TCP, negated: false }
    }

    fn some() -> Condition {
        Condition::Other("source 10.0.0.1".into())
    }

    fn redirect() -> Verdict {
        Verdict::Redirect("REDIRECT".into())
    }

    /// `None` or the chain and whether it is certain.
    fn found(table: &Table, port: u16) -> Option<(&str, bool)> {
        let connection = Connection { family: Family::Ipv4, port };
        find_redirect(table, connection).map(|found| (found.chain, found.certain))
    }

    #[test]
    fn a_service_meshs_chains_are_followed_and_its_excluded_ports_left_out() {
        let mesh = table(&[
            ("PREROUTING", &[rule(&[tcp()], Verdict::Jump("INBOUND".into()))]),
            (
                "INBOUND",
                &[
                    rule(&[tcp(), port(15008)], Verdict::Return),
                    rule(&[tcp(), port(22)], Verdict::Return),
                    rule(&[tcp()], Verdict::Jump("IN_REDIRECT".into())),
                ],
            ),
            ("IN_REDIRECT", &[rule(&[tcp()], redirect())]),
            ("UNUSED", &[rule(&[], redirect())]),
        ]);
        assert_eq!(found(&mesh, 8080), Some(("IN_REDIRECT", true)));
        assert_eq!(found(&mesh, 22), None);
    }

    #[test]
    fn what_depends_on_more_than_the_port_is_only_possible() {
        let by_source = table(&[("PREROUTING", &[rule(&[some()], redirect())])]);
        assert_eq!(found(&by_source, 80), Some(("PREROUTING", false)));
        let after_exception =
            table(&[("PREROUTING", &[rule(&[some()], Verdict::End), rule(&[], redirect())])]);
        assert_eq!(found(&after_exception, 80), Some(("PREROUTING", false)));
        let behind_jump = table(&[
            ("PREROUTING", &[rule(&[some()], Verdict::Jump("x".into()))]),
            ("x", &[rule(&[], redirect())]),
        ]);
        assert_eq!(found(&behind_jump, 80), Some(("x", false)));
    }

    #[test]
    fn a_chain_that_only_returns_changes_nothing() {
        let chains = table(&[
            ("PREROUTING", &[rule(&[some()], Verdict::Jump("x".into())), rule(&[], redirect())]),
            ("x", &[rule(&[some()], Verdict::Return)]),
        ]);
        assert_eq!(found(&chains, 80), Some(("PREROUTING", true)));
    }

    #[test]
    fn accepting_in_a_chain_ends_the_walk_and_goto_does_not_come_back() {
        let accepted = table(&[
            ("PREROUTING", &[rule(&[], Verdict::Jump("x".into())), rule(&[], redirect())]),
            ("x", &[rule(&[port(80)], Verdict::End)]),
        ]);
        assert_eq!(found(&accepted, 80), None);
        assert_eq!(found(&accepted, 81), Some(("PREROUTING", true)));
        let gone = table(&[
            ("PREROUTING", &[rule(&[], Verdict::Goto("x".into())), rule(&[], redirect())]),
            ("x", &[rule(&[], Verdict::Return)]),
        ]);
        assert_eq!(found(&gone, 80), None);
    }

    #[test]
    fn loopback_and_other_protocols_and_families_are_left_out() {
        let lo = Condition::FromLoopback { negated: false };
        let udp = Condition::Protocol { protocol: 17, negated: false };
        let v6 = Condition::Family { family: Family::Ipv6, negated: false };
        for condition in [lo, udp, v6] {
            let only = table(&[("PREROUTING", &[rule(&[condition], redirect())])]);
            assert_eq!(found(&only, 80), None);
        }
    }

    #[test]
    fn many_jumps_and_circles_are_walked_in_no_time() {
        // 40 levels that each jump twice to the next would take 2^40 steps without memory.
        let levels: Vec<(String, Vec<Rule>)> = (0..40)
            .map(|level| {
                let next = rule(&[], Verdict::Jump(format!("{}", (level + 1) % 40)));
                (level.to_string(), vec![next.clone(), next])
            })
            .collect();
        let mut deep: Vec<(&str, &[Rule])> =
            levels.iter().map(|(name, rules)| (name.as_str(), rules.as_slice())).collect();
        let start = [rule(&[], Verdict::Jump("0".into()))];
        deep.push(("PREROUTING", &start));
        assert_eq!(found(&table(&deep), 80), None);
    }
}
