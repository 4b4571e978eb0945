//! What a machine says of its checks and tests.

use std::{fmt, fs::File, io::Write};

use anyhow::{Context, Result};

use crate::{
    step::note,
    vm::{
        accelerator::Accelerator,
        machine::{self, Line, Machine},
    },
};

const MOST_BOOTS: u32 = 3;

/// What was heard of one machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    release: String,
    /// It has come to its first process.
    is_up: bool,
    inspects: bool,
    passed: u32,
    /// Failed beside others, and passed alone.
    again: Vec<String>,
    failed: Vec<String>,
    ended: bool,
    /// Why it was ended.
    trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// It went off, or had to be ended, before it was done.
    Unfinished,
}

impl Report {
    /// Runs `script` in the machine, and shows what it prints. (An emulated kernel may fail while it still boots: QEMU 7.2 now and then
    /// shows it a breakpoint that it has just replaced. Nothing of ours has run then, and it is tried again.)
    pub fn of(machine: &Machine<'_>, script: &str) -> Result<Self> {
        let mut report = Self::of_one(machine, script)?;
        let mut boots = 1;
        while !report.is_up
            && report.trouble.is_none()
            && machine.accelerator == Accelerator::Emulation
            && boots < MOST_BOOTS
        {
            note("the kernel did not come up: once more");
            report = Self::of_one(machine, script)?;
            boots += 1;
        }
        Ok(report)
    }

    fn of_one(machine: &Machine<'_>, script: &str) -> Result<Self> {
        let console = machine::console(machine.workspace, machine.kernel);
        let mut log =
            File::create(&console).with_context(|| format!("cannot write {}", console.display()))?;
        let mut report = Self { release: machine.kernel.release.clone(), ..Self::default() };
        let booted = machine.boot(script, |line| {
            let (Line::Console(text) | Line::Qemu(text)) = &line;
            let _ = writeln!(log, "{text}");
            println!("{text}");
            report.hear(text);
            true
        });
        report.trouble = booted.err().map(|error| error.to_string());
        Ok(report)
    }

    fn hear(&mut self, line: &str) {
        let Some(said) = line.strip_prefix("vm: ") else { return };
        match said.split_once(' ').unwrap_or((said, "")) {
            ("up", "") => self.is_up = true,
            ("inspects", "") => self.inspects = true,
            ("passed", count) => self.passed += count.parse().unwrap_or(0),
            ("again", name) => {
                self.passed += 1;
                self.again.push(name.to_owned());
            }
            ("failed", name) => self.failed.push(name.to_owned()),
            ("end", "") => self.ended = true,
            _ => {}
        }
    }

    /// The last of what inspection needs, TCX, came with 6.6: the verifier must not be what a newer kernel fails by.
    fn should_inspect(&self) -> bool {
        let mut numbers =
            self.release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
        let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
        (number(), number()) >= (6, 6)
    }

    pub fn outcome(&self) -> Outcome {
        match (self.ended, self.failed.is_empty()) {
            (_, false) => Outcome::Failed,
            (false, true) => Outcome::Unfinished,
            // A machine that ran nothing has shown nothing.
            (true, true) if self.passed == 0 => Outcome::Unfinished,
            (true, true) if self.should_inspect() && !self.inspects => Outcome::Failed,
            (true, true) => Outcome::Passed,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, passed, failed, .. } = self;
        let datapath = if self.inspects { "inspect" } else { "proxy only" };
        write!(f, "Linux {release}: {datapath}; {passed} tests passed, {} failed", failed.len())?;
        if self.outcome() == Outcome::Unfinished {
            write!(f, ", and not done: {}", self.trouble.as_deref().unwrap_or("the machine went off"))?;
        }
        for name in failed {
            write!(f, "\n    failed: {name}")?;
        }
        for name in &self.again {
            write!(f, "\n    passed when repeated alone: {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Report {
        let mut report = Report::default();
        lines.iter().for_each(|line| report.hear(line));
        report
    }

    #[test]
    fn a_machine_has_passed_only_when_it_came_to_its_end_and_ran_tests_without_a_failure() {
        assert_eq!(heard(&["vm: up", "vm: inspects", "vm: passed 6", "vm: end"]).outcome(), Outcome::Passed);
        let of =
            |release: &str| Report { release: release.to_owned(), ..heard(&["vm: passed 6", "vm: end"]) };
        assert_eq!(of("6.1.0-56-cloud-amd64").outcome(), Outcome::Passed);
        assert_eq!(of("6.12.117+deb12-cloud-amd64").outcome(), Outcome::Failed);
        assert_eq!(heard(&["vm: passed 6"]).outcome(), Outcome::Unfinished);
        assert_eq!(heard(&["vm: passed 0", "vm: end"]).outcome(), Outcome::Unfinished);
        let failed = heard(&["vm: passed 6", "vm: again door: a::b", "vm: failed door: a::c", "vm: end"]);
        assert_eq!(failed.outcome(), Outcome::Failed);
        assert_eq!(
            failed.to_string(),
            "Linux : proxy only; 7 tests passed, 1 failed\n    failed: door: a::c\n    passed when repeated alone: door: a::b"
        );
    }
}
