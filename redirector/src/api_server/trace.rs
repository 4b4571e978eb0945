//! What both APIs have of `POST /v1/trace`.

use super::answer::{ApiError, parse};
use crate::trace::query::{MAX_QUESTION, TraceQuery};
use axum::http::StatusCode;

/// The question that a call brings.
pub fn trace_query(body: &[u8]) -> Result<TraceQuery, ApiError> {
    let query: TraceQuery = parse(body)?;
    if !query.is_small() {
        let error = format!("a question has {MAX_QUESTION} traces, marks and windows at most");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, error));
    }
    Ok(query)
}
