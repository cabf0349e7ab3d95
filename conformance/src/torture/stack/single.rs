//! Gates that stage one exact moment each: a park record without its transaction, a transaction that has just parked, and a
//! checkpoint that somebody else wrote.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};

use super::arms::{self, Lane, Peers, Server, Store};
use super::engine::{self, Engine};
use super::ground::Ground;
use crate::torture::ledger::Outcome;

const PATIENCE: Duration = Duration::from_secs(30);

/// Which moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `torture park-redo`, SEMANTICS 4.3: once a park record is durable the event is parked, whether or not the transaction
    /// committed. The engine dies between the two; meanwhile the reason to park goes away; the event must stay parked.
    ParkRedo,
    /// `torture park-first`, ARCHITECTURE invariant 9: the engine dies as soon as the checkpoint has passed an event that it
    /// parked. The dead letter must be there.
    ParkFirst,
    /// `torture foreign-owner`, SEMANTICS 3.5: the checkpoint row has the right log, epoch, sequence and fence but another
    /// owner, as another copy of the data directory leaves it. The engine must write nothing more there, and go on elsewhere.
    ForeignOwner,
}

#[derive(Clone, Debug)]
pub struct SingleGate {
    pub moment: Moment,
    pub seed: u64,
    pub failpoints: Option<String>,
}

impl SingleGate {
    pub fn name(&self) -> &'static str {
        match self.moment {
            Moment::ParkRedo => "park-redo",
            Moment::ParkFirst => "park-first",
            Moment::ForeignOwner => "foreign-owner",
        }
    }

    /// Blocking. As with the other gates, a red gate is an outcome, not an error.
    pub fn run(&self, peers: Peers) -> Result<Outcome, String> {
        super::runtime()?.block_on(async {
            let started = Instant::now();
            let ground = Ground::prepare(self.name(), self.seed, arms::FEW, peers).await?;
            let found = match self.moment {
                Moment::ParkRedo => self.park_redo(&ground).await,
                Moment::ParkFirst => self.park_first(&ground).await,
                Moment::ForeignOwner => self.foreign_owner(&ground).await,
            };
            if found.is_err() && self.failpoints.is_none() {
                eprintln!("{}: {}", self.name(), ground.keep(&format!("{}-{}", self.name(), self.seed)));
            }
            ground.clear().await?;
            let (line, failures) = match found {
                Ok(line) => (line, Vec::new()),
                Err(why) => (format!("{} failed", self.name()), vec![why]),
            };
            Ok(Outcome {
                gate: self.name().to_owned(),
                seed: self.seed,
                figures: vec![("failed", failures.len() as u64)],
                line,
                failures,
                elapsed: started.elapsed(),
            })
        })
    }

    fn engine(&self, ground: &Ground, more: Option<&str>) -> Result<Engine, String> {
        let points: Vec<&str> = self.failpoints.as_deref().into_iter().chain(more).collect();
        Engine::new(ground.layout.clone(), (!points.is_empty()).then(|| points.join(";")))
    }

    async fn park_redo(&self, ground: &Ground) -> Result<String, String> {
        // Commits take so long that the parent sees the park record before the transaction commits.
        let mut engine = self.engine(ground, Some("view.before_commit=delay:3000"))?;
        let mut database = begin(&mut engine, ground).await?;
        sql(&mut database, "INSERT INTO orders (entity, number, total, state) VALUES (1, 1, 5, 'a guest')").await?;
        publish(ground, "orderPlaced", r#"{"i":0,"order":{"entity":1,"number":1,"total":9.5}}"#).await?;
        until("the conflicting order is not parked", async || {
            let letters = engine.get("/v1/dlq?route=pg").await.ok()?;
            letters.as_array().filter(|letters| letters.len() == 1).map(|_| ())
        })
        .await?;
        engine.kill()?;
        let committed = checkpoint(&mut database).await?;
        sql(&mut database, "DELETE FROM orders").await?;

        let mut engine = self.engine(ground, None)?;
        engine.start()?;
        engine.ready(PATIENCE).await?;
        publish(ground, "orderPlaced", r#"{"i":1,"order":{"entity":1,"number":2,"total":1}}"#).await?;
        until("the order after it is not applied", async || {
            let found = numbers(&mut database).await.ok()?;
            found.contains(&2).then_some(())
        })
        .await?;
        let numbers = numbers(&mut database).await?;
        let letters = engine.get("/v1/dlq?route=pg").await?;
        let status = engine.status().await?;
        engine.kill()?;
        let (parked, failed) = parked(&letters, &status);
        if numbers != [2] || parked != 1 || failed != 1 {
            return Err(format!("orders {numbers:?}, {parked} dead letters, {failed} failed; expected [2], 1, 1"));
        }
        Ok(format!("parked before its transaction (checkpoint {committed}), killed, redone: still parked"))
    }

    async fn park_first(&self, ground: &Ground) -> Result<String, String> {
        // What follows a commit comes so late that the parent sees the checkpoint before it.
        let mut engine = self.engine(ground, Some("view.after_commit=delay:3000"))?;
        let mut database = begin(&mut engine, ground).await?;
        let order = r#"{"i":0,"order":{"entity":1,"number":1,"total":"nine and a half"}}"#;
        let sequence = publish(ground, "orderPlaced", order).await?;
        until("the checkpoint does not pass the order", async || {
            checkpoint(&mut database).await.ok().filter(|checkpoint| *checkpoint >= sequence).map(|_| ())
        })
        .await?;
        engine.kill()?;

        let mut engine = self.engine(ground, None)?;
        engine.start()?;
        engine.ready(PATIENCE).await?;
        in_step(&engine, Store::Postgres.route()).await?;
        let letters = engine.get("/v1/dlq?route=pg").await?;
        let status = engine.status().await?;
        engine.kill()?;
        let (parked, failed) = parked(&letters, &status);
        if parked != 1 || failed != 1 {
            return Err(format!(
                "the checkpoint passed a parked order: {parked} dead letters, {failed} failed; expected 1, 1"
            ));
        }
        Ok(format!(
            "parked at sequence {sequence}, killed as soon as the checkpoint had passed it: the dead letter is there"
        ))
    }

    async fn foreign_owner(&self, ground: &Ground) -> Result<String, String> {
        let mut engine = self.engine(ground, None)?;
        engine.start()?;
        engine.ready(PATIENCE).await?;
        publish(ground, "orderPlaced", r#"{"i":0,"order":{"entity":1,"number":1,"total":1}}"#).await?;
        let mut database = connect_to_table(ground, "orders").await?;
        until("the first order is not applied", async || {
            numbers(&mut database).await.ok().filter(|numbers| numbers == &[1]).map(|_| ())
        })
        .await?;
        in_step(&engine, Store::Postgres.route()).await?;
        let stolen = "UPDATE gravity_checkpoints SET owner = repeat('ab', 16) WHERE route = 'pg'";
        sql(&mut database, stolen).await?;
        publish(ground, "orderPlaced", r#"{"i":1,"order":{"entity":1,"number":2,"total":1}}"#).await?;
        in_step(&engine, Store::Sqlite.route()).await?;
        // Either it stops, as it must, or the second order appears.
        let stopped = until("the route neither stopped nor went on", async || {
            let status = engine.status().await.ok()?;
            let stopped = route(&status, Store::Postgres.route())["state"] != "running";
            let written = numbers(&mut database).await.ok()?.contains(&2);
            (stopped || written).then_some(stopped && !written)
        })
        .await?;
        let status = engine.status().await?;
        engine.kill()?;
        let error = &route(&status, Store::Postgres.route())["error"];
        if !stopped {
            return Err("the engine wrote over a checkpoint of another owner".to_owned());
        }
        Ok(format!("a checkpoint of another owner: 0 rows written, the route stopped ({error}), the other one went on"))
    }
}

/// Starts the engine and waits until its route has a table and a checkpoint: a row that is there before would be somebody's own,
/// and the route refuse the table.
async fn begin(engine: &mut Engine, ground: &Ground) -> Result<PgConnection, String> {
    engine.start()?;
    engine.ready(PATIENCE).await?;
    let mut database = connect_to_table(ground, "orders").await?;
    until("the route has no checkpoint", async || checkpoint(&mut database).await.ok().map(|_| ())).await?;
    Ok(database)
}

/// Dead letters that are listed, and failed events that the route counts.
fn parked(letters: &Value, status: &Value) -> (usize, Value) {
    (letters.as_array().map_or(0, Vec::len), route(status, Store::Postgres.route())["failed"].clone())
}

/// Gives the event's sequence.
async fn publish(ground: &Ground, event: &str, payload: &str) -> Result<i64, String> {
    let url = format!("http://{}/v1/events/{}", ground.layout.listen, Lane::Http.source());
    let body = format!(r#"{{"event":"{event}","key":"one","payload":{payload}}}"#);
    let request = engine::client()?.post(url).header("content-type", "application/json").body(body);
    let response = request.send().await.map_err(|error| format!("publishing: {error}"))?;
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    let sequence = serde_json::from_str::<Value>(&text).ok().and_then(|answer| answer["last"].as_i64());
    sequence.filter(|_| status.is_success()).ok_or_else(|| format!("publishing was answered {status}: {text}"))
}

/// Asks again until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T, String> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{what} after {} s", PATIENCE.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn in_step(engine: &Engine, name: &str) -> Result<(), String> {
    until(&format!("route {name} is not in step"), async || {
        let status = engine.status().await.ok()?;
        let route = route(&status, name);
        (route["lag_events"] == 0 && route["read"].as_u64() > Some(0)).then_some(())
    })
    .await
}

fn route<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["routes"].as_array().into_iter().flatten().find(|route| route["name"] == name).unwrap_or(&Value::Null)
}

async fn connect_to_table(ground: &Ground, table: &str) -> Result<PgConnection, String> {
    let url = ground.layout.database_url(Server::Postgres)?;
    let mut connection = PgConnection::connect(&url).await.map_err(|error| format!("PostgreSQL: {error}"))?;
    until(&format!("table {table} is not there"), async || {
        let there = sqlx::query("SELECT 1 FROM pg_tables WHERE tablename = $1").bind(table);
        there.fetch_optional(&mut connection).await.ok()?.map(|_| ())
    })
    .await?;
    Ok(connection)
}

async fn sql(connection: &mut PgConnection, statement: &'static str) -> Result<(), String> {
    sqlx::query(statement).execute(connection).await.map(|_| ()).map_err(|error| format!("{statement}: {error}"))
}

async fn numbers(connection: &mut PgConnection) -> Result<Vec<i64>, String> {
    let rows = sqlx::query("SELECT number FROM orders ORDER BY number").fetch_all(connection).await;
    let rows = rows.map_err(|error| format!("orders: {error}"))?;
    rows.iter().map(|row| row.try_get(0).map_err(|error| format!("orders: {error}"))).collect()
}

async fn checkpoint(connection: &mut PgConnection) -> Result<i64, String> {
    let row = sqlx::query("SELECT sequence FROM gravity_checkpoints WHERE route = 'pg'").fetch_one(connection).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| format!("gravity_checkpoints: {error}"))
}
