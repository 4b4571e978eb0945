//! Threads that are to run as soon as they have something to do, on a machine that is busy.

use nix::errno::Errno;
use std::io;

/// The largest share that there is (sched(7)): it also decides who is next.
const MOST_URGENT: libc::c_int = -20;

/// Puts the calling thread before most others. It must do little at a time.
///
/// # Errors
/// `EACCES` or `EPERM` without `CAP_SYS_NICE`.
pub fn be_urgent() -> io::Result<()> {
    // SAFETY: no pointers. 0 is the calling thread: in Linux each thread has a nice value of its own.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, MOST_URGENT) };
    Errno::result(failed).map(drop).map_err(io::Error::from)
}
