//! Which intercept would take a request, and which of the conditions say no: decided by what decides for requests
//! that come in, [`crate::engine::Routes`] and [`crate::context::Condition`].

use super::{registry::Registry, registry_error::RegistryError};
use crate::{
    api::{Explain, ExplainedCondition, ExplainedIntercept, Explanation, InterceptInfo},
    api_server::Caller,
    context::parse_method,
    http1::{MAX_HEAD, MAX_HEADERS, RequestView},
    target::resolve::resolve,
};
use httparse::Header;

/// For a caller who may use the target.
pub async fn explain(
    registry: &Registry,
    question: Explain,
    caller: &Caller,
) -> Result<Explanation, RegistryError> {
    if !caller.may_use(&question.target.to_string()) {
        return Err(RegistryError::Forbidden(question.target.to_string()));
    }
    check(&question).map_err(RegistryError::NoRequest)?;
    let target = question.target.clone();
    let netns = tokio::task::spawn_blocking(move || resolve(&target)).await??.netns.id();

    let headers: Vec<Header<'_>> = question
        .headers
        .iter()
        .map(|line| Header { name: &line.name, value: line.value.as_bytes() })
        .collect();
    let request = RequestView::new(&question.method, &question.path, &headers);
    let on_port = registry.on_port(netns, question.port, |routes, intercepts| Explanation {
        taken_by: routes.decide(&request).map(|intercept| intercept.name.clone()),
        intercepts: intercepts.map(|intercept| explained(intercept, &request)).collect(),
    });
    Ok(on_port.await.unwrap_or(Explanation { taken_by: None, intercepts: Vec::new() }))
}

fn explained(intercept: InterceptInfo, request: &RequestView<'_>) -> ExplainedIntercept {
    let conditions = intercept.matcher.conditions.iter().map(|condition| ExplainedCondition {
        condition: condition.clone(),
        text: condition.to_string(),
        holds: condition.matches(request),
    });
    ExplainedIntercept {
        conditions: conditions.collect(),
        matches: intercept.matcher.matches(request),
        name: intercept.name,
        owner: intercept.owner,
        to: intercept.to,
        connected: intercept.connected,
        when_away: intercept.when_away,
    }
}

/// What no client can send, the engine never compares with anything.
fn check(question: &Explain) -> Result<(), String> {
    parse_method(&question.method).map_err(|error| error.to_string())?;
    let path = &question.path;
    if path.bytes().any(|byte| byte == b' ' || byte.is_ascii_control()) {
        return Err(format!("the path `{}` has a space or a control character in it", path.escape_debug()));
    }
    let is_target =
        path.starts_with('/') || path.contains("://") || path == "*" || question.method == "CONNECT";
    if !is_target {
        return Err(format!("the path `{path}` does not start with `/`"));
    }
    for line in &question.headers {
        if http::HeaderName::from_bytes(line.name.as_bytes()).is_err() {
            return Err(format!("`{}` is no header name", line.name.escape_debug()));
        }
        if http::HeaderValue::from_bytes(line.value.as_bytes()).is_err() {
            return Err(format!("the value of {} has a line break or another control character", line.name));
        }
    }
    let bytes: usize = question.headers.iter().map(|line| line.name.len() + line.value.len()).sum();
    if question.headers.len() > MAX_HEADERS || bytes + path.len() > MAX_HEAD {
        return Err(format!("it has more than {MAX_HEADERS} header lines, or {MAX_HEAD} bytes"));
    }
    Ok(())
}
