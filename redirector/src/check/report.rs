//! What `redirector check` found out, and how it reads.

use std::fmt;

use serde::Serialize;

/// The answers in the order in which a person should read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub items: Vec<Item>,
}

/// One question to the machine and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    pub name: String,
    /// What a user would miss without it.
    pub needed_for: &'static str,
    pub status: Status,
    /// A [`Status::No`] here means that the agent cannot work on this machine.
    pub fatal: bool,
    /// What was seen.
    pub detail: String,
    /// What to do about it; `None` when nothing is wrong.
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Ok,
    /// Missing.
    No,
    /// There is another way, or it could not be found out.
    Warn,
}

impl Report {
    /// Whether the agent can work here, perhaps with less than everything.
    #[must_use]
    pub fn usable(&self) -> bool {
        !self.items.iter().any(Item::prevents_use)
    }
}

impl Item {
    #[must_use]
    pub fn ok(name: impl Into<String>, needed_for: &'static str, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        Self { name, needed_for, status: Status::Ok, fatal: false, detail, remedy: None }
    }

    /// Missing, with consequences for `needed_for` only.
    #[must_use]
    pub fn no(
        name: impl Into<String>,
        needed_for: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { status: Status::No, remedy, ..Self::ok(name, needed_for, detail) }
    }

    #[must_use]
    pub fn warn(
        name: impl Into<String>,
        needed_for: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status: Status::Warn, ..Self::no(name, needed_for, detail, remedy) }
    }

    /// The agent cannot work without it.
    #[must_use]
    pub fn essential(self) -> Self {
        Self { fatal: true, ..self }
    }

    fn prevents_use(&self) -> bool {
        self.fatal && self.status == Status::No
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{item}")?;
        }
        let missing = self.items.iter().filter(|item| item.prevents_use()).count();
        let limited = self.items.iter().any(|item| item.status != Status::Ok);
        match (missing, limited) {
            (0, false) => f.write_str("This machine can run the agent, with everything it offers."),
            (0, true) => f.write_str("This machine can run the agent, with the limits named above."),
            (1, _) => {
                f.write_str("This machine cannot run the agent: 1 thing it cannot do without is missing.")
            }
            (n, _) => {
                write!(f, "This machine cannot run the agent: {n} things it cannot do without are missing.")
            }
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.status {
            Status::Ok => "ok",
            Status::No => "NO",
            Status::Warn => "warn",
        };
        write!(f, "{mark:<5} {:<44} {}", self.name, self.detail)?;
        let Some(remedy) = &self.remedy else { return Ok(()) };
        let consequence = match (self.prevents_use(), self.status) {
            (true, _) => "the agent cannot work without it; needed for",
            (false, Status::No) => "you will miss",
            (false, _) => "it is about",
        };
        write!(f, "\n      {consequence}: {}\n      do: {remedy}", self.needed_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Item {
        Item::no("TCX", "newest attach", "not there", "use Linux 6.6 or newer")
    }

    #[test]
    fn only_what_is_missing_and_essential_makes_a_machine_unusable() {
        let ok = Item::ok("a", "b", "c").essential();
        let warn = Item::warn("a", "b", "c", "d").essential();
        let mut report = Report { items: vec![ok, warn, missing()] };
        assert!(report.usable());
        report.items.push(missing().essential());
        assert!(!report.usable());
    }

    #[test]
    fn the_text_says_what_is_missed_and_what_to_do() {
        let text = Report { items: vec![missing()] }.to_string();
        assert!(text.contains("you will miss: newest attach\n      do: use Linux 6.6 or newer"), "{text}");
        assert!(text.ends_with("with the limits named above."), "{text}");
        let text = Report { items: vec![missing().essential()] }.to_string();
        assert!(text.contains("the agent cannot work without it"), "{text}");
    }

    #[test]
    fn json_has_every_field() {
        let json = serde_json::to_value(missing().essential()).unwrap();
        assert_eq!(json["status"], "no");
        assert_eq!(json["fatal"], true);
        assert_eq!(json["remedy"], "use Linux 6.6 or newer");
    }
}
