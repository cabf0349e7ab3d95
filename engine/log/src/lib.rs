//! The durable event log: what is acknowledged is on disk, in one order, for ever.
//!
//! [`EventLog`] is the interface; `sled` holds the hot generation, Arrow IPC segments hold history, and the raw-segment twin
//! implements the same. Nothing outside this package says `sled::`.

pub mod api;
mod block;
mod frame;
mod live;
mod memory;
mod opening;
mod pack;
mod record;

use std::sync::Arc;

pub use api::{
    Batch, Block, DedupeEntry, DedupeHit, DedupeKey, EXIT_DISK, EventLog, Health, HotStore, Identity, LogError,
    LogOptions, LogStat, MAX_BATCH_BYTES, MAX_EVENT_BYTES, ReadLimits, SequenceRange, StateEntry, Ticket, Verified,
};
pub use memory::{MemoryDisk, MemoryLog};
pub use opening::OPENED;
pub use record::Records;

/// An empty log in memory. For a log that can be reopened or made to fail see [`MemoryLog`].
pub fn memory() -> Arc<dyn EventLog> {
    MemoryLog::open(&MemoryDisk::default()).expect("a new disk is not locked")
}
