//! What the demo prints: steps, commands, and for each check what was expected and what was seen.

/// Prints as it goes, and counts.
#[derive(Debug, Default)]
pub struct Report {
    steps: u32,
    checks: u32,
    differences: u32,
}

impl Report {
    /// Begins a step: the heading of the checks that follow.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}", columns(&format!("{}. {title}", self.steps), "expected", "seen"));
    }

    /// A command that is run on a machine of the lab.
    pub fn command(&self, machine: &str, line: &str) {
        println!("   {machine}$ {line}");
    }

    /// A line of what a process printed, or of what there is to know.
    pub fn note(&self, text: &str) {
        println!("   {text}");
    }

    pub fn check(&mut self, what: &str, expected: &str, seen: &str) {
        self.checks += 1;
        self.differences += u32::from(seen != expected);
        println!("{}", row(what, expected, seen));
    }

    /// How many checks there were.
    pub fn checks(&self) -> u32 {
        self.checks
    }

    /// How many of them saw something else than expected.
    pub fn differences(&self) -> u32 {
        self.differences
    }
}

fn row(what: &str, expected: &str, seen: &str) -> String {
    let verdict = if seen == expected { "ok" } else { "DIFFERS" };
    columns(&format!("   {what}"), expected, &format!("{seen:<16}  {verdict}"))
}

fn columns(left: &str, expected: &str, seen: &str) -> String {
    format!("{left:<56}  {expected:<16}  {seen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_expected_is_ok() {
        let mut report = Report::default();
        report.check("who answers", "nginx", "nginx");
        assert_eq!((report.checks(), report.differences()), (1, 0));
        report.check("who answers", "nginx", "");
        assert_eq!((report.checks(), report.differences()), (2, 1));
        assert!(row("who answers", "nginx", "nginx").ends_with("ok"));
        assert!(row("who answers", "nginx", "").ends_with("DIFFERS"));
    }
}
