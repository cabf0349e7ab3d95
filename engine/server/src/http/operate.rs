//! What operators do over the API: dead letters, pauses, status, verification of the log.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::auth::Caller;
use super::{Api, Problem, body, query};
use crate::config::codes;

pub async fn status(State(api): State<Api>) -> Result<Response, Problem> {
    Ok(Json(api.status().await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRoute {
    route: Option<String>,
}

pub async fn letters(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let of: OfRoute = query(&uri)?;
    Ok(Json(api.engine()?.dead_letters(of.route.as_deref()).await?).into_response())
}

pub async fn letter(State(api): State<Api>, Path((route, sequence)): Path<(String, u64)>) -> Result<Response, Problem> {
    match api.engine()?.dead_letter(&route, sequence).await? {
        Some(detail) => Ok(Json(detail).into_response()),
        None => {
            let detail = format!("sequence {sequence} is not a dead letter of {route}");
            Err(Problem::new(StatusCode::NOT_FOUND, codes::NOT_FOUND, detail))
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Absent or null: all that failed.
    sequences: Option<Vec<u64>>,
}

pub async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let which: Which = body::json(&api.budget, &headers, body).await?;
    Ok(Json(api.engine()?.retry(&route, which.sequences, &caller.name).await?).into_response())
}

pub async fn retry_one(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((route, sequence)): Path<(String, u64)>,
) -> Result<Response, Problem> {
    Ok(Json(api.engine()?.retry(&route, Some(vec![sequence]), &caller.name).await?).into_response())
}

pub async fn skip(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let which: Which = body::json(&api.budget, &headers, body).await?;
    // What is skipped is named: there is no "skip all".
    let Some(sequences) = which.sequences.filter(|sequences| !sequences.is_empty()) else {
        let detail = "name the sequences to skip: {\"sequences\": [4711]}";
        return Err(Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, detail));
    };
    Ok(Json(api.engine()?.skip(&route, sequences, &caller.name).await?).into_response())
}

pub async fn skip_one(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((route, sequence)): Path<(String, u64)>,
) -> Result<Response, Problem> {
    Ok(Json(api.engine()?.skip(&route, vec![sequence], &caller.name).await?).into_response())
}

pub async fn pause(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
) -> Result<Response, Problem> {
    api.engine()?.pause(&route, &caller.name).await?;
    Ok(Json(json!({"route": route, "paused": true})).into_response())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct How {
    #[serde(default)]
    active_rules: bool,
}

pub async fn resume(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let how: How = body::json(&api.budget, &headers, body).await?;
    api.engine()?.resume(&route, how.active_rules, &caller.name).await?;
    Ok(Json(json!({"route": route, "paused": false})).into_response())
}

/// Long work of the kinds that later versions bring; none runs in this one.
pub async fn jobs(State(api): State<Api>) -> Result<Response, Problem> {
    api.engine()?;
    Ok(Json(json!({"jobs": []})).into_response())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Between {
    from: Option<u64>,
    to: Option<u64>,
}

/// Reads the log, or a range of it, again; answers when it is through.
pub async fn verify(State(api): State<Api>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let Between { from, to } = body::json(&api.budget, &headers, body).await?;
    let log = api.engine()?.log().clone();
    let verified = tokio::task::spawn_blocking(move || {
        let range = crate::cli::range_of(&*log, from, to);
        log.verify(range, &mut |_| {})
    });
    match verified.await {
        Ok(Ok(verified)) => Ok(Json(crate::cli::verified_document(&verified)).into_response()),
        Ok(Err(error)) => Err(gravity_engine::ApiError::from(error).into()),
        Err(_) => Err(gravity_engine::ApiError::Gone.into()),
    }
}
