//! What the eBPF programs look for on connections that the app has.

use super::{
    attach::{EGRESS_PROGRAM, INSPECT_PROGRAM},
    door::{DoorError, take},
    object,
};
use crate::context;
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
    programs::{ProgramError, SchedClassifier},
};
use redirector_common::{
    Existing, InspectedPort, Needle, Tuple, name_bit,
    scan::{LineStarts, MemberStarts, name_hash},
};
use std::collections::{BTreeMap, BTreeSet};

/// The object of a [`Door`](super::Door) whose programs that inspect are not loaded.
pub struct UnloadedPrograms(pub(super) Ebpf);

/// The same object, and why this kernel does not take them, if so.
pub struct LoadedPrograms {
    pub(super) object: Ebpf,
    pub(super) loaded: Result<(), String>,
}

impl UnloadedPrograms {
    /// Loads what inspection needs beyond door A. Any thread can do it.
    pub fn load(self) -> LoadedPrograms {
        let Self(mut object) = self;
        let mut load = |name| {
            let program = object.program_mut(name).ok_or(DoorError::Missing(name));
            let program: &mut SchedClassifier = program
                .map_err(|error| error.to_string())?
                .try_into()
                .map_err(|error: ProgramError| error.to_string())?;
            program.load().map_err(|error| not_taken(name, &error))
        };
        let loaded = load(INSPECT_PROGRAM).and_then(|()| load(EGRESS_PROGRAM));
        LoadedPrograms { object, loaded }
    }
}

/// Why this kernel does not take the programs that inspect, if it does not. They are not attached to anything.
pub fn loads() -> Result<(), String> {
    let object = object::load_ingress(false).map_err(|error| error.to_string())?;
    UnloadedPrograms(object).load().loaded
}

/// In one line: of the verifier's log, which is long, the line that says what it did not like.
fn not_taken(name: &str, error: &ProgramError) -> String {
    let text = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            tracing::debug!(program = name, log, "the verifier");
            match last_words(&log) {
                Some(words) => format!("{io_error}: {words}"),
                None => io_error.to_string(),
            }
        }
        other => other.to_string(),
    };
    format!("this kernel does not take {name}: {text}")
}

/// What stands before the figures at the end of a verifier's log.
fn last_words(log: &str) -> Option<&str> {
    const FIGURES: [&str; 3] = ["verification time", "stack depth", "processed "];
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take_while(|line| !FIGURES.iter().any(|figure| line.starts_with(figure))).last()
}

/// The maps of names and of what is known beforehand, by port.
pub struct Inspection {
    existing: HashMap<MapData, Tuple, Existing>,
    protocols: HashMap<MapData, u16, u32>,
    ports: Array<MapData, InspectedPort>,
    needles: HashMap<MapData, Needle, u32>,
    of_port: BTreeMap<u16, BTreeSet<context::Needle>>,
}

impl Inspection {
    pub fn new(object: &mut Ebpf) -> Result<Self, DoorError> {
        Ok(Self {
            existing: HashMap::try_from(take(object, "EXISTING")?)?,
            protocols: HashMap::try_from(take(object, "PORT_PROTOCOLS")?)?,
            ports: Array::try_from(take(object, "INSPECTED_PORTS")?)?,
            needles: HashMap::try_from(take(object, "NEEDLES")?)?,
            of_port: BTreeMap::new(),
        })
    }

    /// To be called right before the first names of a port: see [`Existing`]. What does not fit is left out.
    pub fn remember(&mut self, existing: impl IntoIterator<Item = (Tuple, Existing)>) {
        for (tuple, facts) in existing {
            if self.existing.insert(tuple, facts, 0).is_err() {
                return;
            }
        }
    }

    /// What new connections to `port` began with since its inspection began: bits of
    /// [`PORT_HTTP2`](redirector_common::PORT_HTTP2) and [`PORT_TLS`](redirector_common::PORT_TLS).
    pub fn protocols(&self, port: u16) -> u32 {
        self.protocols.get(&port, 0).unwrap_or_default()
    }

    /// What was known of connections to a port that is not inspected any more.
    fn forget(&mut self, port: u16) {
        let _ = self.protocols.remove(&port);
        let old: Vec<Tuple> =
            self.existing.keys().filter_map(Result::ok).filter(|tuple| tuple.app_port == port).collect();
        for tuple in old {
            let _ = self.existing.remove(&tuple);
        }
    }

    /// From now on heads of requests to `port` are searched for these names, and for no others; without any they are
    /// not read.
    pub fn watch(&mut self, port: u16, names: &BTreeSet<context::Needle>) -> Result<(), MapError> {
        let wanted = needles(port, names);
        let known_names = self.of_port.get(&port).cloned().unwrap_or_default();
        let known = needles(port, &known_names);
        // Until all names are there the port is not looked at, and it is not any more before the first of them goes.
        for needle in wanted.difference(&known) {
            self.needles.insert(needle, 1, 0)?;
        }
        if wanted.is_empty() {
            if !known.is_empty() {
                self.ports.set(port.into(), InspectedPort::default(), 0)?;
                self.forget(port);
            }
        } else {
            self.ports.set(port.into(), inspected(port, &(&known_names | names)), 0)?;
        }
        for needle in known.difference(&wanted) {
            self.needles.remove(needle)?;
        }
        if wanted.is_empty() {
            self.of_port.remove(&port);
        } else {
            self.ports.set(port.into(), inspected(port, names), 0)?;
            self.of_port.insert(port, names.clone());
        }
        Ok(())
    }
}

/// What tells most other names, keys and lines from those that are looked for.
fn inspected(port: u16, names: &BTreeSet<context::Needle>) -> InspectedPort {
    let bits = needles(port, names).iter().fold(0, |bits, needle| bits | name_bit(needle.hash));
    let lines = names.iter().map(context::Needle::header_name);
    let lines = lines.fold(LineStarts::OF_REQUESTS, |lines, name| lines.with(name.as_bytes()));
    let members = names.iter().fold(MemberStarts::NONE, |members, name| match name {
        context::Needle::Member { key, .. } => members.with(key.as_bytes()),
        context::Needle::Header(name) => members.with_header(name.as_bytes()),
    });
    InspectedPort { names: bits, members: members.to_bits(), lines: lines.to_bits() }
}

fn needles(port: u16, names: &BTreeSet<context::Needle>) -> BTreeSet<Needle> {
    names.iter().flat_map(|name| entries(port, name)).collect()
}

/// A header is looked for by itself, a member by the name of its list and by its key.
fn entries(port: u16, name: &context::Needle) -> Vec<Needle> {
    let needle = |kind, text: &str| Needle { port, kind, hash: name_hash(text.as_bytes()) };
    match name {
        context::Needle::Header(name) => vec![needle(Needle::HEADER, name)],
        context::Needle::Member { field, key } => {
            vec![needle(Needle::LIST, field), needle(Needle::MEMBER, key)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_the_last_line_before_its_figures() {
        let log = "20: (dc) r8 = be16 r8 ; R8_w=scalar()\n; hold.rs:114\n21: (0f) r0 += r8\n\
                   math between map_value pointer and register with unbounded min value is not allowed\n\
                   verification time 4213 usec\nstack depth 72+0\nprocessed 21 insns (limit 1000000)\n";
        assert_eq!(
            last_words(log),
            Some("math between map_value pointer and register with unbounded min value is not allowed")
        );
        assert_eq!(last_words(""), None);
    }
}
