//! The bookkeeping tables in MySQL's words: their DDL, their statements, and the transactions that change them.

use gravity_model::port::view::{BookkeepingRewrite, ViewRow};
use gravity_model::{Checkpoint, Fault, FaultKind, failpoint};
use sqlx::Row;

use super::client::Session;
use super::dialect::{Dialect, Facts, Flavor};
use super::error::{DUPLICATE_KEY, fault};
use crate::sql::bookkeeping::{
    BookkeepingDdl, CHECKPOINTS, CheckpointColumns, VIEWS, bind_columns, checkpoint_of, claimed, compare, not_ours,
    rewritten_keys, signed, state_word, view_of,
};

macro_rules! ddl {
    ($collation:literal) => {
        BookkeepingDdl {
            checkpoints: concat!(
                "CREATE TABLE gravity_checkpoints (
    route varchar(255) NOT NULL,
    lane int NOT NULL,
    log_id char(32) NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    fence bigint NOT NULL,
    owner char(32) NOT NULL,
    block_first bigint NOT NULL,
    block_digest char(64) NOT NULL,
    `read` bigint NOT NULL,
    applied bigint NOT NULL,
    filtered bigint NOT NULL,
    unmatched bigint NOT NULL,
    failed bigint NOT NULL,
    waiting bigint NOT NULL,
    skipped bigint NOT NULL,
    updated_at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    PRIMARY KEY (route, lane)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=",
                $collation
            ),
            views: concat!(
                "CREATE TABLE gravity_views (
    table_name varchar(255) NOT NULL,
    log_id char(32) NOT NULL,
    route varchar(255) NOT NULL,
    state varchar(16) NOT NULL,
    generation bigint NOT NULL,
    history longtext NOT NULL,
    PRIMARY KEY (table_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=",
                $collation
            ),
        }
    };
}

const MARIADB_DDL: BookkeepingDdl = ddl!("utf8mb4_nopad_bin");
const MYSQL_DDL: BookkeepingDdl = ddl!("utf8mb4_0900_bin");

pub(super) fn ddl(dialect: Dialect) -> &'static BookkeepingDdl {
    match dialect.flavor {
        Flavor::MariaDb => &MARIADB_DDL,
        Flavor::MySql => &MYSQL_DDL,
    }
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT route, CAST(lane AS SIGNED), log_id, epoch, sequence, fence, owner, block_first, block_digest, \
             `read`, applied, filtered, unmatched, failed, waiting, skipped FROM gravity_checkpoints ",
            $tail
        )
    };
}

/// A locking read waits for a transaction whose COMMIT may still be on its way, so the answer is final.
const OF_ROUTE: &str = select!("WHERE route = ? ORDER BY lane LOCK IN SHARE MODE");
/// By the whole key and one at a time: a scan over several would lock, and wait for, the rows of other lanes as well.
const LOCK: &str = select!("WHERE route = ? AND lane = ? FOR UPDATE");
/// Sabotage only: the same row without its lock.
const PEEK: &str = select!("WHERE route = ? AND lane = ?");

macro_rules! advance {
    ($owner:literal) => {
        concat!(
            "UPDATE gravity_checkpoints SET log_id = ?, epoch = ?, sequence = ?, fence = ?, owner = ?, block_first = ?, \
             block_digest = ?, `read` = ?, applied = ?, filtered = ?, unmatched = ?, failed = ?, waiting = ?, skipped = ?, \
             updated_at = CURRENT_TIMESTAMP(6) \
             WHERE route = ? AND lane = ? AND log_id = ? AND epoch = ? AND sequence = ? AND fence = ?",
            $owner
        )
    };
}
const ADVANCE: &str = advance!(" AND owner = ?");
/// Sabotage only: a compare-and-set that forgets the owner.
const ADVANCE_ANY_OWNER: &str = advance!(" AND ? <> ''");

const INSERT: &str = "INSERT INTO gravity_checkpoints (log_id, epoch, sequence, fence, owner, block_first, block_digest, \
     `read`, applied, filtered, unmatched, failed, waiting, skipped, route, lane) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const DELETE: &str = "DELETE FROM gravity_checkpoints WHERE route = ? AND lane = ?";

const ALL_VIEWS: &str =
    "SELECT table_name, log_id, route, state, generation, history FROM gravity_views ORDER BY table_name";
const LOCK_VIEWS: &str =
    "SELECT table_name, log_id, route, state, generation, history FROM gravity_views ORDER BY table_name FOR UPDATE";
const DELETE_VIEW: &str = "DELETE FROM gravity_views WHERE table_name = ?";
const INSERT_VIEW: &str =
    "INSERT INTO gravity_views (table_name, log_id, route, state, generation, history) VALUES (?, ?, ?, ?, ?, ?)";

/// Name and engine of the bookkeeping tables that are there.
pub(super) async fn present(session: &mut Session) -> Result<Vec<(String, String)>, Fault> {
    const DOING: &str = "look for the bookkeeping tables";
    let query = sqlx::query(
        "SELECT CAST(TABLE_NAME AS CHAR), CAST(COALESCE(ENGINE, '') AS CHAR) FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (?, ?)",
    );
    let rows = session.fetch_all(query.bind(CHECKPOINTS).bind(VIEWS), DOING).await?;
    let read = |row: &sqlx::mysql::MySqlRow| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(|e| fault(e, DOING))
}

/// Makes those that are missing. Each CREATE commits by itself; another engine that is quicker is no failure.
pub(super) async fn make(session: &mut Session, present: &[(String, String)]) -> Result<(), Fault> {
    const DOING: &str = "make the bookkeeping tables";
    const TABLE_EXISTS: &str = "1050";
    let ddl = ddl(session.facts.dialect);
    for (table, sql) in [(CHECKPOINTS, ddl.checkpoints), (VIEWS, ddl.views)] {
        if present.iter().all(|(name, _)| name != table) {
            match session.command(sql, DOING).await {
                Err(fault) if fault.code == TABLE_EXISTS => {}
                other => other?,
            }
        }
    }
    Ok(())
}

pub(super) async fn of_route(session: &mut Session, route: &str) -> Result<Vec<Checkpoint>, Fault> {
    let rows = session.fetch_all(sqlx::query(OF_ROUTE).bind(route), "read the checkpoints").await?;
    rows.iter().map(checkpoint_of).collect()
}

pub(super) async fn views(session: &mut Session) -> Result<Vec<ViewRow>, Fault> {
    let rows = session.fetch_all(sqlx::query(ALL_VIEWS), "read the view rows").await?;
    rows.iter().map(view_of).collect()
}

/// Locks and reads the rows that exist under `keys`, in the order of (route, lane), so that no two writers wait in a ring.
pub(super) async fn lock_keys(
    session: &mut Session,
    mut keys: Vec<(String, u16)>,
    doing: &str,
) -> Result<Vec<Checkpoint>, Fault> {
    // Sabotage: a checkpoint that is to be written apart from its rows cannot be locked by them.
    let statement = if failpoint::sabotaged("view.checkpoint_apart") { PEEK } else { LOCK };
    keys.sort();
    keys.dedup();
    let mut found = Vec::with_capacity(keys.len());
    for (route, lane) in &keys {
        let query = sqlx::query(statement).bind(route.as_str()).bind(i32::from(*lane));
        for row in session.fetch_all(query, doing).await? {
            found.push(checkpoint_of(&row)?);
        }
    }
    Ok(found)
}

/// The compare-and-set: exactly one row per lane, or a fault. The count is of rows matched, changed or not.
pub(super) async fn advance(
    session: &mut Session,
    read: &Checkpoint,
    next: &Checkpoint,
    doing: &str,
) -> Result<(), Fault> {
    let statement = if failpoint::sabotaged("view.cas_without_owner") { ADVANCE_ANY_OWNER } else { ADVANCE };
    let query = bind_columns!(sqlx::query(statement), CheckpointColumns::from(next))
        .bind(read.route.as_str())
        .bind(i32::from(read.lane))
        .bind(read.log_id.to_string())
        .bind(signed(read.epoch.0))
        .bind(signed(read.sequence.0))
        .bind(signed(read.fence.0))
        .bind(read.owner.to_string());
    match session.execute(query, doing).await?.rows_affected() {
        1 => Ok(()),
        n => Err(not_ours(doing, &format!("{n} rows"), read)),
    }
}

/// The body of a rewrite, in a transaction under REPEATABLE READ: there a locking read of all view rows also holds the gaps
/// between them, so no claim can appear between the look and the write. Two that look at the same time end as a deadlock.
pub(super) async fn rewrite(session: &mut Session, rewrite: &BookkeepingRewrite) -> Result<(), Fault> {
    const DOING: &str = "rewrite the bookkeeping";
    let found = lock_keys(session, rewritten_keys(rewrite), DOING).await?;
    compare(DOING, &found, &rewrite.expect)?;
    for (route, lane) in &rewrite.delete {
        let query = sqlx::query(DELETE).bind(route.as_str()).bind(i32::from(*lane));
        session.execute(query, DOING).await?;
    }
    for put in &rewrite.put {
        let key = (put.route.clone(), put.lane);
        let old = found.iter().find(|c| (&c.route, c.lane) == (&put.route, put.lane));
        match old.filter(|_| !rewrite.delete.contains(&key)) {
            Some(old) => advance(session, old, put, DOING).await?,
            None => {
                let query = bind_columns!(sqlx::query(INSERT), CheckpointColumns::from(put))
                    .bind(put.route.as_str())
                    .bind(i32::from(put.lane));
                session.execute(query, DOING).await.map_err(|f| lost_race(f, &put.route))?;
            }
        }
    }
    if rewrite.put_views.is_empty() && rewrite.delete_views.is_empty() {
        return Ok(());
    }
    for table in &rewrite.delete_views {
        session.execute(sqlx::query(DELETE_VIEW).bind(table.as_str()), DOING).await?;
    }
    let rows = session.fetch_all(sqlx::query(LOCK_VIEWS), DOING).await?;
    let held: Vec<ViewRow> = rows.iter().map(view_of).collect::<Result<_, _>>()?;
    let facts = session.facts.clone();
    for put in &rewrite.put_views {
        let same = |holder: &&ViewRow| physical(&facts, &holder.table) == physical(&facts, &put.table);
        if let Some(holder) =
            held.iter().filter(same).find(|holder| (holder.log_id, &holder.route) != (put.log_id, &put.route))
        {
            return Err(claimed(put, holder));
        }
        session.execute(sqlx::query(DELETE_VIEW).bind(put.table.as_str()), DOING).await?;
        let query = sqlx::query(INSERT_VIEW)
            .bind(put.table.as_str())
            .bind(put.log_id.to_string())
            .bind(put.route.as_str())
            .bind(state_word(put.state))
            .bind(i64::from(put.generation))
            .bind(put.history.as_str());
        session.execute(query, DOING).await?;
    }
    Ok(())
}

/// What a name stands for: the database it is looked up in and, where the server folds names, their letters.
fn physical(facts: &Facts, table: &str) -> (String, String) {
    let (database, name) = table.split_once('.').unwrap_or((facts.database.as_str(), table));
    match facts.folds_names {
        true => (database.to_lowercase(), name.to_lowercase()),
        false => (database.to_owned(), name.to_owned()),
    }
}

/// A key violation while a first checkpoint is written: somebody else was quicker.
fn lost_race(fault: Fault, route: &str) -> Fault {
    if fault.code != DUPLICATE_KEY {
        return fault;
    }
    let detail = format!("somebody else wrote a checkpoint for route {route} at the same time");
    Fault::new(FaultKind::NotOurs, "checkpoint-changed", "rewrite the bookkeeping", detail).with_source(fault)
}
