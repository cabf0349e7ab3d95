//! What a source counts and how it is doing, shared between its task and `status`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gravity_log::{Batch, EventLog, ReadLimits};
use gravity_model::{EventKind, Sequence};
use parking_lot::Mutex;

use crate::control::{self, SourceCounters};
use crate::status::{RunState, SourceStatus};

/// See the module's comment. `received` survives restarts exactly for what is in the log: a state event holds both
/// counters as of its own sequence, and what came after it is counted from the log at start.
#[derive(Debug)]
pub struct SourceGauge {
    pub name: String,
    pub kind: &'static str,
    received: AtomicU64,
    duplicates: AtomicU64,
    noted: Mutex<SourceCounters>,
    state: Mutex<(RunState, Option<String>)>,
    lag: Mutex<Option<u64>>,
    at_end: AtomicBool,
}

impl SourceGauge {
    pub fn new(name: &str, kind: &'static str) -> SourceGauge {
        SourceGauge {
            name: name.to_owned(),
            kind,
            received: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            noted: Mutex::default(),
            state: Mutex::new((RunState::Starting, None)),
            lag: Mutex::new(None),
            at_end: AtomicBool::new(false),
        }
    }

    pub fn set_counters(&self, counters: SourceCounters) {
        self.received.store(counters.received, Ordering::Relaxed);
        self.duplicates.store(counters.duplicates, Ordering::Relaxed);
        *self.noted.lock() = counters;
    }

    pub fn count(&self, received: u64, duplicates: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
    }

    /// What came in was not stored after all, and will come again.
    pub fn uncount(&self, received: u64) {
        self.received.fetch_sub(received, Ordering::Relaxed);
    }

    pub fn counters(&self) -> SourceCounters {
        SourceCounters {
            received: self.received.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
        }
    }

    /// Adds the counters to a batch if they changed since they were last noted.
    pub fn note(&self, batch: &mut Batch) {
        if *self.noted.lock() != self.counters() {
            self.note_anyway(batch);
        }
    }

    /// Adds the counters to a batch: the entry that something else of the source travels with.
    pub fn note_anyway(&self, batch: &mut Batch) {
        let counters = self.counters();
        control::put(batch, control::SOURCE, &self.name, &counters, None);
        *self.noted.lock() = counters;
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

/// Restores the counters of all sources from live state plus the tail of the log behind it. Blocking.
pub fn restore_counters(
    log: &dyn EventLog,
    gauges: &[std::sync::Arc<SourceGauge>],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut counters: Vec<(Sequence, SourceCounters)> = vec![(Sequence::ZERO, SourceCounters::default()); gauges.len()];
    for entry in log.state().iter().filter(|e| e.name == control::SOURCE) {
        if let Some(index) = gauges.iter().position(|g| g.name == entry.key) {
            counters[index] = (entry.sequence, control::read(&entry.name, entry.sequence, &entry.payload)?);
        }
    }
    let last = *log.durable().borrow();
    let mut after = counters.iter().map(|(from, _)| *from).min().unwrap_or(last);
    let first = log.stat().first;
    if after.next() < first {
        after = Sequence(first.get() - 1);
    }
    while after < last {
        let blocks = log.read(after, ReadLimits { events: 65_536, bytes: 8 << 20 })?;
        let Some(end) = blocks.last().map(gravity_log::Block::last) else { break };
        for recorded in blocks.iter().flat_map(gravity_log::Block::iter) {
            if recorded.event.kind == EventKind::Control {
                continue;
            }
            if let Some(index) = gauges.iter().position(|g| g.name == recorded.event.source) {
                let (from, counter) = &mut counters[index];
                counter.received += u64::from(recorded.sequence > *from && recorded.sequence > after);
            }
        }
        after = end;
    }
    for (gauge, (_, counter)) in gauges.iter().zip(counters) {
        gauge.set_counters(counter);
    }
    Ok(())
}
