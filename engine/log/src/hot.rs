//! A hot generation's store: takes framed blocks in order, makes them durable, gives them back. Two implementations.

pub(crate) mod raw;
pub(crate) mod sled;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::api::{HotStore, LogError};

/// What a scan met, in the order of writing.
pub(crate) enum Met<'a> {
    /// A frame's bytes as stored under `ordinal` (0 where the store keeps none beside the frame).
    Frame { ordinal: u64, bytes: &'a [u8] },
    /// Something unreadable, after what was met before.
    Bad { detail: String },
}

/// One writer calls `write`, `flush` and `sync`; readers call `read` from other threads at any time.
pub(crate) trait Store: Send + Sync {
    /// Takes one framed block. After an error the store is dead.
    fn write(&self, ordinal: u64, frame: &[u8]) -> io::Result<()>;

    /// Hands everything written to the operating system. After an error the store is dead.
    fn flush(&self) -> io::Result<()>;

    /// fdatasync. An error is final for the process.
    fn sync(&self) -> io::Result<()>;

    /// The framed block that was written as `ordinal`, into `out`.
    fn read(&self, ordinal: u64, out: &mut Vec<u8>) -> io::Result<()>;

    /// Everything that is stored, in the order of writing, read from the disk.
    fn scan(&self, each: &mut dyn FnMut(Met<'_>)) -> io::Result<()>;

    /// How far the store is towards its own limit: 1.0 is full.
    fn fullness(&self) -> f64;

    /// Files that must not exist (sled's blobs).
    fn blobs(&self) -> u64;

    /// Lets go of files and locks; whatever is called after that fails.
    fn close(&self);
}

/// Opens or creates the store of one generation.
pub(crate) fn open(kind: HotStore, directory: &Path, salt: u32) -> Result<Arc<dyn Store>, LogError> {
    match kind {
        HotStore::Sled => Ok(Arc::new(sled::SledStore::open(directory)?)),
        HotStore::Raw => Ok(Arc::new(raw::RawStore::open(directory, salt)?)),
    }
}

/// Which store wrote what is in `directory`; `None` where it is empty.
pub(crate) fn kind_of(directory: &Path) -> Option<HotStore> {
    if directory.join(raw::FILE).exists() {
        return Some(HotStore::Raw);
    }
    directory.join("db").exists().then_some(HotStore::Sled)
}

pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the hot store is closed")
}
