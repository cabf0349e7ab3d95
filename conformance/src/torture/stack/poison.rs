//! `torture poison`, S14: one event in ten is bad, half of those in one row. The good ones get in at half of the usual speed or better,
//! the dead letters are exactly the bad ones, memory stays what it was.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use serde_json::Value;

use super::arms::{Arms, Lane, Peers, Server, Store};
use super::engine::Engine;
use super::ground::Ground;
use super::nemesis::READY_PATIENCE;
use crate::torture::ledger::Outcome;

/// Kafka in, two databases.
pub const ARMS: Arms = Arms {
    lanes: &[Lane::Kafka],
    stores: &[Store::Postgres, Store::Sqlite],
    // How fast an endpoint answers is not what is asked.
    outlets: &[],
};
const PATIENCE: Duration = Duration::from_secs(600);
/// Of the resident memory at its highest, bad events against none: 10,000 dead letters and no more.
const GROWTH_MIB: u64 = 64;
/// Of the speed without bad events, in percent.
const SPEED: u64 = 50;

#[derive(Clone, Debug)]
pub struct PoisonGate {
    pub events: u64,
    pub seed: u64,
    pub failpoints: Option<String>,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Good,
    /// A word where a number belongs: parks on every route.
    WrongType,
    /// Parks on every route, and blocks nothing.
    NoKey,
    /// No JSON: parks at intake, once.
    Undecodable,
}

/// One in ten is bad: one in twenty spread out, and as many in one row.
fn kind(index: u64, events: u64, bad: bool) -> Kind {
    let row = events / 4..events / 4 + events / 20;
    let outside = if index < row.start { index } else { index.saturating_sub(row.end - row.start) };
    // 1 in 19 of what lies outside the row is 1 in 20 of all.
    let poisoned = row.contains(&index) || outside % 19 == 18;
    match index % 3 {
        _ if !bad || !poisoned => Kind::Good,
        0 => Kind::WrongType,
        1 => Kind::NoKey,
        _ => Kind::Undecodable,
    }
}

fn message(index: u64, kind: Kind) -> String {
    let user = match kind {
        Kind::Good => format!(
            r#"{{"id":{index},"name":"name {index}","email":"{index}@example.org","age":30,"amount":1.5,"active":true}}"#
        ),
        Kind::WrongType => format!(r#"{{"id":{index},"age":"old"}}"#),
        Kind::NoKey => r#"{"name":"nobody"}"#.to_owned(),
        Kind::Undecodable => return format!(r#"{{"event":"userCreated","payload":{{"i":{index},"#),
    };
    format!(r#"{{"event":"userCreated","payload":{{"i":{index},"user":{user}}}}}"#)
}

/// One run over all events.
struct Passed {
    elapsed: Duration,
    /// Of the resident memory, at its highest.
    memory_kib: u64,
    /// (route, item).
    letters: BTreeSet<(String, u64)>,
    problems: Vec<String>,
}

impl PoisonGate {
    /// Blocking. As with the other gates, a red gate is an outcome, not an error.
    pub fn run(&self, peers: Peers) -> Result<Outcome, String> {
        super::runtime()?.block_on(async {
            let started = Instant::now();
            let clean = self.pass(false, peers.clone()).await?;
            let poisoned = self.pass(true, peers).await?;
            Ok(self.outcome(&clean, &poisoned, started.elapsed()))
        })
    }

    async fn pass(&self, bad: bool, peers: Peers) -> Result<Passed, String> {
        // Names of its own for each pass: the consumer group must not wait for the member that was killed.
        let name = if bad { "poison" } else { "poison clean" };
        let ground = Ground::prepare(name, self.seed, ARMS, peers).await?;
        let passed = self.pass_on(bad, &ground).await;
        if passed.is_err() && self.failpoints.is_none() {
            eprintln!("poison: {}", ground.keep(&format!("poison-{}", self.seed)));
        }
        ground.clear().await?;
        passed
    }

    async fn pass_on(&self, bad: bool, ground: &Ground) -> Result<Passed, String> {
        let (hosts, topic, events) =
            (ground.layout.peers.at(Server::Kafka)?.to_owned(), ground.layout.inbound.clone(), self.events);
        tokio::task::spawn_blocking(move || fill(&hosts, &topic, events, bad))
            .await
            .map_err(|error| format!("the producer: {error}"))??;
        // What is switched on for a test of the gate itself may not slow the measure that it is held against.
        let mut engine = Engine::new(ground.layout.clone(), self.failpoints.clone().filter(|_| bad))?;
        engine.start()?;
        engine.ready(READY_PATIENCE).await?;
        let ready = Instant::now();
        let mut first = None;
        let (started, status) = loop {
            let status = engine.status().await?;
            let routes = status["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
            // From the first event on: joining a consumer group takes as long as it takes.
            if routes.iter().any(|route| route["read"].as_u64() > Some(0)) {
                let first = *first.get_or_insert_with(Instant::now);
                let done = |route: &Value| route["lag_events"] == 0 && route["read"].as_u64() == Some(events);
                if routes.iter().all(done) {
                    break (first, status);
                }
            }
            if ready.elapsed() > PATIENCE {
                return Err(format!("not in step after {} s: {status}", PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let elapsed = started.elapsed();
        let memory_kib = highest_memory(&engine)?;
        let mut problems = self.check_routes(bad, &status);
        let letters = letters(&engine, &mut problems).await?;
        engine.kill()?;
        Ok(Passed { elapsed, memory_kib, letters, problems })
    }

    fn check_routes(&self, bad: bool, status: &Value) -> Vec<String> {
        let count = |wanted: &[Kind]| {
            (0..self.events).filter(|index| wanted.contains(&kind(*index, self.events, bad))).count() as u64
        };
        let expected = [
            ("applied", count(&[Kind::Good])),
            ("failed", count(&[Kind::WrongType, Kind::NoKey])),
            ("unmatched", count(&[Kind::Undecodable])),
            ("waiting", 0),
            ("filtered", 0),
            ("skipped", 0),
        ];
        let routes = status["routes"].as_array().into_iter().flatten();
        let wrong = routes.flat_map(|route| {
            let wrong = expected.iter().filter(|(field, wanted)| route[*field].as_u64() != Some(*wanted));
            wrong.map(|(field, wanted)| format!("{}: {field} is {}, expected {wanted}", route["name"], route[*field]))
        });
        wrong.collect()
    }

    fn expected_letters(&self) -> BTreeSet<(String, u64)> {
        let mut letters = BTreeSet::new();
        for index in 0..self.events {
            match kind(index, self.events, true) {
                Kind::Good => {}
                Kind::WrongType | Kind::NoKey => {
                    letters.extend(ARMS.stores.iter().map(|store| (store.route().to_owned(), index)));
                }
                Kind::Undecodable => drop(letters.insert(("ingest".to_owned(), index))),
            }
        }
        letters
    }

    fn outcome(&self, clean: &Passed, poisoned: &Passed, elapsed: Duration) -> Outcome {
        let mut failures: Vec<String> = clean.problems.iter().chain(&poisoned.problems).cloned().collect();
        if !clean.letters.is_empty() {
            failures.push(format!("{} dead letters without a bad event", clean.letters.len()));
        }
        let expected = self.expected_letters();
        let missing: Vec<_> = expected.difference(&poisoned.letters).collect();
        let foreign: Vec<_> = poisoned.letters.difference(&expected).collect();
        if !missing.is_empty() || !foreign.is_empty() {
            let first = missing.iter().chain(&foreign).next();
            failures.push(format!("{} dead letters missing, {} too many: {first:?}", missing.len(), foreign.len()));
        }
        let rate = |passed: &Passed| (self.events as f64 / passed.elapsed.as_secs_f64()) as u64;
        let speed = rate(poisoned) * 100 / rate(clean).max(1);
        if speed < SPEED {
            failures.push(format!("{speed} % of the speed without bad events, at least {SPEED} % are asked for"));
        }
        let growth = poisoned.memory_kib.saturating_sub(clean.memory_kib) / 1024;
        if growth > GROWTH_MIB {
            failures.push(format!("{growth} MiB more memory than without bad events, {GROWTH_MIB} are allowed"));
        }
        let bad = (0..self.events).filter(|index| kind(*index, self.events, true) != Kind::Good).count() as u64;
        Outcome {
            gate: "poison".to_owned(),
            seed: self.seed,
            line: format!(
                "{bad} bad of {} events, {} dead letters, {} missing, {} too many, {} of {} events/s ({speed} %), {} of {} MiB",
                self.events,
                poisoned.letters.len(),
                missing.len(),
                foreign.len(),
                rate(poisoned),
                rate(clean),
                poisoned.memory_kib / 1024,
                clean.memory_kib / 1024
            ),
            figures: vec![
                ("events", self.events),
                ("bad", bad),
                ("dead letters", poisoned.letters.len() as u64),
                ("missing", missing.len() as u64),
                ("too many", foreign.len() as u64),
                ("speed percent", speed),
                ("memory growth MiB", growth),
            ],
            failures,
            elapsed,
        }
    }
}

/// Publishes every event before the engine starts, so that its own speed is what is measured. Blocking.
fn fill(hosts: &str, topic: &str, events: u64, bad: bool) -> Result<(), String> {
    let wrong = |error: KafkaError| format!("filling topic {topic}: {error}");
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", hosts)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .create()
        .map_err(wrong)?;
    let mut waiting = Vec::new();
    for index in 0..events {
        let (key, value) = (index.to_string(), message(index, kind(index, events, bad)));
        let mut record = FutureRecord::to(topic).key(&key).payload(&value);
        loop {
            match producer.send_result(record) {
                Ok(delivery) => break waiting.push(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(wrong(error)),
            }
        }
    }
    producer.flush(Duration::from_secs(60)).map_err(wrong)?;
    for delivery in waiting {
        match delivery.now_or_never() {
            Some(Ok(Ok(_))) => {}
            other => return Err(format!("filling topic {topic}: {other:?}")),
        }
    }
    Ok(())
}

/// `VmHWM` of the engine, as the kernel tells it.
fn highest_memory(engine: &Engine) -> Result<u64, String> {
    let id = engine.id().ok_or("no engine runs")?;
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    line.split_whitespace().next().and_then(|number| number.parse().ok()).ok_or_else(|| format!("VmHWM: {line}"))
}

/// All dead letters, by the item that their event carries.
async fn letters(engine: &Engine, problems: &mut Vec<String>) -> Result<BTreeSet<(String, u64)>, String> {
    let document = engine.get("/v1/dlq").await?;
    let listed = document.as_array().ok_or("no list of dead letters")?;
    let mut items = std::collections::HashMap::new();
    let mut after = 0;
    loop {
        let page = engine.get(&format!("/v1/events?after={after}&limit=5000")).await?;
        let events = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(last) = events.last() else { break };
        for event in events {
            // The key is the item; control events are no items.
            let item = event["key"].as_str().and_then(|key| key.parse::<u64>().ok());
            if let (Some(sequence), Some(item), true) =
                (event["sequence"].as_u64(), item, event["source"] == Lane::Kafka.source())
            {
                items.insert(sequence, item);
            }
        }
        after = last["sequence"].as_u64().ok_or("an event without sequence")?;
    }
    let mut found = BTreeSet::new();
    for letter in listed {
        let item = letter["sequence"].as_u64().and_then(|sequence| items.get(&sequence));
        match (letter["route"].as_str(), item) {
            (Some(route), Some(item)) if found.insert((route.to_owned(), *item)) => {}
            _ if problems.len() < 5 => problems.push(format!("a dead letter twice, or of no item: {letter}")),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_is_bad_and_half_of_them_in_one_row() {
        for events in [20_000, 100_000] {
            let bad: Vec<u64> = (0..events).filter(|index| kind(*index, events, true) != Kind::Good).collect();
            let wanted = events / 10;
            assert!(bad.len() as u64 >= wanted, "{} of {events}", bad.len());
            assert!((bad.len() as u64) < wanted + wanted / 100 + 2, "{} of {events}", bad.len());
            assert!((0..events).all(|index| kind(index, events, false) == Kind::Good));
            let row = (events / 4..events / 4 + events / 20).collect::<BTreeSet<_>>();
            assert!(row.is_subset(&bad.into_iter().collect()));
        }
    }

    #[test]
    fn bodies_say_what_they_are() {
        assert!(serde_json::from_str::<Value>(&message(1, Kind::Undecodable)).is_err());
        for kind in [Kind::Good, Kind::WrongType, Kind::NoKey] {
            assert_eq!(serde_json::from_str::<Value>(&message(7, kind)).expect("JSON")["payload"]["i"], 7);
        }
    }

    fn passed(seconds: u64, memory_kib: u64, letters: BTreeSet<(String, u64)>) -> Passed {
        Passed { elapsed: Duration::from_secs(seconds), memory_kib, letters, problems: Vec::new() }
    }

    #[test]
    fn slow_fat_or_forgetful_is_red() {
        let gate = PoisonGate { events: 1_000, seed: 1, failpoints: None };
        let clean = || passed(10, 100 << 10, BTreeSet::new());
        let judged = |poisoned: Passed| gate.outcome(&clean(), &poisoned, Duration::ZERO).failures.len();
        assert_eq!(judged(passed(19, 150 << 10, gate.expected_letters())), 0);
        assert_eq!(judged(passed(21, 150 << 10, gate.expected_letters())), 1);
        assert_eq!(judged(passed(19, 170 << 10, gate.expected_letters())), 1);
        let mut letters = gate.expected_letters();
        letters.pop_first();
        assert_eq!(judged(passed(19, 150 << 10, letters)), 1);
    }
}
