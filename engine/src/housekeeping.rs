//! Once a second: counters of sources are noted, replaced connections closed, and states end that nobody will ask for
//! again.
//!
//! What a subscription may still ask about begins at the cursor that the log *durably* holds, not at the one in memory: after
//! a crash it goes on from there. And whoever waits for the outcome of a retry reads it from memory, so a state goes at
//! the earliest one round after it could. An idle engine writes nothing.

use std::sync::Arc;
use std::time::Duration;

use gravity_log::Batch;
use gravity_model::Sequence;
use gravity_model::port::export::Exporter;
use gravity_model::port::view::ViewStore;
use hashbrown::HashMap;
use tokio::time::MissedTickBehavior;

use crate::control;
use crate::engine::{Inner, SubscriptionEntry};

const EVERY: Duration = Duration::from_secs(1);

/// See the module's comment.
pub(crate) struct Housekeeper {
    inner: Arc<Inner>,
    /// Of each route, and of each subscription's own states.
    rounds: HashMap<String, Round>,
    /// Of versions of the rules.
    rules: Round,
}

/// Up to where states could go in the round before; now they may.
#[derive(Default)]
struct Round(Sequence);

impl Round {
    /// They can go up to `now`: answers up to where they may.
    fn next(&mut self, now: Sequence) -> Sequence {
        std::mem::replace(&mut self.0, now).min(now)
    }
}

impl Housekeeper {
    pub fn new(inner: Arc<Inner>) -> Housekeeper {
        Housekeeper { inner, rounds: HashMap::new(), rules: Round::default() }
    }

    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(EVERY);
        // Rounds stay apart also after a stall: whoever waits gets the time between them.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = self.inner.log.health();
        loop {
            tokio::select! {
                () = self.inner.stop_exporters.cancelled() => return,
                _ = tick.tick() => {}
            }
            self.close_retired().await;
            // A failed write took with it what nobody waited for.
            let is_in_doubt = health.has_changed().unwrap_or(false);
            health.mark_unchanged();
            for source in self.inner.sources.gauges() {
                if is_in_doubt {
                    source.doubt_note();
                }
                source.note(&*self.inner.log);
            }
            self.tidy();
        }
    }

    /// Connections that a reload replaced, once nobody uses them any more.
    async fn close_retired(&self) {
        let unused = |store: &mut Arc<dyn ViewStore>| Arc::strong_count(store) == 1;
        let unused: Vec<_> = self.inner.retired.lock().extract_if(.., unused).collect();
        for store in unused {
            store.close().await;
        }
        let unused = |exporter: &mut Arc<dyn Exporter>| Arc::strong_count(exporter) == 1;
        let unused: Vec<_> = self.inner.retired_exporters.lock().extract_if(.., unused).collect();
        for exporter in unused {
            exporter.close().await;
        }
    }

    fn tidy(&mut self) {
        let mut batch = Batch::new();
        let routes = self.inner.routes.lock().clone();
        let subscriptions = self.inner.subscriptions.lock().clone();
        for route in &routes {
            let name = &route.gauge.name;
            let mine: Vec<&SubscriptionEntry> = subscriptions.iter().filter(|s| s.gauge.route == *name).collect();
            let checkpoint = route.gauge.checkpoint();
            let noted = mine.iter().map(|s| s.gauge.noted()).fold(checkpoint, Sequence::min);
            let passed = mine.iter().map(|s| s.gauge.cursor()).fold(checkpoint, Sequence::min);
            let through = self.rounds.entry(name.clone()).or_default().next(noted);
            let oldest = {
                let mut ledger = route.gauge.ledger.lock();
                ledger.forget(name, through).write(name, &mut batch);
                ledger.oldest_kept()
            };
            route.gauge.forget_programs(through);
            ask(&mine, oldest.filter(|oldest| *oldest <= passed));
        }
        for subscription in &subscriptions {
            let name = subscription.gauge.name();
            let through = self.rounds.entry(name.clone()).or_default().next(subscription.gauge.noted());
            subscription.gauge.ledger.lock().forget(&name, through).write(&name, &mut batch);
        }
        let checkpoint = routes.iter().map(|r| r.gauge.checkpoint()).min();
        if let Some(checkpoint) = checkpoint {
            let noted = subscriptions.iter().map(|s| s.gauge.noted()).fold(checkpoint, Sequence::min);
            let passed = subscriptions.iter().map(|s| s.gauge.cursor()).fold(checkpoint, Sequence::min);
            let through = self.rules.next(noted);
            for key in self.inner.rules.forget(through) {
                control::end(&mut batch, control::CONFIG_CHANGED, &key);
            }
            let all: Vec<&SubscriptionEntry> = subscriptions.iter().collect();
            ask(&all, self.inner.rules.first_change().filter(|change| *change <= passed));
        }
        if !batch.is_empty()
            && let Err(error) = self.inner.log.append_lazy(batch)
        {
            tracing::debug!(%error, "finished states not ended");
        }
    }
}

/// Something could go as soon as these subscriptions have noted that they are past it.
fn ask(subscriptions: &[&SubscriptionEntry], oldest: Option<Sequence>) {
    let Some(oldest) = oldest else { return };
    subscriptions.iter().filter(|s| s.gauge.noted() < oldest).for_each(|s| s.gauge.ask_to_note());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_go_stays_for_one_round_more() {
        let mut round = Round::default();
        assert_eq!(round.next(Sequence(5)), Sequence::ZERO, "a waiter has not had its time yet");
        assert_eq!(round.next(Sequence(9)), Sequence(5));
        assert_eq!(round.next(Sequence(7)), Sequence(7), "a database went back");
        assert_eq!(round.next(Sequence(9)), Sequence(7));
    }
}
