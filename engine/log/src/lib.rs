//! The durable event log: what is acknowledged is on disk, in one order, for ever.
//!
//! [`EventLog`] is the interface; `sled` holds the hot generation, Arrow IPC segments hold history, and the raw-segment twin
//! implements the same. Nothing outside this package says `sled::`.

pub mod api;
mod block;
mod commit;
mod dedupe;
mod directory;
mod encode;
mod frame;
mod hot;
mod live;
mod log;
mod memory;
mod opening;
mod pack;
mod queue;
mod read_only;
mod record;
mod recover;
mod seal;
mod segment;
mod shared;
mod verify;

use std::sync::Arc;

pub use api::{
    Batch, Block, DedupeEntry, DedupeHit, DedupeKey, EXIT_DISK, Epoch, EventLog, Health, HotStore, Identity, LogError,
    LogOptions, LogStat, MAX_BATCH_BYTES, MAX_EVENT_BYTES, ReadLimits, SequenceRange, StateEntry, Ticket, Verified,
};
pub use memory::{MemoryDisk, MemoryLog};
pub use opening::OPENED;
pub use record::Records;

/// Opens the log in `options.directory` for writing, creating it if it is not there: locks the directory, reads the hot
/// generations back (cutting only what was never acknowledged), and records this opening, durable, as its first append.
///
/// Errors: [`LogError::Locked`] where another process holds the directory, [`LogError::Damaged`] where what was durable cannot
/// be read, [`LogError::Refused`] where it is of another format; nothing is changed then.
pub fn open(options: LogOptions) -> Result<Arc<dyn EventLog>, LogError> {
    Ok(Arc::new(log::open(options)?))
}

/// Opens the directory of a stopped engine for reading, and changes nothing in it: hot generations are read from a copy in
/// the temporary directory. Appends answer [`LogError::Closed`]; what is damaged is named by the reads that need it.
///
/// Errors: [`LogError::Locked`] while an engine runs on it, [`LogError::Refused`] where there is no log.
pub fn open_read_only(directory: impl AsRef<std::path::Path>) -> Result<Arc<dyn EventLog>, LogError> {
    Ok(Arc::new(read_only::open(directory.as_ref())?))
}

/// An empty log in memory. For a log that can be reopened or made to fail see [`MemoryLog`].
pub fn memory() -> Arc<dyn EventLog> {
    MemoryLog::open(&MemoryDisk::default()).expect("a new disk is not locked")
}
