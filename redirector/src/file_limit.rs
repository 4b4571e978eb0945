//! How many files and connections this process may have open.

/// Each connection that is passed on takes two descriptors; the soft limit of most systems is 1024.
#[cfg(unix)]
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

#[cfg(not(unix))]
pub fn raise_file_limit() {}
