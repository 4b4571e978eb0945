//! From the messages of a dump to tables. No sockets here.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Element, Expression, Lowering, Sets};
use crate::netlink::{Malformed, Message, attributes};
use crate::redirect_rules::rule::{Chain, Family, Table, Verdict};

const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NF_INET_PRE_ROUTING: u32 = 0;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

/// Which set to ask the kernel for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    pub family: u8,
    pub table: String,
    pub set: String,
}

/// The values of a nest of attributes by kind.
pub(super) struct Fields<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Fields<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        attributes(bytes).map(Self)
    }

    pub fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
    }

    pub fn text(&self, kind: u16) -> Result<&'a str, Malformed> {
        let bytes = self.bytes(kind).ok_or(Malformed)?;
        std::str::from_utf8(bytes.strip_suffix(b"\0").unwrap_or(bytes)).map_err(|_| Malformed)
    }

    pub fn number(&self, kind: u16) -> Option<u32> {
        self.bytes(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn nest(&self, kind: u16) -> Result<Option<Self>, Malformed> {
        self.bytes(kind).map(Self::parse).transpose()
    }

    /// `NFTA_DATA_VALUE` inside an attribute.
    pub fn value(&self, kind: u16) -> Result<Option<&'a [u8]>, Malformed> {
        Ok(self.nest(kind)?.and_then(|data| data.bytes(NFTA_DATA_VALUE)))
    }

    /// `NFTA_DATA_VERDICT` inside an attribute.
    pub fn verdict(&self, kind: u16) -> Result<Option<Verdict>, Malformed> {
        let Some(data) = self.nest(kind)? else { return Ok(None) };
        data.nest(NFTA_DATA_VERDICT)?.map(|verdict| verdict_of(&verdict)).transpose()
    }
}

/// The sets that rules look ports up in, each once.
pub fn sets_used(rules: &[Message]) -> Result<BTreeSet<SetName>, Malformed> {
    let mut sets = BTreeSet::new();
    for message in rules {
        let (family, rule) = split(message)?;
        for expression in expressions(&rule)? {
            if expression.name == "lookup" {
                let table = rule.text(NFTA_RULE_TABLE)?.to_owned();
                let set = expression.fields.text(NFTA_LOOKUP_SET)?.to_owned();
                sets.insert(SetName { family, table, set });
            }
        }
    }
    Ok(sets)
}

/// Builds the tables that IP packets pass; those of other families are left out.
pub fn tables(chains: &[Message], rules: &[Message], elements: &[Message]) -> Result<Vec<Table>, Malformed> {
    let sets = sets(elements)?;
    let mut tables = BTreeMap::<(u8, &str), BTreeMap<String, Chain>>::new();
    for message in chains {
        let (family, chain) = split(message)?;
        let table = tables.entry((family, chain.text(NFTA_CHAIN_TABLE)?)).or_default();
        let prerouting = match chain.nest(NFTA_CHAIN_HOOK)? {
            Some(hook) if hook.number(NFTA_HOOK_HOOKNUM) == Some(NF_INET_PRE_ROUTING) => {
                Some(hook.number(NFTA_HOOK_PRIORITY).unwrap_or_default().cast_signed())
            }
            _ => None,
        };
        table.insert(chain.text(NFTA_CHAIN_NAME)?.to_owned(), Chain { prerouting, rules: Vec::new() });
    }
    let no_sets = Sets::new();
    for message in rules {
        let (family, rule) = split(message)?;
        let table = rule.text(NFTA_RULE_TABLE)?;
        // A chain made between the two dumps is missing; the next look sees it.
        let chain = tables
            .get_mut(&(family, table))
            .and_then(|chains| chains.get_mut(rule.text(NFTA_RULE_CHAIN).ok()?));
        let Some(chain) = chain else { continue };
        let sets = sets.get(&(family, table)).unwrap_or(&no_sets);
        let mut lowering = Lowering::new(families(family).1, sets);
        for expression in expressions(&rule)? {
            lowering.add(&expression)?;
        }
        chain.rules.extend(lowering.finish());
    }
    Ok(tables
        .into_iter()
        .filter(|((family, _), _)| !families(*family).1.is_empty())
        .map(|((family, name), chains)| {
            let (prefix, families) = families(family);
            Table { name: format!("{prefix} {name}"), families: families.to_vec(), chains }
        })
        .collect())
}

fn families(family: u8) -> (&'static str, &'static [Family]) {
    match family {
        NFPROTO_INET => ("inet", &[Family::Ipv4, Family::Ipv6]),
        NFPROTO_IPV4 => ("ip", &[Family::Ipv4]),
        NFPROTO_IPV6 => ("ip6", &[Family::Ipv6]),
        _ => ("", &[]),
    }
}

fn sets(messages: &[Message]) -> Result<BTreeMap<(u8, &str), Sets>, Malformed> {
    let mut by_table = BTreeMap::<(u8, &str), Sets>::new();
    for message in messages {
        let (family, list) = split(message)?;
        let table = list.text(NFTA_SET_ELEM_LIST_TABLE)?;
        let set = list.text(NFTA_SET_ELEM_LIST_SET)?.to_owned();
        let elements = by_table.entry((family, table)).or_default().entry(set).or_default();
        for (_, element) in list.nest(NFTA_SET_ELEM_LIST_ELEMENTS)?.map_or(Vec::new(), |list| list.0) {
            let element = Fields::parse(element)?;
            let flags = element.number(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
            elements.push(Element {
                key: element.value(NFTA_SET_ELEM_KEY)?.map(<[u8]>::to_vec),
                ends_interval: flags & NFT_SET_ELEM_INTERVAL_END != 0,
                verdict: element.verdict(NFTA_SET_ELEM_DATA)?,
            });
        }
    }
    Ok(by_table)
}

fn expressions<'a>(rule: &Fields<'a>) -> Result<Vec<Expression<'a>>, Malformed> {
    let Some(list) = rule.nest(NFTA_RULE_EXPRESSIONS)? else { return Ok(Vec::new()) };
    let parse = |(_, bytes): (u16, &'a [u8])| {
        let expression = Fields::parse(bytes)?;
        let fields = expression.nest(NFTA_EXPR_DATA)?.unwrap_or(Fields(Vec::new()));
        Ok(Expression { name: expression.text(NFTA_EXPR_NAME)?, fields })
    };
    list.0.into_iter().map(parse).collect()
}

fn verdict_of(verdict: &Fields<'_>) -> Result<Verdict, Malformed> {
    const CONTINUE: i32 = -1;
    const BREAK: i32 = -2;
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    const RETURN: i32 = -5;
    let chain = || verdict.text(NFTA_VERDICT_CHAIN).map(str::to_owned);
    Ok(match verdict.number(NFTA_VERDICT_CODE).ok_or(Malformed)?.cast_signed() {
        CONTINUE | BREAK => Verdict::Continue,
        JUMP => Verdict::Jump(chain()?),
        GOTO => Verdict::Goto(chain()?),
        RETURN => Verdict::Return,
        _ => Verdict::End,
    })
}

/// The family of `struct nfgenmsg` and the attributes behind it.
fn split(message: &Message) -> Result<(u8, Fields<'_>), Malformed> {
    let [family, _, _, _, rest @ ..] = message.payload.as_slice() else { return Err(Malformed) };
    Ok((*family, Fields::parse(rest)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::messages;
    use crate::redirect_rules::rule::Connection;
    use crate::redirect_rules::walk::find_redirect;

    // Captured on Linux 6.18, x86-64: a short form of Istio's rules set with iptables-nft 1.8.9, and a table of nft 1.0.6
    // with a set and a verdict map of intervals.
    const CHAINS: &[u8] = include_bytes!("captured/chains.bin");
    const RULES: &[u8] = include_bytes!("captured/rules.bin");
    const ELEMENTS: &[u8] = include_bytes!("captured/elements.bin");

    fn captured(chains: &[u8], rules: &[u8], elements: &[u8]) -> Result<Vec<Table>, Malformed> {
        tables(&messages(chains)?, &messages(rules)?, &messages(elements)?)
    }

    #[cfg(target_endian = "little")]
    fn rules_of(tables: &[Table], table: &str, chain: &str) -> Vec<String> {
        let table = tables.iter().find(|found| found.name == table).unwrap();
        table.chains[chain].rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn captured_rules_are_read() {
        let tables = captured(CHAINS, RULES, ELEMENTS).unwrap();
        assert_eq!(
            rules_of(&tables, "ip nat", "ISTIO_INBOUND"),
            ["tcp dport 15008 return", "tcp dport 22,15020-15021 return", "tcp jump ISTIO_IN_REDIRECT"]
        );
        assert_eq!(rules_of(&tables, "ip nat", "ISTIO_IN_REDIRECT"), ["tcp REDIRECT to port 15006"]);
        assert_eq!(
            rules_of(&tables, "inet mesh", "prerouting"),
            [
                "from lo return",
                "tcp dport 22,9000-9099 return",
                "tcp dport 80 jump web",
                "tcp dport 1000-1999 accept or drop"
            ]
        );
        assert_eq!(sets_used(&messages(RULES).unwrap()).unwrap().len(), 2);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn rules_whose_sets_are_unknown_may_match() {
        let tables = captured(CHAINS, RULES, &[]).unwrap();
        assert_eq!(rules_of(&tables, "inet mesh", "prerouting")[1], "tcp [lookup in __set0] return");
    }

    proptest! {
        #[test]
        fn no_damage_to_messages_makes_the_parser_or_the_walk_fail(
            damage in prop::collection::vec((0..RULES.len(), any::<u8>()), 1..20),
            port: u16,
        ) {
            let mut parts = [CHAINS, RULES, ELEMENTS].map(<[u8]>::to_vec);
            for (at, byte) in damage {
                for part in &mut parts {
                    let at = at % part.len();
                    part[at] = byte;
                }
            }
            let [chains, rules, elements] = parts;
            let _ = messages(&rules).and_then(|rules| sets_used(&rules));
            for table in captured(&chains, &rules, &elements).unwrap_or_default() {
                for family in [Family::Ipv4, Family::Ipv6] {
                    let _ = find_redirect(&table, Connection { family, port });
                }
            }
        }
    }
}
