//! Who is told: an HTTP server inside the process that counts messages, notices repetitions, and looks into the view whether
//! the row that it is told of is there (P7).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::rows::Payments;
use crate::cli::exit::Failure;

/// Every so many messages the row is looked up; each one would measure the look-up instead of the chain.
const LOOK_UP_EVERY: u64 = 25;

/// Counts of what arrived.
#[derive(Clone)]
pub struct Told {
    messages: Arc<AtomicU64>,
    repeated: Arc<AtomicU64>,
    looked_up: Arc<AtomicU64>,
    missing: Arc<AtomicU64>,
    /// Ids seen; a demo is small enough to remember them all.
    ids: Arc<Mutex<HashSet<u128>>>,
    database: Arc<PathBuf>,
    view: Arc<Mutex<Option<Payments>>>,
}

/// The part of a payment that names its row.
#[derive(Deserialize)]
struct Payment {
    id: i64,
}

impl Told {
    fn new(database: PathBuf) -> Told {
        Told {
            messages: Arc::default(),
            repeated: Arc::default(),
            looked_up: Arc::default(),
            missing: Arc::default(),
            ids: Arc::default(),
            database: Arc::new(database),
            view: Arc::default(),
        }
    }

    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Messages whose row was looked up when they arrived.
    pub fn looked_up(&self) -> u64 {
        self.looked_up.load(Ordering::Relaxed)
    }

    /// Of these, those whose row was not there: always 0, or P7 is broken.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    async fn take(State(told): State<Told>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let id = headers.get("ce-id").and_then(|id| uuid::Uuid::parse_str(id.to_str().ok()?).ok());
        let Some(id) = id else { return StatusCode::BAD_REQUEST };
        if !told.ids.lock().await.insert(id.as_u128()) {
            told.repeated.fetch_add(1, Ordering::Relaxed);
            return StatusCode::NO_CONTENT;
        }
        if told.messages.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_UP_EVERY) {
            match told.has_row(&body).await {
                Ok(there) => {
                    told.looked_up.fetch_add(1, Ordering::Relaxed);
                    told.missing.fetch_add(u64::from(!there), Ordering::Relaxed);
                }
                Err(failure) => failure.print(),
            }
        }
        StatusCode::NO_CONTENT
    }

    async fn has_row(&self, body: &[u8]) -> Result<bool, Failure> {
        let payment: Payment =
            serde_json::from_slice(body).map_err(|error| Failure::failed("a message is no payment").because(&error))?;
        let mut view = self.view.lock().await;
        let payments = match view.take() {
            Some(payments) => view.insert(payments),
            None => view.insert(Payments::open(&self.database).await?),
        };
        payments.has(payment.id).await
    }
}

/// Listens on a free port of loopback until `servers` is dropped. `database` is looked into once messages arrive.
pub async fn listen(
    servers: &mut JoinSet<std::io::Result<()>>,
    database: PathBuf,
) -> Result<(Told, SocketAddr), Failure> {
    let cannot = |error: std::io::Error| Failure::failed("the demo's own target cannot listen").because(&error);
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.map_err(cannot)?;
    let address = tcp.local_addr().map_err(cannot)?;
    let told = Told::new(database);
    let router = Router::new().route("/told", post(Told::take)).with_state(told.clone());
    servers.spawn(async move { axum::serve(tcp, router).await });
    Ok((told, address))
}
