//! What is looked for in requests.

use aya_ebpf::{macros::map, maps::HashMap};
use redirector_common::{Needle, name_bit, scan::Needles};

/// See [`Needle`]; only presence counts.
#[map]
static NEEDLES: HashMap<Needle, u32> = HashMap::with_max_entries(4096, 1);

/// Those of a port: see [`Work`](crate::work::Work).
pub struct MapNeedles {
    pub needle: *mut Needle,
    pub names: u32,
}

impl MapNeedles {
    #[inline(always)]
    fn has(&self, kind: u16, hash: u32) -> bool {
        // SAFETY: this processor's alone while the program runs; of the map only presence is asked for.
        unsafe {
            (*self.needle).kind = kind;
            (*self.needle).hash = hash;
            NEEDLES.get(&*self.needle).is_some()
        }
    }
}

impl Needles for MapNeedles {
    #[inline(always)]
    fn header(&self, name: u32) -> bool {
        self.names & name_bit(name) != 0 && self.has(Needle::HEADER, name)
    }

    #[inline(always)]
    fn list(&self, name: u32) -> bool {
        self.names & name_bit(name) != 0 && self.has(Needle::LIST, name)
    }

    #[inline(always)]
    fn member(&self, key: u32) -> bool {
        self.names & name_bit(key) != 0 && self.has(Needle::MEMBER, key)
    }
}
