//! What a refused call answers: `application/problem+json` (RFC 9457) with the code that the command line shows too.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gravity_engine::ApiError;
use gravity_engine::IntakeError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:gravity:error:CODE`
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// Stable; `gravity explain CODE` tells more.
    pub code: String,
    /// Further members, such as `line` and `column`.
    #[serde(flatten)]
    pub more: Box<Map<String, Value>>,
    #[serde(skip)]
    retry_after: bool,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:gravity:error:{code}"),
            title: status.canonical_reason().unwrap_or("refused").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            more: Box::default(),
            retry_after: matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Problem {
        let problem = Problem::new(status(error.status()), error.code(), error.to_string());
        match error {
            IntakeError::Malformed { line, column, .. } => problem.with("line", line).with("column", column),
            IntakeError::TooLarge { limit } => problem.with("limit", limit),
            _ => problem,
        }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Problem {
        let problem = Problem::new(status(error.status()), error.code(), error.to_string());
        match error {
            ApiError::Unknown { known, .. } => problem.with("known", known),
            _ => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = status(self.status);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
