//! One run of the whole engine under load and a nemesis, judged by the oracle: `torture stack-kill`, `peer-kill`, `toxic`, `rebalance`
//! and one half of `fence`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::arms::Peers;
use super::config::Layout;
use super::engine::Engine;
use super::feed::Feed;
use super::ground::Ground;
use super::judge::{self, Verdict};
use super::nemesis::{Deeds, Nemesis, Network, READY_PATIENCE};
use super::script::Plan;
use super::target::hook::Hook;
use crate::torture::ledger::Outcome;

/// Few enough that keys repeat often, many enough that poisoned ones do not stop everything.
const ENTITIES: u64 = 3_000;

#[derive(Clone, Debug)]
pub struct StackGate {
    pub nemesis: Nemesis,
    pub seed: u64,
    /// Events per second.
    pub rate: u64,
    pub failpoints: Option<String>,
}

/// A restart with recovery, start to `/readyz`: 99 of 100 are within this.
const RESTART_LIMIT_MS: u64 = 3_000;

impl StackGate {
    /// Blocking. The error says why the gate could not run; a red gate is an outcome.
    pub fn run(&self, peers: Peers) -> Result<Outcome, String> {
        super::runtime()?.block_on(self.run_on(peers))
    }

    async fn run_on(&self, peers: Peers) -> Result<Outcome, String> {
        let started = Instant::now();
        let mut ground = Ground::prepare(self.name(), self.seed, self.nemesis.arms(), peers).await?;
        let network = match self.nemesis {
            Nemesis::Toxic { .. } => Some(Network::between(&mut ground.layout).await?),
            _ => None,
        };
        let judged = self.judged(&ground.layout, &ground.hook, network.as_ref()).await;
        let outcome = match judged {
            Ok((deeds, verdict)) => self.outcome(deeds, verdict, started.elapsed()),
            Err(why) => {
                ground.clear().await?;
                return Err(why);
            }
        };
        if !outcome.passed() && self.failpoints.is_none() {
            eprintln!("{}: {}", outcome.gate, ground.keep(&format!("{}-{}", self.name().replace(' ', "-"), self.seed)));
        }
        ground.clear().await?;
        Ok(outcome)
    }

    async fn judged(
        &self,
        layout: &Layout,
        hook: &Hook,
        network: Option<&Network>,
    ) -> Result<(Deeds, Verdict), String> {
        let mut engine = Engine::new(layout.clone(), self.failpoints.clone())?;
        engine.start()?;
        engine.ready(READY_PATIENCE).await?;
        let plan = Plan { seed: self.seed, entities: ENTITIES, lanes: layout.arms.lanes };
        let feed = Feed::start(layout, plan, self.rate, &tokio::runtime::Handle::current())?;
        let mut deeds = Deeds::default();
        let done = self.nemesis.act(self.seed, layout, &mut engine, network, &mut deeds).await;
        if let Err(why) = done {
            deeds.problems.push(why);
        }
        let record = tokio::task::spawn_blocking(move || feed.finish())
            .await
            .map_err(|error| format!("the generator: {error}"))?;
        deeds.repeats = record.repeats.load(Ordering::Relaxed);
        let received = hook.received.clone();
        let mut scan = judge::Scan::new(layout);
        // The endpoint's list is complete only once everything is in step.
        let in_step = judge::drained(&engine, &layout.directory, &mut scan).await;
        let hook = std::mem::take(&mut *received.lock());
        let verdict = match in_step {
            Ok(()) => judge::judge(layout, &engine, &record, hook, plan).await,
            Err(why) => Err(why),
        };
        let verdict = verdict.unwrap_or_else(|why| Verdict {
            problems: vec![format!("{why}; the engine's last words: {}", engine.last_words())],
            ..Verdict::default()
        });
        if let Err(why) = engine.kill() {
            deeds.problems.push(why);
        }
        Ok((deeds, verdict))
    }

    pub fn name(&self) -> &'static str {
        self.nemesis.gate()
    }

    fn outcome(&self, mut deeds: Deeds, verdict: Verdict, elapsed: Duration) -> Outcome {
        deeds.restarts_ms.sort_unstable();
        let p99 = deeds.restarts_ms.get(deeds.restarts_ms.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0);
        let word = self.nemesis.word();
        let mut failures = deeds.problems;
        failures.extend(verdict.problems);
        let counts = [verdict.lost, verdict.duplicated, verdict.rows_different, verdict.exports_missing];
        if failures.is_empty() && counts.iter().any(|count| *count > 0) {
            failures.push("see the figures".to_owned());
        }
        if failures.is_empty() && (verdict.events == 0 || deeds.count == 0 || verdict.parked == 0) {
            failures.push(format!("{} events, {} {word}: nothing was shown", verdict.events, deeds.count));
        }
        // Of peers it is their own affair how long they need.
        if matches!(self.nemesis, Nemesis::Engine { .. }) && p99 > RESTART_LIMIT_MS {
            failures.push(format!("restart p99 is {p99} ms, the limit {RESTART_LIMIT_MS} ms"));
        }
        Outcome {
            gate: self.name().to_owned(),
            seed: self.seed,
            line: format!(
                "{} {word}, {} events, {} lost, {} duplicated rows, {} rows different from the oracle, {} export ids missing, restart p99 {p99} ms",
                deeds.count,
                verdict.events,
                verdict.lost,
                verdict.duplicated,
                verdict.rows_different,
                verdict.exports_missing
            ),
            figures: vec![
                (word, deeds.count),
                ("events", verdict.events),
                ("lost", verdict.lost),
                ("duplicated rows", verdict.duplicated),
                ("rows different", verdict.rows_different),
                ("export ids missing", verdict.exports_missing),
                ("parked", verdict.parked),
                ("requests repeated", deeds.repeats),
                ("restart p99 ms", p99),
            ],
            failures,
            elapsed,
        }
    }
}
