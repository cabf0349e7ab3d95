//! What a SQLite view store is told, and how that becomes connection options.

use std::path::PathBuf;
use std::time::Duration;

use gravity_model::{Fault, FaultKind};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::sql::Bookkeeping;

/// One SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file; made when it is missing, its folder is not.
    pub path: PathBuf,
    pub bookkeeping: Bookkeeping,
    /// Longest wait for another process's write lock.
    pub busy_timeout: Duration,
}

impl SqliteOptions {
    pub fn new(path: impl Into<PathBuf>) -> SqliteOptions {
        SqliteOptions { path: path.into(), bookkeeping: Bookkeeping::Auto, busy_timeout: Duration::from_secs(10) }
    }

    pub(super) fn connect_options(&self) -> Result<SqliteConnectOptions, Fault> {
        let text = self.path.to_string_lossy();
        // A private database per connection could hold neither rows nor checkpoint for anybody else.
        if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
            return Err(Fault::new(
                FaultKind::Misconfigured,
                "live/server",
                "open a SQLite file",
                format!("{text:?} names no file"),
            ));
        }
        Ok(SqliteConnectOptions::new()
            .filename(&self.path)
            // Faults are reported by the engine, once, with what they mean.
            .disable_statement_logging()
            .create_if_missing(true)
            // Readers do not wait for the writer; FULL syncs the log at each commit and costs 6 % (performance notes).
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(self.busy_timeout)
            .foreign_keys(true)
            .statement_cache_capacity(256)
            // 16 MiB: a batch's pages stay in memory until its commit.
            .pragma("cache_size", "-16384")
            .thread_name(|id| format!("gravity-sqlite-{id}")))
    }
}
