//! Gates on the log alone: kill -9 and power cuts under a writer whose every event is known.

mod campaign;
pub mod check;
pub mod kill;
pub mod power;
mod process;
pub mod script;
pub mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use gravity_log::{EventLog, HotStore, LogError, LogOptions};

/// Which implementation of the log is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    Sled,
    /// The raw-segment twin.
    Raw,
}

impl Store {
    pub fn word(self) -> &'static str {
        match self {
            Store::Sled => "sled",
            Store::Raw => "raw",
        }
    }
}

/// A log to open: the same in the writer and in the checker.
#[derive(Clone, Debug)]
pub struct LogTarget {
    pub directory: PathBuf,
    pub store: Store,
    /// Small, so that generations are sealed while the kills come.
    pub generation_bytes: u64,
}

impl LogTarget {
    pub fn open(&self) -> Result<Arc<dyn EventLog>, LogError> {
        let mut options = LogOptions::new(&self.directory);
        options.hot = match self.store {
            Store::Sled => HotStore::Sled,
            Store::Raw => HotStore::Raw,
        };
        options.generation_bytes = self.generation_bytes;
        gravity_log::open(options)
    }
}
