//! The view port (Protocol B): rows and checkpoint commit together, the checkpoint moves by compare-and-set.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::change::ChangeBatch;
use crate::checkpoint::Checkpoint;
use crate::fault::Fault;
use crate::ident::{LogId, Sequence};
use crate::shape::{ColumnType, TableShape};

/// What the rules want of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRequest {
    pub table: String,
    /// Columns that rules write, first mention first. Empty with pass-through rules: then the live table decides.
    pub columns: Vec<ColumnRequest>,
    /// Key columns by name, in order; empty: the live table's primary key.
    pub key: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnRequest {
    pub name: String,
    /// The mapping's `type`, where it names one.
    pub declared: Option<ColumnType>,
}

/// Something about the live table that forbids or endangers a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFinding {
    /// One of the codes under docs/errors.
    pub code: &'static str,
    /// False: a warning, the route may run.
    pub fatal: bool,
    pub table: String,
    pub column: Option<String>,
    pub found: String,
    pub allowed: String,
    /// Statement that would mend it, where there is one.
    pub sql: Option<String>,
}

/// What `describe` found out about one requested table.
#[derive(Clone, Debug)]
pub enum Described {
    Present(TableShape),
    /// Not there; `ddl` is the CREATE statement that a DBA (or `"ddl": "create"`) would run, `Err` names the columns whose
    /// type is not declared.
    Missing {
        ddl: Result<String, Vec<String>>,
    },
}

/// A row of `gravity_views`: which route owns a physical table, and its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRow {
    pub table: String,
    pub log_id: LogId,
    pub route: String,
    pub state: ViewState,
    /// Build of this view, 1 is the first.
    pub generation: u32,
    /// JSON array of `[from sequence, rules version]`, newest last (SEMANTICS 6.3), kept by the engine.
    pub history: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewState {
    /// Shares the route's checkpoint.
    Attached,
    /// Catches up from the log's beginning as pseudo-route `DATABASE/TABLE`.
    Building,
    /// Stays where a restore put it.
    Held,
}

/// What one `apply` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Patched rows that did not exist: (table index in the batch, step index, row index), ascending.
    pub missed: Vec<(u32, u32, u32)>,
}

/// Outcome of one event's changes under a savepoint.
#[derive(Debug)]
pub enum EventOutcome {
    Applied(Applied),
    /// The database refused the content; the savepoint was rolled back, the transaction goes on.
    Refused(Fault),
}

/// One database with views. Shared by the tasks of a route; every method may be called at any time.
///
/// No method takes a time limit, and callers never drop a returned future half way: limits live in the server
/// (`statement_timeout`, `lock_timeout`, `busy_timeout`), because a dropped transaction can lose a later write.
#[async_trait]
pub trait ViewStore: Send + Sync {
    /// Connects, refuses servers and settings that would break P3, makes the bookkeeping tables unless they are managed by
    /// hand (then a missing one is [`FaultKind::Misconfigured`](crate::FaultKind) with its DDL). Idempotent.
    async fn open(&self) -> Result<(), Fault>;

    /// Looks the tables up in the live catalogue; one answer per request, same order.
    async fn describe(&self, requests: &[TableRequest]) -> Result<Vec<Described>, Fault>;

    /// Everything about the live tables, the account and the server that forbids or endangers the requests: for
    /// `check --live` and for the start of a route.
    async fn inspect(&self, requests: &[TableRequest]) -> Result<Vec<LiveFinding>, Fault>;

    /// DDL of the bookkeeping tables, for `check --live --sql` and `"bookkeeping": "manual"`.
    fn bookkeeping_sql(&self) -> String;

    /// Runs CREATE statements that `describe` proposed, one transaction where the database can.
    async fn create(&self, statements: &[String]) -> Result<(), Fault>;

    /// True when the table holds at least one row.
    async fn has_rows(&self, table: &str) -> Result<bool, Fault>;

    /// All checkpoint rows of a route, by lane; empty before the first attach.
    async fn checkpoints(&self, route: &str) -> Result<Vec<Checkpoint>, Fault>;

    async fn views(&self) -> Result<Vec<ViewRow>, Fault>;

    /// One transaction of bookkeeping: the old checkpoint rows must still be exactly `expect`, then `delete` go, `put` are
    /// written (insert or replace), view rows likewise. For attach, detach, adopt. [`FaultKind::NotOurs`](crate::FaultKind)
    /// when something changed meanwhile, or when a view row belongs to another (log, route).
    async fn rewrite(&self, rewrite: BookkeepingRewrite) -> Result<(), Fault>;

    /// Opens a transaction and locks the checkpoint rows `expect` (lane order). Each must be unchanged in log id, epoch,
    /// sequence, fence and owner, else [`FaultKind::NotOurs`](crate::FaultKind) and nothing is open.
    async fn begin(&self, expect: &[Checkpoint]) -> Result<Box<dyn ViewTransaction>, Fault>;

    /// Closes pooled connections.
    async fn close(&self);
}

/// See [`ViewStore::rewrite`].
#[derive(Clone, Debug, Default)]
pub struct BookkeepingRewrite {
    pub expect: Vec<Checkpoint>,
    pub delete: Vec<(String, u16)>,
    pub put: Vec<Checkpoint>,
    pub put_views: Vec<ViewRow>,
    pub delete_views: Vec<String>,
}

/// An open database transaction. Used by one task; ended by `commit` or `rollback`, never by dropping.
#[async_trait]
pub trait ViewTransaction: Send {
    /// Writes a folded batch. A fault leaves the transaction unusable: roll back.
    async fn apply(&mut self, batch: &ChangeBatch) -> Result<Applied, Fault>;

    /// Writes the changes of one event under a savepoint; only a refusal of content is an `Ok(Refused)`.
    async fn apply_event(&mut self, changes: &ChangeBatch) -> Result<EventOutcome, Fault>;

    /// Compare-and-set of the checkpoint rows from what `begin` read to `next` (same lanes, exactly one row each), then
    /// COMMIT. A fault of kind `Disconnected` means *unknown*: read the checkpoints on a new connection before anything else.
    async fn commit(self: Box<Self>, next: &[Checkpoint]) -> Result<(), Fault>;

    async fn rollback(self: Box<Self>);
}

/// For messages: where the checkpoint stands and what was expected.
pub fn describe_checkpoint(checkpoint: &Checkpoint) -> String {
    format!(
        "route {} lane {}: sequence {} of log {}, epoch {}, fence {}, owner {}",
        checkpoint.route,
        checkpoint.lane,
        checkpoint.sequence,
        checkpoint.log_id,
        checkpoint.epoch,
        checkpoint.fence,
        checkpoint.owner
    )
}

/// True when `sequence` lies in the half-open range `(after, through]`.
pub fn within(sequence: Sequence, after: Sequence, through: Sequence) -> bool {
    after < sequence && sequence <= through
}
