//! Whether a target is still there. Cheap enough to ask once a second.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::netns::{Netns, NetnsId};
use super::process;
use super::resolve::{FoundAt, NETNS_DIRS, ResolvedTarget};

/// Watches one resolved target. Holds its namespace open, so that the inode it compares cannot be given to another.
#[derive(Debug)]
pub struct Presence {
    netns: Netns,
    found_at: FoundAt,
}

/// How a target ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Gone {
    #[error("the network namespace {0} was removed")]
    PathRemoved(PathBuf),
    #[error("{0} is another network namespace now")]
    PathReplaced(PathBuf),
    #[error("process {0} has ended, and no other process is left in its network namespace")]
    LastProcessEnded(i32),
}

impl Presence {
    #[must_use]
    pub fn of(target: &ResolvedTarget) -> Self {
        Self { netns: target.netns.clone(), found_at: target.found_at.clone() }
    }

    /// Looks once. When the process it was found by has ended while the namespace lives on (a container restarted in
    /// its pod), it is watched by another process from then on.
    ///
    /// # Errors
    /// [`Gone`], and how. It will not come back under this identity: resolve the target anew.
    pub fn check(&mut self) -> Result<(), Gone> {
        match &self.found_at {
            FoundAt::Path(path) => self.check_path(path),
            FoundAt::Process(pid) => self.check_process(*pid),
        }
    }

    fn check_path(&self, path: &Path) -> Result<(), Gone> {
        match NetnsId::of_path(path) {
            Ok(id) if id == self.netns.id() => Ok(()),
            Ok(_) => Err(Gone::PathReplaced(path.to_owned())),
            Err(_) => Err(Gone::PathRemoved(path.to_owned())),
        }
    }

    /// The namespace of the pid is all that counts: it also tells a zombie, and a pid that was given to another
    /// process, from the one we know.
    fn check_process(&mut self, pid: i32) -> Result<(), Gone> {
        if process::netns_id(pid).is_ok_and(|id| id == self.netns.id()) {
            return Ok(());
        }
        self.found_at = find_again(self.netns.id()).ok_or(Gone::LastProcessEnded(pid))?;
        Ok(())
    }
}

/// A process or a name by which a namespace still lives. Our own threads inside it do not count: `/proc` lists them
/// under our main thread, which stays on the host.
fn find_again(id: NetnsId) -> Option<FoundAt> {
    let by_process = process::pids()
        .ok()?
        .into_iter()
        .find(|&pid| process::netns_id(pid).is_ok_and(|found| found == id))
        .map(FoundAt::Process);
    by_process.or_else(|| {
        named_netns().find(|path| NetnsId::of_path(path).is_ok_and(|found| found == id)).map(FoundAt::Path)
    })
}

/// The files in the directories of named namespaces.
pub(super) fn named_netns() -> impl Iterator<Item = PathBuf> {
    NETNS_DIRS
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
}
