//! Where cgroup2 is mounted: `getpeername` programs are attached at its root.

use std::{fs, path::PathBuf};

/// The mount point of the cgroup2 hierarchy, or `None` where there is none.
pub fn cgroup2_root() -> Option<PathBuf> {
    mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// Format: proc_pid_mountinfo(5). Optional fields end at a lone `-`, the file system type comes next.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        // Only a mount of the hierarchy's root reaches all processes.
        (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(mount_point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchys_root_and_nothing_else() {
        let mountinfo = "30 24 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                         31 24 0:27 /kubepods /a rw - cgroup2 cgroup2 rw\n\
                         32 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 master:2 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mountinfo), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("30 24 0:26 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
