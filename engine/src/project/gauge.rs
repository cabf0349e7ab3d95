//! How a route is doing, shared between its task, its subscriptions and `status`.

use std::sync::Arc;

use gravity_model::{Counters, Micros, Sequence};
use gravity_rules::RouteProgram;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::beyond::{Beyond, Found};
use crate::ledger::Ledger;
use crate::status::{RouteStatus, RunState};

/// See the module's comment.
pub struct RouteGauge {
    pub name: String,
    pub kind: &'static str,
    inner: Mutex<Inner>,
    /// Committed checkpoint: exporters may pass up to it, waiters wake on it.
    checkpoint: watch::Sender<Sequence>,
    /// Who holds it may ask this gauge; so nothing here locks it while `inner` is locked.
    pub ledger: Mutex<Ledger>,
    unknown: Mutex<HashMap<(String, String), u64>>,
    pub beyond: Beyond,
}

struct Inner {
    state: RunState,
    error: Option<String>,
    counters: Counters,
    /// Everything up to here is done or concerns no rule.
    position: Sequence,
    /// See [`RouteGauge::seen`]; zero once the database was opened.
    seen: Sequence,
    /// When the oldest event beyond `position` was received.
    oldest: Option<Micros>,
    /// Programs by the first sequence that they hold for, oldest first.
    programs: Vec<(Sequence, Arc<RouteProgram>)>,
    /// Up to this record of a retry or skip, dead letters may be more than the bounds allow.
    parks_until: Sequence,
    /// The checkpoint when this run began, to tell new dead letters.
    began_at: Option<Sequence>,
}

impl RouteGauge {
    pub fn new(name: &str, kind: &'static str) -> RouteGauge {
        RouteGauge {
            name: name.to_owned(),
            kind,
            inner: Mutex::new(Inner {
                state: RunState::Starting,
                error: None,
                counters: Counters::default(),
                position: Sequence::ZERO,
                seen: Sequence::ZERO,
                oldest: None,
                programs: Vec::new(),
                parks_until: Sequence::ZERO,
                began_at: None,
            }),
            checkpoint: watch::Sender::new(Sequence::ZERO),
            ledger: Mutex::default(),
            unknown: Mutex::default(),
            beyond: Beyond::default(),
        }
    }

    pub fn set_state(&self, state: RunState, error: Option<String>) {
        let mut inner = self.inner.lock();
        (inner.state, inner.error) = (state, error);
    }

    pub fn state(&self) -> (RunState, Option<String>) {
        let inner = self.inner.lock();
        (inner.state, inner.error.clone())
    }

    /// A checkpoint was committed (or read back).
    pub fn committed(&self, checkpoint: Sequence, counters: Counters) {
        {
            let mut inner = self.inner.lock();
            inner.counters = counters;
            inner.seen = Sequence::ZERO;
            inner.position = inner.position.max(checkpoint);
            inner.began_at.get_or_insert(checkpoint);
        }
        self.checkpoint.send_replace(checkpoint);
    }

    /// The database was looked at and is not open: for `status` only, nothing goes on from here.
    pub fn seen(&self, checkpoint: Sequence, counters: Counters) {
        let mut inner = self.inner.lock();
        (inner.position, inner.seen, inner.counters) = (checkpoint, checkpoint, counters);
    }

    /// The checkpoint, or where it was seen to be before the route ever opened its database.
    pub fn shown_checkpoint(&self) -> Sequence {
        self.checkpoint().max(self.inner.lock().seen)
    }

    /// Believes the database after a reconnect, also where it went back.
    pub fn read_back(&self, checkpoint: Sequence, counters: Counters) {
        self.inner.lock().position = checkpoint;
        self.committed(checkpoint, counters);
    }

    pub fn passed(&self, position: Sequence, oldest: Option<Micros>) {
        let mut inner = self.inner.lock();
        (inner.position, inner.oldest) = (position, oldest);
    }

    pub fn position(&self) -> Sequence {
        self.inner.lock().position
    }

    pub fn counters(&self) -> Counters {
        self.inner.lock().counters
    }

    pub fn checkpoint(&self) -> Sequence {
        *self.checkpoint.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<Sequence> {
        self.checkpoint.subscribe()
    }

    /// New dead letters since this run began, whatever left since: older ones stand before its first checkpoint.
    pub fn newly_parked(&self) -> bool {
        let began_at = self.inner.lock().began_at;
        let newest = self.ledger.lock().newest_parked();
        newest.zip(began_at).is_some_and(|(newest, began_at)| newest > began_at)
    }

    pub fn set_program(&self, from: Sequence, program: Arc<RouteProgram>) {
        let mut inner = self.inner.lock();
        inner.programs.retain(|(known, _)| *known < from);
        inner.programs.push((from, program));
    }

    /// The compiled rules that hold for `sequence`; the oldest known for what lies before them.
    pub fn program(&self, sequence: Sequence) -> Option<Arc<RouteProgram>> {
        let inner = self.inner.lock();
        let found = inner.programs.iter().rev().find(|(from, _)| *from <= sequence).or_else(|| inner.programs.first());
        found.map(|(_, program)| program.clone())
    }

    /// Lets go of programs that hold for nothing beyond `through`.
    pub fn forget_programs(&self, through: Sequence) {
        let mut inner = self.inner.lock();
        let needed_from = inner.programs.iter().rposition(|(from, _)| *from <= through.next()).unwrap_or(0);
        inner.programs.drain(..needed_from);
    }

    pub fn parks_until(&self) -> Sequence {
        self.inner.lock().parks_until
    }

    pub fn lift_bounds(&self, until: Sequence) {
        let mut inner = self.inner.lock();
        inner.parks_until = inner.parks_until.max(until);
    }

    /// Fields that pass-through rules had no column for, by table; warned about once each.
    pub fn count_unknown(&self, fields: Vec<(String, String, u64)>) {
        let mut unknown = self.unknown.lock();
        for (table, field, count) in fields {
            let known = unknown.entry((table, field));
            if let hashbrown::hash_map::Entry::Vacant(new) = &known {
                let (table, field) = new.key();
                tracing::warn!(route = %self.name, table, field, "no column takes this field; its values stay in the log");
            }
            *known.or_default() += count;
        }
    }

    /// `beyond` is what the caller found between the route's position and `last`.
    pub fn status(&self, last: Sequence, beyond: Found) -> RouteStatus {
        let widest_blocked = self.ledger.lock().widest();
        let inner = self.inner.lock();
        let behind = last.get().saturating_sub(inner.position.get()).saturating_sub(beyond.control);
        let age = |oldest: Micros| (crate::clock::now() - oldest).max(0) as f64 / 1e6;
        let mut status = RouteStatus {
            name: self.name.clone(),
            kind: self.kind.to_owned(),
            state: inner.state,
            checkpoint: self.checkpoint().max(inner.seen).get(),
            lag_events: behind,
            lag_seconds: if behind == 0 { 0.0 } else { beyond.oldest.or(inner.oldest).map_or(0.0, age) },
            read: 0,
            applied: 0,
            filtered: 0,
            unmatched: 0,
            parked: 0,
            failed: 0,
            waiting: 0,
            skipped: 0,
            widest_blocked,
            unknown_fields: self.unknown.lock().values().sum(),
            error: inner.error.clone(),
        };
        status.set_counters(&inner.counters);
        status
    }
}
