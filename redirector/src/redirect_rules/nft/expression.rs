//! The expressions of one nf_tables rule, run on registers of which we know what they hold, not its value.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::ruleset::Fields;
use crate::netlink::Malformed;
use crate::redirect_rules::extension::Extension;
use crate::redirect_rules::rule::{Condition, Family, Rule, Verdict};

/// One expression: its kind and its attributes.
pub struct Expression<'a> {
    pub name: &'a str,
    pub fields: Fields<'a>,
}

/// The elements of the sets of one table.
pub type Sets = BTreeMap<String, Vec<Element>>;

pub struct Element {
    /// `None` for the catch-all element.
    pub key: Option<Vec<u8>>,
    /// Not an element: the first key after an interval.
    pub ends_interval: bool,
    /// For the elements of a verdict map.
    pub verdict: Option<Verdict>,
}

/// Turns the expressions of a rule, one after the other, into rules that a [`super::super::walk`] understands. A
/// verdict map makes several.
pub struct Lowering<'a> {
    family: &'a [Family],
    sets: &'a Sets,
    registers: BTreeMap<u32, Register>,
    conditions: Vec<Condition>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Register {
    Protocol,
    DestinationPort,
    /// `NFPROTO_*` of the packet, one byte.
    NetfilterFamily,
    /// Ethertype, two bytes big-endian.
    EtherType,
    InterfaceName,
    InterfaceIndex,
    Constant(Vec<u8>),
}

#[derive(Clone, Copy)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const REGISTER_VERDICT: u32 = 0;

impl<'a> Lowering<'a> {
    #[must_use]
    pub fn new(family: &'a [Family], sets: &'a Sets) -> Self {
        Self { family, sets, registers: BTreeMap::new(), conditions: Vec::new(), rules: Vec::new() }
    }

    pub fn add(&mut self, expression: &Expression<'_>) -> Result<(), Malformed> {
        let fields = &expression.fields;
        match expression.name {
            "meta" => self.meta(fields),
            "payload" => self.payload(fields),
            "immediate" => self.immediate(fields)?,
            "cmp" => self.compare(fields)?,
            "range" => self.range(fields)?,
            "lookup" => self.lookup(fields)?,
            "match" => self.conditions.extend(extension(fields)?.conditions()),
            "target" => {
                let family = self.family.first().copied().unwrap_or(Family::Ipv4);
                self.verdict(extension(fields)?.verdict(family));
            }
            "nat" => self.nat(fields),
            "redir" => self.redirect("redirect", fields.number(1)),
            "tproxy" => self.redirect("tproxy", fields.number(3)),
            "reject" | "queue" => self.verdict(Verdict::End),
            // These let every packet on; what they load is not known.
            "bitwise" | "byteorder" | "ct" | "fib" | "hash" | "numgen" | "rt" | "osf" | "socket" | "xfrm"
            | "tunnel" | "exthdr" => self.unknown_load(expression.name, fields),
            "counter" | "log" | "notrack" | "objref" | "last" | "masq" | "dup" => {}
            other => self.conditions.push(Condition::Other(other.to_owned())),
        }
        Ok(())
    }

    /// What came of the rule.
    #[must_use]
    pub fn finish(self) -> Vec<Rule> {
        self.rules
    }

    fn verdict(&mut self, verdict: Verdict) {
        self.rules.push(Rule { conditions: self.conditions.clone(), verdict });
    }

    fn meta(&mut self, fields: &Fields<'_>) {
        const NFTA_META_DREG: u16 = 1;
        const NFTA_META_KEY: u16 = 2;
        // Without a destination it sets a mark or the like.
        let Some(register) = fields.number(NFTA_META_DREG) else { return };
        self.load(
            register,
            match fields.number(NFTA_META_KEY) {
                Some(1) => Some(Register::EtherType),
                Some(4) => Some(Register::InterfaceIndex),
                Some(6) => Some(Register::InterfaceName),
                Some(15) => Some(Register::NetfilterFamily),
                Some(16) => Some(Register::Protocol),
                _ => None,
            },
        );
    }

    fn payload(&mut self, fields: &Fields<'_>) {
        const NFTA_PAYLOAD_DREG: u16 = 1;
        const NETWORK_HEADER: u32 = 1;
        const TRANSPORT_HEADER: u32 = 2;
        let Some(register) = fields.number(NFTA_PAYLOAD_DREG) else { return };
        let place = (fields.number(2), fields.number(3), fields.number(4));
        self.load(
            register,
            match place {
                (Some(TRANSPORT_HEADER), Some(2), Some(2)) => Some(Register::DestinationPort),
                (Some(NETWORK_HEADER), Some(9), Some(1)) if self.family.contains(&Family::Ipv4) => {
                    Some(Register::Protocol)
                }
                (Some(NETWORK_HEADER), Some(6), Some(1)) if self.family == [Family::Ipv6] => {
                    Some(Register::Protocol)
                }
                _ => None,
            },
        );
    }

    fn immediate(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        const NFTA_IMMEDIATE_DREG: u16 = 1;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        let register = fields.number(NFTA_IMMEDIATE_DREG).ok_or(Malformed)?;
        if register == REGISTER_VERDICT {
            self.verdict(fields.verdict(NFTA_IMMEDIATE_DATA)?.ok_or(Malformed)?);
        } else {
            let value = fields.value(NFTA_IMMEDIATE_DATA)?;
            self.load(register, value.map(|value| Register::Constant(value.to_vec())));
        }
        Ok(())
    }

    fn compare(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        let register = self.register(fields.number(1));
        let comparison = match fields.number(2) {
            Some(0) => Comparison::Equal,
            Some(1) => Comparison::NotEqual,
            Some(2) => Comparison::Less,
            Some(3) => Comparison::LessOrEqual,
            Some(4) => Comparison::Greater,
            Some(5) => Comparison::GreaterOrEqual,
            _ => return Err(Malformed),
        };
        let value = fields.value(3)?.ok_or(Malformed)?;
        self.conditions.push(comparison_of(register, comparison, value));
        Ok(())
    }

    fn range(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        let negated = fields.number(2) == Some(1);
        let (from, to) = (fields.value(3)?.ok_or(Malformed)?, fields.value(4)?.ok_or(Malformed)?);
        let condition = match (self.register(fields.number(1)), port(from), port(to)) {
            (Some(Register::DestinationPort), Some(from), Some(to)) => {
                Condition::DestinationPort { ports: vec![from..=to], negated }
            }
            _ => Condition::Other("range".into()),
        };
        self.conditions.push(condition);
        Ok(())
    }

    fn lookup(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        const NFT_LOOKUP_F_INV: u32 = 1;
        let name = fields.text(1)?;
        let by_port = self.register(fields.number(2)) == Some(&Register::DestinationPort);
        let negated = fields.number(5).unwrap_or_default() & NFT_LOOKUP_F_INV != 0;
        // Of a set that could not be read nothing is known.
        let elements = self.sets.get(name);
        let ranges = if by_port { elements.and_then(|elements| intervals(elements)) } else { None };
        let unknown = Condition::Other(format!("lookup in {name}"));

        if fields.number(3) == Some(REGISTER_VERDICT) {
            let ranged = ranges.iter().flatten().map(|(range, element)| {
                (Condition::DestinationPort { ports: vec![range.clone()], negated: false }, *element)
            });
            let unranged =
                elements.into_iter().flatten().filter(|element| ranges.is_none() || element.key.is_none());
            for (condition, element) in ranged.chain(unranged.map(|element| (unknown.clone(), element))) {
                let Some(verdict) = element.verdict.clone() else { continue };
                let conditions = self.conditions.iter().cloned().chain([condition]).collect();
                self.rules.push(Rule { conditions, verdict });
            }
            return Ok(());
        }
        if let Some(register) = fields.number(3) {
            self.load(register, None);
        }
        let has_catch_all = elements.is_some_and(|elements| elements.iter().any(|e| e.key.is_none()));
        self.conditions.push(match ranges {
            Some(ranges) if !has_catch_all => Condition::DestinationPort {
                ports: ranges.into_iter().map(|(range, _)| range).collect(),
                negated,
            },
            _ => unknown,
        });
        Ok(())
    }

    fn nat(&mut self, fields: &Fields<'_>) {
        const NFT_NAT_DNAT: u32 = 1;
        if fields.number(1) == Some(NFT_NAT_DNAT) {
            self.redirect("dnat", fields.number(5));
        }
    }

    fn redirect(&mut self, how: &str, port_register: Option<u32>) {
        let port = match self.register(port_register) {
            Some(Register::Constant(value)) => port(value),
            _ => None,
        };
        let to = port.map(|port| format!(" to port {port}")).unwrap_or_default();
        self.verdict(Verdict::Redirect(format!("{how}{to}")));
    }

    fn unknown_load(&mut self, name: &str, fields: &Fields<'_>) {
        // Those that only set something have no destination.
        let destination = match name {
            "bitwise" | "byteorder" | "hash" | "socket" | "tunnel" => 2,
            _ => 1,
        };
        if let Some(register) = fields.number(destination) {
            self.load(register, None);
        }
        if matches!(name, "exthdr" | "socket") {
            // They also end the rule when the packet has no such thing.
            self.conditions.push(Condition::Other(name.to_owned()));
        }
    }

    fn load(&mut self, register: u32, value: Option<Register>) {
        let register = normal_register(register);
        match value {
            Some(value) => self.registers.insert(register, value),
            None => self.registers.remove(&register),
        };
    }

    fn register(&self, register: Option<u32>) -> Option<&Register> {
        self.registers.get(&normal_register(register?))
    }
}

/// The four 16-byte registers 1 to 4 overlay the sixteen 4-byte ones from 8 on.
fn normal_register(register: u32) -> u32 {
    if (1..=4).contains(&register) { 8 + 4 * (register - 1) } else { register }
}

fn comparison_of(register: Option<&Register>, comparison: Comparison, value: &[u8]) -> Condition {
    const NFPROTO_IPV4: u8 = 2;
    const NFPROTO_IPV6: u8 = 10;
    const LOOPBACK_INDEX: u32 = 1;
    let negated = match comparison {
        Comparison::Equal => Some(false),
        Comparison::NotEqual => Some(true),
        _ => None,
    };
    let known = match (register, negated, value) {
        (Some(Register::DestinationPort), ..) => port(value).map(|port| ports_that(comparison, port)),
        (Some(Register::Protocol), Some(negated), [protocol]) => {
            Some(Condition::Protocol { protocol: *protocol, negated })
        }
        (Some(Register::NetfilterFamily), Some(negated), [NFPROTO_IPV4])
        | (Some(Register::EtherType), Some(negated), [0x08, 0x00]) => {
            Some(Condition::Family { family: Family::Ipv4, negated })
        }
        (Some(Register::NetfilterFamily), Some(negated), [NFPROTO_IPV6])
        | (Some(Register::EtherType), Some(negated), [0x86, 0xdd]) => {
            Some(Condition::Family { family: Family::Ipv6, negated })
        }
        (Some(Register::InterfaceName), Some(negated), name) if is_loopback(name) => {
            Some(Condition::FromLoopback { negated })
        }
        (Some(Register::InterfaceIndex), Some(negated), index) if *index == LOOPBACK_INDEX.to_ne_bytes() => {
            Some(Condition::FromLoopback { negated })
        }
        _ => None,
    };
    known.unwrap_or_else(|| {
        Condition::Other(match register {
            Some(Register::InterfaceName) => "from one interface".into(),
            Some(Register::Protocol) => "protocol".into(),
            _ => "comparison".into(),
        })
    })
}

fn ports_that(comparison: Comparison, port: u16) -> Condition {
    let below = || port.checked_sub(1).map(|last| 0..=last);
    let above = || port.checked_add(1).map(|first| first..=u16::MAX);
    let (range, negated) = match comparison {
        Comparison::Equal => (Some(port..=port), false),
        Comparison::NotEqual => (Some(port..=port), true),
        Comparison::Less => (below(), false),
        Comparison::LessOrEqual => (Some(0..=port), false),
        Comparison::Greater => (above(), false),
        Comparison::GreaterOrEqual => (Some(port..=u16::MAX), false),
    };
    Condition::DestinationPort { ports: range.into_iter().collect(), negated }
}

/// The ports of a set, ascending, each range with its element; `None` when keys are not ports. In a set of intervals
/// an element is the first port of one, up to the next element: a start, or one that only says that it ends there.
fn intervals(elements: &[Element]) -> Option<Vec<(RangeInclusive<u16>, &Element)>> {
    let mut keyed: Vec<(u16, &Element)> = elements
        .iter()
        .filter_map(|element| Some((element.key.as_deref()?, element)))
        .map(|(key, element)| port(key).map(|port| (port, element)))
        .collect::<Option<_>>()?;
    // At the same port the end of one interval comes before the start of the next.
    keyed.sort_by_key(|(port, element)| (*port, !element.ends_interval));
    let has_intervals = keyed.iter().any(|(_, element)| element.ends_interval);
    let nexts = keyed.iter().skip(1).map(|(port, _)| Some(*port)).chain([None]);
    let ranges = keyed.iter().zip(nexts).filter(|((_, element), _)| !element.ends_interval);
    let range = |first: u16, next: Option<u16>| match next {
        _ if !has_intervals => first..=first,
        Some(next) => first..=next.saturating_sub(1),
        None => first..=u16::MAX,
    };
    Some(ranges.map(|((first, element), next)| (range(*first, next), *element)).collect())
}

/// A port in network order.
fn port(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}

fn extension<'a>(fields: &Fields<'a>) -> Result<Extension<'a>, Malformed> {
    Ok(Extension {
        name: fields.text(1)?,
        revision: fields.number(2).unwrap_or_default(),
        info: fields.bytes(3).unwrap_or_default(),
    })
}

fn is_loopback(name: &[u8]) -> bool {
    name.split(|byte| *byte == 0).next() == Some(b"lo")
}
