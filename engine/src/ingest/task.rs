//! The one loop that serves all pull sources (Protocol A): receive, decode, append, and acknowledge what is durable.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gravity_log::{Batch, EventLog, Health, LogError, SequenceRange};
use gravity_model::port::source::{AckToken, BatchLimits, Position, Source, SourceBatch, SourceRecord, Start};
use gravity_model::{Event, EventKind, Fault, HeaderBuf, Headers, Policy, Sequence};
use tokio_util::sync::CancellationToken;

use crate::control::Parked;
use crate::ingest::book::Book;
use crate::ingest::envelope::{self, EnvelopeOptions, Message, Undecodable};
use crate::ingest::gauge::SourceGauge;
use crate::ingest::letters::IngestLetters;
use crate::status::RunState;
use crate::supervise::BackOff;

/// An append is closed at this size, so that it fits one block of the log and its positions go with its events.
const APPEND_BYTES: usize = 256 << 10;
/// Batches of a source that may wait for the disk at the same time.
const IN_FLIGHT: usize = 16;
/// Counters are noted at most this often.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Positions that moved without a record are noted at most this often: an idle engine appends next to nothing.
const NOTE_PASSED_EVERY: Duration = Duration::from_secs(60);
/// Above this a payload is kept as its first bytes only (fault S12).
const LARGEST_PAYLOAD: usize = 32 << 20;
const KEPT_OF_TOO_LARGE: usize = 4 << 10;

const LIMITS: BatchLimits =
    BatchLimits { max_records: 8_192, max_bytes: 1 << 20, max_wait: Duration::from_millis(500) };

/// A pull source and what its loop needs.
pub struct SourceTask {
    pub source: Box<dyn Source>,
    pub setup: SourceSetup,
}

/// Everything but the connection.
pub struct SourceSetup {
    pub log: Arc<dyn EventLog>,
    pub envelope: EnvelopeOptions,
    pub start: Start,
    pub gauge: Arc<SourceGauge>,
    pub letters: Arc<IngestLetters>,
    pub stop_at_end: bool,
    pub cancel: CancellationToken,
}

type Pending = Pin<Box<dyn Future<Output = Result<SequenceRange, LogError>> + Send>>;

/// Appends that are not durable yet, oldest first.
struct InFlight {
    queue: VecDeque<Waiting>,
}

struct Waiting {
    pending: Pending,
    /// Set on the last append of a source batch.
    token: Option<AckToken>,
    received: u64,
    /// Dead letters that exist once the append is durable.
    letters: Vec<(Sequence, String, Parked)>,
}

/// Why the pump ended.
enum Ended {
    Cancelled,
    AtEnd,
    /// The log could not write; nothing in flight is stored.
    LogFailed,
}

impl SourceTask {
    /// Runs until cancelled, at the end with `stop_at_end`, or stopped by a fault that needs an operator.
    pub async fn run(self) {
        let SourceTask { mut source, setup } = self;
        let (gauge, log) = (setup.gauge.clone(), setup.log.clone());
        let book = Arc::new(Book::of(&gauge.name, &*log));
        let mut back_off = BackOff::new();
        loop {
            let ended = match source.connect(book.clone(), setup.start).await {
                Ok(()) => setup.pump(&mut *source, &book, &mut back_off).await,
                Err(fault) => Err(fault),
            };
            match ended {
                Ok(Ended::Cancelled) => break gauge.set_state(RunState::Ended, None),
                Ok(Ended::AtEnd) => {
                    gauge.set_at_end();
                    break gauge.set_state(RunState::Ended, None);
                }
                Ok(Ended::LogFailed) => {
                    source.close().await;
                    gauge.set_state(RunState::Degraded, Some("the log cannot write; intake waits".to_owned()));
                    if !setup.log_runs_again().await {
                        break;
                    }
                    book.reset(&*log);
                    continue;
                }
                Err(fault) => {
                    source.close().await;
                    book.reset(&*log);
                    let stopped = !matches!(fault.policy(), Policy::BackOff);
                    let state = if stopped { RunState::Stopped } else { RunState::Degraded };
                    tracing::warn!(source = %gauge.name, error = %fault, ?state, "source failed");
                    gauge.set_state(state, Some(fault.to_string()));
                    if matches!(fault.policy(), Policy::Stop) {
                        break setup.cancel.cancelled().await;
                    }
                }
            }
            if !back_off.wait(&setup.cancel, None).await {
                break;
            }
        }
        source.close().await;
    }
}

impl SourceSetup {
    /// Waits until the log takes appends again; false when cancelled.
    async fn log_runs_again(&self) -> bool {
        let mut health = self.log.health();
        tokio::select! {
            () = self.cancel.cancelled() => false,
            running = health.wait_for(|h| *h == Health::Running) => running.is_ok(),
        }
    }

    async fn pump(&self, source: &mut dyn Source, book: &Arc<Book>, back_off: &mut BackOff) -> Result<Ended, Fault> {
        self.gauge.set_state(RunState::Running, None);
        let mut in_flight = InFlight { queue: VecDeque::new() };
        if self.stop_at_end {
            source.note_end().await?;
        }
        let mut note = tokio::time::interval(NOTE_EVERY);
        note.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Nothing came at the last look, and when that was last used to note a position.
        let (mut quiet, mut passed) = (false, None::<tokio::time::Instant>);
        loop {
            let may_take = in_flight.queue.len() < IN_FLIGHT;
            let input = tokio::select! {
                biased;
                () = self.cancel.cancelled() => Input::Cancelled,
                done = self.next_durable(&mut in_flight), if !in_flight.queue.is_empty() => Input::Durable(done),
                batch = source.next_batch(LIMITS), if may_take => Input::Batch(batch?),
                _ = note.tick() => Input::Note,
            };
            match input {
                Input::Durable(Ok(token)) => {
                    back_off.reset();
                    if let Some(token) = token {
                        source.acknowledge(token).await?;
                    }
                }
                Input::Durable(Err(_)) => {
                    self.forget(&mut in_flight).await;
                    return Ok(Ended::LogFailed);
                }
                Input::Batch(batch) => {
                    let empty = batch.records.is_empty();
                    quiet = empty && in_flight.queue.is_empty();
                    if let Err(error) = self.take(batch, book, &mut in_flight).await {
                        tracing::warn!(source = %self.gauge.name, %error, "append failed");
                        self.forget(&mut in_flight).await;
                        return Ok(Ended::LogFailed);
                    }
                    if empty && self.stop_at_end && in_flight.queue.is_empty() && source.has_passed_end().await? {
                        self.note();
                        return Ok(Ended::AtEnd);
                    }
                }
                Input::Note => {
                    self.note();
                    self.gauge.set_lag(source.lag().await);
                    if quiet && passed.is_none_or(|at| at.elapsed() >= NOTE_PASSED_EVERY) {
                        self.note_passed(source, book).await;
                        passed = Some(tokio::time::Instant::now());
                    }
                }
                Input::Cancelled => {
                    // Drain: what was taken in is stored and acknowledged before the source is left.
                    while !in_flight.queue.is_empty() {
                        match self.next_durable(&mut in_flight).await {
                            Ok(Some(token)) => source.acknowledge(token).await?,
                            Ok(None) => {}
                            Err(_) => {
                                self.note();
                                return Ok(Ended::Cancelled);
                            }
                        }
                    }
                    self.note_passed(source, book).await;
                    self.note();
                    return Ok(Ended::Cancelled);
                }
            }
        }
    }

    /// Appends a source batch, in as many appends as it takes.
    async fn take(&self, batch: SourceBatch, book: &Book, in_flight: &mut InFlight) -> Result<(), LogError> {
        if batch.records.is_empty() {
            return Ok(());
        }
        let mut append = Append::default();
        let mut duplicates = 0;
        for record in &batch.records {
            let slot = &batch.slots[usize::from(record.slot)];
            if let Some(name) = &slot.position {
                if !book.is_new(name, record.position) {
                    duplicates += 1;
                    continue;
                }
                book.advance(name, record.position);
                append.moved(record.slot, record.position);
            }
            self.push(&batch, record, &mut append);
            if append.batch.bytes() >= APPEND_BYTES {
                self.append(std::mem::take(&mut append), &batch, None, in_flight).await?;
            }
        }
        self.gauge.count(duplicates, duplicates);
        if append.batch.is_empty() {
            // Only duplicates: nothing to store, but the batch may be acknowledged once what came before it is durable.
            match in_flight.queue.back_mut() {
                Some(newest) => newest.token = Some(batch.token),
                None => in_flight.queue.push_back(Waiting {
                    pending: Box::pin(already_durable()),
                    token: Some(batch.token),
                    received: 0,
                    letters: Vec::new(),
                }),
            }
            return Ok(());
        }
        self.append(append, &batch, Some(batch.token), in_flight).await
    }

    fn push(&self, batch: &SourceBatch, record: &SourceRecord, append: &mut Append) {
        let headers = Headers::from_encoded(batch.bytes(record.headers)).unwrap_or_default();
        let payload = record.payload.map(|span| batch.bytes(span));
        let key = record.key.map(|span| batch.bytes(span));
        let slot = &batch.slots[usize::from(record.slot)];
        let message = Message { payload, key, headers, subject: &slot.subject, time: record.time, content_type: None };
        append.extra.clear();
        let decoded = match payload {
            Some(bytes) if bytes.len() > LARGEST_PAYLOAD => Err(Undecodable {
                code: "decode/too-large",
                detail: format!(
                    "{} bytes are more than {LARGEST_PAYLOAD}; kept: the first {KEPT_OF_TOO_LARGE}, BLAKE3 {}",
                    bytes.len(),
                    blake3::hash(bytes).to_hex()
                ),
                at: None,
            }),
            _ => envelope::decode(&self.envelope, &message, &mut append.extra),
        };
        let received = crate::clock::now();
        append.received += 1;
        match decoded {
            Ok(decoded) => {
                let joined = join_headers(headers, &append.extra);
                append.batch.push(&Event {
                    id: decoded.id.as_deref(),
                    key: decoded.key.as_deref(),
                    time: decoded.time,
                    received,
                    traceparent: decoded.traceparent.as_deref(),
                    headers: joined.as_ref().map_or(headers, HeaderBuf::as_headers),
                    payload: decoded.payload.as_deref(),
                    ..Event::data(&decoded.name, &self.gauge.name, b"")
                });
            }
            Err(why) => {
                let kept = payload.map(|p| if p.len() > LARGEST_PAYLOAD { &p[..KEPT_OF_TOO_LARGE] } else { p });
                let index = append.batch.len() as u64;
                append.batch.push(&Event {
                    kind: EventKind::Undecodable,
                    key,
                    time: record.time,
                    received,
                    headers,
                    payload: kept,
                    ..Event::data("", &self.gauge.name, b"")
                });
                let (state_key, parked) = IngestLetters::write(&mut append.batch, &why, key, &slot.subject);
                append.letters.push((index, state_key, parked));
            }
        }
    }

    async fn append(
        &self,
        mut append: Append,
        batch: &SourceBatch,
        token: Option<AckToken>,
        in_flight: &mut InFlight,
    ) -> Result<(), LogError> {
        // Several subjects may share one position, and it must not go backwards: the furthest comes last.
        append.positions.sort_unstable_by_key(|(_, position)| position.next);
        for (slot, position) in append.positions.drain(..) {
            if let Some(name) = &batch.slots[usize::from(slot)].position {
                append.batch.set_position(&self.gauge.name, name, position);
            }
        }
        let ticket = crate::append::durable(&*self.log, append.batch).await?;
        let first = ticket.range.first;
        let letters = append.letters.into_iter().map(|(index, key, parked)| (first.plus(index), key, parked)).collect();
        self.gauge.count(append.received, 0);
        let pending = Box::pin(ticket.durable());
        in_flight.queue.push_back(Waiting { pending, token, received: append.received, letters });
        Ok(())
    }

    /// After a failed append: nothing in flight is stored, and all of it will be delivered again.
    async fn forget(&self, in_flight: &mut InFlight) {
        for waiting in in_flight.queue.drain(..) {
            match waiting.pending.await {
                Ok(_) => self.add_letters(waiting.letters),
                Err(_) => self.gauge.uncount(waiting.received),
            }
        }
    }

    fn add_letters(&self, letters: Vec<(Sequence, String, Parked)>) {
        letters.into_iter().for_each(|(sequence, key, parked)| self.letters.add(sequence, key, parked));
    }

    /// Waits for the oldest append. Cancel-safe: the future stays in the queue until it is ready.
    async fn next_durable(&self, in_flight: &mut InFlight) -> Result<Option<AckToken>, LogError> {
        let Some(oldest) = in_flight.queue.front_mut() else { return Ok(None) };
        let done = oldest.pending.as_mut().await;
        let Some(oldest) = in_flight.queue.pop_front() else { return Ok(None) };
        match done {
            Ok(_) => {
                self.add_letters(oldest.letters);
                Ok(oldest.token)
            }
            Err(error) => {
                self.gauge.uncount(oldest.received);
                Err(error)
            }
        }
    }

    /// Keeps a position that no record led to: what lies before it was none of this source's.
    async fn note_passed(&self, source: &mut dyn Source, book: &Book) {
        let Some((slot, position)) = source.passed().await else { return };
        if !book.is_new(&slot, position) {
            return;
        }
        let mut batch = Batch::new();
        self.gauge.note_anyway(&mut batch);
        batch.set_position(&self.gauge.name, &slot, position);
        match self.log.append_lazy(batch) {
            Ok(_) => book.advance(&slot, position),
            Err(error) => tracing::debug!(source = %self.gauge.name, %error, "position not noted"),
        }
    }

    fn note(&self) {
        let mut batch = Batch::new();
        self.gauge.note(&mut batch);
        if !batch.is_empty()
            && let Err(error) = self.log.append_lazy(batch)
        {
            tracing::debug!(source = %self.gauge.name, %error, "counters not noted");
        }
    }
}

enum Input {
    Cancelled,
    Durable(Result<Option<AckToken>, LogError>),
    Batch(SourceBatch),
    Note,
}

async fn already_durable() -> Result<SequenceRange, LogError> {
    let none = Sequence::ZERO;
    Ok(SequenceRange { first: none, last: none })
}

/// One append under construction.
#[derive(Default)]
struct Append {
    batch: Batch,
    /// Messages in it.
    received: u64,
    /// Newest position per slot index of the source batch.
    positions: Vec<(u16, Position)>,
    /// (index in the batch, state key, dead letter).
    letters: Vec<(u64, String, Parked)>,
    extra: HeaderBuf,
}

impl Append {
    fn moved(&mut self, slot: u16, position: Position) {
        match self.positions.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, newest)) => *newest = position,
            None => self.positions.push((slot, position)),
        }
    }
}

/// The message's headers followed by the envelope's own attributes; `None` where there are none to add.
pub fn join_headers(headers: Headers<'_>, extra: &HeaderBuf) -> Option<HeaderBuf> {
    if extra.as_encoded().is_empty() {
        return None;
    }
    let mut joined = HeaderBuf::new();
    headers.iter().chain(extra.as_headers().iter()).for_each(|(name, value)| joined.push(name, value));
    Some(joined)
}
