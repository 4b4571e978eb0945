//! Removes what an agent that was killed left behind: clsact filters outlive their loader.

use super::{
    attach::{FoundFilter, PROGRAM, our_filters, remove_qdisc_if_unused},
    interfaces::{Interface, outside_interfaces},
};
use aya::{
    maps::{Array, Map, MapData, loaded_maps},
    programs::{TcAttachType, loaded_programs, tc::qdisc_detach_program},
};
use nix::time::{ClockId, clock_gettime};
use redirector_common::{HEARTBEAT_DEADLINE_NS, HEARTBEAT_INTERVAL_NS};
use std::{io, time::Duration};

/// Sweeps the namespace of the calling thread; returns the interfaces that had something of ours.
///
/// Filters whose agent still beats are left alone.
pub fn sweep() -> io::Result<Vec<String>> {
    let mut swept = Vec::new();
    for Interface { index, name } in outside_interfaces()? {
        let dead: Vec<FoundFilter> =
            our_filters(index)?.into_iter().filter(|filter| !owner_alive(filter.program_id)).collect();
        if dead.is_empty() {
            continue;
        }
        qdisc_detach_program(&name, TcAttachType::Ingress, PROGRAM).map_err(io::Error::other)?;
        if dead.iter().any(|filter| filter.owns_qdisc) {
            remove_qdisc_if_unused(index)?;
        }
        swept.push(name);
    }
    Ok(swept)
}

/// Does the agent that loaded the program still beat? Waits until the next beat of a living one would be overdue:
/// one that was killed just now has left a fresh beat behind.
fn owner_alive(program_id: u32) -> bool {
    let Some(first) = last_beat(program_id) else { return false };
    loop {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_nanos(first));
        if age >= Duration::from_nanos(HEARTBEAT_DEADLINE_NS) {
            return false;
        }
        std::thread::sleep(Duration::from_nanos(HEARTBEAT_INTERVAL_NS));
        match last_beat(program_id) {
            Some(beat) if beat == first => {}
            Some(_) => return true,
            None => return false,
        }
    }
}

fn last_beat(program_id: u32) -> Option<u64> {
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == program_id)?;
    let map_ids = program.map_ids().ok()??;
    let heartbeat = loaded_maps()
        .filter_map(Result::ok)
        .find(|map| map_ids.contains(&map.id()) && map.name_as_str() == Some("HEARTBEAT"))?;
    let map = Map::Array(MapData::from_id(heartbeat.id()).ok()?);
    Array::<_, u64>::try_from(map).ok()?.get(&0, 0).ok()
}
