//! Time in the eBPF programs of an agent.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};

/// The kernel keeps the time only while this is 1; keeping it costs some of it.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Has the kernel keep the time; as before when dropped.
#[derive(Debug)]
pub struct Clock {
    before: String,
}

impl Clock {
    pub fn start() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.before.trim());
    }
}

/// Time in all programs that the process has, so far.
pub fn time_of(process: u32) -> Duration {
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten();
    let programs: BTreeMap<u64, u64> = entries
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|info| Some((field(&info, "prog_id:")?, field(&info, "run_time_ns:")?)))
        .collect();
    Duration::from_nanos(programs.values().sum())
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_in_what_the_kernel_says_of_a_program() {
        let info = "pos:\t0\nprog_type:\t3\nprog_id:\t17\nrun_time_ns:\t4711\nrun_cnt:\t3\n";
        assert_eq!((field(info, "prog_id:"), field(info, "run_time_ns:")), (Some(17), Some(4711)));
        assert_eq!(field("pos:\t0\n", "prog_id:"), None);
    }
}
