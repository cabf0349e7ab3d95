//! `/healthz`, `/readyz`, `/metrics`, `/`: what machines and lost people ask first.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use gravity_engine::status::Readiness;

use super::auth::Caller;
use super::{Api, Problem, metrics};

/// 200 while the process works: no database is asked.
pub async fn health() -> Response {
    text("ok\n")
}

/// 503 only while recovering or draining. What is wrong although ready stands in the body.
pub async fn ready(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Response {
    let mut readiness = match api.engine() {
        Ok(engine) => engine.readiness(),
        Err(_) => Readiness { ready: false, reasons: vec!["recovering".to_owned()] },
    };
    if !caller.is_known {
        // A stranger learns which part is in trouble, not the peer's words.
        for reason in &mut readiness.reasons {
            if let Some((part, _)) = reason.split_once(':') {
                *reason = part.to_owned();
            }
        }
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

pub async fn prometheus(State(api): State<Api>) -> Result<Response, Problem> {
    let page = metrics::page(&api.status().await?, &api.budget);
    let mut response = text(page);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// There is no console yet; this says where things are.
pub async fn front() -> Response {
    text(concat!(
        "Gravity ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "/v1/status     sources, log, routes, exporters (also: gravity status)\n",
        "/v1/dlq        dead letters\n",
        "/v1/events     publish with POST, read with GET\n",
        "/metrics       Prometheus\n",
        "/healthz       the process works\n",
        "/readyz        and has recovered\n",
        "/openapi.json  every call\n"
    ))
}

fn text(body: impl Into<String>) -> Response {
    let mut response = body.into().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
