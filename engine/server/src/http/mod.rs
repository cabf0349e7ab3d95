//! The HTTP API (INTERFACE 3): who may call what is one table, refusals are problem documents, nothing else is served.

mod auth;
mod body;
mod events;
mod inventory;
mod metrics;
mod openapi;
mod operate;
mod probe;
mod problem;
mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use gravity_engine::status::Status;
use gravity_engine::{ApiError, Engine};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Settings, TokenEntry, codes};
use auth::{Callers, Permission};

pub use events::IDEMPOTENT_REPLAYED;
pub use problem::Problem;
pub use tls::TlsError;

/// What every handler sees.
#[derive(Clone)]
pub struct Api {
    /// Empty while the log is being opened.
    engine: Arc<OnceLock<Engine>>,
    callers: Arc<Callers>,
    budget: body::Budget,
}

impl Api {
    /// `largest_body` in bytes: the greatest `max_batch` of the sources.
    pub fn new(tokens: &[TokenEntry], largest_body: usize) -> Api {
        Api { engine: Arc::default(), callers: Arc::new(Callers::new(tokens)), budget: body::Budget::new(largest_body) }
    }

    /// From here on calls are answered.
    pub fn set_engine(&self, engine: Engine) {
        if self.engine.set(engine).is_err() {
            tracing::error!("the engine was started twice");
        }
    }

    fn engine(&self) -> Result<Engine, Problem> {
        self.engine.get().cloned().ok_or_else(|| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, codes::STARTING, "recovering: the log is being opened")
        })
    }

    /// The engine's status; it may take a look at the disk.
    async fn status(&self) -> Result<Status, Problem> {
        let engine = self.engine()?;
        let read = tokio::task::spawn_blocking(move || engine.status()).await;
        read.map_err(|_| ApiError::Gone.into())
    }

    /// The router of the inventory.
    pub fn router(&self) -> Router {
        let mut paths: BTreeMap<&'static str, MethodRouter<Api>> = BTreeMap::new();
        for call in inventory::calls() {
            let guarded = call.handler.route_layer(from_fn_with_state((self.clone(), call.permission), guard));
            let before = paths.remove(call.path);
            paths.insert(call.path, before.unwrap_or_default().merge(guarded));
        }
        let mut router = Router::new();
        for (path, methods) in paths {
            router = router.route(path, methods);
        }
        router
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn(safe_headers))
            .with_state(self.clone())
    }
}

/// Admits or refuses a caller before the handler sees the request.
async fn guard(
    State((api, permission)): State<(Api, Permission)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = api.callers.admit(permission, request.headers(), request.uri())?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn unknown(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        codes::NOT_FOUND,
        format!("there is no {:?} here; see /openapi.json", uri.path()),
    )
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!("{} is not for {}; see /openapi.json", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, codes::METHOD_NOT_ALLOWED, detail)
}

/// Nothing that is answered may be run, framed, guessed or kept by a browser (T13). Refused parameters of a path, which the
/// framework words as plain text, become problem documents here.
async fn safe_headers(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let plain_refusal = response.status().is_client_error()
        && response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/problem+json");
    let mut response = if plain_refusal {
        let (status, allow) = (response.status(), response.headers().get(header::ALLOW).cloned());
        let detail = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
        let detail = String::from_utf8_lossy(&detail).into_owned();
        let mut response = Problem::new(status, codes::BAD_REQUEST, detail).into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    } else {
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

/// Reads the query; misspelt parameters are refused.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Query::try_from_uri(uri).map(|Query(value)| value).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, format!("the query: {}", error.body_text()))
    })
}

/// Why the API cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A bound address that does not answer yet.
pub struct Bound {
    tcp: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Where it listens; the port is real even where port 0 was asked for.
    pub address: SocketAddr,
}

impl Bound {
    /// Binds first, so that an occupied port is known before the log is opened.
    pub async fn new(settings: &Settings) -> Result<Bound, ServeError> {
        let address = settings.listen();
        let tcp = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        Bound::on(tcp, settings)
    }

    /// For a port that is held already.
    pub fn on(tcp: TcpListener, settings: &Settings) -> Result<Bound, ServeError> {
        let tls = settings.tls().map(|files| tls::server_config(&files)).transpose()?;
        let wanted = settings.listen();
        let address = tcp.local_addr().map_err(|source| ServeError::Listen { address: wanted, source })?;
        Ok(Bound { tcp, tls, address })
    }

    /// `http://127.0.0.1:7420`
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Answers calls until `stop`, then lets those under way end.
    pub async fn serve(self, api: Api, stop: CancellationToken) -> io::Result<()> {
        let router = api.router();
        let stopped = async move { stop.cancelled().await };
        match self.tls {
            Some(config) => {
                let listener = tls::TlsListener::new(self.tcp, config);
                axum::serve(listener, router).with_graceful_shutdown(stopped).await
            }
            None => axum::serve(self.tcp, router).with_graceful_shutdown(stopped).await,
        }
    }
}

#[cfg(test)]
mod tests;
