//! A name and a value, as they are typed and as they travel.

use super::error::ConditionError;

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
    if value.trim_matches([' ', '\t']).is_empty() {
        return Err(ConditionError::EmptyValue { name: name.to_owned() });
    }
    if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(ConditionError::ControlCharacter { name: name.to_owned() });
    }
    Ok(())
}
