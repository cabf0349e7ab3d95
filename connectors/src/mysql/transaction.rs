//! An open transaction: it owns its connection, and gives it back only after the server said that nothing is open.

use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::failpoint::{self, Hit};
use gravity_model::port::view::{Applied, EventOutcome, ViewTransaction};
use gravity_model::{ChangeBatch, Checkpoint, Fault, FaultKind};

use super::Shared;
use super::bookkeeping::{advance, lock_keys};
use super::client::Session;
use super::write::write_batch;
use crate::sql::bookkeeping::{compare, pairs};

/// A read-only server refuses READ WRITE here instead of at the first row.
const BEGIN: &str = "START TRANSACTION READ WRITE";

pub(super) struct MySqlTransaction {
    shared: Arc<Shared>,
    session: Session,
    /// The checkpoint rows as `begin` read and locked them.
    read: Vec<Checkpoint>,
    /// A statement failed: only ROLLBACK may follow. MySQL itself would go on, after a deadlock even without the transaction.
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

impl MySqlTransaction {
    pub async fn begin(shared: Arc<Shared>, expect: &[Checkpoint]) -> Result<MySqlTransaction, Fault> {
        const DOING: &str = "begin a view transaction";
        let session = open_transaction(&shared).await?;
        let mut this = MySqlTransaction { shared, session, read: Vec::new(), failed: false, lost: false };
        let keys: Vec<_> = expect.iter().map(|c| (c.route.clone(), c.lane)).collect();
        let read = match lock_keys(&mut this.session, keys, DOING).await {
            Ok(rows) => compare(DOING, &rows, expect).map(|()| rows),
            Err(fault) => Err(fault),
        };
        match read {
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
            true => Err(Fault::new(FaultKind::Transient, "failed", doing, "an earlier statement failed: roll back")),
        }
    }

    async fn savepoint(&mut self, command: &'static str) -> Result<(), Fault> {
        let result = self.session.command(command, "apply one event").await;
        if let Err(fault) = &result {
            self.note(fault);
        }
        result
    }

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

#[async_trait]
impl ViewTransaction for MySqlTransaction {
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
                // Fails where the server has rolled back the whole transaction: then the savepoint is gone as well.
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
        if let Err(mut fault) = self.session.command("COMMIT", DOING).await {
            // A cluster's refusal to certify says that nothing was committed. Any other answer (a full binary log, a limit that
            // ran out while a replica was waited for) may come after the engine has committed: the checkpoint decides.
            if fault.code != "1213" {
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
        // Without an answer the connection is dropped, which rolls back as well.
        if !self.lost && self.session.command("ROLLBACK", "roll back a view transaction").await.is_ok() {
            self.shared.connections.give_back(self.session);
        }
    }
}
