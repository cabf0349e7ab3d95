//! How a subscription is doing, shared between its task, housekeeping and `status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gravity_model::{Micros, Sequence};
use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::beyond::{Beyond, Found};
use crate::control::{Cursor, ParkedMessage, Released};
use crate::export::backlog::{Backlog, Place};
use crate::ledger::Ledger;
use crate::status::{RunState, SubscriptionStatus};

/// See the module's comment.
pub struct SubscriptionGauge {
    pub exporter: String,
    pub route: String,
    pub kind: &'static str,
    inner: Mutex<Inner>,
    /// Parked messages, and what was released of them. Changed through the gauge only.
    pub ledger: Mutex<Ledger>,
    backlog: Mutex<Backlog>,
    /// Housekeeping waits for the cursor to be noted.
    wanted: AtomicBool,
    asked: Notify,
    pub beyond: Beyond,
}

struct Inner {
    state: RunState,
    error: Option<String>,
    cursor: Sequence,
    /// What the log durably holds: after a crash the subscription goes on from here.
    noted: Sequence,
    delivered: u64,
    oldest: Option<Micros>,
    /// What is parked and was not when this run began.
    new: HashSet<Sequence>,
}

impl SubscriptionGauge {
    pub fn new(exporter: &str, route: &str, kind: &'static str) -> SubscriptionGauge {
        SubscriptionGauge {
            exporter: exporter.to_owned(),
            route: route.to_owned(),
            kind,
            inner: Mutex::new(Inner {
                state: RunState::Starting,
                error: None,
                cursor: Sequence::ZERO,
                noted: Sequence::ZERO,
                delivered: 0,
                oldest: None,
                new: HashSet::new(),
            }),
            ledger: Mutex::default(),
            backlog: Mutex::default(),
            wanted: AtomicBool::new(false),
            asked: Notify::new(),
            beyond: Beyond::default(),
        }
    }

    /// `EXPORTER@ROUTE`: the name under which its dead letters are listed.
    pub fn name(&self) -> String {
        crate::control::subscription_key(&self.exporter, &self.route)
    }

    /// What the log tells at the start.
    pub fn begin(&self, cursor: &Cursor, ledger: Ledger, backlog: Backlog) {
        *self.ledger.lock() = ledger;
        *self.backlog.lock() = backlog;
        let mut inner = self.inner.lock();
        (inner.cursor, inner.noted) = (cursor.through, cursor.through);
        inner.delivered = cursor.delivered;
    }

    pub fn set_state(&self, state: RunState, error: Option<String>) {
        let mut inner = self.inner.lock();
        (inner.state, inner.error) = (state, error);
    }

    pub fn state(&self) -> (RunState, Option<String>) {
        let inner = self.inner.lock();
        (inner.state, inner.error.clone())
    }

    pub fn passed(&self, cursor: &Cursor) {
        let mut inner = self.inner.lock();
        (inner.cursor, inner.delivered) = (cursor.through, cursor.delivered);
    }

    /// When the oldest event was received whose message is under way.
    pub fn working_on(&self, oldest: Option<Micros>) {
        self.inner.lock().oldest = oldest;
    }

    pub fn cursor(&self) -> Sequence {
        self.inner.lock().cursor
    }

    /// The cursor as it would be after a crash: what lies beyond it will be asked about again.
    pub fn noted(&self) -> Sequence {
        self.inner.lock().noted
    }

    /// A cursor became durable.
    pub fn note(&self, through: Sequence) {
        self.inner.lock().noted = through;
    }

    /// Asks the task to note its cursor although nothing was delivered.
    pub fn ask_to_note(&self) {
        self.wanted.store(true, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// True once after each time it was asked.
    pub fn take_ask(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Ready when somebody asked for a note. Cancel-safe.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Takes in what the log holds durably now.
    pub fn park(&self, messages: Vec<ParkedMessage>) {
        let (mut inner, mut ledger, mut backlog) = (self.inner.lock(), self.ledger.lock(), self.backlog.lock());
        for message in messages {
            let sequence = message.parked.sequence;
            if ledger.parked(sequence).is_none() {
                inner.new.insert(sequence);
            }
            backlog.add(&message);
            ledger.park(Arc::new(message.parked));
        }
    }

    /// Messages that a decision freed, before the decision as a whole is carried out.
    pub fn free(&self, sequences: impl IntoIterator<Item = Sequence>) {
        let (mut inner, mut ledger, mut backlog) = (self.inner.lock(), self.ledger.lock(), self.backlog.lock());
        for sequence in sequences {
            inner.new.remove(&sequence);
            backlog.remove(sequence);
            ledger.unpark(sequence);
        }
    }

    pub fn release(&self, released: Released) {
        self.free(released.freed());
        self.ledger.lock().release(Arc::new(released));
    }

    pub fn is_parked(&self, sequence: Sequence) -> bool {
        self.ledger.lock().parked(sequence).is_some()
    }

    /// The parked message that one of `key` at `place` has to wait for.
    pub fn before(&self, place: Place, key: Option<u128>) -> Option<Sequence> {
        self.backlog.lock().before(place, key)
    }

    /// What a parked message waits for.
    pub fn waits_for(&self, sequence: Sequence) -> Option<Sequence> {
        self.backlog.lock().waits_for(sequence)
    }

    /// Parked messages in the order in which they must leave.
    pub fn parked_in_order(&self) -> Vec<(Place, Option<u128>)> {
        self.backlog.lock().iter().collect()
    }

    /// New dead letters since this run began, whatever left since.
    pub fn newly_parked(&self) -> bool {
        !self.inner.lock().new.is_empty()
    }

    /// `reached`: how far the route has got (its checkpoint, control events included); `beyond`: what the caller found
    /// between the cursor and there.
    pub fn status(&self, reached: Sequence, beyond: Found) -> SubscriptionStatus {
        let parked = {
            let ledger = self.ledger.lock();
            ledger.failed() + ledger.waiting()
        };
        let inner = self.inner.lock();
        let behind = reached.get().saturating_sub(inner.cursor.get()).saturating_sub(beyond.control);
        let age = |oldest: Micros| (crate::clock::now() - oldest).max(0) as f64 / 1e6;
        SubscriptionStatus {
            name: self.exporter.clone(),
            route: self.route.clone(),
            kind: self.kind.to_owned(),
            state: inner.state,
            cursor: inner.cursor.get(),
            lag_events: behind,
            lag_seconds: if behind == 0 { 0.0 } else { inner.oldest.or(beyond.oldest).map_or(0.0, age) },
            delivered: inner.delivered,
            parked,
            error: inner.error.clone(),
        }
    }
}
