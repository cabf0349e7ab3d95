//! Connections: made, lent and given back, with one writer at a time.
//!
//! As with PostgreSQL, whoever takes a connection owns it until no transaction is open on it; dropping it in between ends
//! its worker thread, and SQLite rolls back.

use std::sync::Arc;

use gravity_model::{Fault, FaultKind};
use parking_lot::Mutex;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteQueryResult, SqliteRow};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::SqliteOptions;
use super::error::fault;

/// Idle connections kept: the writer and a few readers.
const IDLE: usize = 4;

pub(super) struct Connections {
    options: SqliteOptions,
    connect: SqliteConnectOptions,
    idle: Mutex<Idle>,
    /// SQLite has one writer per file. Waiting here instead of in its busy handler is fair and wakes at once.
    writer: Arc<Semaphore>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<SqliteConnection>,
    closed: bool,
}

/// A connection on which no transaction of a stranger is open.
pub(super) struct Session {
    connection: SqliteConnection,
    /// Held by writers; goes with the connection, whichever way that goes.
    _writer: Option<OwnedSemaphorePermit>,
}

impl Connections {
    pub fn new(options: SqliteOptions, connect: SqliteConnectOptions) -> Connections {
        Connections { options, connect, idle: Mutex::default(), writer: Arc::new(Semaphore::new(1)) }
    }

    pub fn options(&self) -> &SqliteOptions {
        &self.options
    }

    /// The only writing session of this store.
    pub async fn writer(&self) -> Result<Session, Fault> {
        let permit = self.writer.clone().acquire_owned().await;
        let permit = permit.map_err(|_| self.closed())?;
        Ok(Session { connection: self.take().await?, _writer: Some(permit) })
    }

    pub async fn reader(&self) -> Result<Session, Fault> {
        Ok(Session { connection: self.take().await?, _writer: None })
    }

    async fn take(&self) -> Result<SqliteConnection, Fault> {
        let idle = {
            let mut idle = self.idle.lock();
            if idle.closed {
                return Err(self.closed());
            }
            idle.connections.pop()
        };
        match idle {
            Some(connection) => Ok(connection),
            None => SqliteConnection::connect_with(&self.connect).await.map_err(|e| fault(e, self.doing())),
        }
    }

    fn doing(&self) -> String {
        format!("open {}", self.options.path.display())
    }

    fn closed(&self) -> Fault {
        Fault::new(FaultKind::Closed, "closed", self.doing(), "the view store was closed")
    }

    /// Takes a connection back on which no transaction is open.
    pub fn give_back(&self, session: Session) {
        let mut idle = self.idle.lock();
        if !idle.closed && idle.connections.len() < IDLE {
            idle.connections.push(session.connection);
        }
    }

    pub async fn close(&self) {
        let connections = {
            let mut idle = self.idle.lock();
            idle.closed = true;
            std::mem::take(&mut idle.connections)
        };
        for connection in connections {
            // Closing also checkpoints the write-ahead log; a failure leaves it for the next opener.
            let _ = connection.close().await;
        }
    }

    /// `open` after `close`.
    pub fn reopen(&self) {
        self.idle.lock().closed = false;
    }
}

impl Session {
    /// A statement of ours without values or rows.
    pub async fn command(&mut self, sql: &'static str, doing: &str) -> Result<(), Fault> {
        sqlx::raw_sql(sql).execute(&mut self.connection).await.map(drop).map_err(|e| fault(e, doing))
    }

    pub async fn execute<'q>(&mut self, query: SqliteQuery<'q>, doing: &str) -> Result<SqliteQueryResult, Fault> {
        query.execute(&mut self.connection).await.map_err(|e| fault(e, doing))
    }

    pub async fn fetch_all<'q>(&mut self, query: SqliteQuery<'q>, doing: &str) -> Result<Vec<SqliteRow>, Fault> {
        query.fetch_all(&mut self.connection).await.map_err(|e| fault(e, doing))
    }

    pub async fn fetch_one<'q>(&mut self, query: SqliteQuery<'q>, doing: &str) -> Result<SqliteRow, Fault> {
        query.fetch_one(&mut self.connection).await.map_err(|e| fault(e, doing))
    }
}

pub(super) type SqliteQuery<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;
