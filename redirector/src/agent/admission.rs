//! Whether an intercept may be asked for at all, before it is compared with those there are.

use super::registry_error::RegistryError;
use crate::{
    api::{CreateIntercept, is_name},
    api_server::Caller,
    context::{InterceptKey, MAX_CONDITIONS},
};

/// `allow_all`: somebody may take everybody's requests.
pub fn admit(request: &CreateIntercept, caller: &Caller, allow_all: bool) -> Result<(), RegistryError> {
    if !caller.may_use(&request.target.to_string()) {
        return Err(RegistryError::Forbidden(request.target.to_string()));
    }
    if let Some(name) = &request.name
        && !is_name(name)
    {
        return Err(RegistryError::BadName(name.clone()));
    }
    if !within_limits(request) {
        return Err(RegistryError::Oversized);
    }
    if request.matcher.is_catch_all() && !allow_all && !request.observe {
        return Err(RegistryError::AllForbidden(request.matcher.to_string()));
    }
    Ok(())
}

/// They are shown to others, kept, and compared with every request.
fn within_limits(request: &CreateIntercept) -> bool {
    let printable = |text: &str| text.len() <= 256 && !text.chars().any(char::is_control);
    [&request.owner, &request.instance, &request.to].into_iter().all(|text| printable(text))
        && request.matcher.conditions.len() <= MAX_CONDITIONS
}

/// For one without a name: short enough to type, and not taken.
pub fn made_up_name(request: &CreateIntercept) -> String {
    let key = InterceptKey::random().map(|key| key.to_string()).unwrap_or_default();
    let suffix: String = key.chars().take(6).collect();
    format!("port-{}-{suffix}", request.port)
}
