//! Some threads of a process stand still while its others run, as after a deadlock.

use std::{
    fs,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::wait::DEADLINE;

/// They go on when it is dropped.
#[derive(Debug)]
pub struct FrozenThreads {
    thaw: Option<Sender<()>>,
    /// The kernel lets one thread alone speak to those it has stopped.
    tracer: Option<JoinHandle<()>>,
    still: Receiver<()>,
}

impl FrozenThreads {
    /// Stops all threads of the process that are called so; there must be some.
    #[must_use]
    pub fn of(process: u32, name: &str) -> Self {
        let frozen = Self::at_step(process, name, 0);
        assert!(frozen.are_still(DEADLINE), "the threads of the agent are not stopped");
        frozen
    }

    /// The same when each of them has begun or ended so many system calls from now on: see [`Self::are_still`].
    #[must_use]
    pub fn at_step(process: u32, name: &str, steps: usize) -> Self {
        let threads = threads_called(process, name);
        assert!(!threads.is_empty(), "no thread of the agent is called {name}");
        let ((thaw, thawed), (stopped, still)) = (channel::<()>(), channel());
        let tracer = thread::spawn(move || {
            for &thread in &threads {
                ptrace::seize(thread, ptrace::Options::empty()).expect("cannot trace a thread of the agent");
                ptrace::interrupt(thread).expect("cannot stop a thread of the agent");
                assert!(has_stopped(thread), "a thread of the agent has ended");
            }
            stopped.send(()).expect("it is waited for");
            for &thread in &threads {
                let mut is_there = true;
                for _ in 0..steps {
                    is_there = is_there && ptrace::syscall(thread, None).is_ok() && has_stopped(thread);
                }
            }
            // Nobody may wait for it any more.
            let _ = stopped.send(());
            // Until the other end is dropped.
            let _ = thawed.recv();
            for thread in threads {
                // It may have been killed.
                let _ = ptrace::detach(thread, None);
            }
        });
        still.recv().expect("the threads of the agent can't be stopped");
        Self { thaw: Some(thaw), tracer: Some(tracer), still }
    }

    /// Waits for it; false: they have not come so far. (When they never do, their process must end before this is dropped.)
    #[must_use]
    pub fn are_still(&self, within: Duration) -> bool {
        self.still.recv_timeout(within).is_ok()
    }
}

impl Drop for FrozenThreads {
    fn drop(&mut self) {
        drop(self.thaw.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

/// False: it has ended.
fn has_stopped(thread: Pid) -> bool {
    let status = waitpid(thread, Some(WaitPidFlag::__WALL));
    status.is_ok_and(|status| !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
}

fn threads_called(process: u32, name: &str) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads
        .filter(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name))
        .filter_map(|thread| Some(Pid::from_raw(thread.file_name().to_str()?.parse().ok()?)))
        .collect()
}
