//! Every call of the API in one table: the router, the permissions and the OpenAPI document are made from it (T22).

use axum::routing::{MethodRouter, get, post};
use serde_json::{Map, Value, json};

use super::auth::Permission;
use super::{Api, events, openapi, operate, probe};

/// One call.
pub struct Call {
    pub method: &'static str,
    pub path: &'static str,
    pub permission: Permission,
    pub summary: &'static str,
    /// Query parameters with their meaning.
    pub query: &'static [(&'static str, &'static str)],
    /// What a success answers, as a member of the document's schemas.
    pub answer: &'static str,
    pub handler: MethodRouter<Api>,
}

fn call(
    method: &'static str,
    path: &'static str,
    permission: Permission,
    summary: &'static str,
    answer: &'static str,
    handler: MethodRouter<Api>,
) -> Call {
    Call { method, path, permission, summary, query: &[], answer, handler }
}

const PAGE: &[(&str, &str)] = &[
    ("after", "Sequence after which to begin; 0 by default."),
    ("limit", "Most events to answer; 100 by default, 10,000 at most."),
];
const OF_ROUTE: &[(&str, &str)] = &[("route", "Only of this route; `ingest` holds undecodable input.")];
const WAIT: &[(&str, &str)] = &[
    ("wait", "Answer once the view has this sequence."),
    ("timeout", "Longest wait, such as `5s`; 10 s by default, 300 s at most."),
];

/// All calls.
#[rustfmt::skip]
pub fn calls() -> Vec<Call> {
    use Permission::{Follow, Known, Open, Operate, Publish, Read};
    vec![
        call("post", "/v1/events", Publish, "Publish events; answers once they are durable.", "Published", post(events::publish)),
        call("post", "/v1/events/{source}", Publish, "Publish events to a named source.", "Published", post(events::publish_to)),
        Call { query: PAGE, ..call("get", "/v1/events", Read, "Read events of the log.", "Events", get(events::list)) },
        call("get", "/v1/events/{source}", Read, "Read one event: the path holds its sequence.", "Event", get(events::one)),
        Call { query: WAIT, ..call("get", "/v1/views/{view}/position", Follow, "Where a view stands; with `wait`, read your own writes.", "Position", get(events::position)) },
        call("get", "/v1/status", Read, "Sources, log, routes, exporters.", "Status", get(operate::status)),
        Call { query: OF_ROUTE, ..call("get", "/v1/dlq", Read, "Dead letters: what is parked now.", "DeadLetters", get(operate::letters)) },
        call("get", "/v1/dlq/{route}/{sequence}", Read, "One dead letter with its event.", "DeadLetter", get(operate::letter)),
        call("post", "/v1/dlq/{route}/retry", Operate, "Try dead letters again: those named, or all.", "Released", post(operate::retry)),
        call("post", "/v1/dlq/{route}/skip", Operate, "Leave the named dead letters out for good.", "Released", post(operate::skip)),
        call("post", "/v1/dlq/{route}/{sequence}/retry", Operate, "Try one dead letter again.", "Released", post(operate::retry_one)),
        call("post", "/v1/dlq/{route}/{sequence}/skip", Operate, "Leave one dead letter out for good.", "Released", post(operate::skip_one)),
        call("post", "/v1/routes/{route}/pause", Operate, "Hold a route back.", "Paused", post(operate::pause)),
        call("post", "/v1/routes/{route}/resume", Operate, "Let a route go on.", "Paused", post(operate::resume)),
        call("post", "/v1/log/verify", Operate, "Read the whole log again: checksums, digest chain, gapless sequences.", "Verified", post(operate::verify)),
        call("get", "/v1/jobs", Read, "Long work under way.", "Jobs", get(operate::jobs)),
        call("get", "/healthz", Open, "200 while the process works.", "Text", get(probe::health)),
        call("get", "/readyz", Open, "503 with reasons while recovering or draining.", "Readiness", get(probe::ready)),
        call("get", "/metrics", Read, "Figures for Prometheus.", "Text", get(probe::prometheus)),
        call("get", "/openapi.json", Known, "This document.", "Document", get(openapi::document)),
        call("get", "/", Open, "Where things are.", "Text", get(probe::front)),
    ]
}

/// The OpenAPI document of these calls.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for call in calls() {
        let mut parameters: Vec<Value> = call
            .path
            .split('/')
            .filter_map(|step| step.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        for (name, meaning) in call.query {
            parameters.push(json!({"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}));
        }
        let kind = if call.answer == "Text" { "text/plain" } else { "application/json" };
        let schema = json!({"$ref": format!("#/components/schemas/{}", call.answer)});
        let mut operation = json!({
            "summary": call.summary,
            "description": format!("Allowed to {}.", call.permission.roles()),
            "parameters": parameters,
            "responses": {
                "200": {"description": "done", "content": {kind: {"schema": schema}}},
                "default": {"description": "refused", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
            }
        });
        if let Some(body) = openapi::request_body(call.method, call.path) {
            operation["requestBody"] = body;
        }
        if call.permission != Permission::Open {
            operation["security"] = json!([{"token": []}]);
        }
        paths.entry(call.path).or_insert_with(|| json!({}))[call.method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Gravity", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": openapi::schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        }
    })
}
