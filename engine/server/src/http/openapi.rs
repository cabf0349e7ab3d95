//! `/openapi.json`: bodies and answers of the calls, by hand; paths and permissions come from the inventory.

use axum::Json;
use serde_json::{Value, json};

pub async fn document() -> Json<Value> {
    Json(super::inventory::document())
}

/// What a call takes, by method and path.
pub fn request_body(method: &str, path: &str) -> Option<Value> {
    let json_of = |name: &str, required: bool| {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        Some(json!({"required": required, "content": {"application/json": {"schema": schema}}}))
    };
    match (method, path) {
        ("post", "/v1/events" | "/v1/events/{source}") => Some(json!({
            "required": true,
            "description": "Taken whole or refused whole. With `Idempotency-Key` a repeat gets the first answer, under the header `Idempotent-Replayed: true`.",
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Publish"}},
                "application/x-ndjson": {"schema": {"type": "string", "description": "One event a line."}},
                "application/cloudevents+json": {"schema": {"type": "object", "description": "CloudEvents 1.0."}},
                "application/cloudevents-batch+json": {"schema": {"type": "array", "items": {"type": "object"}}}
            }
        })),
        ("post", "/v1/dlq/{route}/retry") => json_of("Which", false),
        ("post", "/v1/dlq/{route}/skip") => json_of("Which", true),
        ("post", "/v1/routes/{route}/resume") => json_of("How", false),
        ("post", "/v1/log/verify") => json_of("Between", false),
        _ => None,
    }
}

/// Shapes of bodies and answers (INTERFACE 4).
pub fn schemas() -> Value {
    let count = || json!({"type": "integer", "minimum": 0});
    let text = || json!({"type": "string"});
    let maybe_text = || json!({"type": ["string", "null"]});
    let maybe_count = || json!({"type": ["integer", "null"], "minimum": 0});
    let list = |name: &str| json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{name}")}});
    let sequences = || json!({"type": "array", "items": {"type": "integer", "minimum": 1}});
    json!({
        "Text": {"type": "string"},
        "Document": {"type": "object"},
        "Problem": {"type": "object", "required": ["type", "title", "status", "detail", "code"], "properties": {
            "type": text(), "title": text(), "status": count(), "detail": text(), "code": text()}},
        "NewEvent": {"type": "object", "required": ["event", "payload"], "properties": {
            "event": text(), "payload": {}, "id": text(), "key": text(), "time": {"type": "string", "format": "date-time"}}},
        "Publish": {"oneOf": [{"$ref": "#/components/schemas/NewEvent"}, list("NewEvent")]},
        "Published": {"type": "object", "required": ["first", "last", "duplicates"], "properties": {
            "first": maybe_count(), "last": maybe_count(), "duplicates": count()}},
        "Event": {"type": "object", "properties": {
            "sequence": count(), "source": text(), "event": text(), "key": maybe_text(), "id": maybe_text(), "time": maybe_text(),
            "received": text(), "payload": {}, "raw": text(), "causation": count(), "actor": text(), "traceparent": text(),
            "headers": {"type": "array", "items": {"type": "array", "items": text()}}}},
        "Events": {"type": "object", "required": ["events"], "properties": {"events": list("Event")}},
        "Position": {"type": "object", "properties": {
            "view": text(), "sequence": count(), "reached": {"type": "boolean"},
            "fate": {"enum": ["applied", "filtered", "unmatched", "parked", "skipped"]}}},
        "Status": {"type": "object", "required": ["log", "sources", "routes", "exporters"], "properties": {
            "log": {"type": "object"},
            "sources": {"type": "array", "items": {"type": "object"}},
            "routes": {"type": "array", "items": {"type": "object"}},
            "exporters": {"type": "array", "items": {"type": "object"}}}},
        "DeadLetter": {"type": "object", "properties": {
            "route": text(), "sequence": count(), "stage": text(), "code": text(), "error": text(), "key": maybe_text(), "event": text(),
            "waiting": {"type": "boolean"}, "rule": maybe_text(), "parked_at": text(), "record": {"$ref": "#/components/schemas/Event"}}},
        "DeadLetters": list("DeadLetter"),
        "Which": {"type": "object", "additionalProperties": false, "properties": {"sequences": sequences()}},
        "How": {"type": "object", "additionalProperties": false, "properties": {"active_rules": {"type": "boolean"}}},
        "Between": {"type": "object", "additionalProperties": false, "properties": {"from": maybe_count(), "to": maybe_count()}},
        "Released": {"type": "object", "properties": {
            "record": count(), "released": sequences(), "parked_again": sequences(), "skipped": sequences(),
            "blocked": {"type": "array", "items": {"type": "object", "properties": {"sequence": count(), "behind": count()}}},
            "reasons": {"type": "array", "items": {"type": "object", "properties": {
                "sequence": count(), "code": text(), "error": text()}}}}},
        "Paused": {"type": "object", "properties": {"route": text(), "paused": {"type": "boolean"}}},
        "Verified": {"type": "object", "properties": {
            "blocks": count(), "events": count(), "bytes": count(), "head": text(), "bad": {"type": "array", "items": {"type": "object"}}}},
        "Jobs": {"type": "object", "properties": {"jobs": {"type": "array", "items": {"type": "object"}}}},
        "Readiness": {"type": "object", "properties": {"ready": {"type": "boolean"}, "reasons": {"type": "array", "items": text()}}}
    })
}
