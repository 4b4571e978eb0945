//! The sign of life that the eBPF programs look for: without it they pass everything on.

use super::door::{DoorError, take};
use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The one entry of the programs' map.
pub struct Heartbeat(Array<MapData, u64>);

impl Heartbeat {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, DoorError> {
        Ok(Self(Array::try_from(take(object, "HEARTBEAT")?)?))
    }

    /// Says that the agent is alive; due every [`redirector_common::HEARTBEAT_INTERVAL_NS`].
    pub fn beat(&mut self) -> Result<(), DoorError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Ok(self.0.set(0, now.as_nanos() as u64, 0)?)
    }
}
