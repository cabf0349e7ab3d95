//! Protocol B on a server without transactions: one checkpoint document is the switch, a journal the memory.
//!
//! (1) Store the journal's chunks. (2) Compare-and-set the checkpoint to name the journal: the batch is decided. (3)
//! Make the writes, each guarded by the document's mark. (4) Compare-and-set the checkpoint to its next state, journal
//! gone. Whoever finds a checkpoint with a journal does 3 and 4 again; a refusal of content in 3 turns the journal
//! round: the writes are taken back, last first, and the checkpoint stays. Why that is exact: docs/decisions/0012.

use gravity_model::failpoint::{self, Hit};
use gravity_model::{Checkpoint, Fault, FaultKind};
use mongodb::bson::{Document, doc};

use super::bookkeeping::{UNDER_WAY, advance, checkpoint_id, checkpoint_of, fields, unchanged, update};
use super::client::Server;
use super::error::{fault, integer};
use super::journal::{self, Reference, Writer};
use super::overlay::{DELETED, Overlay, bytes_of};
use super::plan::{self, Action, Write};
use crate::sql::checkpoint::{CHECKPOINTS, damaged, not_ours, signed};

const DOING: &str = "commit a view transaction";

/// Writes what the transaction came to, and moves its checkpoint.
pub(super) async fn commit(
    server: &Server,
    overlay: &Overlay,
    read: &Checkpoint,
    next: &Checkpoint,
) -> Result<(), Fault> {
    if overlay.is_empty() {
        cut("view.before_commit", "before")?;
        advance(server, read, next, None, DOING).await?;
        return cut("view.after_commit", "after");
    }
    let reference = write_journal(server, overlay, read, next).await?;
    if failpoint::sabotaged("view.checkpoint_apart") {
        advance(server, read, next, None, DOING).await?;
        cut("view.before_commit", "before")?;
        return journal::redo(server, &reference).await;
    }
    let under_way = UnderWay { reference, undoing: false, next: next.clone() };
    let statement = doc! { "q": unchanged(read), "u": { "$set": { UNDER_WAY: under_way.document() } } };
    if server.written(update(CHECKPOINTS, vec![statement]), None, DOING).await? != 1 {
        under_way.forget(server).await;
        return Err(not_ours(DOING, "another one", read));
    }
    cut("view.after_journal", "after the journal")?;
    under_way.carry_out(server, &checkpoint_id(&read.route, read.lane), true).await?;
    cut("view.after_commit", "after")
}

/// A failpoint where the connection goes; the caller knows no more than after a real cut.
fn cut(point: &'static str, when: &str) -> Result<(), Fault> {
    match failpoint::hit(point) {
        Hit::Fail => Err(Fault::new(FaultKind::Disconnected, "failpoint", DOING, format!("cut {when} the commit"))),
        _ => Ok(()),
    }
}

async fn write_journal(
    server: &Server,
    overlay: &Overlay,
    read: &Checkpoint,
    next: &Checkpoint,
) -> Result<Reference, Fault> {
    let (from, through) = (signed(read.sequence.0), signed(next.sequence.0));
    let mut writer = Writer::new(server, checkpoint_id(&read.route, read.lane), from, through);
    for (name, collection) in &overlay.collections {
        let writes = plan::writes(collection);
        if collection.cleared {
            // Of a collection that is emptied only the journal holds the documents: it may be larger than memory.
            let held: std::collections::HashSet<Vec<u8>> =
                collection.entries.iter().filter(|e| e.touched).map(|e| bytes_of(&e.id)).collect();
            let mut cursor = server.stream(name, doc! { DELETED: { "$exists": false } }, DOING).await?;
            while cursor.advance().await.map_err(|error| fault(error, DOING))? {
                let document = cursor.deserialize_current().map_err(|error| fault(error, DOING))?;
                let Some(id) = document.get("_id").cloned() else { continue };
                if !held.contains(&bytes_of(&id)) {
                    let write = Write { id, before: Some(document), action: Action::Remove };
                    writer.add(name, write).await?;
                }
            }
        }
        for write in writes {
            writer.add(name, write).await?;
        }
    }
    writer.finish().await
}

/// A decided batch, as its checkpoint remembers it.
struct UnderWay {
    reference: Reference,
    /// It was refused, and its writes are being taken back.
    undoing: bool,
    next: Checkpoint,
}

impl UnderWay {
    fn document(&self) -> Document {
        let r = &self.reference;
        doc! {
            "token": &r.token, "through": r.through, "redo": i64::from(r.redo), "undo": i64::from(r.undo),
            "undoing": self.undoing, "next": fields(&self.next),
        }
    }

    fn of(document: &Document) -> Result<UnderWay, Fault> {
        let broken = || damaged(CHECKPOINTS, "a journal that cannot be read");
        let number = |name: &str| document.get(name).and_then(integer).ok_or_else(broken);
        let count = |name: &str| u32::try_from(number(name)?).map_err(|_| broken());
        Ok(UnderWay {
            reference: Reference {
                token: document.get_str("token").map_err(|_| broken())?.to_owned(),
                through: number("through")?,
                redo: count("redo")?,
                undo: count("undo")?,
            },
            undoing: document.get_bool("undoing").map_err(|_| broken())?,
            next: checkpoint_of(document.get_document("next").map_err(|_| broken())?)?,
        })
    }

    /// Brings the batch to its end: written whole, or taken back whole, which is a refusal. `first`: by who decided it.
    async fn carry_out(&self, server: &Server, id: &str, first: bool) -> Result<(), Fault> {
        if !self.undoing {
            match journal::redo(server, &self.reference).await {
                Ok(()) => {
                    if first {
                        cut("view.before_commit", "before")?;
                    }
                    return self.finish(server, id).await;
                }
                Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                    let statement = doc! {
                        "q": self.filter(id), "u": { "$set": { format!("{UNDER_WAY}.undoing"): true } },
                    };
                    if server.written(update(CHECKPOINTS, vec![statement]), None, DOING).await? == 1 {
                        self.take_back(server, id).await?;
                    }
                    return Err(fault);
                }
                Err(fault) => return Err(fault),
            }
        }
        self.take_back(server, id).await
    }

    /// Meets the checkpoint while this journal is the one that it names.
    fn filter(&self, id: &str) -> Document {
        doc! { "_id": id, format!("{UNDER_WAY}.token"): &self.reference.token }
    }

    async fn finish(&self, server: &Server, id: &str) -> Result<(), Fault> {
        let statement = doc! { "q": self.filter(id), "u": { "$set": fields(&self.next), "$unset": { UNDER_WAY: "" } } };
        if server.written(update(CHECKPOINTS, vec![statement]), None, DOING).await? != 1 {
            // Somebody was quicker to bring it to its end: which one, the checkpoint tells.
            let detail = "the journal was brought to its end by somebody else";
            return Err(Fault::new(FaultKind::Disconnected, "settled", DOING, detail));
        }
        self.forget(server).await;
        Ok(())
    }

    async fn take_back(&self, server: &Server, id: &str) -> Result<(), Fault> {
        journal::undo(server, &self.reference).await?;
        let statement = doc! { "q": self.filter(id), "u": { "$unset": { UNDER_WAY: "" } } };
        server.written(update(CHECKPOINTS, vec![statement]), None, DOING).await?;
        self.forget(server).await;
        Ok(())
    }

    /// What stays behind costs space only; the next one who settles sweeps it.
    async fn forget(&self, server: &Server) {
        if let Err(fault) = journal::forget(server, &self.reference).await {
            tracing::debug!(error = %fault, "chunks of a finished journal stay until the next sweep");
        }
    }
}

/// Brings to its end what is under way on these checkpoint documents. True when there was something.
pub(super) async fn all(server: &Server, checkpoints: &[Document]) -> Result<bool, Fault> {
    let mut any = false;
    for document in checkpoints {
        let Ok(under_way) = document.get_document(UNDER_WAY) else { continue };
        let id = document.get_str("_id").map_err(|e| damaged(CHECKPOINTS, e))?;
        any = true;
        match UnderWay::of(under_way)?.carry_out(server, id, false).await {
            // Its events are decided about again by whoever reads the checkpoint.
            Err(fault) if fault.kind == FaultKind::RefusedEvent || fault.code == "settled" => {}
            other => other?,
        }
    }
    Ok(any)
}
