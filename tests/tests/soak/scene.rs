//! Where all of this happens.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError},
    thread,
};

use lab::{Agent, Developer, Intercept, Lab};
use serde_json::Value;

use crate::scale::datapath;

/// Where the app is intercepted.
pub const PORT: u16 = 8080;
/// Where the developer's server listens.
pub const LOCAL: u16 = 3000;

/// Each of these wants the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());

/// Builds a lab whose client can open many connections, runs `body`, and checks that nothing is left in the lab.
pub fn alone_in_lab(body: impl FnOnce(&Lab)) {
    let _exclusive = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new(thread::current().name().unwrap_or_default());
    lab.client.netns.run(|| {
        // A minute of new connections at full speed would use up the ports otherwise.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").unwrap();
        fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").unwrap();
    });
    body(&lab);
    lab.assert_clean();
}

/// Alice intercepts the app for the requests with her header.
pub fn alice(lab: &Lab, agent: &Agent) -> Developer {
    alice_with(lab, agent, &datapath())
}

/// The same where the agent dies: what passes through it until it is known what clients speak, as with `auto`, ends with it.
pub fn alice_inspects(lab: &Lab, agent: &Agent) -> Developer {
    alice_with(lab, agent, "inspect")
}

fn alice_with(lab: &Lab, agent: &Agent, datapath: &str) -> Developer {
    let intercept = Intercept::new(lab, agent, PORT, LOCAL).header("x-dev", "alice").name("alice");
    intercept.argument("--datapath").argument(datapath).start(lab)
}

/// Runs `work`, and when it fails shows what the agent has counted until then.
pub fn explained<T>(agent: &Agent, work: impl FnOnce() -> T) -> T {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panicked| {
        println!("{}", agent.run(&["status"]).stdout);
        panic::resume_unwind(panicked)
    })
}

/// What the agent counted on the intercepted port and in its namespace.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    counts: Vec<(String, u64)>,
}

impl Counted {
    /// Since the agent started.
    #[track_caller]
    pub fn by(agent: &Agent) -> Self {
        let target = &agent.json(&["status"])["targets"][0];
        let port = &target["ports"][PORT.to_string()];
        let numbers = [&target["packets"], port].into_iter().filter_map(Value::as_object).flatten();
        let counts = numbers.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
        Self { counts: counts.collect() }
    }

    #[track_caller]
    pub fn of(&self, name: &str) -> u64 {
        let found = self.counts.iter().find(|(counted, _)| counted == name);
        found.unwrap_or_else(|| panic!("{name} in {:?}", self.counts)).1
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<_> = self.counts.iter().filter(|(_, count)| *count > 0).collect();
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}
