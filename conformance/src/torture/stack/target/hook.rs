//! The HTTP endpoint of a run: records everything, answers some with an error although it has taken them, some late.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;

use super::{Received, read};
use crate::torture::random::Random;

pub struct Hook {
    pub received: Arc<Mutex<Received>>,
    pub url: String,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct HookState {
    received: Arc<Mutex<Received>>,
    random: Arc<Mutex<Random>>,
}

impl Hook {
    pub async fn start(seed: u64) -> Result<Hook, String> {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("the endpoint: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("the endpoint: {error}"))?;
        let received = Arc::new(Mutex::new(Received::default()));
        let state = HookState { received: received.clone(), random: Arc::new(Mutex::new(Random::new(seed))) };
        let router = Router::new().route("/hook", post(take)).with_state(state);
        let server = tokio::spawn(async move {
            // Ends with the run; an endpoint that fails shows as messages that are missing.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Hook { received, url: format!("http://{address}/hook"), server })
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(state): State<HookState>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(format!("ce-{name}")).and_then(|v| v.to_str().ok()).map(str::to_owned);
    state.received.lock().take(read(header, &body));
    let mood = state.random.lock().below(500);
    match mood {
        // Taken, but the sender does not learn it: it has to come again under the same id.
        0 => StatusCode::SERVICE_UNAVAILABLE,
        1 => StatusCode::INTERNAL_SERVER_ERROR,
        2 => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            StatusCode::OK
        }
        _ => StatusCode::NO_CONTENT,
    }
}
