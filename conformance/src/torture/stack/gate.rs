//! `torture stack-kill` and `torture peer-kill`: one run of the whole engine under a nemesis, judged by the oracle.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::config::{Layout, Peers};
use super::engine::Engine;
use super::feed::Feed;
use super::ground::Ground;
use super::judge::{self, Verdict};
use super::target::Hook;
use crate::torture::ledger::{Outcome, project_root};
use crate::torture::random::Random;

/// Few enough that keys repeat often, many enough that poisoned ones do not stop everything.
const ENTITIES: u64 = 3_000;
/// Start to `/readyz`, a recovery of everything included.
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// Who dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nemesis {
    /// The engine, this often.
    Engine { kills: u64 },
    /// PostgreSQL and Kafka, each this often, while the engine stays.
    Peers { kills: u64 },
}

#[derive(Clone, Debug)]
pub struct StackGate {
    pub nemesis: Nemesis,
    pub seed: u64,
    /// Events per second.
    pub rate: u64,
    pub failpoints: Option<String>,
}

/// What the nemesis did.
#[derive(Debug, Default)]
struct Deeds {
    kills: u64,
    restarts_ms: Vec<u64>,
    /// HTTP requests that the generator had to send again.
    repeats: u64,
    problems: Vec<String>,
}

impl StackGate {
    /// Blocking. The error says why the gate could not run; a red gate is an outcome.
    pub fn run(&self, peers: Peers) -> Result<Outcome, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| format!("a runtime: {error}"))?;
        runtime.block_on(self.run_on(peers))
    }

    async fn run_on(&self, peers: Peers) -> Result<Outcome, String> {
        let started = Instant::now();
        let ground = Ground::prepare(self.name(), self.seed, peers).await?;
        let judged = self.judged(&ground.layout, &ground.hook).await;
        let outcome = match judged {
            Ok((deeds, verdict)) => self.outcome(deeds, verdict, started.elapsed()),
            Err(why) => {
                ground.clear().await?;
                return Err(why);
            }
        };
        if !outcome.passed() && self.failpoints.is_none() {
            eprintln!("{}: {}", outcome.gate, ground.keep(&format!("{}-{}", self.name(), self.seed)));
        }
        ground.clear().await?;
        Ok(outcome)
    }

    async fn judged(&self, layout: &Layout, hook: &Hook) -> Result<(Deeds, Verdict), String> {
        let mut engine = Engine::new(layout.clone(), self.failpoints.clone())?;
        engine.start()?;
        engine.ready(READY_PATIENCE).await?;
        let feed = Feed::start(layout, self.seed, ENTITIES, self.rate, tokio::runtime::Handle::current())?;
        let mut deeds = Deeds::default();
        let done = match self.nemesis {
            Nemesis::Engine { kills } => self.kill_engine(&mut engine, kills, &mut deeds).await,
            Nemesis::Peers { kills } => self.kill_peers(kills, &mut deeds).await,
        };
        if let Err(why) = done {
            deeds.problems.push(why);
        }
        let record = tokio::task::spawn_blocking(move || feed.finish())
            .await
            .map_err(|error| format!("the generator: {error}"))?;
        deeds.repeats = record.repeats.load(Ordering::Relaxed);
        let received = hook.received.clone();
        let mut scan = judge::Scan::default();
        // The endpoint's list is complete only once everything is in step.
        let in_step = judge::drained(&engine, &layout.directory, &mut scan).await;
        let hook = std::mem::take(&mut *received.lock());
        let verdict = match in_step {
            Ok(()) => judge::judge(layout, &engine, &record, hook, (self.seed, ENTITIES)).await,
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

    async fn kill_engine(&self, engine: &mut Engine, kills: u64, deeds: &mut Deeds) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        while deeds.kills < kills {
            tokio::time::sleep(Duration::from_millis(random.within(20, 2_500))).await;
            engine.kill()?;
            deeds.kills += 1;
            if random.one_in(3) {
                tokio::time::sleep(Duration::from_millis(random.within(1, 400))).await;
            }
            engine.start()?;
            if random.one_in(4) && deeds.kills < kills {
                // Recovery has to survive its own death.
                tokio::time::sleep(Duration::from_millis(random.within(1, 300))).await;
                engine.kill()?;
                deeds.kills += 1;
                engine.start()?;
            }
            deeds.restarts_ms.push(engine.ready(READY_PATIENCE).await?.as_millis() as u64);
        }
        Ok(())
    }

    async fn kill_peers(&self, kills: u64, deeds: &mut Deeds) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        let mut left = [("postgres", kills), ("kafka", kills)];
        while left.iter().any(|(_, kills)| *kills > 0) {
            tokio::time::sleep(Duration::from_millis(random.within(500, 4_000))).await;
            let mut choice = random.below(2) as usize;
            if left[choice].1 == 0 {
                choice = 1 - choice;
            }
            left[choice].1 -= 1;
            let name = left[choice].0;
            let started = Instant::now();
            restart_killed(name).await?;
            deeds.kills += 1;
            deeds.restarts_ms.push(started.elapsed().as_millis() as u64);
        }
        Ok(())
    }

    pub fn name(&self) -> &'static str {
        match self.nemesis {
            Nemesis::Engine { .. } => "stack-kill",
            Nemesis::Peers { .. } => "peer-kill",
        }
    }

    fn outcome(&self, mut deeds: Deeds, verdict: Verdict, elapsed: Duration) -> Outcome {
        deeds.restarts_ms.sort_unstable();
        let p99 = deeds.restarts_ms.get(deeds.restarts_ms.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0);
        let mut failures = deeds.problems;
        failures.extend(verdict.problems);
        let counts = [verdict.lost, verdict.duplicated, verdict.rows_different, verdict.exports_missing];
        if failures.is_empty() && counts.iter().any(|count| *count > 0) {
            failures.push("see the figures".to_owned());
        }
        if failures.is_empty() && (verdict.events == 0 || deeds.kills == 0 || verdict.parked == 0) {
            failures.push(format!("{} events, {} kills: nothing was shown", verdict.events, deeds.kills));
        }
        Outcome {
            gate: self.name().to_owned(),
            seed: self.seed,
            line: format!(
                "{} kills, {} events, {} lost, {} duplicated rows, {} rows different from the oracle, {} export ids missing, restart p99 {p99} ms",
                deeds.kills,
                verdict.events,
                verdict.lost,
                verdict.duplicated,
                verdict.rows_different,
                verdict.exports_missing
            ),
            figures: vec![
                ("kills", deeds.kills),
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

/// `conformance/servers restart --kill NAME`: kill -9 and start again on the same data.
async fn restart_killed(name: &'static str) -> Result<(), String> {
    let script: PathBuf = project_root().join("conformance/servers");
    let output = tokio::task::spawn_blocking(move || Command::new(script).args(["restart", "--kill", name]).output())
        .await
        .map_err(|error| format!("restarting {name}: {error}"))?
        .map_err(|error| format!("conformance/servers: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("restarting {name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
