//! Bookkeeping tables, their statements, and checkpoint rows to and from columns.
//!
//! Ids and digests are hexadecimal text, so that a DBA reads with `psql` what `gravity status` shows.

use gravity_model::port::view::ViewRow;
use gravity_model::{BlockMark, Checkpoint, Counters, Epoch, Fault, Fence, LogId, OwnerId, Sequence};
use sqlx::{ColumnIndex, Decode, Row, Type};

pub(crate) use super::checkpoint::{
    CHECKPOINTS, VIEWS, claimed, compare, not_ours, pairs, rewritten_keys, signed, state_word,
};
use super::checkpoint::{damaged, state_of, unsigned};

/// One CREATE TABLE per bookkeeping table.
pub(crate) struct BookkeepingDdl {
    pub checkpoints: &'static str,
    pub views: &'static str,
}

impl BookkeepingDdl {
    /// Both statements, for people.
    pub fn script(&self) -> String {
        format!("{};\n\n{};\n", self.checkpoints, self.views)
    }
}

pub(crate) const POSTGRES_DDL: BookkeepingDdl = BookkeepingDdl {
    checkpoints: "CREATE TABLE gravity_checkpoints (
    route text COLLATE \"C\" NOT NULL,
    lane integer NOT NULL,
    log_id text NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    fence bigint NOT NULL,
    owner text NOT NULL,
    block_first bigint NOT NULL,
    block_digest text NOT NULL,
    read bigint NOT NULL,
    applied bigint NOT NULL,
    filtered bigint NOT NULL,
    unmatched bigint NOT NULL,
    failed bigint NOT NULL,
    waiting bigint NOT NULL,
    skipped bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (route, lane)
)",
    views: "CREATE TABLE gravity_views (
    table_name text COLLATE \"C\" NOT NULL PRIMARY KEY,
    log_id text NOT NULL,
    route text NOT NULL,
    state text NOT NULL,
    generation bigint NOT NULL,
    history text NOT NULL
)",
};

pub(crate) const SQLITE_DDL: BookkeepingDdl = BookkeepingDdl {
    checkpoints: "CREATE TABLE gravity_checkpoints (
    route TEXT NOT NULL,
    lane INTEGER NOT NULL,
    log_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    owner TEXT NOT NULL,
    block_first INTEGER NOT NULL,
    block_digest TEXT NOT NULL,
    read INTEGER NOT NULL,
    applied INTEGER NOT NULL,
    filtered INTEGER NOT NULL,
    unmatched INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (route, lane)
) STRICT, WITHOUT ROWID",
    views: "CREATE TABLE gravity_views (
    table_name TEXT NOT NULL PRIMARY KEY,
    log_id TEXT NOT NULL,
    route TEXT NOT NULL,
    state TEXT NOT NULL,
    generation INTEGER NOT NULL,
    history TEXT NOT NULL
) STRICT, WITHOUT ROWID",
};

macro_rules! checkpoint_columns {
    () => {
        "route, CAST(lane AS bigint), log_id, epoch, sequence, fence, owner, block_first, block_digest, \
         read, applied, filtered, unmatched, failed, waiting, skipped"
    };
}

/// `$N` is understood by PostgreSQL and, through sqlx, by SQLite; only what differs has two texts.
pub(crate) mod statements {
    macro_rules! select {
        ($tail:literal) => {
            concat!("SELECT ", checkpoint_columns!(), " FROM gravity_checkpoints ", $tail)
        };
    }

    pub const OF_ROUTE_SQLITE: &str = select!("WHERE route = $1 ORDER BY lane");
    /// `FOR SHARE` waits for a transaction whose COMMIT may still be on its way, so the answer is final.
    pub const OF_ROUTE_POSTGRES: &str = select!("WHERE route = $1 ORDER BY lane FOR SHARE");
    pub const ONE_SQLITE: &str = select!("WHERE route = $1 AND lane = $2");
    pub const LOCK_POSTGRES: &str = select!(
        "WHERE (route, lane) IN (SELECT * FROM UNNEST($1::text[], $2::int4[])) ORDER BY route, lane FOR UPDATE"
    );
    /// Sabotage only: the same rows without their locks.
    pub const PEEK_POSTGRES: &str =
        select!("WHERE (route, lane) IN (SELECT * FROM UNNEST($1::text[], $2::int4[])) ORDER BY route, lane");

    macro_rules! advance {
        ($now:literal, $owner:literal) => {
            concat!(
                "UPDATE gravity_checkpoints SET log_id = $1, epoch = $2, sequence = $3, fence = $4, owner = $5, \
                 block_first = $6, block_digest = $7, read = $8, applied = $9, filtered = $10, unmatched = $11, \
                 failed = $12, waiting = $13, skipped = $14, updated_at = ",
                $now,
                " WHERE route = $15 AND lane = $16 AND log_id = $17 AND epoch = $18 AND sequence = $19 AND fence = $20",
                $owner
            )
        };
    }
    pub const ADVANCE_POSTGRES: &str = advance!("clock_timestamp()", " AND owner = $21");
    pub const ADVANCE_SQLITE: &str = advance!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", " AND owner = $21");
    /// Sabotage only: a compare-and-set that forgets the owner.
    pub const ADVANCE_POSTGRES_ANY_OWNER: &str = advance!("clock_timestamp()", " AND $21 <> ''");
    pub const ADVANCE_SQLITE_ANY_OWNER: &str = advance!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", " AND $21 <> ''");

    pub const INSERT: &str = "INSERT INTO gravity_checkpoints (log_id, epoch, sequence, fence, owner, block_first, \
         block_digest, read, applied, filtered, unmatched, failed, waiting, skipped, route, lane) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    pub const DELETE: &str = "DELETE FROM gravity_checkpoints WHERE route = $1 AND lane = $2";

    pub const VIEWS: &str = "SELECT table_name, log_id, route, state, CAST(generation AS bigint), history FROM gravity_views ORDER BY table_name";
    pub const DELETE_VIEW: &str = "DELETE FROM gravity_views WHERE table_name = $1";
    pub const INSERT_VIEW: &str = "INSERT INTO gravity_views (table_name, log_id, route, state, generation, history) \
         VALUES ($1, $2, $3, $4, $5, $6)";
}

/// The columns of a checkpoint row that change, in the order of `$1`…`$14`.
pub(crate) struct CheckpointColumns {
    pub log_id: String,
    pub epoch: i64,
    pub sequence: i64,
    pub fence: i64,
    pub owner: String,
    pub block_first: i64,
    pub block_digest: String,
    pub counters: [i64; 7],
}

impl From<&Checkpoint> for CheckpointColumns {
    fn from(c: &Checkpoint) -> CheckpointColumns {
        let n = &c.counters;
        CheckpointColumns {
            log_id: c.log_id.to_string(),
            epoch: signed(c.epoch.0),
            sequence: signed(c.sequence.0),
            fence: signed(c.fence.0),
            owner: c.owner.to_string(),
            block_first: signed(c.block.first.0),
            block_digest: c.block.digest.to_string(),
            counters: [n.read, n.applied, n.filtered, n.unmatched, n.failed, n.waiting, n.skipped].map(signed),
        }
    }
}

/// Binds `$1`…`$14` of [`statements::INSERT`] and the ADVANCE statements.
macro_rules! bind_columns {
    ($query:expr, $columns:expr) => {{
        let columns = $columns;
        let mut query = $query
            .bind(columns.log_id)
            .bind(columns.epoch)
            .bind(columns.sequence)
            .bind(columns.fence)
            .bind(columns.owner)
            .bind(columns.block_first)
            .bind(columns.block_digest);
        for counter in columns.counters {
            query = query.bind(counter);
        }
        query
    }};
}
pub(crate) use bind_columns;

/// Reads a row selected by one of the checkpoint statements.
pub(crate) fn checkpoint_of<R>(row: &R) -> Result<Checkpoint, Fault>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let text = |i: usize| row.try_get::<String, _>(i).map_err(|e| damaged(CHECKPOINTS, e));
    let number = |i: usize| unsigned(CHECKPOINTS, row.try_get::<i64, _>(i).map_err(|e| damaged(CHECKPOINTS, e))?);
    let lane = number(1)?;
    Ok(Checkpoint {
        route: text(0)?,
        lane: u16::try_from(lane).map_err(|_| damaged("lane", lane))?,
        log_id: text(2)?.parse().map_err(|e| damaged("log_id", e))?,
        epoch: Epoch(number(3)?),
        sequence: Sequence(number(4)?),
        fence: Fence(number(5)?),
        owner: text(6)?.parse::<OwnerId>().map_err(|e| damaged("owner", e))?,
        block: BlockMark {
            first: Sequence(number(7)?),
            digest: text(8)?.parse().map_err(|e| damaged("block_digest", e))?,
        },
        counters: Counters {
            read: number(9)?,
            applied: number(10)?,
            filtered: number(11)?,
            unmatched: number(12)?,
            failed: number(13)?,
            waiting: number(14)?,
            skipped: number(15)?,
        },
    })
}

/// Reads a row selected by [`statements::VIEWS`].
pub(crate) fn view_of<R>(row: &R) -> Result<ViewRow, Fault>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let text = |i: usize| row.try_get::<String, _>(i).map_err(|e| damaged(VIEWS, e));
    let generation = row.try_get::<i64, _>(4).map_err(|e| damaged(VIEWS, e))?;
    Ok(ViewRow {
        table: text(0)?,
        log_id: text(1)?.parse::<LogId>().map_err(|e| damaged("log_id", e))?,
        route: text(2)?,
        state: state_of(&text(3)?)?,
        generation: u32::try_from(generation).map_err(|_| damaged("generation", generation))?,
        history: text(5)?,
    })
}
