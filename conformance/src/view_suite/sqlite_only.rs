//! What only a file can show: locks of other processes, foreign files, a table's own conflict clauses.

use std::time::{Duration, Instant};

use gravity_connectors::Bookkeeping;
use gravity_connectors::sqlite::{SqliteOptions, SqliteViews};
use gravity_model::change::RowOp;
use gravity_model::port::view::{BookkeepingRewrite, ViewRow, ViewState, ViewStore};
use gravity_model::{FaultKind, LogId};
use sqlx::Connection;

use super::{
    Place, SqlitePlace, USERS, attach, attached, batch, checkpoint, int, kind, made, refused, table, text, write,
};

/// V4: another process holds the write lock.
pub async fn v4_a_held_lock_is_transient(place: &SqlitePlace) {
    let (direct, mut now) = attached(place).await;
    let users = made(place, &*direct, &USERS).await;
    direct.close().await;
    let options = SqliteOptions { busy_timeout: Duration::from_millis(200), ..SqliteOptions::new(place.file()) };
    let store = SqliteViews::new(options).expect("options");
    store.open().await.expect("open");
    let url = format!("sqlite://{}", place.file().display());
    let mut holder = sqlx::SqliteConnection::connect(&url).await.expect("connect");
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.expect("lock");
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
    let started = Instant::now();
    let fault = write(&store, &mut now, &changes).await.expect_err("locked");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "SQLITE_BUSY"), "{fault}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(store.checkpoints("r").await.expect("readers do not wait"), std::slice::from_ref(&now));
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.expect("unlock");
    write(&store, &mut now, &changes).await.expect("unlocked");
}

pub async fn foreign_and_missing_files_are_misconfigured(place: &SqlitePlace) {
    std::fs::write(place.file(), "this is a text file, and not a short one: SQLite wants its own header")
        .expect("write");
    let fault = place.store().open().await.expect_err("not a database");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "SQLITE_NOTADB"), "{fault}");
    let nowhere = SqliteViews::new(SqliteOptions::new("/nowhere/at/all/views.db")).expect("options");
    let fault = nowhere.open().await.expect_err("no such folder");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "SQLITE_CANTOPEN"), "{fault}");
    for path in ["", ":memory:", "file:x?mode=memory"] {
        assert!(SqliteViews::new(SqliteOptions::new(path)).is_err(), "{path:?}");
    }
}

/// A table may say `ON CONFLICT REPLACE`; a second unique key must refuse all the same.
pub async fn a_tables_own_conflict_clauses_are_overridden(place: &SqlitePlace) {
    let (store, mut now) = attached(place).await;
    place
        .dba("CREATE TABLE users (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, name TEXT, email TEXT UNIQUE ON CONFLICT REPLACE)")
        .await;
    let users = super::shape(&*store, "users", &["id"]).await;
    let rows = vec![vec![int(1), text("a"), text("a@x")], vec![int(2), text("b"), text("b@x")]];
    write(&*store, &mut now, &batch(&users, RowOp::Upsert, &["name", "email"], rows)).await.expect("create");
    let want = table(&[&["1", "a", "a@x"], &["2", "b", "b@x"]]);
    for op in [RowOp::Upsert, RowOp::Insert, RowOp::InsertIgnore, RowOp::UpdateElseInsert] {
        refused(write(&*store, &mut now, &batch(&users, op, &["email"], vec![vec![int(3), text("a@x")]])).await);
        assert_eq!(place.rows("users", &["id", "name", "email"]).await, want, "{op:?}");
    }
    for op in [RowOp::Patch, RowOp::UpdateElseInsert, RowOp::Upsert] {
        refused(write(&*store, &mut now, &batch(&users, op, &["email"], vec![vec![int(2), text("a@x")]])).await);
        assert_eq!(place.rows("users", &["id", "name", "email"]).await, want, "{op:?}");
    }
    let moved = vec![vec![int(1), int(2), text("m")]];
    refused(write(&*store, &mut now, &batch(&users, RowOp::Move, &["name"], moved)).await);
    assert_eq!(place.rows("users", &["id", "name", "email"]).await, want);
}

pub async fn manual_bookkeeping_is_never_made(place: &SqlitePlace) {
    let options = SqliteOptions { bookkeeping: Bookkeeping::Manual, ..SqliteOptions::new(place.file()) };
    let store = SqliteViews::new(options).expect("options");
    let fault = store.open().await.expect_err("not there");
    assert_eq!(fault.kind, FaultKind::Misconfigured);
    assert!(fault.detail.contains("CREATE TABLE gravity_checkpoints"), "{fault}");
    let findings = store.inspect(&[]).await.expect("inspect");
    assert!(findings.iter().any(|f| f.fatal && f.code == "live/bookkeeping" && f.sql.is_some()), "{findings:?}");
    place.dba(&store.bookkeeping_sql()).await;
    store.open().await.expect("made by hand");
    attach(&store, &checkpoint("r", 0, 0)).await;
}

/// Names of one table in other letters are the same table.
pub async fn a_claim_is_for_the_physical_table(place: &SqlitePlace) {
    let (store, _) = attached(place).await;
    let row = |table: &str, route: &str| ViewRow {
        table: table.to_owned(),
        log_id: LogId([1; 16]),
        route: route.to_owned(),
        state: ViewState::Attached,
        generation: 1,
        history: "[]".to_owned(),
    };
    let put = |row: ViewRow| BookkeepingRewrite { put_views: vec![row], ..BookkeepingRewrite::default() };
    store.rewrite(put(row("users", "db1"))).await.expect("claim");
    for name in ["Users", "main.users"] {
        assert_eq!(kind(store.rewrite(put(row(name, "db2"))).await), FaultKind::NotOurs, "{name}");
    }
}

/// The file is as durable as it says: write-ahead log, synced at each commit.
pub async fn the_file_is_wal_and_fully_synced(place: &SqlitePlace) {
    let (store, _) = attached(place).await;
    assert_eq!(place.client("PRAGMA journal_mode;\n").trim(), "wal");
    store.close().await;
}
