//! An open transaction: documents are read and changed in memory; whatever is written is written at the commit.
//!
//! On a replica set the reads, the writes and the checkpoint share one transaction of the server. On a stand-alone server the
//! commit goes through `settle`. A dropped transaction has written nothing in either case.

use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::failpoint::{self, Hit};
use gravity_model::port::view::{Applied, EventOutcome, ViewTransaction};
use gravity_model::{ChangeBatch, Checkpoint, Fault, FaultKind, Step};
use mongodb::ClientSession;
use mongodb::bson::{Document, doc};

use super::bookkeeping::{advance, fields, settled, unchanged, update};
use super::client::{Kind, STATEMENTS, Server};
use super::journal::COMMAND_BYTES;
use super::overlay::{Overlay, bytes_of};
use super::plan::{self, Action, Write};
use super::{Shared, collection_name, reserved_column, sessions, settle, tombstones};
use crate::sql::checkpoint::{CHECKPOINTS, compare, not_ours, pairs};

const BEGIN: &str = "begin a view transaction";
const COMMIT: &str = "commit a view transaction";
/// Keys per look-up.
const KEYS: usize = 1_000;

pub(super) struct MongoTransaction {
    shared: Arc<Shared>,
    server: Server,
    /// Open on a replica set.
    session: Option<ClientSession>,
    read: Vec<Checkpoint>,
    overlay: Overlay,
    /// A call failed: only `rollback` may follow.
    failed: bool,
}

impl MongoTransaction {
    pub async fn begin(shared: Arc<Shared>, expect: &[Checkpoint]) -> Result<MongoTransaction, Fault> {
        let server = shared.connections.server().await?;
        if server.kind == Kind::StandAlone && expect.len() > 1 {
            let detail = "several lanes move in one step only on a replica set; remove `lanes`";
            return Err(Fault::new(FaultKind::Misconfigured, "live/stand-alone", BEGIN, detail));
        }
        let keys: Vec<_> = expect.iter().map(|c| (c.route.clone(), c.lane)).collect();
        let read = settled(&server, &keys, BEGIN).await?;
        compare(BEGIN, &read, expect)?;
        let mut session = None;
        if server.kind == Kind::Transactions {
            let mut open = sessions::begin(&server).await?;
            if let Err(fault) = lock(&server, &read, &mut open).await {
                sessions::abort(&mut open).await;
                return Err(fault);
            }
            session = Some(open);
        }
        Ok(MongoTransaction { shared, server, session, read, overlay: Overlay::default(), failed: false })
    }

    fn usable(&self, doing: &str) -> Result<(), Fault> {
        match self.failed {
            false => Ok(()),
            true => Err(Fault::new(FaultKind::Transient, "failed", doing, "an earlier call failed: roll back")),
        }
    }

    async fn change(&mut self, batch: &ChangeBatch) -> Result<Applied, Fault> {
        let mut applied = Applied::default();
        for (t, table) in batch.tables.iter().enumerate() {
            let name = collection_name(&table.shape.table)?;
            for column in &table.shape.columns {
                reserved_column(&table.shape, &column.name)?;
            }
            if !self.overlay.knows(&name) {
                self.server.expect_collection(&name).await?;
            }
            let collection = self.overlay.collection(&name);
            for (s, step) in table.steps.iter().enumerate() {
                match step {
                    Step::DeleteAll => self.overlay.clear(collection),
                    Step::Rows(group) => {
                        let ids = self.overlay.unread(collection, &table.shape, group)?;
                        for ids in ids.chunks(KEYS) {
                            let doing = format!("read {} documents of {name}", ids.len());
                            let filter = match ids {
                                [id] => doc! { "_id": id.clone() },
                                ids => doc! { "_id": { "$in": ids.to_vec() } },
                            };
                            let found = self.server.find(&name, filter, self.session.as_mut(), &doing).await?;
                            self.overlay.read(collection, ids.to_vec(), found);
                        }
                        for missed in self.overlay.write(collection, &table.shape, group)? {
                            applied.missed.push((t as u32, s as u32, missed as u32));
                        }
                    }
                }
            }
        }
        Ok(applied)
    }

    /// Rows and checkpoints in the server's transaction.
    async fn write(&mut self, pairs: &[(Checkpoint, Checkpoint)]) -> Result<(), Fault> {
        let server = self.server.clone();
        let Some(session) = self.session.as_mut() else {
            return Err(Fault::new(FaultKind::Closed, "closed", COMMIT, "the transaction is not open"));
        };
        for (name, collection) in &self.overlay.collections {
            let mut writes = plan::writes(collection);
            if collection.cleared {
                let all = doc! { "delete": name, "deletes": [{ "q": {}, "limit": 0 }] };
                server.written(all, Some(&mut *session), &format!("delete all documents of {name}")).await?;
                writes.retain_mut(|write| {
                    // What was there is gone; what is to be there is made again whole.
                    let now = collection.entries.iter().find(|entry| entry.id == write.id).and_then(|e| e.now.clone());
                    now.map(|now| write.action = Action::Insert(now)).is_some()
                });
            }
            write_all(&server, session, name, &writes).await?;
        }
        for (read, next) in pairs {
            advance_locked(&server, session, read, next).await?;
        }
        Ok(())
    }
}

/// Takes the checkpoint documents for this transaction: another that wants them meets a write conflict.
async fn lock(server: &Server, read: &[Checkpoint], session: &mut ClientSession) -> Result<(), Fault> {
    for checkpoint in read {
        let statement = doc! { "q": unchanged(checkpoint), "u": { "$inc": { "turn": 1_i64 } } };
        if server.written(update(CHECKPOINTS, vec![statement]), Some(&mut *session), BEGIN).await? != 1 {
            return Err(not_ours(BEGIN, "another one", checkpoint));
        }
    }
    Ok(())
}

async fn advance_locked(
    server: &Server,
    session: &mut ClientSession,
    read: &Checkpoint,
    next: &Checkpoint,
) -> Result<(), Fault> {
    if failpoint::sabotaged("view.checkpoint_apart") {
        let id = super::bookkeeping::checkpoint_id(&read.route, read.lane);
        let statement = doc! { "q": { "_id": id }, "u": { "$set": fields(next) } };
        return server.written(update(CHECKPOINTS, vec![statement]), None, COMMIT).await.map(|_| ());
    }
    advance(server, read, next, Some(session), COMMIT).await
}

async fn write_all(server: &Server, session: &mut ClientSession, name: &str, writes: &[Write]) -> Result<(), Fault> {
    let is_insert = |write: &Write| matches!(write.action, Action::Insert(_));
    let mut rest = writes;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |write: &&Write| {
            bytes += size(write);
            bytes <= COMMAND_BYTES && std::mem::discriminant(&write.action) == std::mem::discriminant(&first.action)
        };
        let count = rest.iter().take(STATEMENTS).take_while(fits).count().max(1);
        let (now, left) = rest.split_at(count);
        let doing = format!("write {count} documents of {name}");
        let filter = |write: &Write| doc! { "_id": write.id.clone() };
        let command = match first.action {
            Action::Remove => {
                let deletes: Vec<Document> = now.iter().map(|w| doc! { "q": filter(w), "limit": 1 }).collect();
                doc! { "delete": name, "deletes": deletes, "ordered": true }
            }
            _ if is_insert(first) => {
                let documents: Vec<Document> = now.iter().filter_map(|w| whole(w).cloned()).collect();
                doc! { "insert": name, "documents": documents, "ordered": true }
            }
            _ => update(name, now.iter().filter_map(|w| statement(w, filter(w))).collect()),
        };
        let is_empty = command.get_array("updates").is_ok_and(Vec::is_empty);
        if !is_empty {
            server.written(command, Some(&mut *session), &doing).await?;
        }
        rest = left;
    }
    Ok(())
}

fn whole(write: &Write) -> Option<&Document> {
    match &write.action {
        Action::Insert(document) | Action::Replace(document) => Some(document),
        _ => None,
    }
}

fn statement(write: &Write, filter: Document) -> Option<Document> {
    match &write.action {
        // Nothing changes, and no mark is kept here.
        Action::Set(fields) if fields.is_empty() => None,
        Action::Set(fields) => Some(doc! { "q": filter, "u": { "$set": fields.clone() } }),
        _ => whole(write).map(|document| doc! { "q": filter, "u": document.clone() }),
    }
}

fn size(write: &Write) -> usize {
    let held = match &write.action {
        Action::Remove => 0,
        Action::Set(document) | Action::Replace(document) | Action::Insert(document) => {
            document.to_vec().map_or(0, |bytes| bytes.len())
        }
    };
    held + bytes_of(&write.id).len()
}

#[async_trait]
impl ViewTransaction for MongoTransaction {
    async fn apply(&mut self, batch: &ChangeBatch) -> Result<Applied, Fault> {
        self.usable("apply a batch")?;
        let result = self.change(batch).await;
        self.failed = result.is_err();
        result
    }

    async fn apply_event(&mut self, changes: &ChangeBatch) -> Result<EventOutcome, Fault> {
        self.usable("apply one event")?;
        self.overlay.begin_event();
        match self.change(changes).await {
            Ok(applied) => {
                self.overlay.keep();
                Ok(EventOutcome::Applied(applied))
            }
            // Found in memory: nothing was sent, so the server's transaction is as it was.
            Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                self.overlay.undo();
                Ok(EventOutcome::Refused(fault))
            }
            Err(fault) => {
                self.failed = true;
                Err(fault)
            }
        }
    }

    async fn commit(mut self: Box<Self>, next: &[Checkpoint]) -> Result<(), Fault> {
        let pairs: Vec<(Checkpoint, Checkpoint)> = match self.usable(COMMIT).and_then(|()| pairs(&self.read, next)) {
            Ok(pairs) => pairs.into_iter().map(|(read, next)| (read.clone(), next.clone())).collect(),
            Err(fault) => {
                self.rollback().await;
                return Err(fault);
            }
        };
        if self.session.is_none() {
            for (read, next) in &pairs {
                settle::commit(&self.server, &self.overlay, read, next).await?;
                tombstones::sweep(&self.shared, &self.server, next).await;
            }
            return Ok(());
        }
        if let Err(fault) = self.write(&pairs).await {
            self.rollback().await;
            return Err(fault);
        }
        let cut = |when| Fault::new(FaultKind::Disconnected, "failpoint", COMMIT, format!("cut {when} COMMIT"));
        if failpoint::hit("view.before_commit") == Hit::Fail {
            self.rollback().await;
            return Err(cut("before"));
        }
        if let Some(session) = self.session.as_mut() {
            sessions::commit(session, COMMIT).await?;
        }
        if failpoint::hit("view.after_commit") == Hit::Fail {
            return Err(cut("after"));
        }
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) {
        if let Some(session) = self.session.as_mut() {
            sessions::abort(session).await;
        }
    }
}
