//! An open network namespace and its identity.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use serde::Serialize;
use thiserror::Error;

/// Identity of a network namespace. Unique as long as somebody holds the namespace open; the kernel may give the
/// same inode to another one afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NetnsId {
    pub dev: u64,
    pub ino: u64,
}

/// A network namespace, held open: it lives at least as long as this value. Clones share the open file.
#[derive(Debug, Clone)]
pub struct Netns {
    file: Arc<File>,
    id: NetnsId,
}

/// Why a path could not be opened as a network namespace.
#[derive(Debug, Error)]
pub enum OpenNetnsError {
    #[error("{path} is not a network namespace; name a file such as /run/netns/NAME or /proc/PID/ns/net")]
    NotNetns { path: PathBuf },
    #[error("cannot open {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl NetnsId {
    /// The identity of whatever namespace `path` leads to now; follows links.
    ///
    /// # Errors
    /// Those of `stat(2)`. A zombie's `/proc/PID/ns/net` is `NotFound`.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self { dev: meta.dev(), ino: meta.ino() })
    }
}

impl Netns {
    /// Opens a namespace file such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`OpenNetnsError::NotNetns`] when the path leads to anything else, of which nothing is read or touched.
    pub fn open(path: &Path) -> Result<Self, OpenNetnsError> {
        let io_error = |source| OpenNetnsError::Io { path: path.to_owned(), source };
        // O_PATH first: the path comes from a user, and merely opening a FIFO or a device can block or have effects.
        let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).map_err(io_error)?;
        let fs_type = fstatfs(&found).map_err(|errno| io_error(errno.into()))?.filesystem_type();
        if fs_type != NSFS_MAGIC {
            return Err(OpenNetnsError::NotNetns { path: path.to_owned() });
        }
        let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(io_error)?;
        if namespace_type(file.as_fd()).map_err(io_error)? != libc::CLONE_NEWNET {
            return Err(OpenNetnsError::NotNetns { path: path.to_owned() });
        }
        let meta = file.metadata().map_err(io_error)?;
        Ok(Self { file: Arc::new(file), id: NetnsId { dev: meta.dev(), ino: meta.ino() } })
    }

    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Netns::open`]; in practice only when `/proc` is not mounted.
    pub fn current() -> Result<Self, OpenNetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Moves the calling thread into this namespace, for good. Only for a thread that was made for it and ends there:
    /// one that returns to a pool would open its next socket in the wrong namespace.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Runs `work` on a thread of its own inside this namespace and waits for it. A panic in `work` goes on here.
    ///
    /// # Errors
    /// Those of [`Netns::enter`] and of starting a thread; `work` did not run then.
    pub fn run_inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                self.enter()?;
                Ok(work())
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `ioctl_ns(2)`, Linux 4.11: which kind of namespace an nsfs file is, as a `CLONE_NEW*` constant.
fn namespace_type(file: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for the call, and this request takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    nix::errno::Errno::result(kind).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_is_what_proc_shows() {
        let netns = Netns::current().unwrap();
        assert_eq!(netns.id(), NetnsId::of_path(Path::new("/proc/self/ns/net")).unwrap());
    }

    #[test]
    fn other_files_and_other_namespaces_are_refused() {
        for path in ["/proc/self/ns/mnt", "/proc/self/stat", "/dev/null", "/"] {
            let refused = Netns::open(Path::new(path)).unwrap_err();
            assert!(matches!(refused, OpenNetnsError::NotNetns { .. }), "{path}: {refused}");
        }
    }

    #[test]
    fn a_fifo_neither_blocks_nor_passes() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Netns::open(&fifo), Err(OpenNetnsError::NotNetns { .. })));
    }
}
