//! What is left of deleted documents on a stand-alone server: kept as long as an old write may still arrive, then removed.
//!
//! A tombstone holds no time. The checkpoint remembers instead which sequence was reached when: everything that was deleted
//! up to a sequence is as old as that memory at least.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gravity_model::{Checkpoint, Fault};
use mongodb::bson::{Bson, DateTime, Document, doc};

use super::Shared;
use super::bookkeeping::{checkpoint_id, update, views};
use super::client::Server;
use super::error::integer;
use super::overlay::{DELETED, MARK};
use crate::sql::checkpoint::{CHECKPOINTS, signed};

const DOING: &str = "remove old tombstones";
const REMEMBERED: &str = "reached";
/// Memories per `tombstone_keep`.
const PER_KEEP: u32 = 24;

/// Now and then after a commit. A failure costs space only, until the next time.
pub(super) async fn sweep(shared: &Shared, server: &Server, done: &Checkpoint) {
    let keep = shared.connections.options().tombstone_keep;
    {
        let mut last = shared.swept.lock();
        let due = last.is_none_or(|last: std::time::Instant| last.elapsed() >= keep / PER_KEEP);
        if !due {
            return;
        }
        *last = Some(std::time::Instant::now());
    }
    if let Err(fault) = remove(server, done, keep).await {
        tracing::warn!(route = %done.route, error = %fault, "old tombstones stay for now");
    }
}

async fn remove(server: &Server, done: &Checkpoint, keep: Duration) -> Result<(), Fault> {
    let id = checkpoint_id(&done.route, done.lane);
    let Some(found) = server.find(CHECKPOINTS, doc! { "_id": &id }, None, DOING).await?.pop() else {
        return Ok(());
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest = millis(now.saturating_sub(keep));
    let mut memories: Vec<(i64, i64)> =
        found.get_array(REMEMBERED).map_or_else(|_| Vec::new(), |all| all.iter().filter_map(memory).collect());
    memories.push((signed(done.sequence.0), millis(now)));
    let forgotten = memories.iter().rev().find(|(_, reached)| *reached <= oldest).copied();
    if let Some((through, _)) = forgotten {
        for view in
            views(server, None).await?.iter().filter(|view| view.route == done.route && view.log_id == done.log_id)
        {
            let old = doc! { DELETED: true, MARK: { "$lte": through } };
            let command = doc! { "delete": &view.table, "deletes": [{ "q": old, "limit": 0 }] };
            server.written(command, None, DOING).await?;
        }
        memories.retain(|(sequence, _)| *sequence > through);
    }
    let all: Vec<Bson> = memories
        .into_iter()
        .map(|(sequence, reached)| doc! { "sequence": sequence, "at": DateTime::from_millis(reached) }.into())
        .collect();
    let statement = doc! { "q": { "_id": id }, "u": { "$set": { REMEMBERED: all } } };
    server.written(update(CHECKPOINTS, vec![statement]), None, DOING).await.map(|_| ())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn memory(value: &Bson) -> Option<(i64, i64)> {
    let memory: &Document = value.as_document()?;
    Some((integer(memory.get("sequence")?)?, memory.get_datetime("at").ok()?.timestamp_millis()))
}
