//! An open transaction: it owns its connection, and gives it back only after the server said that nothing is open.

use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::failpoint::{self, Hit};
use gravity_model::port::view::{Applied, EventOutcome, ViewTransaction};
use gravity_model::{ChangeBatch, Checkpoint, Fault, FaultKind};

use super::Shared;
use super::client::Session;
use super::write::write_batch;
use crate::sql::bookkeeping::{bind_columns, checkpoint_of, compare, not_ours, pairs, statements};

/// Hot standbys refuse READ WRITE here instead of at the first row.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

pub(super) struct PostgresTransaction {
    shared: Arc<Shared>,
    session: Session,
    /// The checkpoint rows as `begin` read and locked them.
    read: Vec<Checkpoint>,
    /// A statement failed: only ROLLBACK may follow.
    failed: bool,
    /// The connection is out of step: not even ROLLBACK may follow.
    lost: bool,
}

/// BEGIN on an idle connection, or on a new one where the idle one is dead: nothing has happened before a BEGIN.
pub(super) async fn open_transaction(shared: &Shared) -> Result<Session, Fault> {
    if let Some(mut session) = shared.connections.idle() {
        match session.command(BEGIN, "begin a view transaction").await {
            Ok(()) => return Ok(session),
            Err(fault) if fault.kind != FaultKind::Disconnected => return Err(fault),
            Err(_) => {}
        }
    }
    let mut session = shared.connections.connect().await?;
    session.command(BEGIN, "begin a view transaction").await?;
    Ok(session)
}

impl PostgresTransaction {
    pub async fn begin(shared: Arc<Shared>, expect: &[Checkpoint]) -> Result<PostgresTransaction, Fault> {
        let session = open_transaction(&shared).await?;
        let mut this = PostgresTransaction { shared, session, read: Vec::new(), failed: false, lost: false };
        match lock(&mut this.session, expect, "begin a view transaction").await {
            Ok(rows) => {
                this.read = rows;
                Ok(this)
            }
            Err(fault) => {
                this.note(&fault);
                Box::new(this).rollback().await;
                Err(fault)
            }
        }
    }

    fn note(&mut self, fault: &Fault) {
        self.failed = true;
        self.lost |= fault.kind == FaultKind::Disconnected;
    }

    fn usable(&self, doing: &str) -> Result<(), Fault> {
        match self.failed {
            false => Ok(()),
            true => Err(Fault::new(FaultKind::Transient, "25P02", doing, "an earlier statement failed: roll back")),
        }
    }

    async fn savepoint(&mut self, command: &'static str) -> Result<(), Fault> {
        let result = self.session.command(command, "apply one event").await;
        if let Err(fault) = &result {
            self.note(fault);
        }
        result
    }
}

/// Locks the rows of `expect` and compares them.
pub(super) async fn lock(session: &mut Session, expect: &[Checkpoint], doing: &str) -> Result<Vec<Checkpoint>, Fault> {
    let keys: Vec<_> = expect.iter().map(|c| (c.route.clone(), c.lane)).collect();
    let rows = lock_keys(session, &keys, doing).await?;
    compare(doing, &rows, expect)?;
    Ok(rows)
}

/// Locks and reads the rows that exist under `keys`, in the order of (route, lane), so that no two writers wait in a ring.
pub(super) async fn lock_keys(
    session: &mut Session,
    keys: &[(String, u16)],
    doing: &str,
) -> Result<Vec<Checkpoint>, Fault> {
    let routes: Vec<&str> = keys.iter().map(|(route, _)| route.as_str()).collect();
    let lanes: Vec<i32> = keys.iter().map(|(_, lane)| i32::from(*lane)).collect();
    // Sabotage: a checkpoint that is to be written apart from its rows cannot be locked by them.
    let statement = match failpoint::sabotaged("view.checkpoint_apart") {
        false => statements::LOCK_POSTGRES,
        true => statements::PEEK_POSTGRES,
    };
    let rows = session.fetch_all(sqlx::query(statement).bind(routes).bind(lanes), doing).await?;
    rows.iter().map(checkpoint_of).collect()
}

/// The compare-and-set: exactly one row per lane, or a fault.
pub(super) async fn advance(
    session: &mut Session,
    read: &Checkpoint,
    next: &Checkpoint,
    doing: &str,
) -> Result<(), Fault> {
    let statement = match failpoint::sabotaged("view.cas_without_owner") {
        false => statements::ADVANCE_POSTGRES,
        true => statements::ADVANCE_POSTGRES_ANY_OWNER,
    };
    use crate::sql::bookkeeping::{CheckpointColumns, signed};
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

#[async_trait]
impl ViewTransaction for PostgresTransaction {
    async fn apply(&mut self, batch: &ChangeBatch) -> Result<Applied, Fault> {
        self.usable("apply a batch")?;
        let result = write_batch(&mut self.session, &self.shared.plans, batch).await;
        if let Err(fault) = &result {
            self.note(fault);
        }
        result
    }

    async fn apply_event(&mut self, changes: &ChangeBatch) -> Result<EventOutcome, Fault> {
        self.usable("apply one event")?;
        self.savepoint("SAVEPOINT gravity_event").await?;
        match write_batch(&mut self.session, &self.shared.plans, changes).await {
            Ok(applied) => {
                self.savepoint("RELEASE SAVEPOINT gravity_event").await?;
                Ok(EventOutcome::Applied(applied))
            }
            Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                self.savepoint("ROLLBACK TO SAVEPOINT gravity_event").await?;
                self.savepoint("RELEASE SAVEPOINT gravity_event").await?;
                Ok(EventOutcome::Refused(fault))
            }
            Err(fault) => {
                self.note(&fault);
                Err(fault)
            }
        }
    }

    async fn commit(mut self: Box<Self>, next: &[Checkpoint]) -> Result<(), Fault> {
        const DOING: &str = "commit a view transaction";
        let advanced = match self.usable(DOING) {
            Ok(()) => self.advance_all(next, DOING).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = advanced {
            self.note(&fault);
            self.rollback().await;
            return Err(fault);
        }
        if failpoint::hit("view.before_commit") == Hit::Fail {
            // The connection goes without a COMMIT; the caller knows no more than after a real cut.
            return Err(Fault::new(FaultKind::Disconnected, "failpoint", DOING, "cut before COMMIT"));
        }
        // A fault that the server answered (a deferred constraint, a serialisation failure) says that nothing was committed;
        // anything else is unknown. Either way the connection goes with this value.
        self.session.command("COMMIT", DOING).await?;
        if failpoint::hit("view.after_commit") == Hit::Fail {
            return Err(Fault::new(FaultKind::Disconnected, "failpoint", DOING, "cut after COMMIT"));
        }
        self.shared.connections.give_back(self.session);
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) {
        // Without an answer the connection is dropped, which rolls back as well.
        if !self.lost && self.session.command("ROLLBACK", "roll back a view transaction").await.is_ok() {
            self.shared.connections.give_back(self.session);
        }
    }
}

impl PostgresTransaction {
    async fn advance_all(&mut self, next: &[Checkpoint], doing: &str) -> Result<(), Fault> {
        let pairs = pairs(&self.read, next)?;
        if failpoint::sabotaged("view.checkpoint_apart") {
            let mut apart = self.shared.connections.connect().await?;
            for (read, next) in pairs {
                advance(&mut apart, read, next, doing).await?;
            }
            return Ok(());
        }
        for (read, next) in pairs {
            advance(&mut self.session, read, next, doing).await?;
        }
        Ok(())
    }
}
