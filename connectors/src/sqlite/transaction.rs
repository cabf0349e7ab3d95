//! An open transaction: it owns the only writing connection, and gives it back only when nothing is open on it.

use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::failpoint::{self, Hit};
use gravity_model::port::view::{Applied, EventOutcome, ViewTransaction};
use gravity_model::{ChangeBatch, Checkpoint, Fault, FaultKind};

use super::Shared;
use super::client::Session;
use super::write::write_batch;
use crate::sql::bookkeeping::{
    CheckpointColumns, bind_columns, checkpoint_of, compare, not_ours, pairs, signed, statements,
};

pub(super) struct SqliteTransaction {
    shared: Arc<Shared>,
    session: Session,
    /// The checkpoint rows as `begin` read them; the write lock keeps them so.
    read: Vec<Checkpoint>,
    /// A statement failed: only ROLLBACK may follow.
    failed: bool,
    /// Sabotage `view.checkpoint_apart` only: what was applied, to be applied again after its checkpoint.
    written: Vec<ChangeBatch>,
}

impl SqliteTransaction {
    pub async fn begin(shared: Arc<Shared>, expect: &[Checkpoint]) -> Result<SqliteTransaction, Fault> {
        const DOING: &str = "begin a view transaction";
        let mut session = shared.connections.writer().await?;
        session.command("BEGIN IMMEDIATE", DOING).await?;
        let mut this = SqliteTransaction { shared, session, read: Vec::new(), failed: false, written: Vec::new() };
        let keys: Vec<_> = expect.iter().map(|c| (c.route.clone(), c.lane)).collect();
        let read = match read_keys(&mut this.session, &keys, DOING).await {
            Ok(rows) => compare(DOING, &rows, expect).map(|()| rows),
            Err(fault) => Err(fault),
        };
        match read {
            Ok(rows) => {
                this.read = rows;
                Ok(this)
            }
            Err(fault) => {
                Box::new(this).rollback().await;
                Err(fault)
            }
        }
    }

    fn usable(&self, doing: &str) -> Result<(), Fault> {
        match self.failed {
            false => Ok(()),
            true => Err(Fault::new(FaultKind::Transient, "failed", doing, "an earlier statement failed: roll back")),
        }
    }

    async fn savepoint(&mut self, command: &'static str) -> Result<(), Fault> {
        let result = self.session.command(command, "apply one event").await;
        self.failed |= result.is_err();
        result
    }

    async fn advance_all(&mut self, next: &[Checkpoint], doing: &str) -> Result<(), Fault> {
        for (read, next) in pairs(&self.read, next)? {
            advance(&mut self.session, read, next, doing).await?;
        }
        Ok(())
    }

    fn remember(&mut self, batch: &ChangeBatch) {
        if failpoint::sabotaged("view.checkpoint_apart") {
            self.written.push(batch.clone());
        }
    }

    /// The sabotage: the checkpoint alone, committed, then the rows in a transaction of their own.
    async fn commit_apart(&mut self, next: &[Checkpoint], doing: &str) -> Result<(), Fault> {
        self.session.command("ROLLBACK", doing).await?;
        self.session.command("BEGIN IMMEDIATE", doing).await?;
        self.advance_all(next, doing).await?;
        self.session.command("COMMIT", doing).await?;
        self.session.command("BEGIN IMMEDIATE", doing).await?;
        for batch in std::mem::take(&mut self.written) {
            write_batch(&mut self.session, &self.shared.plans, &batch).await?;
        }
        Ok(())
    }
}

/// Reads the rows that exist under `keys`.
pub(super) async fn read_keys(
    session: &mut Session,
    keys: &[(String, u16)],
    doing: &str,
) -> Result<Vec<Checkpoint>, Fault> {
    let mut found = Vec::with_capacity(keys.len());
    for (route, lane) in keys {
        let query = sqlx::query(statements::ONE_SQLITE).bind(route.as_str()).bind(i64::from(*lane));
        for row in session.fetch_all(query, doing).await? {
            found.push(checkpoint_of(&row)?);
        }
    }
    Ok(found)
}

/// The compare-and-set: exactly one row per lane, or a fault.
pub(super) async fn advance(
    session: &mut Session,
    read: &Checkpoint,
    next: &Checkpoint,
    doing: &str,
) -> Result<(), Fault> {
    let statement = match failpoint::sabotaged("view.cas_without_owner") {
        false => statements::ADVANCE_SQLITE,
        true => statements::ADVANCE_SQLITE_ANY_OWNER,
    };
    let query = bind_columns!(sqlx::query(statement), CheckpointColumns::from(next))
        .bind(read.route.as_str())
        .bind(i64::from(read.lane))
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
impl ViewTransaction for SqliteTransaction {
    async fn apply(&mut self, batch: &ChangeBatch) -> Result<Applied, Fault> {
        self.usable("apply a batch")?;
        self.remember(batch);
        let result = write_batch(&mut self.session, &self.shared.plans, batch).await;
        self.failed |= result.is_err();
        result
    }

    async fn apply_event(&mut self, changes: &ChangeBatch) -> Result<EventOutcome, Fault> {
        self.usable("apply one event")?;
        self.savepoint("SAVEPOINT gravity_event").await?;
        match write_batch(&mut self.session, &self.shared.plans, changes).await {
            Ok(applied) => {
                self.savepoint("RELEASE gravity_event").await?;
                self.remember(changes);
                Ok(EventOutcome::Applied(applied))
            }
            Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                self.savepoint("ROLLBACK TO gravity_event").await?;
                self.savepoint("RELEASE gravity_event").await?;
                Ok(EventOutcome::Refused(fault))
            }
            Err(fault) => {
                self.failed = true;
                Err(fault)
            }
        }
    }

    async fn commit(mut self: Box<Self>, next: &[Checkpoint]) -> Result<(), Fault> {
        const DOING: &str = "commit a view transaction";
        let advanced = match self.usable(DOING) {
            Err(fault) => Err(fault),
            Ok(()) if failpoint::sabotaged("view.checkpoint_apart") => self.commit_apart(next, DOING).await,
            Ok(()) => self.advance_all(next, DOING).await,
        };
        if let Err(fault) = advanced {
            self.rollback().await;
            return Err(fault);
        }
        if failpoint::hit("view.before_commit") == Hit::Fail {
            return Err(Fault::new(FaultKind::Disconnected, "failpoint", DOING, "cut before COMMIT"));
        }
        if let Err(mut fault) = self.session.command("COMMIT", DOING).await {
            // A busy or refused COMMIT leaves the transaction open, so nothing happened. After an I/O error nobody knows
            // whether the commit frame reached the file: the caller has to read the checkpoint again.
            if fault.kind == FaultKind::Transient && fault.code != "SQLITE_BUSY" {
                fault.kind = FaultKind::Disconnected;
            }
            return Err(fault);
        }
        if failpoint::hit("view.after_commit") == Hit::Fail {
            return Err(Fault::new(FaultKind::Disconnected, "failpoint", DOING, "cut after COMMIT"));
        }
        self.shared.connections.give_back(self.session);
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) {
        // SQLite may have rolled back by itself (disk full, I/O error); then ROLLBACK fails and the connection is dropped.
        if self.session.command("ROLLBACK", "roll back a view transaction").await.is_ok() {
            self.shared.connections.give_back(self.session);
        }
    }
}
