//! Which program types, map types and helpers the kernel has. Each is tried; versions appear in advice only.

use std::error::Error;
use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};

use super::report::Item;
use crate::with_sources::with_sources;

const CATCHING: &str = "catching connections";
const INSPECTION: &str = "inspecting connections that the app has (--datapath inspect and auto)";
const CLIENT_ADDRESS: &str = "showing the app the client's address in place of the agent's";

/// One thing to try: what to call it, what it is for, the first kernel that has it, and whether all is lost without.
struct Feature<T> {
    name: &'static str,
    needed_for: &'static str,
    since: &'static str,
    essential: bool,
    probe: T,
}

const fn essential<T>(
    name: &'static str,
    needed_for: &'static str,
    since: &'static str,
    probe: T,
) -> Feature<T> {
    Feature { name, needed_for, since, essential: true, probe }
}

const fn optional<T>(
    name: &'static str,
    needed_for: &'static str,
    since: &'static str,
    probe: T,
) -> Feature<T> {
    Feature { name, needed_for, since, essential: false, probe }
}

pub fn items() -> Vec<Item> {
    let programs = [
        essential("program: SchedClassifier", CATCHING, "4.1", ProgramType::SchedClassifier),
        optional("program: CgroupSockAddr", CLIENT_ADDRESS, "4.17", ProgramType::CgroupSockAddr),
    ];
    // All are in one eBPF object, which loads with all of its maps or not at all.
    let maps = [
        essential("map: Array", "settings and the heartbeat", "3.19", MapType::Array),
        essential("map: PerCpuArray", "counters", "4.6", MapType::PerCpuArray),
        essential("map: Hash", "the ports of a target", "3.19", MapType::Hash),
        essential("map: SockMap", "handing connections to the agent's listener", "4.14", MapType::SockMap),
        essential("map: SockHash", "handing connections to the agent's listener", "4.18", MapType::SockHash),
        essential("map: LruHash", CLIENT_ADDRESS, "4.10", MapType::LruHash),
        essential("map: RingBuf", "messages from the eBPF programs", "5.8", MapType::RingBuf),
        essential("map: SkStorage", INSPECTION, "5.2", MapType::SkStorage),
    ];
    let tc = ProgramType::SchedClassifier;
    let helpers = [
        essential(
            "helper: bpf_skc_lookup_tcp in TC",
            CATCHING,
            "5.2",
            (tc, BpfHelper::BPF_FUNC_skc_lookup_tcp),
        ),
        essential("helper: bpf_sk_assign in TC", CATCHING, "5.7", (tc, BpfHelper::BPF_FUNC_sk_assign)),
        essential("helper: bpf_sk_release in TC", CATCHING, "4.20", (tc, BpfHelper::BPF_FUNC_sk_release)),
        essential(
            "helper: bpf_ktime_get_ns in TC",
            "passing traffic on when the agent hangs",
            "4.1",
            (tc, BpfHelper::BPF_FUNC_ktime_get_ns),
        ),
        optional("helper: bpf_loop in TC", INSPECTION, "5.17", (tc, BpfHelper::BPF_FUNC_loop)),
        optional(
            "helper: bpf_sk_storage_get in TC",
            INSPECTION,
            "5.2",
            (tc, BpfHelper::BPF_FUNC_sk_storage_get),
        ),
        optional("helper: bpf_tcp_sock in TC", INSPECTION, "5.1", (tc, BpfHelper::BPF_FUNC_tcp_sock)),
        optional("helper: bpf_csum_level in TC", INSPECTION, "5.8", (tc, BpfHelper::BPF_FUNC_csum_level)),
        optional(
            "helper: bpf_get_netns_cookie in sock_addr",
            CLIENT_ADDRESS,
            "5.7",
            (ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_netns_cookie),
        ),
    ];
    let mut items = vec![release(), btf()];
    items.extend(programs.into_iter().map(|feature| feature.item(is_program_supported)));
    items.extend(maps.into_iter().map(|feature| feature.item(is_map_supported)));
    items.extend(
        helpers
            .into_iter()
            .map(|feature| feature.item(|(program, helper)| is_helper_supported(program, helper))),
    );
    items
}

impl<T> Feature<T> {
    fn item<E: Error>(self, supported: impl FnOnce(T) -> Result<bool, E>) -> Item {
        let Self { name, needed_for, since, essential, probe } = self;
        let item = match supported(probe) {
            Ok(true) => Item::ok(name, needed_for, "there"),
            Ok(false) => {
                let remedy = format!("use Linux {since} or newer, built with CONFIG_BPF_SYSCALL");
                Item::no(name, needed_for, "this kernel does not have it", remedy)
            }
            Err(error) => {
                let remedy = "run as root; in a container with CAP_BPF and CAP_NET_ADMIN, or privileged";
                Item::no(name, needed_for, format!("could not be tried: {}", with_sources(&error)), remedy)
            }
        };
        if essential { item.essential() } else { item }
    }
}

fn release() -> Item {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Item::ok("kernel", "everything; 5.10 is the oldest that we test", release.trim())
}

fn btf() -> Item {
    const BTF: &str = "/sys/kernel/btf/vmlinux";
    const NEEDED_FOR: &str = "eBPF programs that read kernel structures (none of today's do)";
    if Path::new(BTF).exists() {
        Item::ok("BTF", NEEDED_FOR, BTF)
    } else {
        let remedy = "use Linux 5.4 or newer, built with CONFIG_DEBUG_INFO_BTF";
        Item::no("BTF", NEEDED_FOR, format!("{BTF} is not there"), remedy)
    }
}
