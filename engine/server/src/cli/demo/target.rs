//! Who is told: an HTTP server inside the process that counts messages and notices repetitions.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::cli::exit::Failure;

/// Counts of what arrived.
#[derive(Clone, Default)]
pub struct Told {
    messages: Arc<AtomicU64>,
    repeated: Arc<AtomicU64>,
    /// Ids seen; a demo is small enough to remember them all.
    ids: Arc<Mutex<HashSet<u128>>>,
}

impl Told {
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    async fn take(State(told): State<Told>, headers: HeaderMap) -> StatusCode {
        let id = headers.get("ce-id").and_then(|id| uuid::Uuid::parse_str(id.to_str().ok()?).ok());
        let Some(id) = id else { return StatusCode::BAD_REQUEST };
        if told.ids.lock().await.insert(id.as_u128()) {
            told.messages.fetch_add(1, Ordering::Relaxed);
        } else {
            told.repeated.fetch_add(1, Ordering::Relaxed);
        }
        StatusCode::NO_CONTENT
    }
}

/// Listens on a free port of loopback until `servers` is dropped.
pub async fn listen(servers: &mut JoinSet<std::io::Result<()>>) -> Result<(Told, SocketAddr), Failure> {
    let cannot = |error: std::io::Error| Failure::failed("the demo's own target cannot listen").because(&error);
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.map_err(cannot)?;
    let address = tcp.local_addr().map_err(cannot)?;
    let told = Told::default();
    let router = Router::new().route("/told", post(Told::take)).with_state(told.clone());
    servers.spawn(async move { axum::serve(tcp, router).await });
    Ok((told, address))
}
