//! The binary form of a legacy table: one block of entries that point at each other by offset
//! (`struct ipt_entry` of <linux/netfilter_ipv4/ip_tables.h>, `struct ip6t_entry` of its IPv6 twin).

use std::collections::BTreeMap;

use crate::netlink::Malformed;
use crate::redirect_rules::extension::Extension;
use crate::redirect_rules::rule::{Chain, Condition, Family, Rule, Table, Verdict};

/// A table as the kernel hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTable {
    /// Bit n: the table has a chain at hook n.
    pub valid_hooks: u32,
    /// Offset of each hook's first entry.
    pub hook_entries: [u32; 5],
    pub entries: Vec<u8>,
}

const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Header of a match or target: size, name, revision; its structure follows.
const EXTENSION_HEADER: usize = 32;
const EXTENSION_NAME: std::ops::Range<usize> = 2..31;

/// Where the fields of an entry are.
struct Layout {
    source_mask: std::ops::Range<usize>,
    destination_mask: std::ops::Range<usize>,
    interface: usize,
    interface_mask: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    goto: u8,
    /// Flag of rules for fragments only; IPv6 has a match for them.
    fragments: u8,
    target_offset: usize,
    matches: usize,
}

const IPV4: Layout = Layout {
    source_mask: 8..12,
    destination_mask: 12..16,
    interface: 16,
    interface_mask: 48,
    protocol: 80,
    flags: 82,
    inverted: 83,
    goto: 0x02,
    fragments: 0x01,
    target_offset: 88,
    matches: 112,
};

const IPV6: Layout = Layout {
    source_mask: 32..48,
    destination_mask: 48..64,
    interface: 64,
    interface_mask: 96,
    protocol: 128,
    flags: 131,
    inverted: 132,
    goto: 0x04,
    fragments: 0x00,
    target_offset: 140,
    matches: 168,
};

/// Sorts the entries into chains.
///
/// # Errors
/// [`Malformed`] when an offset or size leads out of the block.
pub fn parse(family: Family, name: &str, raw: &RawTable) -> Result<Table, Malformed> {
    let entries = entries(family, &raw.entries)?;
    let starts = chain_starts(raw, &entries);
    let priority = if name == "mangle" { -150 } else { -100 };
    let mut chains = BTreeMap::<String, Chain>::new();
    let mut current = None;
    for entry in &entries {
        current = starts.get(&entry.offset).or(current);
        let Some(chain_name) = current else { continue };
        let prerouting = (chain_name == HOOKS[0]).then_some(priority);
        let chain = chains.entry(chain_name.clone()).or_insert(Chain { prerouting, rules: Vec::new() });
        if entry.chain_head().is_none() {
            let verdict = entry.verdict(family, &starts);
            chain.rules.push(Rule { conditions: entry.conditions(), verdict });
        }
    }
    let prefix = if family == Family::Ipv4 { "ip" } else { "ip6" };
    Ok(Table { name: format!("{prefix} {name} (iptables-legacy)"), families: vec![family], chains })
}

/// A chain starts at a hook's entry, or behind an entry whose target is `ERROR` and carries the chain's name.
fn chain_starts(raw: &RawTable, entries: &[Entry<'_>]) -> BTreeMap<usize, String> {
    let hooks = HOOKS.iter().enumerate().filter(|(hook, _)| raw.valid_hooks & (1 << hook) != 0);
    let hooks = hooks.map(|(hook, name)| (raw.hook_entries[hook] as usize, (*name).to_owned()));
    let heads = entries.iter().filter_map(|entry| Some((entry.next(), entry.chain_head()?)));
    hooks.chain(heads).collect()
}

struct Entry<'a> {
    offset: usize,
    layout: &'static Layout,
    bytes: &'a [u8],
    matches: Vec<Extension<'a>>,
    target: Extension<'a>,
}

fn entries(family: Family, block: &[u8]) -> Result<Vec<Entry<'_>>, Malformed> {
    let layout = match family {
        Family::Ipv4 => &IPV4,
        Family::Ipv6 => &IPV6,
    };
    let mut entries = Vec::new();
    let mut offset = 0;
    while offset < block.len() {
        let rest = &block[offset..];
        let target_offset = usize::from(u16_at(rest, layout.target_offset)?);
        let next_offset = usize::from(u16_at(rest, layout.target_offset + 2)?);
        let matches = rest.get(layout.matches..target_offset).ok_or(Malformed)?;
        let target = rest.get(target_offset..next_offset).ok_or(Malformed)?;
        entries.push(Entry {
            offset,
            layout,
            bytes: &rest[..next_offset],
            matches: extensions(matches)?,
            target: extension(target)?.0,
        });
        offset += next_offset;
    }
    Ok(entries)
}

fn extensions(mut bytes: &[u8]) -> Result<Vec<Extension<'_>>, Malformed> {
    let mut extensions = Vec::new();
    while !bytes.is_empty() {
        let (extension, rest) = extension(bytes)?;
        extensions.push(extension);
        bytes = rest;
    }
    Ok(extensions)
}

fn extension(bytes: &[u8]) -> Result<(Extension<'_>, &[u8]), Malformed> {
    let size = usize::from(u16_at(bytes, 0)?);
    let info = bytes.get(EXTENSION_HEADER..size).ok_or(Malformed)?;
    let extension = Extension {
        name: c_text(&bytes[EXTENSION_NAME])?,
        revision: bytes[EXTENSION_HEADER - 1].into(),
        info,
    };
    Ok((extension, &bytes[size..]))
}

impl Entry<'_> {
    fn next(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn chain_head(&self) -> Option<String> {
        let name = (self.target.name == "ERROR").then(|| c_text(self.target.info).ok())?;
        name.map(str::to_owned)
    }

    fn conditions(&self) -> Vec<Condition> {
        let mut conditions = self.addresses_and_interface();
        let inverted = self.bytes[self.layout.inverted];
        let protocol =
            u16::from_ne_bytes([self.bytes[self.layout.protocol], self.bytes[self.layout.protocol + 1]]);
        if let Ok(protocol @ 1..) = u8::try_from(protocol) {
            const INVERTED_PROTOCOL: u8 = 0x40;
            let negated = inverted & INVERTED_PROTOCOL != 0;
            conditions.push(Condition::Protocol { protocol, negated });
        }
        conditions.extend(self.matches.iter().flat_map(Extension::conditions));
        conditions
    }

    fn addresses_and_interface(&self) -> Vec<Condition> {
        const INVERTED_INTERFACE: u8 = 0x01;
        let inverted = self.bytes[self.layout.inverted];
        let mut conditions = Vec::new();
        for (mask, what) in
            [(&self.layout.source_mask, "source"), (&self.layout.destination_mask, "destination")]
        {
            if self.bytes[mask.clone()].iter().any(|byte| *byte != 0) {
                conditions.push(Condition::Other(format!("{what} address")));
            }
        }
        if self.bytes[self.layout.flags] & self.layout.fragments != 0 {
            conditions.push(Condition::Other("fragments".into()));
        }
        let name_bytes = &self.bytes[self.layout.interface..][..16];
        if self.bytes[self.layout.interface_mask] != 0 {
            let name = c_text(name_bytes).unwrap_or("?");
            let negated = inverted & INVERTED_INTERFACE != 0;
            conditions.push(if name == "lo" {
                Condition::FromLoopback { negated }
            } else {
                Condition::Other(format!("{}from {name}", if negated { "not " } else { "" }))
            });
        }
        conditions
    }

    fn verdict(&self, family: Family, starts: &BTreeMap<usize, String>) -> Verdict {
        /// `-NF_REPEAT - 1`, which x_tables uses for RETURN.
        const RETURN: i32 = -5;
        if !self.target.name.is_empty() {
            return self.target.verdict(family);
        }
        let number = self.target.info.get(..4).and_then(|number| number.try_into().ok());
        match number.map(i32::from_ne_bytes) {
            Some(RETURN) => Verdict::Return,
            // A rule without a target goes on to the next entry.
            Some(to @ 0..) if to as usize == self.next() => Verdict::Continue,
            Some(to @ 0..) => match starts.get(&(to as usize)) {
                Some(chain) if self.bytes[self.layout.flags] & self.layout.goto != 0 => {
                    Verdict::Goto(chain.clone())
                }
                Some(chain) => Verdict::Jump(chain.clone()),
                None => Verdict::Continue,
            },
            _ => Verdict::End,
        }
    }
}

fn c_text(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).map_err(|_| Malformed)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let field = bytes.get(at..at + 2).and_then(|field| field.try_into().ok());
    field.map(u16::from_ne_bytes).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redirect_rules::rule::Connection;
    use crate::redirect_rules::walk::find_redirect;

    // Captured on Linux 6.18, x86-64, after a short form of Istio's rules was set with iptables-legacy: 15008, 22 and
    // 15020-15021 return, everything else is redirected to 15006.
    const IPV4_BYTES: &[u8] = include_bytes!("captured/istio-ipv4.bin");
    const IPV6_BYTES: &[u8] = include_bytes!("captured/istio-ipv6.bin");

    fn raw(family: Family, entries: &[u8]) -> RawTable {
        let hook_entries = match family {
            Family::Ipv4 => [0, 304, u32::MAX, 456, 608],
            Family::Ipv6 => [0, 416, u32::MAX, 624, 832],
        };
        RawTable { valid_hooks: 0b11011, hook_entries, entries: entries.to_vec() }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn captured_tables_of_both_families_are_read() {
        for (family, bytes) in [(Family::Ipv4, IPV4_BYTES), (Family::Ipv6, IPV6_BYTES)] {
            let table = parse(family, "nat", &raw(family, bytes)).unwrap();
            let inbound: Vec<String> =
                table.chains["ISTIO_INBOUND"].rules.iter().map(ToString::to_string).collect();
            assert_eq!(
                inbound,
                [
                    "tcp dport 15008 return",
                    "tcp dport 22,15020-15021 return",
                    "tcp jump ISTIO_IN_REDIRECT",
                    "return"
                ]
            );
            let redirect =
                |port| find_redirect(&table, Connection { family, port }).map(|found| found.rule.to_string());
            assert_eq!(redirect(8080).as_deref(), Some("tcp REDIRECT to port 15006"));
            assert_eq!(redirect(15021), None);
        }
    }

    #[test]
    fn a_table_that_is_cut_off_is_refused() {
        for length in 1..112 {
            assert_eq!(parse(Family::Ipv4, "nat", &raw(Family::Ipv4, &IPV4_BYTES[..length])), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_damage_to_a_table_makes_the_parser_or_the_walk_fail(
            damage in prop::collection::vec((0..IPV4_BYTES.len(), any::<u8>()), 1..20),
            port: u16,
        ) {
            let mut bytes = IPV4_BYTES.to_vec();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            if let Ok(table) = parse(Family::Ipv4, "nat", &raw(Family::Ipv4, &bytes)) {
                let _ = find_redirect(&table, Connection { family: Family::Ipv4, port });
            }
        }
    }
}
