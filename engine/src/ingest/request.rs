//! What a request to a push source is, what it is answered, and why it is refused.

use bytes::Bytes;
use gravity_log::LogError;
use serde::Serialize;

use crate::ingest::envelope::Undecodable;

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct IntakeRequest {
    pub content_type: Option<String>,
    /// Names in lower case. `idempotency-key`, `traceparent`, CloudEvents attributes and Debezium's `__debezium.*` have a
    /// meaning; those and any that begin with `ce-` or `x-` are kept with the event.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// First and last sequence of what was stored, nulls when all were duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IntakeAnswer {
    pub first: Option<u64>,
    pub last: Option<u64>,
    pub duplicates: u64,
    /// The answer that the request's idempotency key had the first time: nothing was added now.
    #[serde(skip)]
    pub is_repeat: bool,
}

/// Why nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    #[error("line {line}, column {column}: {detail}")]
    Malformed { line: usize, column: usize, code: &'static str, detail: String },
    #[error("the id {id:?} stands twice in one request")]
    DuplicateId { id: String },
    #[error("{what} was used before with another body")]
    Conflict { what: String },
    #[error("a request with {what} is still running")]
    InProgress { what: String },
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(
        "content type {found:?} is not read here; allowed: application/json, application/x-ndjson, \
         application/cloudevents+json, application/cloudevents-batch+json, or a binary CloudEvent"
    )]
    UnsupportedMedia { found: String },
    #[error("more events wait for the disk than the log holds; try again")]
    Busy,
    #[error("{reason}")]
    Unavailable { reason: String },
}

impl IntakeError {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            IntakeError::Malformed { .. } | IntakeError::DuplicateId { .. } => 400,
            IntakeError::InProgress { .. } => 409,
            IntakeError::TooLarge { .. } => 413,
            IntakeError::UnsupportedMedia { .. } => 415,
            IntakeError::Conflict { .. } => 422,
            IntakeError::Busy => 429,
            IntakeError::Unavailable { .. } => 503,
        }
    }

    /// Stable code; has a page under docs/errors.
    pub fn code(&self) -> &'static str {
        match self {
            IntakeError::Malformed { code, .. } => code,
            IntakeError::DuplicateId { .. } => "intake/duplicate-id",
            IntakeError::Conflict { .. } => "intake/other-body",
            IntakeError::InProgress { .. } => "intake/in-progress",
            IntakeError::TooLarge { .. } => "intake/too-large",
            IntakeError::UnsupportedMedia { .. } => "intake/media-type",
            IntakeError::Busy => "intake/busy",
            IntakeError::Unavailable { .. } => "intake/unavailable",
        }
    }
}

pub fn malformed(why: &Undecodable, line: usize, column: usize) -> IntakeError {
    // A place inside the item counts from the item's own start.
    let (line, column) = match why.at {
        Some((1, inner)) => (line, column + inner.saturating_sub(1)),
        Some((inner_line, inner)) => (line + inner_line - 1, inner),
        None => (line, column),
    };
    IntakeError::Malformed { line, column, code: why.code, detail: why.detail.clone() }
}

pub fn refused(error: LogError) -> IntakeError {
    match error {
        LogError::Busy => IntakeError::Busy,
        LogError::TooLarge { limit, .. } => IntakeError::TooLarge { limit },
        other => unavailable(&other),
    }
}

pub fn unavailable(error: &impl std::fmt::Display) -> IntakeError {
    IntakeError::Unavailable { reason: error.to_string() }
}
