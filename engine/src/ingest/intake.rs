//! Push sources: events that come over HTTP or the command line, answered once they are durable (SEMANTICS 1.4).
//!
//! A client may hang up at any moment. Up to the append that means that nothing happened. From the append on the request
//! is settled by a task of its own, which holds its keys until the log has told what became of it.

use std::sync::Arc;

use gravity_log::{Batch, DedupeEntry, DedupeHit, DedupeKey, EventLog, Health};
use gravity_model::{HeaderBuf, Headers};
use hashbrown::HashSet;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ingest::append::{event_of, join_headers};
use crate::ingest::body::{self, Items};
use crate::ingest::digest::digest;
use crate::ingest::envelope::{self, Decoded, EnvelopeOptions, Message, excerpt};
use crate::ingest::gauge::SourceGauge;
use crate::ingest::kept_headers::kept_headers;
use crate::ingest::request::{IntakeAnswer, IntakeError, IntakeRequest, malformed, refused, unavailable};
use crate::ingest::task::DRAIN_WITHIN;
use crate::status::RunState;

/// A larger body is decoded where blocking is allowed.
const DECODED_AT_ONCE: usize = 64 << 10;

/// One push source. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn EventLog>,
    settings: RwLock<Arc<Settings>>,
    gauge: Arc<SourceGauge>,
    /// Keys of requests that are not settled yet.
    running: Mutex<HashSet<DedupeKey>>,
    /// Requests, and the tasks that settle those whose client hung up.
    requests: TaskTracker,
    draining: CancellationToken,
}

/// What a reload may change.
struct Settings {
    envelope: EnvelopeOptions,
    max_batch: usize,
}

/// What a request comes to before anything is written.
enum Prepared {
    /// It was answered before, or holds nothing new.
    Answered(IntakeAnswer),
    Append {
        batch: Batch,
        events: u64,
        duplicates: u64,
        claim: Claim,
    },
    /// The log has to be asked, which may read from disk.
    NeedsDisk,
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
        let (running, requests) = (Mutex::default(), TaskTracker::new());
        let settings = RwLock::new(Arc::new(Settings { envelope, max_batch }));
        Intake { inner: Arc::new(Inner { log, settings, gauge, running, requests, draining }) }
    }

    pub fn source(&self) -> &str {
        &self.inner.gauge.name
    }

    pub fn max_batch(&self) -> usize {
        self.inner.settings.read().max_batch
    }

    /// Takes other settings, for requests that come from now on.
    pub fn renew(&self, envelope: EnvelopeOptions, max_batch: usize) {
        *self.inner.settings.write() = Arc::new(Settings { envelope, max_batch });
    }

    /// Takes a request whole or not at all; ready when its events are durable. When dropped before, the request is either
    /// stored whole or not, and can be asked again under its key.
    pub async fn submit(&self, request: IntakeRequest) -> Result<IntakeAnswer, IntakeError> {
        let inner = &self.inner;
        // Taken before the look at `draining`: who drains waits for every request that did not see it.
        let _running = inner.requests.token();
        if inner.draining.is_cancelled() {
            return Err(IntakeError::Unavailable { reason: "draining before a stop".to_owned() });
        }
        if let Health::WriteFailed { detail } = &*inner.log.health().borrow() {
            return Err(IntakeError::Unavailable { reason: format!("the log cannot write: {detail}") });
        }
        let limit = self.max_batch();
        if request.body.len() > limit {
            return Err(IntakeError::TooLarge { limit });
        }
        let mut prepared = Prepared::NeedsDisk;
        if request.body.len() <= DECODED_AT_ONCE {
            prepared = inner.prepare(&request, false)?;
        }
        if matches!(prepared, Prepared::NeedsDisk) {
            let inner = inner.clone();
            let preparing = tokio::task::spawn_blocking(move || inner.prepare(&request, true));
            prepared = preparing.await.map_err(|error| unavailable(&error))??;
        }
        match prepared {
            Prepared::Answered(answer) => Ok(answer),
            Prepared::Append { batch, events, duplicates, claim } => self.store(batch, events, duplicates, claim).await,
            Prepared::NeedsDisk => unreachable!("asked where blocking is allowed"),
        }
    }

    async fn store(
        &self,
        mut batch: Batch,
        events: u64,
        duplicates: u64,
        claim: Claim,
    ) -> Result<IntakeAnswer, IntakeError> {
        let inner = &self.inner;
        let appended = inner.gauge.append(&*inner.log, &mut batch, events).map_err(refused)?;
        let gauge = inner.gauge.clone();
        let settled = inner.requests.spawn(async move {
            let done = appended.durable().await;
            if done.is_ok() {
                gauge.count_duplicates(duplicates);
            }
            // Only now: whoever asks again finds the keys either here or in the log.
            drop(claim);
            done
        });
        let range = settled.await.map_err(|error| unavailable(&error))?.map_err(refused)?;
        let (first, last) = (Some(range.first.get()), Some(range.last.get()));
        Ok(IntakeAnswer { first, last, duplicates, is_repeat: false })
    }

    /// Waits for the requests that were taken in before draining began, for [`DRAIN_WITHIN`] at most; the log's end then
    /// tells the rest what became of them.
    pub async fn drain(&self) {
        self.inner.requests.close();
        if tokio::time::timeout(DRAIN_WITHIN, self.inner.requests.wait()).await.is_err() {
            tracing::warn!(source = self.source(), "left with requests that are not durable yet");
        }
    }
}

impl Inner {
    /// Everything up to the append.
    fn prepare(self: &Arc<Self>, request: &IntakeRequest, may_block: bool) -> Result<Prepared, IntakeError> {
        let headers = kept_headers(&request.headers);
        let settings = self.settings.read().clone();
        let events = self.decode(&settings.envelope, request, headers.as_headers())?;
        let keys = self.keys(request, &events)?;
        if !keys.is_empty() && !may_block {
            return Ok(Prepared::NeedsDisk);
        }
        let claim = Claim::hold(self.clone(), &keys)?;
        let known =
            if keys.is_empty() { Vec::new() } else { self.log.dedupe(&claim.keys).map_err(|e| unavailable(&e))? };
        if let Some(answer) = self.first_answer(&keys, &known, events.len())? {
            return Ok(Prepared::Answered(answer));
        }
        let mut is_duplicate = vec![false; events.len()];
        for (key, hit) in keys.iter().zip(&known) {
            let (Some(index), Some(hit)) = (key.event, hit) else { continue };
            if hit.body != key.entry.body {
                return Err(IntakeError::Conflict { what: key.what.clone() });
            }
            is_duplicate[index] = true;
        }
        let mut batch = Batch::new();
        let received = crate::clock::now();
        let mut stored_index = vec![None; events.len()];
        for (index, event) in events.iter().enumerate().filter(|(index, _)| !is_duplicate[*index]) {
            stored_index[index] = Some(batch.len() as u32);
            let joined = join_headers(headers.as_headers(), &event.extra);
            let headers = joined.as_ref().unwrap_or(&headers).as_headers();
            batch.push(&event_of(&event.decoded, &self.gauge.name, headers, received));
        }
        let stored = batch.len() as u32;
        let duplicates = events.len() as u64 - u64::from(stored);
        for key in &keys {
            let place = match key.event {
                Some(index) => stored_index[index].map(|at| (at, 1)),
                None => (stored > 0).then_some((0, stored)),
            };
            if let Some((event, count)) = place {
                batch.remember(DedupeEntry { event, count, ..key.entry });
            }
        }
        if batch.is_empty() {
            self.gauge.count_duplicates(duplicates);
            let answer = IntakeAnswer { first: None, last: None, duplicates, is_repeat: false };
            return Ok(Prepared::Answered(answer));
        }
        Ok(Prepared::Append { batch, events: u64::from(stored), duplicates, claim })
    }

    fn decode<'r>(
        &'r self,
        options: &EnvelopeOptions,
        request: &'r IntakeRequest,
        headers: Headers<'r>,
    ) -> Result<Vec<Taken<'r>>, IntakeError> {
        let items = body::split(request.content_type.as_deref(), headers, &request.body)?;
        let Items { items, content_type } = items;
        let mut taken = Vec::with_capacity(items.len());
        for item in items {
            let message = Message {
                payload: Some(item.bytes),
                key: None,
                headers,
                subject: &self.gauge.name,
                time: None,
                content_type,
                after_delete: None,
            };
            let mut extra = HeaderBuf::new();
            let decoded = envelope::decode(options, &message, &mut extra)
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
                key: dedupe_key(&[b"request", self.gauge.name.as_bytes(), value.as_bytes()]),
                body: digest(&[&request.body]),
                event: 0,
                count: 0,
            };
            keys.push(RequestKey { entry, event: None, what: format!("Idempotency-Key {:?}", excerpt(value)) });
        }
        let mut seen = HashSet::new();
        for (index, event) in events.iter().enumerate() {
            let Some(id) = &event.decoded.id else { continue };
            let scope = event.decoded.id_scope.as_deref().unwrap_or_default();
            let key = dedupe_key(&[b"id", self.gauge.name.as_bytes(), scope.as_bytes(), id.as_bytes()]);
            if !seen.insert(key) {
                return Err(IntakeError::DuplicateId { id: excerpt(id).into_owned() });
            }
            let payload = event.decoded.payload.as_deref().unwrap_or_default();
            let entry =
                DedupeEntry { key, body: digest(&[event.decoded.name.as_bytes(), payload]), event: 0, count: 0 };
            keys.push(RequestKey { entry, event: Some(index), what: format!("id {:?}", excerpt(id)) });
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
        self.gauge.count_duplicates(events as u64);
        let (first, count) = (hit.first.get(), u64::from(hit.count));
        let duplicates = (events as u64).saturating_sub(count);
        let last = Some(first + count - 1);
        Ok(Some(IntakeAnswer { first: Some(first), last, duplicates, is_repeat: true }))
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

/// Keys held until a request is settled; given back when dropped.
struct Claim {
    intake: Arc<Inner>,
    keys: Vec<DedupeKey>,
}

impl Claim {
    fn hold(intake: Arc<Inner>, keys: &[RequestKey]) -> Result<Claim, IntakeError> {
        let keys = {
            let mut running = intake.running.lock();
            if let Some(taken) = keys.iter().find(|k| running.contains(&k.entry.key)) {
                return Err(IntakeError::InProgress { what: taken.what.clone() });
            }
            let keys: Vec<DedupeKey> = keys.iter().map(|k| k.entry.key).collect();
            running.extend(&keys);
            keys
        };
        Ok(Claim { intake, keys })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut running = self.intake.running.lock();
        self.keys.iter().for_each(|key| {
            running.remove(key);
        });
    }
}

fn dedupe_key(parts: &[&[u8]]) -> DedupeKey {
    DedupeKey(digest(parts))
}
