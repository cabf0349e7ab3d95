//! Checkpoints and claims as documents, and the rewrites that change them.

use gravity_model::port::view::{BookkeepingRewrite, ViewRow};
use gravity_model::{
    BlockMark, Checkpoint, Counters, Epoch, Fault, FaultKind, Fence, LogId, OwnerId, Sequence, failpoint,
};
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, doc};

use super::client::{Kind, Server};
use super::error::{DUPLICATE_KEY, NAMESPACE_EXISTS, WriteError, integer};
use super::overlay::{DELETED, MARK};
use super::{journal, sessions, settle};
use crate::sql::checkpoint::{
    CHECKPOINTS, VIEWS, claimed, compare, damaged, not_ours, rewritten_keys, signed, state_of, state_word, unsigned,
};

pub(super) const JOURNAL: &str = "gravity_journal";
/// Field of a checkpoint that a write under way is recorded in, on a stand-alone server.
pub(super) const UNDER_WAY: &str = "journal";
const ALL: [&str; 3] = [CHECKPOINTS, VIEWS, JOURNAL];

/// What a DBA runs with `"bookkeeping": "manual"`.
pub(super) fn script() -> String {
    ALL.iter().map(|name| format!("db.createCollection(\"{name}\");\n")).collect()
}

/// The bookkeeping collections that are missing.
pub(super) async fn missing(server: &Server) -> Result<Vec<&'static str>, Fault> {
    let command = doc! { "listCollections": 1, "nameOnly": true };
    let found = server.list(command, "look for the bookkeeping collections").await?;
    let present = |name: &&str| found.iter().any(|collection| collection.get_str("name").is_ok_and(|n| n == *name));
    Ok(ALL.into_iter().filter(|name| !present(name)).collect())
}

/// Makes a collection; another engine that was quicker is no failure.
pub(super) async fn make(server: &Server, name: &str) -> Result<(), Fault> {
    match server.command(doc! { "create": name }, None, &format!("make collection {name}")).await {
        Err(fault) if fault.code == NAMESPACE_EXISTS.to_string() => Ok(()),
        other => other.map(|_| ()),
    }
}

/// `_id` of a checkpoint.
pub(super) fn checkpoint_id(route: &str, lane: u16) -> String {
    format!("{lane}:{route}")
}

/// The fields that move with a commit.
pub(super) fn fields(c: &Checkpoint) -> Document {
    let n = &c.counters;
    doc! {
        "route": &c.route, "lane": i32::from(c.lane), "log_id": c.log_id.to_string(), "epoch": signed(c.epoch.0),
        "sequence": signed(c.sequence.0), "fence": signed(c.fence.0), "owner": c.owner.to_string(),
        "block_first": signed(c.block.first.0), "block_digest": c.block.digest.to_string(),
        "read": signed(n.read), "applied": signed(n.applied), "filtered": signed(n.filtered),
        "unmatched": signed(n.unmatched), "failed": signed(n.failed), "waiting": signed(n.waiting),
        "skipped": signed(n.skipped),
    }
}

/// Meets the checkpoint if it is still what was read, and nothing is under way on it.
pub(super) fn unchanged(c: &Checkpoint) -> Document {
    let mut filter = doc! {
        "_id": checkpoint_id(&c.route, c.lane), "log_id": c.log_id.to_string(), "epoch": signed(c.epoch.0),
        "sequence": signed(c.sequence.0), "fence": signed(c.fence.0), UNDER_WAY: { "$exists": false },
    };
    if !failpoint::sabotaged("view.cas_without_owner") {
        filter.insert("owner", c.owner.to_string());
    }
    filter
}

pub(super) fn checkpoint_of(document: &Document) -> Result<Checkpoint, Fault> {
    let text = |name: &str| document.get_str(name).map_err(|e| damaged(CHECKPOINTS, e));
    let number = |name: &str| {
        let found = document.get(name).and_then(integer);
        unsigned(CHECKPOINTS, found.ok_or_else(|| damaged(CHECKPOINTS, format!("no {name}")))?)
    };
    let lane = number("lane")?;
    Ok(Checkpoint {
        route: text("route")?.to_owned(),
        lane: u16::try_from(lane).map_err(|_| damaged("lane", lane))?,
        log_id: text("log_id")?.parse().map_err(|e| damaged("log_id", e))?,
        epoch: Epoch(number("epoch")?),
        sequence: Sequence(number("sequence")?),
        fence: Fence(number("fence")?),
        owner: text("owner")?.parse::<OwnerId>().map_err(|e| damaged("owner", e))?,
        block: BlockMark {
            first: Sequence(number("block_first")?),
            digest: text("block_digest")?.parse().map_err(|e| damaged("block_digest", e))?,
        },
        counters: Counters {
            read: number("read")?,
            applied: number("applied")?,
            filtered: number("filtered")?,
            unmatched: number("unmatched")?,
            failed: number("failed")?,
            waiting: number("waiting")?,
            skipped: number("skipped")?,
        },
    })
}

fn view_of(document: &Document) -> Result<ViewRow, Fault> {
    let text = |name: &str| document.get_str(name).map_err(|e| damaged(VIEWS, e));
    let generation = document.get("generation").and_then(integer).unwrap_or(-1);
    Ok(ViewRow {
        table: text("_id")?.to_owned(),
        log_id: text("log_id")?.parse::<LogId>().map_err(|e| damaged("log_id", e))?,
        route: text("route")?.to_owned(),
        state: state_of(text("state")?)?,
        generation: u32::try_from(generation).map_err(|_| damaged("generation", generation))?,
        history: text("history")?.to_owned(),
    })
}

fn view_document(row: &ViewRow) -> Document {
    doc! {
        "_id": &row.table, "log_id": row.log_id.to_string(), "route": &row.route, "state": state_word(row.state),
        "generation": i64::from(row.generation), "history": &row.history,
    }
}

/// The checkpoints of a route by lane. What is under way on them is brought to its end first: the answer is final.
pub(super) async fn of_route(server: &Server, route: &str) -> Result<Vec<Checkpoint>, Fault> {
    const DOING: &str = "read the checkpoints";
    let mut found = server.find(CHECKPOINTS, doc! { "route": route }, None, DOING).await?;
    if settle::all(server, &found).await? {
        found = server.find(CHECKPOINTS, doc! { "route": route }, None, DOING).await?;
    }
    let mut checkpoints = found.iter().map(checkpoint_of).collect::<Result<Vec<_>, _>>()?;
    checkpoints.sort_by_key(|c| c.lane);
    if server.kind == Kind::StandAlone {
        for c in &checkpoints {
            journal::sweep(server, &checkpoint_id(&c.route, c.lane), signed(c.sequence.0)).await?;
        }
    }
    Ok(checkpoints)
}

/// The checkpoints that exist under these keys, with nothing under way.
pub(super) async fn settled(server: &Server, keys: &[(String, u16)], doing: &str) -> Result<Vec<Checkpoint>, Fault> {
    let ids: Vec<Bson> = keys.iter().map(|(route, lane)| checkpoint_id(route, *lane).into()).collect();
    let filter = doc! { "_id": { "$in": ids } };
    let mut found = server.find(CHECKPOINTS, filter.clone(), None, doing).await?;
    if settle::all(server, &found).await? {
        found = server.find(CHECKPOINTS, filter, None, doing).await?;
    }
    found.iter().map(checkpoint_of).collect()
}

pub(super) async fn views(server: &Server, session: Option<&mut ClientSession>) -> Result<Vec<ViewRow>, Fault> {
    let found = server.find(VIEWS, doc! {}, session, "read the view rows").await?;
    let mut views = found.iter().map(view_of).collect::<Result<Vec<_>, _>>()?;
    views.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(views)
}

const DOING: &str = "rewrite the bookkeeping";

/// One rewrite. In a transaction where the server has them; on a stand-alone server claims first, then checkpoints, each in
/// one step: a crash in between leaves claims that the same engine makes again, and no checkpoint that lacks them.
pub(super) async fn rewrite(
    server: &Server,
    rewrite: &BookkeepingRewrite,
    patience: std::time::Duration,
) -> Result<(), Fault> {
    let found = settled(server, &rewritten_keys(rewrite), DOING).await?;
    compare(DOING, &found, &rewrite.expect)?;
    if server.kind == Kind::StandAlone {
        return write(server, rewrite, &found, None).await;
    }
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let mut session = sessions::begin(server).await?;
        let done = async {
            write(server, rewrite, &found, Some(&mut session)).await?;
            sessions::commit(&mut session, DOING).await
        };
        match done.await {
            // Somebody's transaction holds a row: wait for it as for a lock, then look again.
            Err(fault) if fault.kind == FaultKind::Transient && tokio::time::Instant::now() < deadline => {
                sessions::abort(&mut session).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                let now = settled(server, &rewritten_keys(rewrite), DOING).await?;
                compare(DOING, &now, &rewrite.expect)?;
            }
            Err(fault) => {
                sessions::abort(&mut session).await;
                return Err(fault);
            }
            Ok(()) => return Ok(()),
        }
    }
}

async fn write(
    server: &Server,
    rewrite: &BookkeepingRewrite,
    found: &[Checkpoint],
    mut session: Option<&mut ClientSession>,
) -> Result<(), Fault> {
    let held = views(server, session.as_deref_mut()).await?;
    let gone = |table: &str| rewrite.delete_views.iter().any(|t| t == table);
    for put in &rewrite.put_views {
        let other = |holder: &&ViewRow| {
            holder.table == put.table
                && !gone(&holder.table)
                && (holder.log_id, &holder.route) != (put.log_id, &put.route)
        };
        if let Some(holder) = held.iter().find(other) {
            return Err(claimed(put, holder));
        }
    }
    for put in &rewrite.put_views {
        if held.iter().all(|holder| holder.table != put.table || holder.log_id != put.log_id) {
            forget_marks(server, &put.table, session.as_deref_mut()).await?;
        }
    }
    for table in &rewrite.delete_views {
        if rewrite.put_views.iter().all(|put| put.table != *table) {
            let command = delete(VIEWS, doc! { "_id": table });
            server.written(command, session.as_deref_mut(), DOING).await?;
        }
    }
    for put in &rewrite.put_views {
        let statement = doc! { "q": { "_id": &put.table }, "u": view_document(put), "upsert": true };
        server.written(update(VIEWS, vec![statement]), session.as_deref_mut(), DOING).await?;
    }
    for put in &rewrite.put {
        let key = (put.route.clone(), put.lane);
        let old = found.iter().find(|c| (&c.route, c.lane) == (&put.route, put.lane));
        match old.filter(|_| !rewrite.delete.contains(&key)) {
            Some(old) => advance(server, old, put, session.as_deref_mut(), DOING).await?,
            None => {
                remove(server, &key, session.as_deref_mut()).await?;
                let mut document = fields(put);
                document.insert("_id", checkpoint_id(&put.route, put.lane));
                let command = doc! { "insert": CHECKPOINTS, "documents": [document] };
                if let Err(error) = server.write(command, session.as_deref_mut(), DOING).await? {
                    return Err(lost_race(&error, &put.route));
                }
            }
        }
    }
    for key in &rewrite.delete {
        if rewrite.put.iter().all(|put| (&put.route, put.lane) != (&key.0, key.1)) {
            remove(server, key, session.as_deref_mut()).await?;
        }
    }
    Ok(())
}

async fn remove(server: &Server, key: &(String, u16), session: Option<&mut ClientSession>) -> Result<(), Fault> {
    let command = delete(CHECKPOINTS, doc! { "_id": checkpoint_id(&key.0, key.1) });
    server.written(command, session, DOING).await.map(|_| ())
}

/// Marks of another log say nothing about this one's sequences, and would make its writes look old.
async fn forget_marks(server: &Server, table: &str, mut session: Option<&mut ClientSession>) -> Result<(), Fault> {
    let doing = format!("take over collection {table}");
    let tombstones = doc! { "delete": table, "deletes": [{ "q": { DELETED: { "$exists": true } }, "limit": 0 }] };
    server.written(tombstones, session.as_deref_mut(), &doing).await?;
    let statement = doc! { "q": { MARK: { "$exists": true } }, "u": { "$unset": { MARK: "" } }, "multi": true };
    server.written(update(table, vec![statement]), session, &doing).await.map(|_| ())
}

/// The compare-and-set: exactly one document, or a fault.
pub(super) async fn advance(
    server: &Server,
    read: &Checkpoint,
    next: &Checkpoint,
    session: Option<&mut ClientSession>,
    doing: &str,
) -> Result<(), Fault> {
    let statement = doc! { "q": unchanged(read), "u": { "$set": fields(next) } };
    match server.written(update(CHECKPOINTS, vec![statement]), session, doing).await? {
        1 => Ok(()),
        n => Err(not_ours(doing, &format!("{n} documents"), read)),
    }
}

pub(super) fn update(collection: &str, statements: Vec<Document>) -> Document {
    doc! { "update": collection, "updates": statements, "ordered": true }
}

pub(super) fn delete(collection: &str, filter: Document) -> Document {
    doc! { "delete": collection, "deletes": [{ "q": filter, "limit": 1 }] }
}

/// A key violation while a first checkpoint is written: somebody else was quicker.
fn lost_race(error: &WriteError, route: &str) -> Fault {
    if error.code != DUPLICATE_KEY {
        return error.fault(DOING);
    }
    let detail = format!("somebody else wrote a checkpoint for route {route} at the same time");
    Fault::new(FaultKind::NotOurs, "checkpoint-changed", DOING, detail)
}
