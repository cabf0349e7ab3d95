//! Reads request bodies within bounds: each by its own limit, all together by one budget, none for ever (T14).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use gravity_engine::IntakeError;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::config::codes;

/// Bytes of bodies under way, all requests together. Beyond it: 429.
const BUDGET_BYTES: u64 = 64 << 20;

/// The budget is counted in pieces of this size.
const PIECE: usize = 16 << 10;

/// A body must be here within this time.
const WITHIN: Duration = Duration::from_secs(60);

/// Largest body of a call that is no event.
const SMALL: usize = 1 << 20;

/// What all bodies under way share.
#[derive(Clone)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// Room for at least one body of `largest` bytes.
    pub fn new(largest: usize) -> Budget {
        let bytes = BUDGET_BYTES.max(2 * largest as u64);
        Budget(Arc::new(Semaphore::new((bytes as usize).div_ceil(PIECE))))
    }

    pub fn bytes(&self) -> u64 {
        (self.0.available_permits() * PIECE) as u64
    }

    /// Reads a body of at most `limit` bytes. The permit gives the bytes back when it is dropped: hold it until the body is
    /// done with.
    pub async fn read(&self, headers: &HeaderMap, body: Body, limit: usize) -> Result<(Bytes, Held), Problem> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(IntakeError::TooLarge { limit }.into());
        }
        let slow = |_| {
            let detail = format!("the body did not arrive within {} s", WITHIN.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, codes::SLOW_BODY, detail)
        };
        tokio::time::timeout(WITHIN, self.gather(body, limit)).await.map_err(slow)?
    }

    /// Takes room as bytes arrive and never waits for it: two bodies that wait for each other's room would wait for ever.
    async fn gather(&self, body: Body, limit: usize) -> Result<(Bytes, Held), Problem> {
        let mut frames = body.into_data_stream();
        let (mut gathered, mut held) = (BytesMut::new(), Held(Vec::new()));
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| {
                Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, format!("the body broke off: {error}"))
            })?;
            if gathered.len() + frame.len() > limit {
                return Err(IntakeError::TooLarge { limit }.into());
            }
            let missing = (gathered.len() + frame.len()).div_ceil(PIECE).saturating_sub(held.pieces());
            if missing > 0 {
                let permit = self.0.clone().try_acquire_many_owned(missing as u32).map_err(|_| IntakeError::Busy)?;
                held.0.push(permit);
            }
            gathered.extend_from_slice(&frame);
        }
        Ok((gathered.freeze(), held))
    }
}

/// Room of the budget that a body takes.
pub struct Held(Vec<OwnedSemaphorePermit>);

impl Held {
    fn pieces(&self) -> usize {
        self.0.iter().map(OwnedSemaphorePermit::num_permits).sum()
    }
}

/// Reads a small JSON object; an empty body is `{}`. Unknown members are refused.
pub async fn json<T: DeserializeOwned>(budget: &Budget, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let (bytes, _held) = budget.read(headers, body, SMALL).await?;
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) { Bytes::from_static(b"{}") } else { bytes };
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, codes::BAD_REQUEST, format!("the body: {error}")))
}
