//! `bench sqlite`: keyed upsert through the view port, checkpoint included, against inserts of the same rows into a table
//! without a key.

use std::path::Path;

use gravity_connectors::sqlite::{SqliteOptions, SqliteViews};
use gravity_model::port::view::ViewStore;
use gravity_model::{ChangeBatch, Fault};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, Executor, QueryBuilder, Sqlite};

use crate::figures::{Samples, machine};
use crate::views::{self, BATCH, COLUMNS, rate, upsert_all};
use crate::workload::Row;

const COLUMN_TYPES: &str = "customer text, status text, note text, amount text, placed_at text, express integer, details text, quantity integer";
/// Rows of one statement of the limit, the fastest size of the performance notes.
const STATEMENT: usize = 500;

#[derive(clap::Args)]
pub struct SqliteBench {
    /// Rows per round, each with a key of its own, in no order
    #[arg(long, default_value_t = 200_000)]
    rows: usize,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

impl SqliteBench {
    pub async fn run(self) -> Result<(), String> {
        let folder = tempfile::Builder::new().prefix("bench-sqlite-").tempdir().map_err(|error| error.to_string())?;
        println!("{}", machine(folder.path()));
        println!(
            "workload: {} rows of G-1 with distinct keys, transactions of {BATCH}, WAL, synchronous FULL",
            self.rows
        );
        let rows = views::rows(self.rows);
        let (mut limit, mut new, mut known, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for number in 0..self.rounds {
            // A file each: what a former round left in a log or a cache would be paid by the next.
            let bare = folder.path().join(format!("bare-{number}"));
            let inserted = insert_all(&bare, &rows).await.map_err(|error| error.to_string())?;
            let (first, second) = through_port(&folder.path().join(format!("view-{number}")), &rows).await?;
            limit.push(inserted);
            new.push(first);
            known.push(second);
            ratios.push(first / inserted);
        }
        let ratio = Samples::of(ratios);
        println!("upsert of new keys through the view port: {} rows/s", Samples::of(new).show(0));
        println!("the same again, keys known: {} rows/s", Samples::of(known).show(0));
        println!("insert into a table without a key: {} rows/s", Samples::of(limit).show(0));
        println!("ratio of new keys to inserts without a key, round by round: {}", ratio.show(2));
        println!("{}", json!({"bench": "sqlite", "ratio": ratio.median()}));
        Ok(())
    }
}

fn open(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-16384")
}

/// Rows/s with new keys, and once more.
async fn through_port(path: &Path, rows: &[(i64, Row)]) -> Result<(f64, f64), String> {
    let wrong = |error: sqlx::Error| error.to_string();
    let mut connection = SqliteConnection::connect_with(&open(path)).await.map_err(wrong)?;
    let table = format!("CREATE TABLE orders (id integer PRIMARY KEY, {COLUMN_TYPES})");
    connection.execute(AssertSqlSafe(table)).await.map_err(wrong)?;
    connection.close().await.map_err(wrong)?;
    let store = SqliteViews::new(SqliteOptions::new(path)).map_err(|fault: Fault| fault.to_string())?;
    let mut checkpoint = views::attach(&store).await?;
    let shape = views::shape(&store).await?;
    let batches: Vec<ChangeBatch> = rows.chunks(BATCH).map(|rows| views::batch(&shape, rows)).collect();
    let new = rate(rows.len(), upsert_all(&store, &batches, &mut checkpoint)).await?;
    let known = rate(rows.len(), upsert_all(&store, &batches, &mut checkpoint)).await?;
    store.close().await;
    Ok((new, known))
}

/// Rows/s of plain inserts, in the order of their ids as the other side has them.
async fn insert_all(path: &Path, rows: &[(i64, Row)]) -> Result<f64, sqlx::Error> {
    let mut connection = SqliteConnection::connect_with(&open(path)).await?;
    connection.execute(AssertSqlSafe(format!("CREATE TABLE orders (id integer, {COLUMN_TYPES})"))).await?;
    let began = std::time::Instant::now();
    for rows in rows.chunks(BATCH) {
        let mut sorted: Vec<&(i64, Row)> = rows.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| *id);
        let mut transaction = connection.begin().await?;
        for rows in sorted.chunks(STATEMENT) {
            let mut insert: QueryBuilder<Sqlite> =
                QueryBuilder::new(format!("INSERT INTO orders ({}) ", COLUMNS.join(", ")));
            insert.push_values(rows, |mut values, (id, row)| {
                values.push_bind(*id).push_bind(&row.customer).push_bind(&row.status).push_bind(&row.note);
                values.push_bind(&row.amount).push_bind(row.placed_at.map(crate::workload::rfc3339));
                values.push_bind(row.express).push_bind(row.details.as_ref().map(serde_json::Value::to_string));
                values.push_bind(row.quantity);
            });
            insert.build().execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    let rate = rows.len() as f64 / began.elapsed().as_secs_f64();
    connection.close().await?;
    Ok(rate)
}
