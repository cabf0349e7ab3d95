//! What a source counts and how it is doing, shared between its task and `status`.
//!
//! `received` and `duplicates` survive restarts and crashes exactly for what is in the log. A state event holds both as of
//! its own sequence, and at start what came in behind it is counted from the log. So that the two never disagree, appends
//! and notes of one source happen under one lock, and a note that speaks of appends under way can only be stored behind
//! them ([`Batch::require`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gravity_log::{Batch, Epoch, EventLog, LogError, ReadLimits, SequenceRange, Ticket};
use gravity_model::port::source::Position;
use gravity_model::{EventKind, Recorded, Sequence};
use parking_lot::Mutex;

use crate::control::{self, SourceCounters};
use crate::status::{RunState, SourceStatus};

/// A source that has been idle for this many events of others is noted again, so that no start has to read more of the
/// log than that to count what came in since.
const NOTED_WITHIN: u64 = 1 << 16;

/// See the module's comment.
#[derive(Debug)]
pub struct SourceGauge {
    pub name: String,
    pub kind: &'static str,
    counts: Mutex<Counts>,
    state: Mutex<(RunState, Option<String>)>,
    lag: Mutex<Option<u64>>,
    at_end: AtomicBool,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of what is durable, and of duplicates.
    settled: SourceCounters,
    /// Newest epoch that an append went into.
    epoch: Option<Epoch>,
    /// Events on their way in `epoch`.
    in_flight: u64,
    /// Events whose fate was not told yet when `epoch` began.
    in_doubt: u64,
    /// The newest note: what it says, where it stands. `None` where it may have failed.
    noted: Option<SourceCounters>,
    noted_at: Sequence,
}

/// Events of one source on their way into the log.
#[derive(Debug)]
pub struct Appended {
    gauge: Arc<SourceGauge>,
    ticket: Ticket,
    events: u64,
}

impl Appended {
    pub fn range(&self) -> SequenceRange {
        self.ticket.range
    }

    pub fn epoch(&self) -> Epoch {
        self.ticket.epoch
    }

    /// Ready when the events are on disk, or when it is certain that they never will be. They are counted accordingly.
    pub async fn durable(self) -> Result<SequenceRange, LogError> {
        let epoch = self.ticket.epoch;
        let done = self.ticket.durable().await;
        self.gauge.settle(epoch, self.events, done.is_ok());
        done
    }
}

impl SourceGauge {
    pub fn new(name: &str, kind: &'static str) -> SourceGauge {
        SourceGauge {
            name: name.to_owned(),
            kind,
            counts: Mutex::default(),
            state: Mutex::new((RunState::Starting, None)),
            lag: Mutex::new(None),
            at_end: AtomicBool::new(false),
        }
    }

    /// Appends `batch`, in which `events` came in from this source, and counts them as received. Never waits; errors as
    /// [`EventLog::append`], the batch is then left as it was and nothing is counted.
    pub fn append(self: &Arc<Self>, log: &dyn EventLog, batch: &mut Batch, events: u64) -> Result<Appended, LogError> {
        let mut counts = self.counts.lock();
        let ticket = log.append(batch)?;
        if counts.epoch != Some(ticket.epoch) {
            counts.in_doubt += counts.in_flight;
            counts.in_flight = 0;
            counts.epoch = Some(ticket.epoch);
        }
        counts.in_flight += events;
        Ok(Appended { gauge: self.clone(), ticket, events })
    }

    fn settle(&self, epoch: Epoch, events: u64, durable: bool) {
        let mut counts = self.counts.lock();
        if counts.epoch == Some(epoch) {
            counts.in_flight -= events;
        } else {
            counts.in_doubt -= events;
        }
        if durable {
            counts.settled.received += events;
        } else {
            // A note that was on its way failed with it.
            counts.noted = None;
        }
    }

    /// Counts messages that are in the log already.
    pub fn count_duplicates(&self, duplicates: u64) {
        let mut counts = self.counts.lock();
        counts.settled.received += duplicates;
        counts.settled.duplicates += duplicates;
    }

    pub fn counters(&self) -> SourceCounters {
        let counts = self.counts.lock();
        let received = counts.settled.received + counts.in_flight + counts.in_doubt;
        SourceCounters { received, ..counts.settled }
    }

    /// Notes the counters in the log if they changed, or if the newest note is far behind. Never waits.
    pub fn note(&self, log: &dyn EventLog) {
        let last = *log.durable().borrow();
        let mut counts = self.counts.lock();
        let received = counts.settled.received + counts.in_flight;
        let now = SourceCounters { received, ..counts.settled };
        let is_near = last.get().saturating_sub(counts.noted_at.get()) < NOTED_WITHIN;
        if counts.in_doubt == 0 && !(counts.noted == Some(now) && is_near) {
            self.write_note(&mut counts, now, Batch::new(), log);
        }
    }

    /// Notes a position that no record led to, with the counters: it needs an entry to travel with. False where it cannot be
    /// noted now.
    pub fn note_position(&self, log: &dyn EventLog, slot: &str, position: Position) -> bool {
        let mut counts = self.counts.lock();
        if counts.in_doubt > 0 {
            return false;
        }
        let received = counts.settled.received + counts.in_flight;
        let now = SourceCounters { received, ..counts.settled };
        let mut batch = Batch::new();
        batch.set_position(&self.name, slot, position);
        self.write_note(&mut counts, now, batch, log)
    }

    fn write_note(&self, counts: &mut Counts, now: SourceCounters, mut batch: Batch, log: &dyn EventLog) -> bool {
        control::put(&mut batch, control::SOURCE, &self.name, &now, None);
        if let (Some(epoch), 1..) = (counts.epoch, counts.in_flight) {
            batch.require(epoch);
        }
        match log.append_lazy(batch) {
            Ok(range) => (counts.noted, counts.noted_at) = (Some(now), range.last),
            Err(error) => {
                tracing::debug!(source = %self.name, %error, "counters not noted");
                return false;
            }
        }
        true
    }

    /// What was noted last may not have reached the disk.
    pub fn doubt_note(&self) {
        self.counts.lock().noted = None;
    }

    pub fn set_state(&self, state: RunState, error: Option<String>) {
        *self.state.lock() = (state, error);
    }

    pub fn state(&self) -> (RunState, Option<String>) {
        self.state.lock().clone()
    }

    pub fn set_lag(&self, lag: Option<u64>) {
        *self.lag.lock() = lag;
    }

    pub fn set_at_end(&self) {
        self.at_end.store(true, Ordering::Release);
    }

    pub fn is_at_end(&self) -> bool {
        self.at_end.load(Ordering::Acquire)
    }

    pub fn status(&self) -> SourceStatus {
        let (state, error) = self.state();
        let counters = self.counters();
        SourceStatus {
            name: self.name.clone(),
            kind: self.kind.to_owned(),
            state,
            received: counters.received,
            duplicates: counters.duplicates,
            lag_events: *self.lag.lock(),
            error,
        }
    }
}

/// Restores the counters of all sources from live state plus the end of the log behind it, and notes them together where
/// the next start would have to read far. Call it before anything comes in. Blocking.
///
/// A source without a note never ran on this log: its first note is durable before it takes anything in.
pub fn restore_counters(
    log: &dyn EventLog,
    gauges: &[Arc<SourceGauge>],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let last = *log.durable().borrow();
    let mut found: Vec<Option<(Sequence, SourceCounters)>> = vec![None; gauges.len()];
    for entry in log.state().iter().filter(|e| e.name == control::SOURCE) {
        if let Some(index) = gauges.iter().position(|g| g.name == entry.key) {
            found[index] = Some((entry.sequence, control::read(&entry.name, entry.sequence, &entry.payload)?));
        }
    }
    let noted: Vec<Option<(Sequence, SourceCounters)>> = found.clone();
    let first = log.stat().first;
    let from = found.iter().flatten().map(|(at, _)| *at).min().unwrap_or(last);
    let mut after = Sequence(from.get().max(first.get().saturating_sub(1)));
    while after < last {
        let blocks = log.read(after, ReadLimits { events: 65_536, bytes: 8 << 20 })?;
        let Some(end) = blocks.last().map(gravity_log::Block::last) else { break };
        let came_in = blocks.iter().flat_map(gravity_log::Block::iter).filter(came_in).filter(|r| r.sequence > after);
        for recorded in came_in {
            if let Some(index) = gauges.iter().position(|g| g.name == recorded.event.source)
                && let Some((noted_at, counters)) = &mut found[index]
            {
                counters.received += u64::from(recorded.sequence > *noted_at);
            }
        }
        after = end;
    }
    let mut batch = Batch::new();
    for ((gauge, found), noted) in gauges.iter().zip(&found).zip(&noted) {
        let settled = found.map(|(_, counters)| counters).unwrap_or_default();
        let mut counts = gauge.counts.lock();
        counts.settled = settled;
        let is_near = noted.is_some_and(|(at, _)| last.get() - at.get() < NOTED_WITHIN);
        match noted {
            Some((at, counters)) if is_near => (counts.noted, counts.noted_at) = (Some(*counters), *at),
            _ => {
                control::put(&mut batch, control::SOURCE, &gauge.name, &settled, None);
                (counts.noted, counts.noted_at) = (Some(settled), last);
            }
        }
    }
    if !batch.is_empty() {
        log.append(&mut batch)?.wait()?;
    }
    Ok(())
}

/// True for what a source delivered: neither facts about Gravity itself, nor what an operator's retry made of them.
fn came_in(recorded: &Recorded<'_>) -> bool {
    recorded.event.kind != EventKind::Control && recorded.event.causation.is_none()
}
