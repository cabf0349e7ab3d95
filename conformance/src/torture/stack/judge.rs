//! The end of a stack run: log, tables, exports, dead letters and counters against the oracle.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::arms::{Outlet, Server, Store};
use super::config::Layout;
use super::engine::Engine;
use super::feed::{Record, journal_path};
use super::journal::{self, Knowledge};
use super::oracle::{self, Expectation, Fate};
use super::script::{Item, Plan};
use super::target::{Received, queue, stream, topic};
use super::{documents, tables};

/// Nobody is killed any more: without any progress for this long something hangs. How fast the rest comes is the machine's affair.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is wrong, in the figures of the issue; anything else is a problem.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Items that are in the log.
    pub events: u64,
    /// Acknowledged items that are not in the log.
    pub lost: u64,
    /// Items twice in the log or in `audit`.
    pub duplicated: u64,
    pub rows_different: u64,
    pub exports_missing: u64,
    pub parked: u64,
    pub problems: Vec<String>,
}

impl Verdict {
    fn problem(&mut self, text: String) {
        if self.problems.len() < 25 {
            self.problems.push(text);
        }
    }
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Logged>,
}

#[derive(Deserialize)]
struct Logged {
    sequence: u64,
    source: String,
    key: Option<String>,
    payload: Option<Box<RawValue>>,
    raw: Option<String>,
}

/// The run's items as the log holds them.
#[derive(Default)]
pub struct Scan {
    after: u64,
    /// Item to all its sequences, ascending.
    items: BTreeMap<u64, Vec<u64>>,
    at: HashMap<u64, u64>,
    /// Item to payload and key as the log has them.
    texts: HashMap<u64, (String, Option<String>)>,
    sources: Vec<&'static str>,
    problems: Vec<String>,
}

impl Scan {
    pub fn new(layout: &Layout) -> Scan {
        Scan { sources: layout.arms.lanes.iter().map(|lane| lane.source()).collect(), ..Scan::default() }
    }

    /// Reads on to the end of the log.
    pub async fn read_on(&mut self, engine: &Engine) -> Result<(), String> {
        loop {
            let document = engine.get_text(&format!("/v1/events?after={}&limit=5000", self.after)).await?;
            let page: Page = serde_json::from_str(&document).map_err(|error| format!("/v1/events: {error}"))?;
            if page.events.is_empty() {
                return Ok(());
            }
            for event in page.events {
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: Logged) {
        if event.sequence != self.after + 1 {
            self.problems.push(format!("sequence {} follows {} in /v1/events", event.sequence, self.after));
        }
        self.after = event.sequence;
        // Control events come from no source of the run.
        if !self.sources.contains(&event.source.as_str()) {
            return;
        }
        let text = match (event.payload, event.raw) {
            (Some(payload), _) => payload.get().to_owned(),
            (None, Some(raw)) => BASE64_STANDARD
                .decode(raw)
                .map_or_else(|error| format!("base64: {error}"), |bytes| String::from_utf8_lossy(&bytes).into_owned()),
            (None, None) => String::new(),
        };
        let Some(item) = number_after(&text, r#""i":"#) else {
            return self.problems.push(format!("sequence {}: no item in {text}", event.sequence));
        };
        self.items.entry(item).or_default().push(event.sequence);
        self.at.insert(event.sequence, item);
        self.texts.insert(item, (text, event.key));
    }

    fn found(&self) -> HashSet<u64> {
        self.items.keys().copied().collect()
    }

    fn first_sequences(&self) -> BTreeMap<u64, u64> {
        self.items.iter().filter_map(|(item, sequences)| Some((*item, *sequences.first()?))).collect()
    }

    /// Bytes, order per entity, single copies; ghosts and losses against the journal.
    fn check(&self, script: impl Iterator<Item = Item>, known: &HashMap<u64, Knowledge>, verdict: &mut Verdict) {
        for problem in &self.problems {
            verdict.problem(problem.clone());
        }
        for (item, sequences) in self.items.iter().filter(|(_, sequences)| sequences.len() > 1) {
            verdict.duplicated += sequences.len() as u64 - 1;
            verdict.problem(format!("item {item} is in the log at {sequences:?}"));
        }
        let last = known.keys().max().copied().unwrap_or_default();
        let mut of_entity: HashMap<u64, u64> = HashMap::new();
        for item in script.take_while(|item| item.index <= last) {
            let index = item.index;
            let sequence = self.items.get(&index).and_then(|sequences| sequences.first());
            match (known.get(&index), sequence) {
                (Some(Knowledge::Must), None) => {
                    verdict.lost += 1;
                    verdict.problem(format!("item {index} ({:?}) was acknowledged and is not in the log", item.lane));
                }
                (Some(Knowledge::MustNot) | None, Some(sequence)) => {
                    verdict.problem(format!("item {index} is in the log at {sequence} and was never accepted"));
                }
                (_, Some(sequence)) => {
                    self.check_item(&item, verdict);
                    let before = of_entity.insert(item.entity, *sequence);
                    if before.is_some_and(|before| before > *sequence) {
                        verdict.problem(format!("item {index} of entity {} is before its predecessor", item.entity));
                    }
                }
                _ => {}
            }
        }
    }

    fn check_item(&self, item: &Item, verdict: &mut Verdict) {
        let Some((text, key)) = self.texts.get(&item.index) else { return };
        // What could not be decoded is kept whole.
        let malformed = item.act == super::script::Act::Malformed;
        let expected = if malformed { item.envelope(!item.lane.has_keys()) } else { item.payload() };
        if *text != expected {
            verdict.problem(format!("item {}: the log has {text}, sent was {expected}", item.index));
        }
        // A key in an envelope that cannot be read is not read either.
        let sent = (item.lane.has_keys() || !malformed).then(|| item.key());
        if *key != sent {
            verdict.problem(format!("item {}: key {key:?}, sent was {sent:?}", item.index));
        }
    }
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Waits until the log has all that was acknowledged and every route and subscription is in step with it.
pub async fn drained(engine: &Engine, directory: &std::path::Path, scan: &mut Scan) -> Result<(), String> {
    let known = read_journal(directory)?;
    let (mut since, mut best) = (Instant::now(), u64::MAX);
    loop {
        scan.read_on(engine).await?;
        let missing =
            known.iter().filter(|(item, k)| **k == Knowledge::Must && !scan.items.contains_key(*item)).count();
        let status = engine.status().await?;
        let parts = || {
            let of = |kind: &str| status[kind].as_array().map(Vec::as_slice).unwrap_or_default();
            of("routes").iter().chain(of("exporters"))
        };
        let behind: Vec<String> = parts()
            .filter(|part| part["lag_events"] != 0 || part["state"] != "running")
            .map(|part| format!("{} {} {} behind, {}", part["name"], part["state"], part["lag_events"], part["error"]))
            .collect();
        if missing == 0 && behind.is_empty() {
            return Ok(());
        }
        let left = missing as u64 + parts().filter_map(|part| part["lag_events"].as_u64()).sum::<u64>();
        if left < best {
            (since, best) = (Instant::now(), left);
        } else if since.elapsed() > PATIENCE {
            return Err(format!(
                "no progress for {} s: {missing} acknowledged items not in the log; {}",
                PATIENCE.as_secs(),
                behind.join(", ")
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn read_journal(directory: &std::path::Path) -> Result<HashMap<u64, Knowledge>, String> {
    journal::read(&journal_path(directory)).map_err(|error| format!("the journal: {error}"))
}

/// Compares everything. The engine runs, nothing is killed any more.
pub async fn judge(
    layout: &Layout,
    engine: &Engine,
    feed: &Record,
    mut hook: Received,
    plan: Plan,
) -> Result<Verdict, String> {
    let mut verdict = Verdict::default();
    let mut scan = Scan::new(layout);
    if let Err(why) = drained(engine, &layout.directory, &mut scan).await {
        verdict.problem(why);
    }
    let known = read_journal(&layout.directory)?;
    scan.check(plan.script(), &known, &mut verdict);
    let in_log = oracle::in_log(&known, &scan.found());
    verdict.events = scan.items.len() as u64;
    for (item, sequence) in feed.promised.lock().iter() {
        if scan.items.get(item).is_none_or(|sequences| !sequences.contains(sequence)) {
            verdict.problem(format!("item {item} was promised at {sequence}, is at {:?}", scan.items.get(item)));
        }
    }
    for problem in feed.problems.lock().iter() {
        verdict.problem(format!("generator: {problem}"));
    }
    let of_store = |store: &Store| (*store, oracle::of_store(*store, plan.script(), &in_log));
    let expected: BTreeMap<Store, Expectation> = layout.arms.stores.iter().map(of_store).collect();
    let sequences = scan.first_sequences();
    for (store, expected) in &expected {
        if expected.count(Fate::Applied) == 0 {
            verdict.problem(format!("{}: no event was due: nothing was shown", store.route()));
        }
        let found = match store {
            Store::Postgres => tables::postgres(&layout.database_url(Server::Postgres)?).await,
            Store::MariaDb => tables::mariadb(&layout.database_url(Server::MariaDb)?).await,
            Store::Sqlite => tables::sqlite(&layout.sqlite()).await,
            Store::MongoDb => documents::read(layout.peers.at(Server::MongoDb)?, &layout.database).await,
        };
        let difference = found?.compare(expected, &sequences);
        verdict.rows_different += difference.rows;
        verdict.duplicated += difference.duplicated;
        for example in difference.examples {
            verdict.problem(format!("{}: {example}", store.route()));
        }
    }
    for (outlet, store) in layout.arms.outlets {
        let received = match outlet {
            Outlet::Topic => {
                let (hosts, topic) = (layout.peers.at(Server::Kafka)?.to_owned(), layout.outbound.clone());
                tokio::task::spawn_blocking(move || topic::read_all(&hosts, &topic))
                    .await
                    .map_err(|error| format!("reading the topic: {error}"))??
            }
            Outlet::Hook => std::mem::take(&mut hook),
            Outlet::Stream => stream::read_all(layout.peers.at(Server::Nats)?, &layout.outbound).await?,
            Outlet::Queue => queue::read_all(layout.peers.at(Server::RabbitMq)?, &layout.outbound).await?,
        };
        let expected = expected.get(store).ok_or_else(|| format!("{store:?} is no store of this run"))?;
        check_exports(outlet.exporter(), received, expected, plan, &mut verdict);
    }
    let letters = engine.get("/v1/dlq").await?;
    check_letters(&letters, &expected, &scan, &mut verdict);
    check_counters(&engine.status().await?, &expected, &mut verdict);
    let parked = |expected: &Expectation| expected.count(Fate::Failed) + expected.count(Fate::Waiting);
    verdict.parked = expected.values().map(parked).max().unwrap_or_default();
    Ok(verdict)
}

/// P7 and P5: each id at least once, one id per item, an entity's items in order at their first delivery.
fn check_exports(name: &str, received: Received, expected: &Expectation, plan: Plan, verdict: &mut Verdict) {
    for problem in received.problems {
        verdict.problem(format!("{name}: {problem}"));
    }
    let mut ids: HashMap<u64, String> = HashMap::new();
    let mut items: HashMap<String, u64> = HashMap::new();
    let mut order: Vec<u64> = Vec::new();
    for message in received.messages {
        let known = items.insert(message.id.clone(), message.item);
        if known.is_some_and(|item| item != message.item) {
            verdict.problem(format!("{name}: id {} stands for several items", message.id));
        }
        match ids.get(&message.item) {
            None => {
                order.push(message.item);
                ids.insert(message.item, message.id);
            }
            Some(id) if *id != message.id => {
                verdict.problem(format!("{name}: item {} came as {id} and as {}", message.item, message.id));
            }
            Some(_) => {}
        }
    }
    let due: BTreeSet<u64> =
        expected.fates.iter().filter(|(_, fate)| **fate == Fate::Applied).map(|(item, _)| *item).collect();
    let missing: Vec<u64> = due.iter().filter(|item| !ids.contains_key(item)).copied().collect();
    verdict.exports_missing += missing.len() as u64;
    if let Some(first) = missing.first() {
        verdict.problem(format!("{name}: {} items without a message, the first is {first}", missing.len()));
    }
    for item in ids.keys().filter(|item| !due.contains(*item)) {
        verdict.problem(format!("{name}: a message for item {item}, which was not applied"));
    }
    let last = due.last().copied().unwrap_or_default();
    let entity: HashMap<u64, u64> =
        plan.script().take_while(|i| i.index <= last).map(|i| (i.index, i.entity)).collect();
    let mut newest: HashMap<u64, u64> = HashMap::new();
    for item in order {
        let Some(entity) = entity.get(&item) else { continue };
        let before = newest.insert(*entity, item);
        if before.is_some_and(|before| before > item) {
            verdict.problem(format!("{name}: item {item} of entity {entity} came after {before:?}"));
        }
    }
}

/// Dead letters: exactly the failed and the waiting ones per route, exactly the undecodable ones at ingest.
fn check_letters(letters: &Value, expected: &BTreeMap<Store, Expectation>, scan: &Scan, verdict: &mut Verdict) {
    let mut found: BTreeSet<(String, u64, bool)> = BTreeSet::new();
    for letter in letters.as_array().into_iter().flatten() {
        let route = letter["route"].as_str().unwrap_or_default().to_owned();
        match letter["sequence"].as_u64().and_then(|sequence| scan.at.get(&sequence)) {
            Some(item) => drop(found.insert((route, *item, letter["waiting"] == true))),
            None => verdict.problem(format!("a dead letter that is no item: {letter}")),
        }
    }
    let mut wanted: BTreeSet<(String, u64, bool)> = BTreeSet::new();
    for (store, expected) in expected {
        for (item, fate) in &expected.fates {
            if let Fate::Failed | Fate::Waiting = fate {
                wanted.insert((store.route().to_owned(), *item, *fate == Fate::Waiting));
            }
        }
        wanted.extend(expected.undecodable.iter().map(|item| ("ingest".to_owned(), *item, false)));
    }
    for letter in wanted.difference(&found).take(4) {
        verdict.problem(format!("no dead letter {letter:?} (route, item, waiting)"));
    }
    for letter in found.difference(&wanted).take(4) {
        verdict.problem(format!("a dead letter {letter:?} (route, item, waiting) that nobody expects"));
    }
}

/// P4: the identity, and each of its numbers.
fn check_counters(status: &Value, expected: &BTreeMap<Store, Expectation>, verdict: &mut Verdict) {
    let routes = status["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (store, expected) in expected {
        let name = store.route();
        let Some(route) = routes.iter().find(|route| route["name"] == name) else {
            verdict.problem(format!("{name}: no such route"));
            continue;
        };
        let number = |field: &str| route[field].as_u64().unwrap_or(u64::MAX);
        let sum = ["applied", "filtered", "unmatched", "parked", "skipped"].iter().map(|f| number(f)).sum::<u64>();
        if number("read") != sum {
            verdict.problem(format!("{name}: read {} but the sum is {sum}: {route}", number("read")));
        }
        let wanted = [
            ("read", expected.fates.len() as u64),
            ("applied", expected.count(Fate::Applied)),
            ("filtered", expected.count(Fate::Filtered)),
            ("unmatched", expected.count(Fate::Unmatched)),
            ("failed", expected.count(Fate::Failed)),
            ("waiting", expected.count(Fate::Waiting)),
            ("skipped", 0),
        ];
        for (field, wanted) in wanted.into_iter().filter(|(field, wanted)| number(field) != *wanted) {
            verdict.problem(format!("{name}: {field} is {}, expected {wanted}", number(field)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::stack::arms::FEW;
    use crate::torture::stack::target::Delivered;

    const PLAN: Plan = Plan { seed: 1, entities: 20, lanes: FEW.lanes };

    fn expected() -> Expectation {
        oracle::fold(PLAN.script(), &(0..200).collect())
    }

    fn complete(expected: &Expectation) -> Received {
        let due = expected.fates.iter().filter(|(_, fate)| **fate == Fate::Applied);
        let messages = due.map(|(item, _)| Delivered { id: format!("id-{item}"), item: *item }).collect();
        Received { messages, ..Received::default() }
    }

    fn exports(change: impl FnOnce(&mut Vec<Delivered>)) -> Verdict {
        let expected = expected();
        let mut received = complete(&expected);
        change(&mut received.messages);
        let mut verdict = Verdict::default();
        check_exports("x", received, &expected, PLAN, &mut verdict);
        verdict
    }

    #[test]
    fn exports_may_repeat_but_not_be_missing_renamed_or_out_of_order() {
        let again = |messages: &mut Vec<Delivered>| messages.push(messages[3].clone());
        assert_eq!(exports(again).problems, Vec::<String>::new());
        let missing = exports(|messages| drop(messages.remove(5)));
        assert_eq!(missing.exports_missing, 1);
        let renamed = |messages: &mut Vec<Delivered>| {
            let again = Delivered { id: "other".to_owned(), ..messages[3].clone() };
            messages.push(again);
        };
        assert_eq!(exports(renamed).problems.len(), 1);
        assert!(!exports(|messages| messages.reverse()).problems.is_empty());
    }

    #[test]
    fn counters_that_lie_are_found() {
        let expected = expected();
        let count = |fate| expected.count(fate);
        let parked = count(Fate::Failed) + count(Fate::Waiting);
        let mut status = serde_json::json!({"routes": [{
            "name": "pg", "read": 200, "applied": count(Fate::Applied), "filtered": count(Fate::Filtered),
            "unmatched": count(Fate::Unmatched), "parked": parked, "failed": count(Fate::Failed),
            "waiting": count(Fate::Waiting), "skipped": 0,
        }]});
        let mut verdict = Verdict::default();
        let expected = BTreeMap::from([(Store::Postgres, expected)]);
        check_counters(&status, &expected, &mut verdict);
        assert_eq!(verdict.problems, Vec::<String>::new());
        status["routes"][0]["applied"] = 7.into();
        check_counters(&status, &expected, &mut verdict);
        assert_eq!(verdict.problems.len(), 2);
    }

    #[test]
    fn the_item_is_found_in_whole_and_in_broken_payloads() {
        assert_eq!(number_after(r#"{"i":12,"x":1}"#, r#""i":"#), Some(12));
        assert_eq!(number_after(r#"{"event":"e","payload":{"i":12"#, r#""i":"#), Some(12));
        assert_eq!(number_after("{}", r#""i":"#), None);
    }
}
