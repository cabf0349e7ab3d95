//! `/v1/events`: publish, and read what the log holds.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use gravity_engine::IntakeRequest;
use serde::Deserialize;
use serde_json::json;

use super::{Api, Problem, query};
use crate::config::codes;

/// Events of one answer where the caller does not say.
const PAGE: usize = 100;

/// Most events of one answer.
const LARGEST_PAGE: usize = 10_000;

pub async fn publish(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    submit(api, None, request).await
}

pub async fn publish_to(
    State(api): State<Api>,
    Path(source): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    submit(api, Some(source), request).await
}

async fn submit(api: Api, source: Option<String>, request: Request) -> Result<Response, Problem> {
    let engine = api.engine()?;
    let names = engine.push_sources();
    let source = choose(source, &names)?;
    let intake = engine.intake(&source).ok_or_else(|| no_source(&source, &names))?;
    let (parts, body) = request.into_parts();
    let (body, _held) = api.budget.read(&parts.headers, body, intake.max_batch()).await?;
    let content_type = parts.headers.get("content-type").map(|value| readable("content-type", value)).transpose()?;
    let request = IntakeRequest { content_type, headers: readable_headers(&parts.headers)?, body };
    let answer = intake.submit(request).await?;
    let mut response = Json(answer).into_response();
    if answer.is_repeat {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Header of an answer that a repeated `Idempotency-Key` gets: the first one, and nothing was added now.
pub const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";

/// Headers as text. One that has a meaning here is refused where it cannot be read: to leave it out could store twice.
fn readable_headers(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    if headers.get_all(IDEMPOTENCY_KEY).iter().nth(1).is_some() {
        return Err(refused_header(IDEMPOTENCY_KEY, "stands twice in one request"));
    }
    let mut read = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = name.as_str();
        if name == "authorization" || name == "cookie" {
            continue;
        }
        match readable(name, value) {
            Ok(value) => read.push((name.to_owned(), value)),
            Err(problem) if name == IDEMPOTENCY_KEY || name.starts_with("ce-") => return Err(problem),
            Err(_) => {}
        }
    }
    Ok(read)
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";

fn readable(name: &str, value: &HeaderValue) -> Result<String, Problem> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned).map_err(|_| refused_header(name, "is not UTF-8"))
}

fn refused_header(name: &str, what: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, format!("the header {name} {what}"))
}

/// The source that a call names; without a name the only one, or the one named `http`.
fn choose(named: Option<String>, names: &[String]) -> Result<String, Problem> {
    match (named, names) {
        (Some(name), _) => Ok(name),
        (None, [only]) => Ok(only.clone()),
        (None, []) => {
            let detail = "sources.json has no http source: nothing can be published here";
            Err(Problem::new(StatusCode::NOT_FOUND, codes::NOT_FOUND, detail))
        }
        (None, several) if several.iter().any(|name| name == "http") => Ok("http".to_owned()),
        (None, several) => {
            let detail =
                format!("there are several http sources: name one, /v1/events/{}", several.join(" or /v1/events/"));
            Err(Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, detail).with("known", several.to_vec()))
        }
    }
}

fn no_source(name: &str, names: &[String]) -> Problem {
    let detail = format!("no http source is named {name:?}");
    Problem::new(StatusCode::NOT_FOUND, codes::NOT_FOUND, detail).with("known", names.to_vec())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

pub async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let page: Page = query(&uri)?;
    let limit = page.limit.unwrap_or(PAGE).min(LARGEST_PAGE);
    let events = api.engine()?.events(page.after, limit).await?;
    Ok(Json(json_of_events(&events)?).into_response())
}

/// Payloads keep their digits: they are raw JSON, which a `Value` would parse.
fn json_of_events(events: &[gravity_engine::status::EventView]) -> Result<Box<serde_json::value::RawValue>, Problem> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        events: &'a [gravity_engine::status::EventView],
    }
    serde_json::value::to_raw_value(&Document { events })
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, codes::BAD_REQUEST, error.to_string()))
}

/// `GET /v1/events/N` reads one event. A name of a source in its place is only for `POST`.
pub async fn one(State(api): State<Api>, Path(sequence): Path<String>) -> Result<Response, Problem> {
    let Ok(sequence) = sequence.parse::<u64>() else {
        let detail = format!("{sequence:?} is no sequence");
        return Err(Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, detail));
    };
    Ok(Json(api.engine()?.event(sequence).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    wait: Option<u64>,
    timeout: Option<String>,
}

/// Longest that a call may wait for a view.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(300);

pub async fn position(State(api): State<Api>, Path(view): Path<String>, uri: Uri) -> Result<Response, Problem> {
    let waiting: Waiting = query(&uri)?;
    let timeout = match &waiting.timeout {
        None => std::time::Duration::from_secs(10),
        Some(text) => read_timeout(text)?,
    };
    let position = api.engine()?.view_position(&view, waiting.wait, timeout.min(LONGEST_WAIT)).await?;
    if position.reached == Some(false) {
        // A success that says "not yet" would be taken for one by whoever looks at the status alone.
        let wanted = waiting.wait.unwrap_or_default();
        let detail = format!("{view} has sequence {}, not {wanted} yet", position.sequence);
        let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, codes::NOT_REACHED, detail);
        return Err(problem.with("view", view).with("sequence", position.sequence).with("reached", false));
    }
    Ok(Json(json!(position)).into_response())
}

/// `5s`, `250ms`, or a bare number of seconds.
fn read_timeout(text: &str) -> Result<std::time::Duration, Problem> {
    let seconds = text.parse::<f64>().ok().and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
    seconds.or_else(|| text.parse::<crate::config::unit::Span>().ok().map(|span| span.0)).ok_or_else(|| {
        let detail = format!("timeout: {text:?} is no duration; write `5s` or `250ms`");
        Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_read_is_refused_and_not_left_out() {
        let mut headers = HeaderMap::new();
        let bytes = || HeaderValue::from_bytes(b"k\xff").expect("a header may hold it");
        headers.insert("x-of-somebody", bytes());
        assert!(readable_headers(&headers).expect("has no meaning here").is_empty());
        headers.insert(IDEMPOTENCY_KEY, bytes());
        assert!(readable_headers(&headers).is_err());
    }
}
