//! The TARGET that a user types: `netns:NAME`, `netns:/path`, `pid:N` or `container:ID`.
//!
//! Nothing here touches the system: the developer's CLI parses targets on machines that have no network namespaces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What to intercept, as the user named it. Parsing it says nothing about whether it exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A name as `ip netns` shows it, or the absolute path of a bound namespace file.
    Netns(String),
    /// The network namespace of a process, by its pid as the agent sees it.
    Pid(i32),
    /// A container id of 12 to 64 lowercase hex digits; fewer than 64 are a prefix.
    Container(String),
}

/// Why a text is not a target; the message tells the forms that are.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseTargetError {
    #[error("`{0}` is not a target: write netns:NAME, netns:/path, pid:N or container:ID")]
    UnknownForm(String),
    #[error(
        "`{0}` does not name a network namespace: write netns:NAME with a name from `ip netns list`, or netns: and an absolute path"
    )]
    BadNetns(String),
    #[error("`{0}` is not a process id: write pid:N with a positive number, such as pid:4711")]
    BadPid(String),
    #[error(
        "`{0}` is not a container id: write container:ID with 12 to 64 hex digits, as `docker ps` or `crictl ps` shows them"
    )]
    BadContainer(String),
}

const CONTAINER_ID_DIGITS: std::ops::RangeInclusive<usize> = 12..=64;

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("netns", name)) => parse_netns(name),
            Some(("pid", pid)) => parse_pid(pid),
            Some(("container", id)) => parse_container(id),
            _ => Err(ParseTargetError::UnknownForm(text.to_owned())),
        }
    }
}

fn parse_netns(name: &str) -> Result<Target, ParseTargetError> {
    let is_path = name.starts_with('/');
    let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    let printable = !name.contains(char::is_control);
    if printable && (is_path || is_name) {
        Ok(Target::Netns(name.to_owned()))
    } else {
        Err(ParseTargetError::BadNetns(name.to_owned()))
    }
}

fn parse_pid(pid: &str) -> Result<Target, ParseTargetError> {
    let digits = pid.bytes().all(|b| b.is_ascii_digit());
    match pid.parse() {
        Ok(number) if digits && number > 0 => Ok(Target::Pid(number)),
        _ => Err(ParseTargetError::BadPid(pid.to_owned())),
    }
}

/// Takes the bare id and the `runtime://ID` that Kubernetes shows in a pod's status.
fn parse_container(text: &str) -> Result<Target, ParseTargetError> {
    let id = text.split_once("://").map_or(text, |(_runtime, id)| id);
    if CONTAINER_ID_DIGITS.contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(Target::Container(id.to_ascii_lowercase()))
    } else {
        Err(ParseTargetError::BadContainer(text.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(name) => write!(f, "netns:{name}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = ParseTargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn error(text: &str) -> ParseTargetError {
        text.parse::<Target>().unwrap_err()
    }

    #[test]
    fn every_documented_form_parses() {
        assert_eq!(parsed("netns:pod"), Target::Netns("pod".into()));
        assert_eq!(parsed("netns:/run/netns/a:b"), Target::Netns("/run/netns/a:b".into()));
        assert_eq!(parsed("pid:4711"), Target::Pid(4711));
        assert_eq!(parsed("container:0123456789AB"), Target::Container("0123456789ab".into()));
    }

    #[test]
    fn container_id_of_a_pod_status_parses() {
        let id = "ab".repeat(32);
        for runtime in ["containerd", "docker", "cri-o"] {
            assert_eq!(parsed(&format!("container:{runtime}://{id}")), Target::Container(id.clone()));
        }
    }

    #[test]
    fn wrong_forms_are_refused_with_the_right_hint() {
        for text in ["", "pod", "8080", "pods:x", "PID:1"] {
            assert_eq!(error(text), ParseTargetError::UnknownForm(text.into()));
        }
        for name in ["", ".", "..", "a/b", "../x", "a\nb", "/a\0b"] {
            assert_eq!(error(&format!("netns:{name}")), ParseTargetError::BadNetns(name.into()));
        }
        for pid in ["", "0", "-1", "+1", "1x", "99999999999"] {
            assert_eq!(error(&format!("pid:{pid}")), ParseTargetError::BadPid(pid.into()));
        }
        let long = "a".repeat(65);
        for id in ["", "0123456789a", "0123456789ag", "docker://", long.as_str()] {
            assert_eq!(error(&format!("container:{id}")), ParseTargetError::BadContainer(id.into()));
        }
    }

    #[test]
    fn json_holds_the_text_form() {
        let json = serde_json::to_string(&parsed("pid:7")).unwrap();
        assert_eq!(json, "\"pid:7\"");
        assert_eq!(serde_json::from_str::<Target>(&json).unwrap(), Target::Pid(7));
        let refused = serde_json::from_str::<Target>("\"pid:x\"").unwrap_err();
        assert!(refused.to_string().contains("pid:N"), "{refused}");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_prints_back(text in "\\PC*|(netns|pid|container):\\PC*") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }
    }
}
