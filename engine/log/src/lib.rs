//! The durable event log: what is acknowledged is on disk, in one order, for ever.
//!
//! [`EventLog`] is the interface; `sled` holds the hot generation, Arrow IPC segments hold history, and the raw-segment twin
//! implements the same. Nothing outside this package says `sled::`.

pub mod api;

pub use api::{
    Batch, Block, DedupeEntry, DedupeHit, DedupeKey, EventLog, Health, HotStore, Identity, LogError, LogOptions,
    LogStat, ReadLimits, SequenceRange, StateEntry, Ticket, Verified,
};
