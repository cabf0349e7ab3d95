//! Contract suite of the view port: what every view store must do, run over the memory double, SQLite, PostgreSQL, MariaDB and
//! MongoDB.
//!
//! A [`Place`] is a fresh, empty database that a test owns. What the store wrote is read back with the database's own client
//! (`psql`, `mariadb`, `sqlite3`, `pymongo`), not through the code under test.

pub mod bookkeeping;
pub mod catalogue;
pub mod hostile;
pub mod joins;
pub mod live;
pub mod memory_only;
pub mod mongodb_only;
pub mod mysql_live;
pub mod mysql_only;
pub mod mysql_server;
pub mod operations;
pub mod places;
pub mod places_mongodb;
pub mod places_mysql;
pub mod postgres_only;
pub mod proxy;
pub mod slow_begin;
pub mod sqlite_only;
pub mod traps;
pub mod types;

use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::change::{ChangeBatch, ColumnSet, RowGroup, RowOp, Step, TableChanges};
use gravity_model::port::view::{
    Applied, BookkeepingRewrite, ColumnRequest, Described, EventOutcome, TableRequest, ViewStore,
};
use gravity_model::shape::SharedShape;
use gravity_model::{
    BlockMark, Checkpoint, Counters, Epoch, Fault, FaultKind, Fence, LogId, OwnerId, Sequence, Value, ident::Digest,
};

pub use places::{Dialect, MemoryPlace, PostgresPlace, SqlitePlace};
pub use places_mongodb::MongoPlace;
pub use places_mysql::MySqlPlace;

/// A table for a test, in the few words that all dialects share.
pub struct Spec<'a> {
    pub table: &'a str,
    /// Name, type word, NOT NULL.
    pub columns: &'a [(&'a str, &'a str, bool)],
    pub key: &'a [&'a str],
    pub unique: &'a [&'a [&'a str]],
}

/// A fresh database.
#[async_trait]
pub trait Place: Send + Sync {
    fn dialect(&self) -> Dialect;

    /// Another store over the same place, not opened yet.
    fn store(&self) -> Arc<dyn ViewStore>;

    /// Why a test of the suite cannot hold on the server at hand.
    fn why_not(&self, _test: &str) -> Option<&'static str> {
        None
    }

    /// How many rows stand for so many on the server at hand: a slow one would take the time of all others.
    fn many(&self, rows: u32) -> u32 {
        rows
    }

    /// The server at hand cannot store such a value, though the database that it stands for can.
    fn lacks(&self, _word: &str, _value: &Value) -> bool {
        false
    }

    /// Makes a table as a DBA would.
    async fn make(&self, spec: &Spec<'_>);

    /// Runs SQL as a DBA; nothing in memory.
    async fn dba(&self, sql: &str);

    /// All rows in the order of the first column's text, each cell as the database's own client shows it.
    async fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>>;
}

/// An opened store with a first checkpoint of route `r`, lane 0, at sequence 0.
pub async fn attached(place: &dyn Place) -> (Arc<dyn ViewStore>, Checkpoint) {
    bookkept(place, "r").await
}

/// The same with a route of that name, for several rounds in one place.
pub async fn bookkept(place: &dyn Place, route: &str) -> (Arc<dyn ViewStore>, Checkpoint) {
    let store = place.store();
    store.open().await.expect("open");
    let first = checkpoint(route, 0, 0);
    attach(&*store, &first).await;
    (store, first)
}

pub async fn attach(store: &dyn ViewStore, first: &Checkpoint) {
    let rewrite = BookkeepingRewrite { put: vec![first.clone()], ..BookkeepingRewrite::default() };
    store.rewrite(rewrite).await.expect("write the first checkpoint");
}

pub fn checkpoint(route: &str, lane: u16, sequence: u64) -> Checkpoint {
    Checkpoint {
        route: route.to_owned(),
        lane,
        log_id: LogId([1; 16]),
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        fence: Fence(1),
        owner: OwnerId([2; 16]),
        block: BlockMark { first: Sequence(sequence.saturating_sub(1)), digest: Digest([3; 32]) },
        counters: Counters { read: sequence, applied: sequence, ..Counters::default() },
    }
}

pub fn at(checkpoint: &Checkpoint, sequence: u64) -> Checkpoint {
    Checkpoint {
        sequence: Sequence(sequence),
        counters: Counters { read: sequence, applied: sequence, ..Counters::default() },
        ..checkpoint.clone()
    }
}

/// The shape that a store describes.
pub async fn shape(store: &dyn ViewStore, table: &str, key: &[&str]) -> SharedShape {
    let request = TableRequest { table: table.to_owned(), columns: Vec::new(), key: strings(key) };
    match store.describe(&[request]).await.expect("describe").pop() {
        Some(Described::Present(shape)) => Arc::new(shape),
        other => panic!("{table} is not there: {other:?}"),
    }
}

pub async fn made(place: &dyn Place, store: &dyn ViewStore, spec: &Spec<'_>) -> SharedShape {
    place.make(spec).await;
    if place.dialect() == Dialect::Mongodb {
        // A collection has no columns of its own: what the rules declare is what there is.
        let columns: Vec<_> = spec.columns.iter().map(|(name, word, _)| (*name, *word)).collect();
        return match store.describe(&[request(spec.table, &columns, spec.key)]).await.expect("describe").pop() {
            Some(Described::Present(mut shape)) => {
                // Nor NOT NULL; the store refuses null all the same where a shape says so.
                for (column, (_, _, not_null)) in shape.columns.iter_mut().zip(spec.columns) {
                    column.not_null |= not_null;
                }
                Arc::new(shape)
            }
            other => panic!("{} is not there: {other:?}", spec.table),
        };
    }
    shape(store, spec.table, spec.key).await
}

/// `users(id, name, email)`: the table of most tests.
pub const USERS: Spec<'static> = Spec {
    table: "users",
    columns: &[("id", "i64", true), ("name", "text", false), ("email", "text", false)],
    key: &["id"],
    unique: &[],
};

/// A request that declares the type of every column.
pub fn request(table: &str, columns: &[(&str, &str)], key: &[&str]) -> TableRequest {
    let column = |(name, word): &(&str, &str)| ColumnRequest {
        name: (*name).to_owned(),
        declared: Some(word.parse().expect("a type word")),
    };
    TableRequest { table: table.to_owned(), columns: columns.iter().map(column).collect(), key: strings(key) }
}

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// One group of rows of one table.
pub fn group(shape: &SharedShape, op: RowOp, set: &[&str], on_create: &[&str], rows: Vec<Vec<Value>>) -> Step {
    let columns = |names: &[&str]| names.iter().map(|n| shape.column(n).expect("a column")).collect::<Box<[u16]>>();
    let keys = shape.primary_key.len() * if op == RowOp::Move { 2 } else { 1 };
    let width = keys + set.len() + on_create.len();
    let columns = Arc::new(ColumnSet { set: columns(set), on_create: columns(on_create), ops: Box::default() });
    assert!(rows.iter().all(|r| r.len() == width), "rows of {width} values");
    Step::Rows(RowGroup { op, columns, width, values: rows.into_iter().flatten().collect() })
}

pub fn steps(shape: &SharedShape, steps: Vec<Step>) -> ChangeBatch {
    ChangeBatch { tables: vec![TableChanges { shape: shape.clone(), steps }] }
}

pub fn batch(shape: &SharedShape, op: RowOp, set: &[&str], rows: Vec<Vec<Value>>) -> ChangeBatch {
    steps(shape, vec![group(shape, op, set, &[], rows)])
}

pub fn int(i: i64) -> Value {
    Value::Int(i)
}

pub fn text(t: &str) -> Value {
    Value::Text(t.into())
}

/// Applies a batch in a transaction of its own and moves the checkpoint one on.
pub async fn write(store: &dyn ViewStore, from: &mut Checkpoint, changes: &ChangeBatch) -> Result<Applied, Fault> {
    let mut transaction = store.begin(std::slice::from_ref(from)).await?;
    let applied = match transaction.apply(changes).await {
        Ok(applied) => applied,
        Err(fault) => {
            transaction.rollback().await;
            return Err(fault);
        }
    };
    let next = at(from, from.sequence.0 + 1);
    transaction.commit(std::slice::from_ref(&next)).await?;
    *from = next;
    Ok(applied)
}

/// The same through `apply_event`.
pub async fn write_event(
    store: &dyn ViewStore,
    from: &mut Checkpoint,
    changes: &ChangeBatch,
) -> Result<EventOutcome, Fault> {
    let mut transaction = store.begin(std::slice::from_ref(from)).await?;
    let outcome = transaction.apply_event(changes).await?;
    let next = at(from, from.sequence.0 + 1);
    transaction.commit(std::slice::from_ref(&next)).await?;
    *from = next;
    Ok(outcome)
}

#[track_caller]
pub fn refused(result: Result<Applied, Fault>) -> Fault {
    let fault = result.expect_err("the database must refuse this");
    assert_eq!(fault.kind, FaultKind::RefusedEvent, "{fault}");
    fault
}

#[track_caller]
pub fn kind<T: std::fmt::Debug>(result: Result<T, Fault>) -> FaultKind {
    result.expect_err("a fault").kind
}

/// `[["1", "Ada"], ["2", NULL]]` from `&[&["1", "Ada"], &["2", "∅"]]`.
pub fn table(rows: &[&[&str]]) -> Vec<Vec<Option<String>>> {
    let cell = |c: &&str| (*c != "∅").then(|| (*c).to_owned());
    rows.iter().map(|row| row.iter().map(cell).collect()).collect()
}

/// Makes a module of tests, one per function of the suite, over one kind of place. `$place` is an async expression that
/// gives `Option<impl Place>`; `None` has printed why it is skipped.
#[macro_export]
macro_rules! view_contract {
    ($module:ident, $place:expr; $($part:ident :: $test:ident),* $(,)?) => {
        mod $module {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(place) = $place.await {
                        use gravity_conformance::view_suite::Place as _;
                        match place.why_not(stringify!($test)) {
                            None => gravity_conformance::view_suite::$part::$test(&place).await,
                            Some(why) => println!("skipped: {why}"),
                        }
                        place.remove().await;
                    }
                }
            )*
        }
    };
}
