//! `bench postgres`: keyed upsert through the view port, checkpoint included, against COPY of the same rows into the same table.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use gravity_connectors::postgres::{PostgresOptions, PostgresViews, TlsMode};
use gravity_model::ident::BlockMark;
use gravity_model::port::view::{BookkeepingRewrite, ColumnRequest, Described, TableRequest, ViewStore};
use gravity_model::shape::SharedShape;
use gravity_model::{
    ChangeBatch, Checkpoint, ColumnSet, Counters, Epoch, Fault, Fence, LogId, OwnerId, RowGroup, RowOp, Sequence, Step,
    TableChanges, Value,
};
use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use crate::e2e::table::{self, Place, wrong};
use crate::figures::{Samples, machine};
use crate::random::{KeyLaw, Random};
use crate::workload::{Operation, Order, Row, Workload};

/// Rows of one transaction, on both sides.
const BATCH: usize = 10_000;
const DATABASE: &str = "bench_postgres";
const COLUMNS: [&str; 9] =
    ["id", "customer", "status", "note", "amount", "placed_at", "express", "details", "quantity"];

#[derive(clap::Args)]
pub struct PostgresBench {
    /// postgres://USER[:PASSWORD]@HOST:PORT/DATABASE of an account that may create databases
    #[arg(long, env = "GRAVITY_TEST_POSTGRES", hide_env_values = true)]
    dsn: String,
    /// Rows per round, each with a key of its own, in no order
    #[arg(long, default_value_t = 200_000)]
    rows: usize,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

impl PostgresBench {
    pub async fn run(self) -> Result<(), String> {
        println!("{}", machine(&std::env::temp_dir()));
        let server = Place::parse(&self.dsn)?;
        println!("{}", table::settings(&server).await?);
        println!("workload: {} rows of G-1 with distinct keys, transactions of {BATCH}, key and one index", self.rows);
        let place = server.with_database(DATABASE);
        table::create(&server, &place).await?;
        let measured = self.measure(&place).await;
        table::drop_database(&server, &place).await?;
        measured
    }

    async fn measure(&self, place: &Place) -> Result<(), String> {
        let rows = rows(self.rows);
        let fault = |fault: Fault| fault.to_string();
        let options = PostgresOptions {
            user: place.user.clone(),
            password: place.password.clone(),
            tls: TlsMode::Off,
            ..PostgresOptions::new(&place.host, place.port, &place.database)
        };
        let views = PostgresViews::new(options).map_err(fault)?;
        views.open().await.map_err(fault)?;
        let shape = shape(&views).await?;
        let mut checkpoint = first_checkpoint();
        let attach = BookkeepingRewrite { put: vec![checkpoint.clone()], ..BookkeepingRewrite::default() };
        views.rewrite(attach).await.map_err(fault)?;
        let batches: Vec<ChangeBatch> = rows.chunks(BATCH).map(|rows| batch(&shape, rows)).collect();
        let texts: Vec<String> = rows.chunks(BATCH).map(copy_text).collect();
        let mut connection = table::connect(place).await?;
        let (mut upsert, mut copy, mut update, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            empty(&mut connection).await?;
            let copied = rate(rows.len(), copy_all(&mut connection, &texts)).await?;
            empty(&mut connection).await?;
            let written = rate(rows.len(), upsert_all(&views, &batches, &mut checkpoint)).await?;
            // Once more: now every key is there.
            update.push(rate(rows.len(), upsert_all(&views, &batches, &mut checkpoint)).await?);
            copy.push(copied);
            upsert.push(written);
            ratios.push(written / copied);
        }
        views.close().await;
        let ratio = Samples::of(ratios);
        println!("upsert of new keys through the view port: {} rows/s", Samples::of(upsert).show(0));
        println!("the same again, keys known: {} rows/s", Samples::of(update).show(0));
        println!("COPY into the same table: {} rows/s", Samples::of(copy).show(0));
        println!("ratio of new keys to COPY, round by round: {}", ratio.show(2));
        println!("{}", json!({"bench": "postgres", "ratio": ratio.median()}));
        Ok(())
    }
}

async fn rate(rows: usize, work: impl Future<Output = Result<(), String>>) -> Result<f64, String> {
    let started = Instant::now();
    work.await?;
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

async fn empty(connection: &mut PgConnection) -> Result<(), String> {
    connection.execute("TRUNCATE orders").await.map_err(wrong)?;
    connection.execute("CHECKPOINT").await.map_err(wrong).map(drop)
}

async fn copy_all(connection: &mut PgConnection, texts: &[String]) -> Result<(), String> {
    for text in texts {
        let mut transaction = connection.begin().await.map_err(wrong)?;
        let mut copy = transaction.copy_in_raw("COPY orders FROM STDIN").await.map_err(wrong)?;
        copy.send(text.as_bytes()).await.map_err(wrong)?;
        copy.finish().await.map_err(wrong)?;
        transaction.commit().await.map_err(wrong)?;
    }
    Ok(())
}

async fn upsert_all(views: &PostgresViews, batches: &[ChangeBatch], at: &mut Checkpoint) -> Result<(), String> {
    let fault = |fault: Fault| fault.to_string();
    for batch in batches {
        let next = Checkpoint { sequence: at.sequence.plus(batch.rows() as u64), ..at.clone() };
        let mut transaction = views.begin(std::slice::from_ref(at)).await.map_err(fault)?;
        transaction.apply(batch).await.map_err(fault)?;
        transaction.commit(std::slice::from_ref(&next)).await.map_err(fault)?;
        *at = next;
    }
    Ok(())
}

async fn shape(views: &PostgresViews) -> Result<SharedShape, String> {
    let columns = COLUMNS.iter().map(|name| ColumnRequest { name: (*name).to_owned(), declared: None }).collect();
    let request = TableRequest { table: "orders".to_owned(), columns, key: Vec::new() };
    let mut described = views.describe(&[request]).await.map_err(|fault| fault.to_string())?;
    match described.pop() {
        Some(Described::Present(shape)) => Ok(Arc::new(shape)),
        other => Err(format!("the table is not described: {other:?}")),
    }
}

fn first_checkpoint() -> Checkpoint {
    Checkpoint {
        route: "bench".to_owned(),
        lane: 0,
        log_id: LogId([1; 16]),
        epoch: Epoch(1),
        sequence: Sequence::ZERO,
        fence: Fence(1),
        owner: OwnerId([2; 16]),
        block: BlockMark::default(),
        counters: Counters::default(),
    }
}

/// Full rows under distinct ids, scattered.
fn rows(count: usize) -> Vec<(i64, Row)> {
    let mut workload = Workload::new(1, KeyLaw::Uniform, 1);
    let mut ids: Vec<i64> = (1..=count as i64).collect();
    let mut random = Random::new(2);
    for last in (1..ids.len()).rev() {
        ids.swap(last, random.below(last as u64 + 1) as usize);
    }
    let full = |id: i64| match workload.mark(id) {
        Order { operation: Operation::Upsert(row), .. } => (id, row),
        Order { .. } => (id, Row::default()),
    };
    ids.into_iter().map(full).collect()
}

/// As the engine hands it over: sorted by key.
fn batch(shape: &SharedShape, rows: &[(i64, Row)]) -> ChangeBatch {
    let mut sorted: Vec<&(i64, Row)> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, |text| Value::Text(text.into()));
    let mut values = Vec::with_capacity(rows.len() * COLUMNS.len());
    for (id, row) in sorted {
        values.extend([
            Value::Int(*id),
            text(&row.customer),
            text(&row.status),
            text(&row.note),
            row.amount.as_deref().map_or(Value::Null, |digits| Value::Decimal(canonical(digits).into())),
            row.placed_at.map_or(Value::Null, Value::TimestampTz),
            row.express.map_or(Value::Null, Value::Bool),
            row.details.as_ref().map_or(Value::Null, |details| Value::Json(details.to_string().into())),
            row.quantity.map_or(Value::Null, |quantity| Value::Int(quantity.into())),
        ]);
    }
    let set = COLUMNS[1..].iter().filter_map(|name| shape.column(name)).collect();
    let columns = Arc::new(ColumnSet { set, on_create: Box::default() });
    let group = RowGroup { op: RowOp::Upsert, columns, width: COLUMNS.len(), values };
    ChangeBatch { tables: vec![TableChanges { shape: shape.clone(), steps: vec![Step::Rows(group)] }] }
}

fn canonical(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// COPY's text format; no value of the workload needs an escape. Sorted as well, so that both sides fill the index alike.
fn copy_text(rows: &[(i64, Row)]) -> String {
    let mut sorted: Vec<&(i64, Row)> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    let mut out = String::new();
    for (id, row) in sorted {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "\\N".to_owned());
        let placed = crate::workload::rfc3339(row.placed_at.unwrap_or_default());
        let details = row.details.as_ref().map_or_else(|| "\\N".to_owned(), serde_json::Value::to_string);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{id}\t{}\t{}\t{}\t{}\t{placed}\t{}\t{details}\t{}",
            text(&row.customer),
            text(&row.status),
            text(&row.note),
            text(&row.amount),
            row.express.unwrap_or_default(),
            row.quantity.unwrap_or_default()
        );
    }
    out
}
