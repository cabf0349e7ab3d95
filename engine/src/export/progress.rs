//! The cursor of a subscription: in memory, on its way to the log, and durable there.
//!
//! ```text
//!   noted ............ written ............. cursor ........ route's checkpoint
//!   durable: a crash   handed to the log,    in memory
//!   goes on from here  not durable yet
//! ```
//!
//! Only the subscription's task writes cursors, one at a time: so the newest on the log is always the newest there was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use gravity_log::{Batch, EventLog, LogError, SequenceRange};
use gravity_model::Sequence;
use parking_lot::Mutex;

use crate::control::{self, Cursor};
use crate::export::gauge::SubscriptionGauge;

/// Cursors a second, at most, and only after a delivery.
pub const CURSOR_EVERY: Duration = Duration::from_millis(250);
/// Delivery pauses while the newest cursor has waited so long for the disk.
const CURSOR_DURABLE_WITHIN: Duration = Duration::from_secs(1);
/// Without a delivery a cursor is noted after so many sequences, so that a restart does not read them all again.
const FAR: u64 = 65_536;
/// A log that takes no cursor is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// When a cursor is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// If messages were confirmed since the last one, and that is long enough ago.
    Due,
    /// If messages were confirmed since the last one.
    Now,
}

/// See the module's comment.
pub struct Progress {
    log: Arc<dyn EventLog>,
    gauge: Arc<SubscriptionGauge>,
    name: String,
    pub cursor: Cursor,
    noted: Cursor,
    written: Option<Written>,
    written_at: Option<Instant>,
    /// Since when something is confirmed that the log does not durably know of.
    owed_since: Option<Instant>,
}

/// A cursor on its way to the disk.
struct Written {
    cursor: Cursor,
    at: Instant,
    /// Behind a lock only so that it may be borrowed together with the rest: nobody else asks.
    durable: Mutex<BoxFuture<'static, Result<SequenceRange, LogError>>>,
}

impl Progress {
    /// `cursor` is what the log holds.
    pub fn new(log: Arc<dyn EventLog>, gauge: Arc<SubscriptionGauge>, cursor: Cursor) -> Progress {
        let name = gauge.name();
        Progress { log, gauge, name, noted: cursor.clone(), cursor, written: None, written_at: None, owed_since: None }
    }

    /// A message was confirmed whose place may lie beyond what is not.
    pub fn confirmed(&mut self, sequence: Sequence) {
        self.cursor.ahead.insert(sequence);
        self.delivered(1);
    }

    pub fn delivered(&mut self, count: u64) {
        self.cursor.delivered += count;
        self.owed_since.get_or_insert_with(Instant::now);
    }

    /// Nothing up to `through` needs anything more.
    pub fn reach(&mut self, through: Sequence) {
        self.cursor.move_to(through);
        self.gauge.passed(&self.cursor);
    }

    /// Of the retry or skip that stands next, the first `count` events that it released need nothing more.
    pub fn reach_released(&mut self, count: u64) {
        self.cursor.released = self.cursor.released.max(count);
        self.gauge.passed(&self.cursor);
    }

    /// These released events are behind the cursor now.
    pub fn forget_ahead(&mut self, settled: &[Sequence]) {
        settled.iter().for_each(|sequence| {
            self.cursor.ahead.remove(sequence);
        });
    }

    /// Writes the cursor if it is time to.
    pub fn note(&mut self, when: When) {
        self.look();
        let newest = self.written.as_ref().map_or(&self.noted, |written| &written.cursor);
        let news = (newest.delivered, newest.released, &newest.ahead)
            != (self.cursor.delivered, self.cursor.released, &self.cursor.ahead);
        let moved = self.cursor.through.get().saturating_sub(newest.through.get());
        let asked = self.gauge.take_ask() && moved > 0;
        let due = self.written.is_none() && self.written_at.is_none_or(|at| at.elapsed() >= CURSOR_EVERY);
        let wanted = asked || (news && (due || when == When::Now)) || (moved >= FAR && due);
        if !wanted {
            return;
        }
        let mut batch = Batch::new();
        self.put(self.cursor.through, &mut batch);
        self.written_at = Some(Instant::now());
        match self.log.append(&mut batch) {
            Ok(ticket) => {
                let durable = Mutex::new(ticket.durable().boxed());
                self.written = Some(Written { cursor: self.cursor.clone(), at: Instant::now(), durable });
            }
            Err(error) => {
                if asked {
                    self.gauge.ask_to_note();
                }
                tracing::debug!(subscription = %self.name, %error, "cursor not noted");
            }
        }
    }

    /// The cursor as part of a batch that must hold with it, moved to `through`. Once the batch is durable:
    /// [`Progress::is_noted`].
    pub fn put(&self, through: Sequence, batch: &mut Batch) {
        let mut cursor = self.cursor.clone();
        cursor.move_to(through);
        control::put(batch, control::CURSOR, &self.name, &cursor, None);
    }

    /// A batch with the cursor at `through` became durable.
    pub fn is_noted(&mut self, through: Sequence) {
        self.reach(through);
        // Whatever was written before it is durable too, and older.
        self.written = None;
        self.owed_since = None;
        self.noted = self.cursor.clone();
        self.gauge.note(self.noted.through);
    }

    /// Looks whether the cursor that was written has become durable.
    pub fn look(&mut self) {
        if let Some(written) = &mut self.written
            && let Some(outcome) = written.durable.get_mut().now_or_never()
        {
            self.settle(outcome);
        }
    }

    /// Ready when the cursor that was written is durable, or is known to have been lost. Never, if none is on its way.
    /// Cancel-safe.
    pub async fn written(&mut self) {
        match &mut self.written {
            Some(written) => {
                let outcome = written.durable.get_mut().await;
                self.settle(outcome);
            }
            None => std::future::pending().await,
        }
    }

    fn settle(&mut self, outcome: Result<SequenceRange, LogError>) {
        let Some(written) = self.written.take() else { return };
        match outcome {
            Ok(_) => {
                let owes = written.cursor.delivered != self.cursor.delivered;
                self.owed_since = owes.then_some(written.at);
                self.noted = written.cursor;
                self.gauge.note(self.noted.through);
            }
            Err(error) => tracing::debug!(subscription = %self.name, %error, "cursor lost; it will be noted again"),
        }
    }

    /// After this time `note` would write what was confirmed; `None` if nothing was.
    pub fn due_in(&self) -> Option<Duration> {
        let newest = self.written.as_ref().map_or(&self.noted, |written| &written.cursor);
        let news = newest.delivered != self.cursor.delivered;
        let since = self.written_at.map_or(CURSOR_EVERY, |at| at.elapsed());
        (news && self.written.is_none()).then(|| CURSOR_EVERY.saturating_sub(since).max(Duration::from_millis(1)))
    }

    /// Bounds what a crash sends again: returns once what was confirmed is durably noted, or was not confirmed too long ago.
    /// Cancel-safe.
    pub async fn durable_enough(&mut self) {
        loop {
            self.look();
            if self.owed_since.is_none_or(|since| since.elapsed() < CURSOR_EVERY + CURSOR_DURABLE_WITHIN) {
                return;
            }
            self.note(When::Now);
            if self.written.is_some() {
                self.written().await;
            } else {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Writes what was confirmed before the subscription ends, as far as the log lets it within [`CURSOR_DURABLE_WITHIN`].
    pub async fn finish(&mut self) {
        let until = Instant::now() + CURSOR_DURABLE_WITHIN;
        loop {
            self.note(When::Now);
            let newest = self.written.as_ref().map_or(&self.noted, |written| &written.cursor);
            if newest.delivered == self.cursor.delivered || Instant::now() >= until {
                return;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}
