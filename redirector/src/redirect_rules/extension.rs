//! The iptables extensions that decide about ports, in the binary form that legacy tables and nf_tables share
//! (<linux/netfilter/x_tables.h> and its neighbours; numbers are in host order unless said otherwise).

use super::rule::{Condition, Family, Verdict};

/// A match or a target: its name, revision and the structure that belongs to them.
#[derive(Debug, Clone, Copy)]
pub struct Extension<'a> {
    pub name: &'a str,
    pub revision: u32,
    pub info: &'a [u8],
}

impl Extension<'_> {
    /// The conditions of a match.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let known = match (self.name, self.revision) {
            ("tcp", 0) => self.tcp(),
            ("multiport", 1) => self.multiport(),
            ("comment", _) => Some(Vec::new()),
            _ => None,
        };
        known.unwrap_or_else(|| vec![Condition::Other(format!("match {}", self.name))])
    }

    /// What a target other than the built-in verdicts does with a connection.
    #[must_use]
    pub fn verdict(&self, family: Family) -> Verdict {
        match self.name {
            "REDIRECT" | "DNAT" | "TPROXY" => {
                let port = self.new_port(family).map(|port| format!(" to port {port}"));
                Verdict::Redirect(format!("{}{}", self.name, port.unwrap_or_default()))
            }
            "REJECT" | "DROP" | "ACCEPT" => Verdict::End,
            _ => Verdict::Continue,
        }
    }

    /// `struct xt_tcp`.
    fn tcp(&self) -> Option<Vec<Condition>> {
        const INVERT_PORTS: u8 = 0x02;
        let sources = self.u16_at(0)?..=self.u16_at(2)?;
        let ports = self.u16_at(4)?..=self.u16_at(6)?;
        let [option, flag_mask, _, invert] = *self.info.get(8..12)? else { return None };
        let mut conditions = Vec::new();
        if ports != (0..=u16::MAX) || invert & INVERT_PORTS != 0 {
            conditions
                .push(Condition::DestinationPort { ports: vec![ports], negated: invert & INVERT_PORTS != 0 });
        }
        if sources != (0..=u16::MAX) || option != 0 || flag_mask != 0 || invert & !INVERT_PORTS != 0 {
            conditions.push(Condition::Other("tcp source port, flags or options".into()));
        }
        Some(conditions)
    }

    /// `struct xt_multiport_v1`.
    fn multiport(&self) -> Option<Vec<Condition>> {
        const DESTINATION: u8 = 1;
        const MAX_PORTS: usize = 15;
        let [direction, count] = *self.info.get(..2)? else { return None };
        let count = usize::from(count);
        if direction != DESTINATION || count > MAX_PORTS {
            return None;
        }
        let is_range_start = self.info.get(32..32 + MAX_PORTS)?;
        let negated = *self.info.get(47)? != 0;
        let mut ports = Vec::new();
        let mut at = 0;
        while at < count {
            let first = self.u16_at(2 + 2 * at)?;
            let is_range = is_range_start[at] != 0;
            at += usize::from(is_range);
            ports.push(first..=self.u16_at(2 + 2 * at)?);
            at += 1;
        }
        Some(vec![Condition::DestinationPort { ports, negated }])
    }

    /// Where to, for the message only. Ports are in network order.
    fn new_port(&self, family: Family) -> Option<u16> {
        /// `NF_NAT_RANGE_PROTO_SPECIFIED`
        const PORT_GIVEN: u32 = 0x02;
        let (flags_at, port_at) = match (self.name, self.revision, family) {
            ("TPROXY", 0, _) => (None, 12),
            ("TPROXY", ..) => (None, 24),
            // `struct nf_nat_ipv4_multi_range_compat`
            (_, 0, Family::Ipv4) => (Some(4), 16),
            // `struct nf_nat_range`
            _ => (Some(0), 36),
        };
        if let Some(at) = flags_at {
            let flags = u32::from_ne_bytes(self.info.get(at..at + 4)?.try_into().ok()?);
            if flags & PORT_GIVEN == 0 {
                return None;
            }
        }
        Some(u16::from_be_bytes(self.info.get(port_at..port_at + 2)?.try_into().ok()?))
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(self.info.get(at..at + 2)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[u16]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    fn conditions(name: &str, revision: u32, info: &[u8]) -> String {
        let texts: Vec<String> =
            Extension { name, revision, info }.conditions().iter().map(ToString::to_string).collect();
        texts.join(" ")
    }

    #[test]
    fn tcp_ports_are_read() {
        let with = |ports: &[u16], tail: [u8; 4]| [numbers(ports), tail.to_vec()].concat();
        assert_eq!(conditions("tcp", 0, &with(&[0, 65535, 80, 80], [0; 4])), "dport 80");
        assert_eq!(conditions("tcp", 0, &with(&[0, 65535, 80, 90], [0, 0, 0, 2])), "not dport 80-90");
        assert_eq!(conditions("tcp", 0, &with(&[0, 65535, 0, 65535], [0; 4])), "");
        let by_source = conditions("tcp", 0, &with(&[1, 2, 0, 65535], [0; 4]));
        assert_eq!(by_source, "[tcp source port, flags or options]");
    }

    #[test]
    fn multiport_lists_ranges_and_inversion_are_read() {
        let mut info = [vec![1, 4], numbers(&[22, 8000, 8999, 443]), vec![0; 38]].concat();
        info[33] = 1;
        assert_eq!(conditions("multiport", 1, &info), "dport 22,8000-8999,443");
        info[47] = 1;
        assert_eq!(conditions("multiport", 1, &info), "not dport 22,8000-8999,443");
        info[0] = 2;
        assert_eq!(conditions("multiport", 1, &info), "[match multiport]");
    }

    #[test]
    fn unknown_and_cut_off_extensions_may_match() {
        assert_eq!(conditions("owner", 1, &[]), "[match owner]");
        assert_eq!(conditions("tcp", 0, &[1, 2, 3]), "[match tcp]");
        assert_eq!(conditions("comment", 0, b"anything"), "");
    }
}
