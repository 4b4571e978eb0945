//! Processor time of a proxy.

use std::{fs, time::Duration};

/// `USER_HZ`, the unit of times in `/proc`: 100 on every architecture that redirector knows (proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// Time in user and kernel mode of all processes of a process group, so far, to 10 ms.
pub fn time_of_group(group: u32) -> Duration {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ticks: u64 = entries
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        // A process that ended meanwhile is none of a proxy that runs.
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|stat| ticks(&stat, group))
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// utime and stime of a line of `/proc/PID/stat`, if the process belongs to the group.
fn ticks(stat: &str, group: u32) -> Option<u64> {
    // The name, in parentheses, may hold blanks and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    (number(2)? == u64::from(group)).then_some(number(11)? + number(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "42 (a (b) c) S 1 77 5 0 -1 4194304 900 0 3 0 120 34 9 9 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat, 77), Some(154));
        assert_eq!(ticks(stat, 42), None);
    }
}
