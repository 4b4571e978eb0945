//! Which ports are inspected, and what for.

use aya_ebpf::{macros::map, maps::Array};
use redirector_common::{InspectedPort, scan::LineStarts};

/// By port (host order). All ports, because each packet is looked up, and nothing is quicker.
#[map]
static INSPECTED_PORTS: Array<InspectedPort> = Array::with_max_entries(1 << 16, 0);

/// What is looked for in requests to it; `None`: it is not inspected.
#[inline(always)]
pub fn inspected(port: u16) -> Option<InspectedPort> {
    let port = INSPECTED_PORTS.get_ptr(u32::from(port))?;
    // SAFETY: the element lives as long as the program; aligned words are not torn.
    let (names, members, lines) = unsafe {
        (
            (&raw const (*port).names).read_volatile(),
            (&raw const (*port).members).read_volatile(),
            (&raw const (*port).lines).read_volatile(),
        )
    };
    // The agent may be writing: what frames is never missed.
    let lines = lines | LineStarts::OF_REQUESTS.to_bits();
    (names != 0).then_some(InspectedPort { names, members, lines })
}
