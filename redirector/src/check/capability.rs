//! The capabilities(7) of this process.

use std::fs;

use super::report::Item;

struct Needed {
    name: &'static str,
    bit: u32,
    needed_for: &'static str,
    essential: bool,
}

/// Bits as in <linux/capability.h>.
const NEEDED: [Needed; 5] = [
    Needed {
        name: "CAP_SYS_ADMIN",
        bit: 21,
        needed_for: "entering the network namespaces of targets",
        essential: true,
    },
    Needed {
        name: "CAP_NET_ADMIN",
        bit: 12,
        needed_for: "attaching to the network interfaces of targets",
        essential: true,
    },
    Needed { name: "CAP_BPF", bit: 39, needed_for: "loading eBPF programs", essential: true },
    Needed {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        needed_for: "finding targets by process or container",
        essential: false,
    },
    Needed {
        name: "CAP_NET_RAW",
        bit: 13,
        needed_for: "seeing redirects of legacy iptables in a target; --datapath inspect and auto",
        essential: false,
    },
];

const SYS_ADMIN: u64 = 1 << 21;

pub fn items() -> Vec<Item> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = effective_in(&status).unwrap_or_default();
    NEEDED.iter().map(|needed| needed.item(effective)).collect()
}

impl Needed {
    fn item(&self, effective: u64) -> Item {
        let item = if effective & (1 << self.bit) != 0 {
            Item::ok(self.name, self.needed_for, "held")
        } else if self.name == "CAP_BPF" && effective & SYS_ADMIN != 0 {
            // Split off from CAP_SYS_ADMIN in Linux 5.8, which still includes it.
            Item::ok(self.name, self.needed_for, "included in CAP_SYS_ADMIN")
        } else {
            let remedy = format!(
                "run as root; in a container add {} to its capabilities or make it privileged",
                self.name
            );
            Item::no(self.name, self.needed_for, "not held", remedy)
        };
        if self.essential { item.essential() } else { item }
    }
}

/// `CapEff` of `/proc/PID/status`.
fn effective_in(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::report::{Report, Status};
    use super::*;

    fn report(effective: u64) -> Report {
        Report { items: NEEDED.iter().map(|needed| needed.item(effective)).collect() }
    }

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001fffeffffff\n";
        assert_eq!(effective_in(status), Some(0x1ff_feff_ffff));
        assert_eq!(effective_in("CapEff:\tx"), None);
    }

    #[test]
    fn root_has_all_and_a_user_lacks_what_is_essential() {
        assert!(report(u64::MAX).items.iter().all(|item| item.status == Status::Ok));
        assert!(!report(0).usable());
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_on_kernels_before_5_8() {
        assert!(report(SYS_ADMIN | 1 << 12).usable());
        assert!(!report(1 << 12 | 1 << 39).usable());
    }
}
