//! `torture fence`: an engine is frozen, a copy of its data directory takes over, the frozen one wakes and is given more to do. Nothing
//! of that may reach a database (SEMANTICS 3.5): the checkpoint belongs to the copy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::arms::{Arms, Lane, Outlet, Peers, Store};
use super::columns;
use super::config::Layout;
use super::engine::{self, Engine};
use super::ground::Ground;
use super::nemesis::READY_PATIENCE;
use super::script::SHARE;
use crate::torture::ledger::Outcome;
use crate::torture::random::Random;

/// Every database at hand, one way in.
pub fn arms() -> Arms {
    Arms { lanes: &[Lane::Http], outlets: &[(Outlet::Hook, Store::Sqlite)], ..Arms::at_hand() }
}

/// Orders of this entity are given to nobody but an engine that has just been woken. MongoDB has its share of both.
const STALE_ENTITY: i64 = SHARE as i64 - 1;
/// One order in this many is of the entity that every database has; of the others MongoDB has none, as its stand-in is slow.
const SHARED_ONE_IN: i64 = 8;
/// Events for the woken engine: more than the copy has written meanwhile, so that its log passes the copy's.
const STALE_EVENTS: i64 = 400;
/// For the copy to own every database. A row that the frozen engine has locked keeps it waiting.
const TAKE_OVER: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct FenceGate {
    pub wakes: u64,
    pub seed: u64,
    pub failpoints: Option<String>,
}

/// What was seen.
#[derive(Debug, Default)]
struct Found {
    wakes: u64,
    /// Engines that held a database's lock when they froze: they were killed instead.
    in_the_way: u64,
    stale: u64,
    accepted: Vec<i64>,
    next: i64,
    problems: Vec<String>,
}

impl FenceGate {
    /// Blocking. As with the other gates, a red gate is an outcome, not an error.
    pub fn run(&self, peers: Peers) -> Result<Outcome, String> {
        super::runtime()?.block_on(async {
            let started = Instant::now();
            let ground = Ground::prepare("fence", self.seed, arms(), peers).await?;
            let mut found = Found::default();
            if let Err(why) = self.rounds(&ground, &mut found).await {
                found.problems.push(why);
            }
            let outcome = self.outcome(found, started.elapsed());
            if !outcome.passed() && self.failpoints.is_none() {
                eprintln!("fence: {}", ground.keep(&format!("fence-{}", self.seed)));
            }
            ground.clear().await?;
            Ok(outcome)
        })
    }

    async fn rounds(&self, ground: &Ground, found: &mut Found) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        let mut layout = ground.layout.clone();
        let mut now = Engine::new(layout.clone(), self.failpoints.clone())?;
        now.start()?;
        now.ready(READY_PATIENCE).await?;
        let http = engine::client()?;
        // Every table is there before anybody is frozen.
        post(&http, &layout, entity_of, &mut found.next, 1, &mut found.accepted).await?;
        owners_other_than(&ground.layout, &[], PATIENCE).await?;
        for round in 0.. {
            if found.wakes >= self.wakes {
                break;
            }
            if round > 5 * self.wakes + 5 {
                return Err(format!("only {} of {round} engines could be woken", found.wakes));
            }
            // Frozen at any step of an append, a transaction, a commit.
            let until = Instant::now() + Duration::from_millis(random.within(20, 250));
            while Instant::now() < until {
                let count = random.within(1, 30) as i64;
                post(&http, &layout, entity_of, &mut found.next, count, &mut found.accepted).await?;
            }
            // A database that it has not written to yet still says the name of the one before.
            let before = [owner_of_all(&ground.layout).await?];
            // One request is open, and may be stored or not.
            let (open, http_there, layout_there) = (found.next, http.clone(), layout.clone());
            found.next += 30;
            let request = tokio::spawn(async move {
                post(&http_there, &layout_there, entity_of, &mut { open }, 30, &mut Vec::new()).await
            });
            tokio::time::sleep(Duration::from_micros(random.within(0, 40_000))).await;
            now.freeze()?;
            let next_layout = self.copy(&layout, round)?;
            let mut next = Engine::new(next_layout.clone(), self.failpoints.clone())?;
            next.start()?;
            next.ready(READY_PATIENCE).await?;
            post(&http, &next_layout, entity_of, &mut found.next, 1, &mut found.accepted).await?;
            if owners_other_than(&ground.layout, &before, TAKE_OVER).await.is_ok() {
                now.wake()?;
                self.provoke(&http, ground, &layout, &now, found).await?;
                found.wakes += 1;
            } else {
                found.in_the_way += 1;
            }
            now.kill()?;
            request.abort();
            owners_other_than(&ground.layout, &before, PATIENCE).await?;
            std::fs::remove_dir_all(layout.data()).map_err(|error| format!("{}: {error}", layout.data().display()))?;
            (layout, now) = (next_layout, next);
        }
        self.check_rows(ground, &now, found).await?;
        now.kill()
    }

    /// The frozen engine's data directory and config, to be run beside it.
    fn copy(&self, layout: &Layout, round: u64) -> Result<Layout, String> {
        let root = layout.directory.parent().filter(|_| round > 0).unwrap_or(&layout.directory);
        let directory = root.join(format!("copy-{round}"));
        let layout_of_copy = Layout {
            directory: directory.clone(),
            listen: format!("127.0.0.1:{}", engine::free_port(21_000)?),
            ..layout.clone()
        };
        copy_tree(&layout.data(), &layout_of_copy.data())?;
        copy_tree(&layout.config(), &layout_of_copy.config())?;
        Ok(layout_of_copy)
    }

    /// Gives the woken engine work for every route, waits until each has stopped (or, as it must not, has written), counts rows.
    async fn provoke(
        &self,
        http: &reqwest::Client,
        ground: &Ground,
        layout: &Layout,
        woken: &Engine,
        found: &mut Found,
    ) -> Result<(), String> {
        let (mut number, mut accepted) = (1_000 * found.wakes as i64, Vec::new());
        post(http, layout, |_| STALE_ENTITY, &mut number, STALE_EVENTS, &mut accepted).await?;
        let started = Instant::now();
        loop {
            let stale = self.stale_rows(ground).await?;
            found.stale += stale;
            if stale > 0 {
                return Err(format!("{stale} rows of an engine that no longer owns the checkpoint"));
            }
            let status = woken.status().await?;
            let routes = status["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
            if routes.iter().all(|route| route["state"] == "stopped") {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                let states: Vec<String> = routes.iter().map(Value::to_string).collect();
                return Err(format!("a woken engine still goes on: {}", states.join(", ")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn stale_rows(&self, ground: &Ground) -> Result<u64, String> {
        let mut rows = 0;
        for store in ground.layout.arms.stores {
            rows += columns::orders(&ground.layout, *store, STALE_ENTITY).await?.len() as u64;
        }
        Ok(rows)
    }

    /// Every accepted order is there once, in every database.
    async fn check_rows(&self, ground: &Ground, last: &Engine, found: &mut Found) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let status = last.status().await?;
            let routes = status["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
            if routes.iter().all(|route| route["lag_events"] == 0) {
                break;
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("not in step: {}", status["routes"]));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        found.stale += self.stale_rows(ground).await?;
        for store in ground.layout.arms.stores {
            let mut there = Vec::new();
            for entity in [entity_of(0), entity_of(1)] {
                there.extend(columns::orders(&ground.layout, *store, entity).await?);
            }
            there.sort_unstable();
            let items = columns::items(&ground.layout, *store).await?;
            let name = store.route();
            if there != items {
                found.problems.push(format!("{name}: {} orders, {} audit rows", there.len(), items.len()));
            }
            // A request that was open when its engine froze may have been stored and not answered.
            let has = |number: &i64| *store != Store::MongoDb || entity_of(*number) < SHARE as i64;
            let lost = found.accepted.iter().filter(|number| has(number) && !there.contains(number)).count();
            if lost > 0 {
                found.problems.push(format!("{name}: {lost} accepted orders are not there"));
            }
        }
        Ok(())
    }

    fn outcome(&self, found: Found, elapsed: Duration) -> Outcome {
        let mut failures = found.problems;
        if found.stale > 0 {
            failures.push(format!("{} stale rows", found.stale));
        }
        if failures.is_empty() && (found.wakes == 0 || found.accepted.len() < 2) {
            failures.push("nothing was shown".to_owned());
        }
        let events = found.accepted.len() as u64;
        Outcome {
            gate: "fence".to_owned(),
            seed: self.seed,
            line: format!(
                "{} wake-ups into a database that a copy has taken over, {} stale commits, {events} events, {} killed in the way",
                found.wakes, found.stale, found.in_the_way
            ),
            figures: vec![
                ("wake-ups", found.wakes),
                ("stale commits", found.stale),
                ("events", events),
                ("killed in the way", found.in_the_way),
            ],
            failures,
            elapsed,
        }
    }
}

/// Of an order that everybody may write.
fn entity_of(number: i64) -> i64 {
    if number % SHARED_ONE_IN == 0 { 1 } else { SHARE as i64 + 1 }
}

/// Posts `count` orders as one request; the numbers go to `accepted` once it is answered.
async fn post(
    http: &reqwest::Client,
    layout: &Layout,
    entity_of: fn(i64) -> i64,
    next: &mut i64,
    count: i64,
    accepted: &mut Vec<i64>,
) -> Result<(), String> {
    let numbers: Vec<i64> = (*next..*next + count).collect();
    *next += count;
    let lines: String = numbers
        .iter()
        .map(|number| {
            let entity = entity_of(*number);
            format!(
                "{{\"event\":\"orderPlaced\",\"key\":\"{entity}-{number}\",\"payload\":{{\"i\":{number},\"order\":{{\"entity\":{entity},\"number\":{number},\"total\":1}}}}}}\n"
            )
        })
        .collect();
    let url = format!("http://{}/v1/events/{}", layout.listen, Lane::Http.source());
    let request = http.post(url).header("content-type", "application/x-ndjson").body(lines);
    let response = request.send().await.map_err(|error| format!("publishing: {error}"))?;
    match response.status() {
        status if status.is_success() => accepted.extend(numbers),
        status => {
            return Err(format!("publishing was answered {status}: {}", response.text().await.unwrap_or_default()));
        }
    }
    Ok(())
}

/// The owners of all checkpoint rows, one for each database that has one.
async fn owners(layout: &Layout) -> Result<Vec<String>, String> {
    let mut owners = Vec::new();
    for store in layout.arms.stores {
        owners.extend(columns::owners(layout, *store).await.unwrap_or_default());
    }
    Ok(owners)
}

/// Waits until one engine owns every checkpoint; its name.
async fn owner_of_all(layout: &Layout) -> Result<String, String> {
    let started = Instant::now();
    loop {
        let mut now = owners(layout).await?;
        let complete = now.len() == layout.arms.stores.len();
        now.dedup();
        match now.pop() {
            Some(owner) if complete && now.is_empty() => return Ok(owner),
            _ if started.elapsed() > PATIENCE => {
                return Err(format!("not every checkpoint has one owner after {} s: {now:?}", PATIENCE.as_secs()));
            }
            _ => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}

/// Waits until every database has a checkpoint whose owner is none of `before`.
async fn owners_other_than(layout: &Layout, before: &[String], patience: Duration) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let now = owners(layout).await?;
        if now.len() == layout.arms.stores.len() && now.iter().all(|owner| !before.contains(owner)) {
            return Ok(());
        }
        if started.elapsed() > patience {
            return Err(format!("not every checkpoint has a new owner after {} s: {now:?}", patience.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    let wrong = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(to).map_err(|error| wrong(to, error))?;
    for entry in std::fs::read_dir(from).map_err(|error| wrong(from, error))? {
        let path: PathBuf = entry.map_err(|error| wrong(from, error))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).map_err(|error| wrong(&path, error))?;
        }
    }
    Ok(())
}
