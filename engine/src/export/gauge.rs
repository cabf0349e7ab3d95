//! How a subscription is doing, shared between its task and `status`.

use gravity_model::{Micros, Sequence};
use parking_lot::Mutex;

use crate::ledger::Ledger;
use crate::status::{RunState, SubscriptionStatus};

/// See the module's comment.
pub struct SubscriptionGauge {
    pub exporter: String,
    pub route: String,
    pub kind: &'static str,
    inner: Mutex<Inner>,
    /// Parked messages.
    pub ledger: Mutex<Ledger>,
}

struct Inner {
    state: RunState,
    error: Option<String>,
    cursor: Sequence,
    delivered: u64,
    oldest: Option<Micros>,
    parked_at_start: u64,
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
                delivered: 0,
                oldest: None,
                parked_at_start: 0,
            }),
            ledger: Mutex::default(),
        }
    }

    /// `EXPORTER@ROUTE`: the name under which its dead letters are listed.
    pub fn name(&self) -> String {
        crate::control::subscription_key(&self.exporter, &self.route)
    }

    pub fn begin(&self, cursor: Sequence, delivered: u64, ledger: Ledger) {
        let mut inner = self.inner.lock();
        (inner.cursor, inner.delivered) = (cursor, delivered);
        inner.parked_at_start = ledger.failed() + ledger.waiting();
        *self.ledger.lock() = ledger;
    }

    pub fn set_state(&self, state: RunState, error: Option<String>) {
        let mut inner = self.inner.lock();
        (inner.state, inner.error) = (state, error);
    }

    pub fn state(&self) -> (RunState, Option<String>) {
        let inner = self.inner.lock();
        (inner.state, inner.error.clone())
    }

    pub fn passed(&self, cursor: Sequence, delivered: u64) {
        let mut inner = self.inner.lock();
        (inner.cursor, inner.delivered) = (cursor, delivered);
        inner.oldest = None;
    }

    pub fn working_on(&self, oldest: Option<Micros>) {
        self.inner.lock().oldest = oldest;
    }

    pub fn cursor(&self) -> Sequence {
        self.inner.lock().cursor
    }

    pub fn newly_parked(&self) -> bool {
        let ledger = self.ledger.lock();
        ledger.failed() + ledger.waiting() > self.inner.lock().parked_at_start
    }

    /// `reached`: how far the route has got (its position, control events included).
    pub fn status(&self, reached: Sequence) -> SubscriptionStatus {
        let inner = self.inner.lock();
        let ledger = self.ledger.lock();
        let behind = reached.get().saturating_sub(inner.cursor.get());
        let age = |oldest: Micros| (crate::clock::now() - oldest).max(0) as f64 / 1e6;
        SubscriptionStatus {
            name: self.exporter.clone(),
            route: self.route.clone(),
            kind: self.kind.to_owned(),
            state: inner.state,
            cursor: inner.cursor.get(),
            lag_events: behind,
            lag_seconds: if behind == 0 { 0.0 } else { inner.oldest.map_or(0.0, age) },
            delivered: inner.delivered,
            parked: ledger.failed() + ledger.waiting(),
            error: inner.error.clone(),
        }
    }
}
