//! Push sources: events that come over HTTP or the command line, answered once they are durable (SEMANTICS 1.4).

use std::sync::Arc;

use bytes::Bytes;
use gravity_log::{Batch, DedupeEntry, DedupeHit, DedupeKey, EventLog, Health, LogError};
use gravity_model::{Event, HeaderBuf, Headers};
use hashbrown::HashSet;
use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::ingest::body::{self, Items};
use crate::ingest::envelope::{self, Decoded, EnvelopeOptions, Message, Undecodable};
use crate::ingest::gauge::SourceGauge;
use crate::ingest::task::join_headers;
use crate::status::RunState;

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct IntakeRequest {
    pub content_type: Option<String>,
    /// Names in lower case. `idempotency-key`, `traceparent` and CloudEvents attributes have a meaning; those and any that
    /// begin with `ce-` or `x-` are kept with the event.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// First and last sequence of what was stored, nulls when all were duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IntakeAnswer {
    pub first: Option<u64>,
    pub last: Option<u64>,
    pub duplicates: u64,
}

/// Why nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    #[error("line {line}, column {column}: {detail}")]
    Malformed { line: usize, column: usize, code: &'static str, detail: String },
    #[error("the id {id:?} stands twice in one request")]
    DuplicateId { id: String },
    #[error("{what} was used before with another body")]
    Conflict { what: String },
    #[error("a request with {what} is still running")]
    InProgress { what: String },
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(
        "content type {found:?} is not read here; allowed: application/json, application/x-ndjson, \
         application/cloudevents+json, application/cloudevents-batch+json, or a binary CloudEvent"
    )]
    UnsupportedMedia { found: String },
    #[error("more events wait for the disk than the log holds; try again")]
    Busy,
    #[error("{reason}")]
    Unavailable { reason: String },
}

impl IntakeError {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            IntakeError::Malformed { .. } | IntakeError::DuplicateId { .. } => 400,
            IntakeError::InProgress { .. } => 409,
            IntakeError::TooLarge { .. } => 413,
            IntakeError::UnsupportedMedia { .. } => 415,
            IntakeError::Conflict { .. } => 422,
            IntakeError::Busy => 429,
            IntakeError::Unavailable { .. } => 503,
        }
    }

    /// Stable code; has a page under docs/errors.
    pub fn code(&self) -> &'static str {
        match self {
            IntakeError::Malformed { code, .. } => code,
            IntakeError::DuplicateId { .. } => "intake/duplicate-id",
            IntakeError::Conflict { .. } => "intake/other-body",
            IntakeError::InProgress { .. } => "intake/in-progress",
            IntakeError::TooLarge { .. } => "intake/too-large",
            IntakeError::UnsupportedMedia { .. } => "intake/media-type",
            IntakeError::Busy => "intake/busy",
            IntakeError::Unavailable { .. } => "intake/unavailable",
        }
    }
}

/// One push source. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn EventLog>,
    envelope: EnvelopeOptions,
    max_batch: usize,
    gauge: Arc<SourceGauge>,
    /// Keys of requests that are not answered yet. Also the lock under which appends and counters keep step.
    running: Mutex<HashSet<DedupeKey>>,
    draining: CancellationToken,
}

impl Intake {
    pub fn new(
        log: Arc<dyn EventLog>,
        envelope: EnvelopeOptions,
        max_batch: usize,
        gauge: Arc<SourceGauge>,
        draining: CancellationToken,
    ) -> Intake {
        gauge.set_state(RunState::Running, None);
        Intake { inner: Arc::new(Inner { log, envelope, max_batch, gauge, running: Mutex::default(), draining }) }
    }

    pub fn source(&self) -> &str {
        &self.inner.gauge.name
    }

    pub fn max_batch(&self) -> usize {
        self.inner.max_batch
    }

    /// Takes a request whole or not at all; ready when its events are durable.
    pub async fn submit(&self, request: IntakeRequest) -> Result<IntakeAnswer, IntakeError> {
        let inner = &*self.inner;
        if inner.draining.is_cancelled() {
            return Err(IntakeError::Unavailable { reason: "draining before a stop".to_owned() });
        }
        if let Health::WriteFailed { detail } = &*inner.log.health().borrow() {
            return Err(IntakeError::Unavailable { reason: format!("the log cannot write: {detail}") });
        }
        if request.body.len() > inner.max_batch {
            return Err(IntakeError::TooLarge { limit: inner.max_batch });
        }
        let headers = kept_headers(&request);
        let events = self.decode(&request, headers.as_headers())?;
        let keys = self.keys(&request, &events)?;
        let claim = Claim::hold(inner, &keys)?;
        let known = if keys.is_empty() {
            Vec::new()
        } else {
            let (log, wanted) = (inner.log.clone(), claim.keys.clone());
            let found = tokio::task::spawn_blocking(move || log.dedupe(&wanted)).await;
            found.map_err(|error| unavailable(&error))?.map_err(|error| unavailable(&error))?
        };
        if let Some(answer) = self.first_answer(&keys, &known, events.len())? {
            return Ok(answer);
        }
        let mut batch = Batch::new();
        let mut stored_index = vec![None; events.len()];
        let mut duplicates = 0;
        for (index, event) in events.iter().enumerate() {
            let hit = keys
                .iter()
                .zip(&known)
                .find(|(key, _)| key.event == Some(index))
                .and_then(|(k, hit)| Some((k, (*hit)?)));
            if let Some((key, hit)) = hit {
                if hit.body != key.entry.body {
                    return Err(IntakeError::Conflict { what: key.what.clone() });
                }
                duplicates += 1;
                continue;
            }
            stored_index[index] = Some(batch.len() as u32);
            push(&mut batch, &inner.gauge.name, event, headers.as_headers());
        }
        let stored = batch.len() as u32;
        for key in &keys {
            let place = match key.event {
                Some(index) => stored_index[index].map(|at| (at, 1)),
                None => (stored > 0).then_some((0, stored)),
            };
            if let Some((event, count)) = place {
                batch.remember(DedupeEntry { event, count, ..key.entry });
            }
        }
        let received = events.len() as u64;
        if batch.is_empty() {
            inner.gauge.count(received, duplicates);
            return Ok(IntakeAnswer { first: None, last: None, duplicates });
        }
        let ticket = {
            let _step = inner.running.lock();
            let ticket = inner.log.append(&mut batch).map_err(refused)?;
            inner.gauge.count(received, duplicates);
            ticket
        };
        match ticket.durable().await {
            Ok(range) => {
                let (first, last) = (Some(range.first.get()), Some(range.last.get()));
                Ok(IntakeAnswer { first, last, duplicates })
            }
            Err(error) => {
                inner.gauge.uncount(received);
                Err(refused(error))
            }
        }
    }

    /// Notes the counters in the log; called once a second.
    pub fn note_counters(&self) {
        let _step = self.inner.running.lock();
        let mut batch = Batch::new();
        self.inner.gauge.note(&mut batch);
        if !batch.is_empty()
            && let Err(error) = self.inner.log.append_lazy(batch)
        {
            tracing::debug!(source = self.source(), %error, "counters not noted");
        }
    }

    fn decode<'r>(&'r self, request: &'r IntakeRequest, headers: Headers<'r>) -> Result<Vec<Taken<'r>>, IntakeError> {
        let items = body::split(request.content_type.as_deref(), headers, &request.body)?;
        let Items { items, content_type } = items;
        let mut taken = Vec::with_capacity(items.len());
        for item in items {
            let message = Message {
                payload: Some(item.bytes),
                key: None,
                headers,
                subject: self.source(),
                time: None,
                content_type,
            };
            let mut extra = HeaderBuf::new();
            let decoded = envelope::decode(&self.inner.envelope, &message, &mut extra)
                .map_err(|why| malformed(&why, item.line, item.column))?;
            taken.push(Taken { decoded, extra });
        }
        Ok(taken)
    }

    /// What the request promises to be in the log once: its idempotency key, and the events' ids.
    fn keys(&self, request: &IntakeRequest, events: &[Taken<'_>]) -> Result<Vec<RequestKey>, IntakeError> {
        let mut keys = Vec::new();
        if let Some((_, value)) = request.headers.iter().find(|(name, _)| name == "idempotency-key") {
            let entry = DedupeEntry {
                key: dedupe_key(&[b"request", self.source().as_bytes(), value.as_bytes()]),
                body: digest(&[&request.body]),
                event: 0,
                count: 0,
            };
            keys.push(RequestKey { entry, event: None, what: format!("Idempotency-Key {value:?}") });
        }
        let mut seen = HashSet::new();
        for (index, event) in events.iter().enumerate() {
            let Some(id) = &event.decoded.id else { continue };
            let scope = event.decoded.id_scope.as_deref().unwrap_or_default();
            let key = dedupe_key(&[b"id", self.source().as_bytes(), scope.as_bytes(), id.as_bytes()]);
            if !seen.insert(key) {
                return Err(IntakeError::DuplicateId { id: id.to_string() });
            }
            let payload = event.decoded.payload.as_deref().unwrap_or_default();
            let entry =
                DedupeEntry { key, body: digest(&[event.decoded.name.as_bytes(), payload]), event: 0, count: 0 };
            keys.push(RequestKey { entry, event: Some(index), what: format!("id {id:?}") });
        }
        Ok(keys)
    }

    /// The answer that a repeated idempotency key had the first time.
    fn first_answer(
        &self,
        keys: &[RequestKey],
        known: &[Option<DedupeHit>],
        events: usize,
    ) -> Result<Option<IntakeAnswer>, IntakeError> {
        let (Some(key), Some(Some(hit))) = (keys.first(), known.first()) else { return Ok(None) };
        if key.event.is_some() {
            return Ok(None);
        }
        if hit.body != key.entry.body {
            return Err(IntakeError::Conflict { what: key.what.clone() });
        }
        self.inner.gauge.count(events as u64, events as u64);
        let (first, count) = (hit.first.get(), u64::from(hit.count));
        let duplicates = (events as u64).saturating_sub(count);
        Ok(Some(IntakeAnswer { first: Some(first), last: Some(first + count - 1), duplicates }))
    }
}

struct Taken<'r> {
    decoded: Decoded<'r>,
    extra: HeaderBuf,
}

struct RequestKey {
    entry: DedupeEntry,
    /// Index of the event whose id it is; `None` for the request's own key.
    event: Option<usize>,
    /// For messages.
    what: String,
}

/// Keys held while a request runs; given back when dropped.
struct Claim<'i> {
    inner: &'i Inner,
    keys: Vec<DedupeKey>,
}

impl<'i> Claim<'i> {
    fn hold(inner: &'i Inner, keys: &[RequestKey]) -> Result<Claim<'i>, IntakeError> {
        let mut running = inner.running.lock();
        if let Some(taken) = keys.iter().find(|k| running.contains(&k.entry.key)) {
            return Err(IntakeError::InProgress { what: taken.what.clone() });
        }
        let keys: Vec<DedupeKey> = keys.iter().map(|k| k.entry.key).collect();
        running.extend(&keys);
        Ok(Claim { inner, keys })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock();
        self.keys.iter().for_each(|key| {
            running.remove(key);
        });
    }
}

fn push(batch: &mut Batch, source: &str, taken: &Taken<'_>, headers: Headers<'_>) {
    let decoded = &taken.decoded;
    let joined = join_headers(headers, &taken.extra);
    batch.push(&Event {
        id: decoded.id.as_deref(),
        key: decoded.key.as_deref(),
        time: decoded.time,
        received: crate::clock::now(),
        traceparent: decoded.traceparent.as_deref(),
        headers: joined.as_ref().map_or(headers, HeaderBuf::as_headers),
        payload: decoded.payload.as_deref(),
        ..Event::data(&decoded.name, source, b"")
    });
}

/// Transport headers are noise in a log that is kept for ever; those that speak of the event stay.
fn kept_headers(request: &IntakeRequest) -> HeaderBuf {
    let mut kept = HeaderBuf::new();
    for (name, value) in &request.headers {
        if name.starts_with("ce-") || name.starts_with("x-") || matches!(name.as_str(), "traceparent" | "tracestate") {
            kept.push(name, value.as_bytes());
        }
    }
    kept
}

fn dedupe_key(parts: &[&[u8]]) -> DedupeKey {
    DedupeKey(digest(parts))
}

/// BLAKE3-128 over length-prefixed parts.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

fn malformed(why: &Undecodable, line: usize, column: usize) -> IntakeError {
    // A place inside the item counts from the item's own start.
    let (line, column) = match why.at {
        Some((1, inner)) => (line, column + inner.saturating_sub(1)),
        Some((inner_line, inner)) => (line + inner_line - 1, inner),
        None => (line, column),
    };
    IntakeError::Malformed { line, column, code: why.code, detail: why.detail.clone() }
}

fn refused(error: LogError) -> IntakeError {
    match error {
        LogError::Busy => IntakeError::Busy,
        LogError::TooLarge { limit, .. } => IntakeError::TooLarge { limit },
        other => unavailable(&other),
    }
}

fn unavailable(error: &impl std::fmt::Display) -> IntakeError {
    IntakeError::Unavailable { reason: error.to_string() }
}
