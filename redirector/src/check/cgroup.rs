//! Where the unified cgroup hierarchy (cgroup2) is mounted.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mount point of cgroup2: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1. `None` when it is not
/// mounted where we can see it.
#[must_use]
pub fn cgroup2_root() -> Option<PathBuf> {
    cgroup2_in(&fs::read("/proc/self/mountinfo").ok()?)
}

/// Whether a cgroup is the machine's root: only the root has no `cgroup.events`. In a container's own cgroup namespace
/// the mount's root is the container's cgroup, and programs attached there see nothing else.
#[must_use]
pub fn is_machine_root(cgroup: &Path) -> bool {
    !cgroup.join("cgroup.events").exists()
}

/// Reads `/proc/PID/mountinfo` (proc(5)). A mount of the whole hierarchy is preferred to one of a part.
fn cgroup2_in(mountinfo: &[u8]) -> Option<PathBuf> {
    let mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        // Six fields, then optional ones up to a dash, then the type.
        let is_cgroup2 = *fields.iter().skip(6).skip_while(|field| **field != b"-").nth(1)? == b"cgroup2";
        is_cgroup2.then_some((*fields.get(3)?, *fields.get(4)?))
    });
    let (_, mount_point) = mounts.min_by_key(|(root, _)| *root != b"/")?;
    Some(PathBuf::from(OsString::from_vec(unescaped(mount_point))))
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = if first == b'\\' { tail.get(..3) } else { None };
        let escaped = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mountinfo: &str) -> Option<PathBuf> {
        cgroup2_in(mountinfo.as_bytes())
    }

    #[test]
    fn the_unified_mount_beside_version_1_is_found() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        assert_eq!(found(mountinfo), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn the_whole_hierarchy_is_preferred_and_names_are_unescaped() {
        let mountinfo = "\
41 31 0:38 /kubepods /part rw shared:9 master:1 - cgroup2 cgroup2 rw
42 31 0:38 / /the\\040whole\\134 rw - cgroup2 cgroup2 rw
";
        assert_eq!(found(mountinfo), Some("/the whole\\".into()));
        assert_eq!(found("41 31 0:38 /kubepods /part rw - cgroup2 cgroup2 rw\n"), Some("/part".into()));
    }

    #[test]
    fn without_cgroup2_and_with_garbage_there_is_none() {
        for mountinfo in ["", "32 31 0:29 / /x rw - cgroup cgroup rw", "- cgroup2", "a b c d - cgroup2 x"] {
            assert_eq!(found(mountinfo), None, "{mountinfo}");
        }
    }
}
