//! Files inside a target, as its own processes see them.
//!
//! The target's files are not to be trusted: a link in them could lead anywhere. The kernel resolves the path with the
//! target's root as the root of everything, links included (`openat2` with `RESOLVE_IN_ROOT`, Linux 5.6).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use thiserror::Error;

use super::listener::listener_or_any;
use super::netns::NetnsId;
use super::resolve::{FoundAt, ResolvedTarget};

/// The root directory of one of a target's processes. It stays this one's, whatever becomes of the process.
#[derive(Debug)]
pub struct TargetRoot(OwnedFd);

/// Why a file of a target can't be read. Says nothing of its content.
#[derive(Debug, Error)]
pub enum TargetRootError {
    #[error("no process runs in the target whose files could be looked at; start the service first")]
    NoProcess,
    #[error("cannot look into the target's files: {0}; run the agent as root (CAP_SYS_PTRACE)")]
    Root(#[source] io::Error),
    #[error("{path} inside the target: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{0} inside the target is not a regular file")]
    NotAFile(PathBuf),
    #[error("{path} inside the target is larger than {max} bytes")]
    TooLarge { path: PathBuf, max: u64 },
    #[error(
        "this kernel can't keep a path inside the target (openat2 came with Linux 5.6): copy the file to your machine and \
         give its path there"
    )]
    NoOpenat2,
}

impl TargetRoot {
    /// That of the process the target was found by; for a named namespace, of the one in it that listens on `port`, or
    /// of any.
    ///
    /// # Errors
    /// When there is no such process, or it may not be looked into.
    pub fn of(target: &ResolvedTarget, port: u16) -> Result<Self, TargetRootError> {
        let netns = target.netns.id();
        let pid = match target.found_at {
            FoundAt::Process(pid) => Some(pid),
            FoundAt::Path(_) => listener_or_any(netns, port),
        };
        Self::of_process(pid.ok_or(TargetRootError::NoProcess)?, netns)
    }

    fn of_process(pid: i32, netns: NetnsId) -> Result<Self, TargetRootError> {
        let error = |errno: Errno| match errno {
            Errno::ENOENT | Errno::ESRCH => TargetRootError::NoProcess,
            other => TargetRootError::Root(other.into()),
        };
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // The descriptor stays this process's; its pid may be given to another one.
        let process = open(Path::new(&format!("/proc/{pid}")), directory, Mode::empty()).map_err(error)?;
        let inside = fstatat(&process, "ns/net", AtFlags::empty()).map_err(error)?;
        if (NetnsId { dev: inside.st_dev, ino: inside.st_ino }) != netns {
            return Err(TargetRootError::NoProcess);
        }
        Ok(Self(openat(&process, "root", directory, Mode::empty()).map_err(error)?))
    }

    /// Reads a regular file of `max` bytes at most.
    ///
    /// # Errors
    /// See [`TargetRootError`].
    pub fn read(&self, path: &Path, max: u64) -> Result<Vec<u8>, TargetRootError> {
        let open_error = |source: io::Error| TargetRootError::Open { path: path.to_owned(), source };
        // O_PATH first: merely opening a FIFO or a device can block or have effects.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = openat2(self.0.as_fd(), path, how).map_err(|errno| match errno {
            Errno::ENOSYS => TargetRootError::NoOpenat2,
            other => open_error(other.into()),
        })?;
        let kind = fstat(&found).map_err(|errno| open_error(errno.into()))?.st_mode;
        if SFlag::from_bits_truncate(kind) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(TargetRootError::NotAFile(path.to_owned()));
        }
        let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(open_error)?;
        let mut content = Vec::new();
        file.take(max + 1).read_to_end(&mut content).map_err(open_error)?;
        if content.len() as u64 > max {
            return Err(TargetRootError::TooLarge { path: path.to_owned(), max });
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A root with a file outside of it, next to it.
    fn root() -> (tempfile::TempDir, TargetRoot) {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("root");
        fs::create_dir_all(inside.join("tls")).unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        fs::write(inside.join("tls/cert"), "inside").unwrap();
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let root = TargetRoot(open(&inside, directory, Mode::empty()).unwrap());
        (outside, root)
    }

    fn read(root: &TargetRoot, path: &str) -> Result<String, TargetRootError> {
        root.read(Path::new(path), 100).map(|content| String::from_utf8(content).unwrap())
    }

    #[test]
    fn files_are_found_from_the_root_and_through_links_inside_it() {
        let (outside, root) = root();
        let inside = outside.path().join("root");
        symlink("/tls/cert", inside.join("absolute")).unwrap();
        symlink("../../../tls/cert", inside.join("tls/relative")).unwrap();
        for path in ["/tls/cert", "tls/cert", "/../../tls/cert", "/absolute", "/tls/relative"] {
            assert_eq!(read(&root, path).unwrap(), "inside", "{path}");
        }
    }

    #[test]
    fn no_path_and_no_link_leaves_the_root() {
        let (outside, root) = root();
        let inside = outside.path().join("root");
        let secret = outside.path().join("secret");
        symlink(&secret, inside.join("absolute")).unwrap();
        symlink("../secret", inside.join("relative")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        symlink(outside.path(), inside.join("directory")).unwrap();
        let own = format!("/magic{}", secret.display());
        for path in ["/../secret", "../secret", "/absolute", "/relative", "/directory/secret", &own] {
            let refused = read(&root, path).unwrap_err();
            assert!(matches!(refused, TargetRootError::Open { .. }), "{path}: {refused}");
        }
    }

    #[test]
    fn magic_links_of_a_proc_inside_are_not_followed() {
        let root = TargetRoot(open("/", OFlag::O_PATH, Mode::empty()).unwrap());
        let refused = read(&root, "/proc/self/root/etc/hostname").unwrap_err();
        assert!(matches!(refused, TargetRootError::Open { .. }), "{refused}");
    }

    #[test]
    fn only_regular_files_of_a_sensible_size_are_read() {
        let (outside, root) = root();
        let inside = outside.path().join("root");
        nix::unistd::mkfifo(&inside.join("fifo"), Mode::S_IRWXU).unwrap();
        fs::write(inside.join("large"), [0; 101]).unwrap();
        for path in ["/fifo", "/tls"] {
            assert!(matches!(read(&root, path), Err(TargetRootError::NotAFile(_))), "{path}");
        }
        assert!(matches!(read(&root, "/large"), Err(TargetRootError::TooLarge { max: 100, .. })));
    }

    #[test]
    fn a_process_of_another_namespace_is_not_taken() {
        let own = i32::try_from(std::process::id()).unwrap();
        let netns = NetnsId::of_path(Path::new("/proc/self/ns/net")).unwrap();
        assert!(TargetRoot::of_process(own, netns).is_ok());
        let other = NetnsId { ino: 0, ..netns };
        assert!(matches!(TargetRoot::of_process(own, other), Err(TargetRootError::NoProcess)));
        assert!(matches!(TargetRoot::of_process(i32::MAX, netns), Err(TargetRootError::NoProcess)));
    }
}
