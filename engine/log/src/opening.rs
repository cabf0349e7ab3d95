//! Each opening for writing is a fact of the log itself: its fence and its owner, so that a database can tell a restart from
//! a copy of the directory.

use std::time::{SystemTime, UNIX_EPOCH};

use gravity_model::event::Micros;
use gravity_model::{Event, Fence, LogId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::api::{Batch, Identity};
use crate::live::Live;

/// Name of the state event; its key is the owner.
pub const OPENED: &str = "gravity.opened";

/// Openings that the log remembers. A database that was not reached for longer than these must be adopted by an operator.
const REMEMBERED: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Opened {
    fence: Fence,
    owner: OwnerId,
    /// Wall clock, microseconds.
    at: Micros,
}

/// The wall clock, for display, retention and dedupe windows; never for order.
pub(crate) fn now() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as Micros)
}

fn openings(live: &Live) -> Vec<Opened> {
    live.named(OPENED).iter().filter_map(|entry| serde_json::from_slice(&entry.payload).ok()).collect()
}

/// A random owner, and the fence after the largest that the log knows.
pub(crate) fn next_identity(log_id: LogId, live: &Live) -> Identity {
    let owner = OwnerId(*uuid::Uuid::new_v4().as_bytes());
    let known = openings(live);
    let fence = Fence(known.iter().map(|opened| opened.fence.0).max().unwrap_or(0) + 1);
    let skip = (known.len() + 1).saturating_sub(REMEMBERED);
    let owners = known.iter().skip(skip).map(|opened| opened.owner).chain([owner]).collect();
    Identity { log_id, fence, owner, owners }
}

/// Who last opened the log, for a reader that does not open it for writing.
pub(crate) fn last_identity(log_id: LogId, live: &Live) -> Identity {
    let known = openings(live);
    let newest = known.iter().max_by_key(|opened| opened.fence);
    Identity {
        log_id,
        fence: newest.map_or(Fence(0), |opened| opened.fence),
        owner: newest.map_or(OwnerId([0; 16]), |opened| opened.owner),
        owners: known.iter().map(|opened| opened.owner).collect(),
    }
}

/// The batch that records an opening and forgets the oldest ones.
pub(crate) fn batch(identity: &Identity, live: &Live) -> Batch {
    let mut batch = Batch::new();
    let known = live.named(OPENED);
    let at = now();
    for old in known.iter().take((known.len() + 1).saturating_sub(REMEMBERED)) {
        batch.push(&Event { received: at, ..Event::state(OPENED, &old.key, None) });
    }
    let opened = Opened { fence: identity.fence, owner: identity.owner, at };
    let payload = serde_json::to_vec(&opened).expect("three plain fields");
    let key = identity.owner.to_string();
    batch.push(&Event { received: at, ..Event::state(OPENED, &key, Some(&payload)) });
    batch
}
