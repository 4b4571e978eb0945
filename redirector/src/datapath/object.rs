//! The eBPF object that is embedded in this binary, and how each half of it is loaded.

use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::Level;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("REDIRECTOR_EBPF_OBJECT"));

/// The object for one target: its ingress program and maps of its own.
///
/// `log_packets` compiles the program's log statements in; without it the verifier removes them.
pub fn load_ingress(log_packets: bool) -> Result<Ebpf, EbpfError> {
    load(log_packets, &["CLIENTS", "UPSTREAM_PORTS"])
}

/// The object for the whole node: the `getpeername` programs and their maps.
pub fn load_peername() -> Result<Ebpf, EbpfError> {
    let unused = [
        "PORTS",
        "LISTENERS",
        "LOCAL_ADDRESSES",
        "HOLDS",
        "FLOWS",
        "AGENT_PORTS",
        "INSPECTED_PORTS",
        "NEEDLES",
        "EXISTING",
        "PORT_PROTOCOLS",
        // The loader makes a page of it, the least there can be.
        "HELD_SEGMENTS",
    ];
    load(false, &unused)
}

/// Processors here may change the order in which others see what one writes.
const WEAKLY_ORDERED: u8 = !cfg!(target_arch = "x86_64") as u8;

fn load(log: bool, unused_maps: &[&'static str]) -> Result<Ebpf, EbpfError> {
    let level: u8 = if log { Level::Debug as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &level, true);
    loader.override_global("WEAKLY_ORDERED", &WEAKLY_ORDERED, true);
    for map in unused_maps {
        // One object holds both halves; what this half does not use costs one entry.
        loader.map_max_entries(map, 1);
    }
    loader.load(OBJECT)
}
