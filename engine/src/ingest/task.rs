//! The one loop that serves all pull sources (Protocol A): receive, decode, append, and acknowledge what is durable.

use std::sync::Arc;
use std::time::Duration;

use gravity_log::{EventLog, Health, LogError};
use gravity_model::failpoint::{self, Hit};
use gravity_model::port::source::{AckToken, BatchLimits, Slot, Source, SourceBatch, Start};
use gravity_model::{Fault, FaultKind, Policy};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::ingest::append::Append;
use crate::ingest::book::Book;
use crate::ingest::envelope::EnvelopeOptions;
use crate::ingest::gauge::SourceGauge;
use crate::ingest::in_flight::InFlight;
use crate::ingest::last_delete::LastDeletes;
use crate::ingest::letters::{IngestLetters, MOST_LETTERS};
use crate::ingest::repeats::{Repeats, Verdict};
use crate::status::RunState;
use crate::supervise::BackOff;

/// An append is closed at this size, so that it fits one block of the log and its positions go with its events.
const APPEND_BYTES: usize = 256 << 10;
/// Appends of a source that may wait for the disk at the same time.
const IN_FLIGHT: usize = 16;
/// How often lag is asked for, and whether the operator made room for more dead letters.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A source that is never empty is asked this often, in looks, whether it passed its end: the answer may cost a round trip.
const LOOKS_PER_END: u32 = 5;
/// Positions that moved without a record are noted at most this often: an idle engine appends next to nothing.
const NOTE_PASSED_EVERY: Duration = Duration::from_secs(60);
/// What is in flight when the engine stops is waited for this long. What the disk takes later is in the log all the same,
/// with its positions, and is not acknowledged.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long a source may take to leave its broker.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

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

/// What is on its way into the log, and what of it the broker may give out again.
struct Way {
    in_flight: InFlight,
    repeats: Repeats,
    deletes: LastDeletes,
}

impl Way {
    async fn acknowledge(&mut self, source: &mut dyn Source, token: AckToken) -> Result<(), Fault> {
        if failpoint::hit("ingest.before_acknowledge") == Hit::Fail {
            return Err(Fault::new(FaultKind::Disconnected, "failpoint", "acknowledge", "told to fail"));
        }
        source.acknowledge(token).await?;
        self.repeats.acknowledged(token);
        Ok(())
    }
}

/// Why the pump ended.
enum Ended {
    Cancelled,
    AtEnd,
    /// The log could not write: what was in flight is delivered again.
    LogFailed,
}

/// What follows the end of a connection.
enum Then {
    End,
    /// Wait for an operator, that is for a restart.
    Stop,
    WaitForLog,
    Reconnect,
}

impl SourceTask {
    /// Runs until cancelled, at the end with `stop_at_end`, or stopped by a fault that needs an operator. Ends at the latest
    /// [`DRAIN_WITHIN`] and [`CLOSE_WITHIN`] after it was cancelled, whatever hangs.
    pub async fn run(self) {
        let SourceTask { mut source, setup } = self;
        let overdue = async {
            setup.cancel.cancelled().await;
            tokio::time::sleep(DRAIN_WITHIN).await;
        };
        tokio::select! {
            biased;
            () = setup.keep_connected(&mut *source) => {}
            () = overdue => tracing::warn!(source = %setup.gauge.name, "left with appends that are not durable yet"),
        }
        if tokio::time::timeout(CLOSE_WITHIN, source.close()).await.is_err() {
            tracing::warn!(source = %setup.gauge.name, "did not close in time");
        }
    }
}

impl SourceSetup {
    /// Connects, pumps, and after a fault connects again.
    async fn keep_connected(&self, source: &mut dyn Source) {
        let book = Arc::new(Book::of(&self.gauge.name, &*self.log));
        let mut way = Way {
            in_flight: InFlight::new(self.letters.clone()),
            repeats: Repeats::of(&self.gauge.name, self.log.clone()),
            deletes: LastDeletes::default(),
        };
        let mut back_off = BackOff::new();
        loop {
            let ended = match self.unless_cancelled(source.connect(book.clone(), self.start)).await {
                Ok(Some(())) => self.pump(source, &book, &mut way, &mut back_off).await,
                Ok(None) => Ok(Ended::Cancelled),
                Err(fault) => Err(fault),
            };
            let then = self.judge(ended);
            if !matches!(then, Then::End) {
                source.close().await;
            }
            // The book goes back to what the log holds. As long as an append may still become durable, that would take its
            // records for new ones when they are delivered again.
            way.in_flight.settle().await;
            match then {
                Then::End => return,
                Then::Stop => return self.cancel.cancelled().await,
                Then::WaitForLog if !self.log_runs_again().await => return,
                Then::WaitForLog | Then::Reconnect => {}
            }
            book.reset(&*self.log);
            way.repeats.reset();
            if !back_off.wait(&self.cancel, None).await {
                return;
            }
        }
    }

    /// Shows how a connection ended, and says what follows.
    fn judge(&self, ended: Result<Ended, Fault>) -> Then {
        match ended {
            Ok(ended @ (Ended::Cancelled | Ended::AtEnd)) => {
                if matches!(ended, Ended::AtEnd) {
                    self.gauge.set_at_end();
                }
                self.gauge.set_state(RunState::Ended, None);
                Then::End
            }
            Ok(Ended::LogFailed) => {
                self.gauge.set_state(RunState::Degraded, Some("the log cannot write; intake waits".to_owned()));
                Then::WaitForLog
            }
            Err(fault) => {
                let policy = fault.policy();
                let backs_off = matches!(policy, Policy::BackOff);
                let state = if backs_off { RunState::Degraded } else { RunState::Stopped };
                tracing::warn!(source = %self.gauge.name, error = %fault, ?state, "source failed");
                self.gauge.set_state(state, Some(fault.to_string()));
                if matches!(policy, Policy::Stop) { Then::Stop } else { Then::Reconnect }
            }
        }
    }

    /// `None` when cancelled first; the source is then only closed.
    async fn unless_cancelled<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<Option<T>, Fault> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Ok(None),
            done = call => done.map(Some),
        }
    }

    /// Waits until the log takes appends again; false when cancelled.
    async fn log_runs_again(&self) -> bool {
        let mut health = self.log.health();
        tokio::select! {
            () = self.cancel.cancelled() => false,
            running = health.wait_for(|h| *h == Health::Running) => running.is_ok(),
        }
    }

    async fn pump(
        &self,
        source: &mut dyn Source,
        book: &Book,
        way: &mut Way,
        back_off: &mut BackOff,
    ) -> Result<Ended, Fault> {
        self.gauge.set_state(RunState::Running, None);
        if self.stop_at_end && self.unless_cancelled(source.note_end()).await?.is_none() {
            return Ok(Ended::Cancelled);
        }
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        // Another reader may have had the partition meanwhile: a delete from before says nothing of what comes now.
        way.deletes = LastDeletes::default();
        let (mut has_passed_end, mut is_full) = (false, false);
        // Nothing came at the last look, and when that was last used to note a position.
        let (mut is_quiet, mut passed) = (false, None::<Instant>);
        loop {
            if has_passed_end && way.in_flight.is_empty() {
                return Ok(Ended::AtEnd);
            }
            if self.letters.is_full() != is_full {
                is_full = !is_full;
                self.show_full(is_full);
            }
            let may_take = !has_passed_end && !is_full && way.in_flight.len() < IN_FLIGHT;
            let input = tokio::select! {
                biased;
                () = self.cancel.cancelled() => Input::Cancelled,
                done = way.in_flight.next(), if !way.in_flight.is_empty() => Input::Durable(done),
                _ = look.tick() => Input::Look,
                batch = source.next_batch(LIMITS), if may_take => Input::Batch(batch?),
            };
            let mut may_be_at_end = false;
            match input {
                Input::Durable(Ok(token)) => {
                    back_off.reset();
                    if let Some(token) = token {
                        way.acknowledge(source, token).await?;
                    }
                }
                Input::Durable(Err(_)) => return Ok(Ended::LogFailed),
                Input::Batch(batch) => {
                    may_be_at_end = batch.records.is_empty();
                    is_quiet = may_be_at_end && way.in_flight.is_empty();
                    if let Err(error) = self.take(batch, book, way).await
                        && !self.cancel.is_cancelled()
                    {
                        tracing::warn!(source = %self.gauge.name, %error, "append failed");
                        return Ok(Ended::LogFailed);
                    }
                }
                Input::Look => {
                    let lag = source.lag().await;
                    self.gauge.set_lag(lag);
                    if way.in_flight.is_empty() {
                        if lag == Some(0) {
                            way.repeats.quiet();
                        }
                        self.note_acknowledged(way);
                    }
                    if is_quiet && passed.is_none_or(|at| at.elapsed() >= NOTE_PASSED_EVERY) {
                        self.note_passed(source, book).await;
                        passed = Some(Instant::now());
                    }
                    looks += 1;
                    may_be_at_end = looks % LOOKS_PER_END == 0;
                }
                Input::Cancelled => {
                    self.drain(source, way).await?;
                    if way.in_flight.is_empty() {
                        self.note_acknowledged(way);
                        self.note_passed(source, book).await;
                    }
                    return Ok(Ended::Cancelled);
                }
            }
            if self.stop_at_end && may_be_at_end && !has_passed_end {
                has_passed_end = self.unless_cancelled(source.has_passed_end()).await? == Some(true);
            }
        }
    }

    /// What was taken in is stored and acknowledged before the source is left.
    async fn drain(&self, source: &mut dyn Source, way: &mut Way) -> Result<(), Fault> {
        while !way.in_flight.is_empty() {
            match way.in_flight.next().await {
                Ok(Some(token)) => way.acknowledge(source, token).await?,
                Ok(None) => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Keeps a position that no record led to: what lies before it was none of this source's.
    async fn note_passed(&self, source: &mut dyn Source, book: &Book) {
        let Some((slot, position)) = source.passed().await else { return };
        if book.is_new(&slot, position) && self.gauge.note_position(&*self.log, &slot, position) {
            book.advance(&slot, position);
        }
    }

    /// Keeps what the broker is known to have read, where no append took it along.
    fn note_acknowledged(&self, way: &mut Way) {
        for (queue, position) in way.repeats.moved() {
            if self.gauge.note_position(&*self.log, &queue, position) {
                way.repeats.noted(&queue, position);
            }
        }
    }

    fn show_full(&self, is_full: bool) {
        if is_full {
            let error =
                format!("{MOST_LETTERS} dead letters of ingest are open: retry or skip some, then reading goes on");
            tracing::warn!(source = %self.gauge.name, %error, "source waits");
            self.gauge.set_state(RunState::Stopped, Some(error));
        } else {
            self.gauge.set_state(RunState::Running, None);
        }
    }

    /// Appends a source batch, in as many appends as it takes. After an error the book is ahead of the log.
    async fn take(&self, batch: SourceBatch, book: &Book, way: &mut Way) -> Result<(), LogError> {
        if batch.is_empty() {
            return Ok(());
        }
        let marks = way.repeats.look_up(&batch).await?;
        let received = crate::clock::now();
        let mut append = Append::new(received);
        let mut duplicates = 0;
        for found in &batch.breaks {
            let Some(name) = &batch.slots[usize::from(found.slot)].position else { continue };
            append.note_break(&self.gauge.name, &batch, found);
            if book.is_new(name, found.position) {
                book.advance(name, found.position);
                append.moved(found.slot, found.position);
            }
        }
        for (index, record) in batch.records.iter().enumerate() {
            if let Some(name) = &batch.slots[usize::from(record.slot)].position {
                if !book.is_new(name, record.position) {
                    duplicates += 1;
                    continue;
                }
                book.advance(name, record.position);
                append.moved(record.slot, record.position);
            }
            let (memory, refused) = match way.repeats.judge(&batch, &marks, index) {
                Verdict::Again => {
                    duplicates += 1;
                    continue;
                }
                Verdict::New(memory) => (memory, None),
                Verdict::Reused(memory, why) => (Some(memory), Some(why)),
            };
            if let Some(memory) = memory {
                append.remember(memory);
            }
            append.push(&self.envelope, &self.gauge.name, (&batch, record), &mut way.deletes, refused);
            if append.batch.bytes() >= APPEND_BYTES {
                self.append(std::mem::replace(&mut append, Append::new(received)), &batch.slots, way).await?;
            }
        }
        if !append.batch.is_empty() {
            self.append(append, &batch.slots, way).await?;
        }
        self.gauge.count_duplicates(duplicates);
        // Where all were duplicates there is nothing to store, but what is before them may not be durable yet.
        way.in_flight.acknowledge_after(batch.token);
        way.repeats.handed_over(batch.token);
        Ok(())
    }

    async fn append(&self, mut append: Append, slots: &[Slot], way: &mut Way) -> Result<(), LogError> {
        append.set_positions(&self.gauge.name, slots);
        let moved = way.repeats.moved();
        for (queue, position) in &moved {
            append.batch.set_position(&self.gauge.name, queue, *position);
        }
        if let Some(epoch) = way.in_flight.epoch() {
            append.batch.require(epoch);
        }
        let appended = loop {
            match self.gauge.append(&*self.log, &mut append.batch, append.received) {
                Err(LogError::Busy) => self.room().await?,
                other => break other?,
            }
        };
        moved.iter().for_each(|(queue, position)| way.repeats.noted(queue, *position));
        let range = appended.range();
        way.repeats.appended(range.first, range.last, &append.memories);
        way.in_flight.push(appended, append.letters);
        Ok(())
    }

    /// Waits for room in the log; an error when the log fails meanwhile, or when nobody wants to wait any more.
    async fn room(&self) -> Result<(), LogError> {
        let mut health = self.log.health();
        tokio::select! {
            () = self.cancel.cancelled() => Err(LogError::Busy),
            _ = health.wait_for(|health| *health != Health::Running) => {
                Err(LogError::WriteFailed { detail: "a write failed while this one waited for room".to_owned() })
            }
            room = self.log.room() => room,
        }
    }
}

enum Input {
    Cancelled,
    Durable(Result<Option<AckToken>, LogError>),
    Batch(SourceBatch),
    /// Time to look at what nothing tells by itself.
    Look,
}
