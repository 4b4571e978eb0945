//! A name and a value, as they are typed and as they travel.

use super::error::ConditionError;

/// Longest name of a header, key of a member, or method, in bytes.
const MAX_NAME: usize = 256;
/// Longest value, in bytes. A whole head has 64 KiB.
const MAX_VALUE: usize = 4096;

/// `NAME=VALUE` in two parts, split at the first `=`, not empty and without control characters.
pub(super) fn split_pair(text: &str) -> Result<(&str, &str), ConditionError> {
    let (name, value) = text.split_once('=').ok_or_else(|| ConditionError::NoEqualsSign(text.to_owned()))?;
    check_pair(name, value)?;
    Ok((name, value))
}

/// The rules that names and values of all kinds have in common.
pub(super) fn check_pair(name: &str, value: &str) -> Result<(), ConditionError> {
    if name.is_empty() {
        return Err(ConditionError::EmptyName);
    }
    check_len(name, MAX_NAME)?;
    check_value(name, value)
}

/// The rules for what is compared with a part of the request that has this name.
pub(super) fn check_value(name: &str, value: &str) -> Result<(), ConditionError> {
    if value.trim_matches([' ', '\t']).is_empty() {
        return Err(ConditionError::EmptyValue { name: name.to_owned() });
    }
    if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(ConditionError::ControlCharacter { name: name.to_owned() });
    }
    check_len(value, MAX_VALUE)
}

/// The error shows the beginning of the text only.
pub(super) fn check_len(text: &str, max: usize) -> Result<(), ConditionError> {
    if text.len() <= max {
        return Ok(());
    }
    let beginning: String = text.chars().take(32).collect();
    Err(ConditionError::TooLong { what: format!("{beginning}…"), max })
}
