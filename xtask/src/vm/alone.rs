//! One run at a time has the directory of the kernels, and removes what one that was interrupted has left there.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

use anyhow::{Context, Result, bail};

/// How the names of directories begin that a run makes and removes.
pub const RUN: &str = "run-";
pub const UNPACKED: &str = "unpacked-";

/// The directory is this run's, until this is dropped or the process has ended, however it ends.
#[derive(Debug)]
pub struct Alone {
    _lock: File,
}

impl Alone {
    pub fn in_directory(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another `cargo xtask vm` is running on {}: wait for its end", directory.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        remove_leftovers(directory)?;
        Ok(Self { _lock: lock })
    }
}

/// (What a machine was shown is mounted in a namespace that has ended with it: no file of this machine's is below them.)
fn remove_leftovers(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()? {
        let name = entry.file_name();
        if [RUN, UNPACKED].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_refused_and_a_later_one_removes_what_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let alone = Alone::in_directory(directory.path()).unwrap();
        let left = directory.path().join("run-x/files");
        fs::create_dir_all(&left).unwrap();
        let kernel = directory.path().join("6.1.0-1-cloud-amd64");
        fs::create_dir(&kernel).unwrap();
        Alone::in_directory(directory.path()).unwrap_err();
        assert!(left.exists());
        drop(alone);
        Alone::in_directory(directory.path()).unwrap();
        assert!(!left.exists() && kernel.exists());
    }
}
