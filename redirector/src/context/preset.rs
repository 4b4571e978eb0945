//! The headers that other tools use, so that clients and services that carry theirs need no change.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::pair::check_value;
use super::place::Place;

/// A tool whose headers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    Telepresence,
    Signadot,
    Okteto,
    Mirrord,
    Lapdev,
}

/// The request carries the key in any of the places where the tool puts it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct PresetCondition {
    tool: Preset,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    tool: Preset,
    key: String,
}

impl Preset {
    pub const ALL: [Self; 5] =
        [Self::Telepresence, Self::Signadot, Self::Okteto, Self::Mirrord, Self::Lapdev];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telepresence => "telepresence",
            Self::Signadot => "signadot",
            Self::Okteto => "okteto",
            Self::Mirrord => "mirrord",
            Self::Lapdev => "lapdev",
        }
    }

    /// Where the tool puts the key; the one that a client sends first.
    pub(super) const fn places(self) -> &'static [Place] {
        match self {
            // The key is `UUID:NAME`.
            Self::Telepresence => &[Place::Header("x-telepresence-intercept-id")],
            // The same key four times, for the tracing libraries of OpenTelemetry, Datadog and Jaeger.
            Self::Signadot => &[
                Place::Baggage("sd-routing-key"),
                Place::Tracestate("sd-routing-key"),
                Place::Header("ot-baggage-sd-routing-key"),
                Place::Header("uberctx-sd-routing-key"),
            ],
            // The key is the developer's namespace.
            Self::Okteto => &[Place::Baggage("okteto-divert")],
            Self::Mirrord => &[Place::Baggage("mirrord-session")],
            // The key is the UUID of the environment.
            Self::Lapdev => &[Place::Tracestate("lapdev-env-id")],
        }
    }

    /// `telepresence, signadot, …`
    pub(super) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl PresetCondition {
    /// `key` is one that each of the tool's headers can carry.
    pub fn new(tool: Preset, key: &str) -> Result<Self, ConditionError> {
        check_value(tool.name(), key)?;
        let key = key.trim_matches([' ', '\t']);
        for place in tool.places() {
            place.condition(key)?;
        }
        Ok(Self { tool, key: key.to_owned() })
    }

    #[must_use]
    pub fn tool(&self) -> Preset {
        self.tool
    }

    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// `TOOL=KEY`
impl FromStr for PresetCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let pair = text.split_once('=');
        let found = pair.and_then(|(name, key)| {
            Some((Preset::ALL.into_iter().find(|preset| preset.name() == name)?, key))
        });
        let (tool, key) = found.ok_or_else(|| ConditionError::Preset(text.to_owned()))?;
        Self::new(tool, key)
    }
}

impl TryFrom<Unchecked> for PresetCondition {
    type Error = ConditionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ConditionError> {
        Self::new(unchecked.tool, &unchecked.key)
    }
}

impl From<PresetCondition> for Unchecked {
    fn from(PresetCondition { tool, key }: PresetCondition) -> Self {
        Self { tool, key }
    }
}

/// `TOOL=KEY`
impl fmt::Display for PresetCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.tool.name(), self.key)
    }
}
