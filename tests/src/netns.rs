//! Named network namespaces, and doing things in them.

use std::{fs, fs::File, panic, path::PathBuf, process::Command, thread};

use nix::sched::{CloneFlags, setns};

/// A network namespace with a name under `/run/netns`. Copies name the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace, with `lo` up and IPv6 addresses usable at once.
    pub(crate) fn create(name: String) -> Self {
        run(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self { name };
        netns
            .run(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"))
            .expect("sysctl accept_dad");
        netns.ip("link set lo up");
        netns
    }

    /// The namespace that already has this name.
    pub(crate) fn named(name: String) -> Self {
        Self { name }
    }

    /// Takes the name away; the kernel drops the namespace when nothing uses it any more.
    pub(crate) fn delete(&self) {
        if self.path().exists() {
            run(Command::new("ip").args(["netns", "delete", &self.name]));
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// The namespace as the TARGET argument of `redirector intercept`.
    #[must_use]
    pub fn target(&self) -> String {
        format!("netns:{}", self.name)
    }

    /// Runs `work` in the namespace, on a thread that ends with it. Sockets made there stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).unwrap_or_else(|error| panic!("open {}: {error}", self.name));
        let outcome = thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns; the lab needs root");
                    work()
                })
                .join()
        });
        outcome.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }

    /// A command that will run in the namespace, and die with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        // Not `ip netns exec`, which mounts a /sys of its own and so hides cgroup2 from the agent.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]).arg(format!("--net={}", self.path().display()));
        command.args(["--", program]);
        command
    }

    /// `ip ARGUMENTS` in the namespace; gives what it printed.
    pub fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// A whole command line (words split at spaces) in the namespace; gives what it printed.
    pub fn sh(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        run(self.command(words.next().expect("a program")).args(words))
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, stderr.trim());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
