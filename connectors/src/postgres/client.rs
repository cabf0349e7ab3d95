//! Connections: made, lent and given back.
//!
//! sqlx's pool is not used. Whoever takes a connection *owns* it until the server has answered that no transaction is open;
//! dropping it in between, by whatever path, closes the socket. So a connection in the idle list never has a transaction
//! open, and a dropped future cannot leave one behind for a stranger's write to fall into.

use std::future::Future;
use std::time::Duration;

use gravity_model::{Fault, FaultKind};
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow};
use sqlx::{Connection, PgConnection};

use super::config::PostgresOptions;
use super::error::fault;

/// Idle connections kept; more lanes than this reconnect now and then.
const IDLE: usize = 16;

pub(super) struct Connections {
    options: PostgresOptions,
    connect: PgConnectOptions,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Session>,
    closed: bool,
}

/// A connection and the limit for its answers.
pub(super) struct Session {
    connection: PgConnection,
    limit: Duration,
}

impl Connections {
    pub fn new(options: PostgresOptions, connect: PgConnectOptions) -> Connections {
        Connections { options, connect, idle: Mutex::default() }
    }

    pub fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// An idle connection, if there is one.
    pub fn idle(&self) -> Option<Session> {
        self.idle.lock().connections.pop()
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Session, Fault> {
        let doing = || format!("connect to {}", self.options.place());
        if self.idle.lock().closed {
            return Err(Fault::new(FaultKind::Closed, "closed", doing(), "the view store was closed"));
        }
        let files = [&self.options.ca_file, &self.options.cert_file, &self.options.key_file];
        if let Some(file) = files.into_iter().flatten().find(|file| !file.is_file()) {
            // sqlx would report it as it reports a cut connection.
            let missing = format!("there is no file {}", file.display());
            return Err(Fault::new(FaultKind::Misconfigured, "tls", doing(), missing));
        }
        // Nothing can be open on a connection that is still being made: dropping this future is harmless.
        let connecting = PgConnection::connect_with(&self.connect);
        let connection = match tokio::time::timeout(self.options.connect_timeout, connecting).await {
            Ok(result) => result.map_err(|e| fault(e, doing()))?,
            Err(_) => {
                let waited = format!("no connection within {:?}", self.options.connect_timeout);
                return Err(Fault::new(FaultKind::Disconnected, "timeout", doing(), waited));
            }
        };
        Ok(Session { connection, limit: self.options.statement_timeout + self.options.answer_grace })
    }

    /// Takes a connection back whose last answer said that no transaction is open.
    pub fn give_back(&self, session: Session) {
        let mut idle = self.idle.lock();
        if !idle.closed && idle.connections.len() < IDLE {
            idle.connections.push(session);
        }
    }

    /// A connection that answers: an idle one that passes a ping, or a new one. For work outside the hot path.
    pub async fn sound(&self) -> Result<Session, Fault> {
        if let Some(mut session) = self.idle()
            && session.command("SELECT 1", "ping an idle connection").await.is_ok()
        {
            return Ok(session);
        }
        self.connect().await
    }

    pub async fn close(&self) {
        let connections = {
            let mut idle = self.idle.lock();
            idle.closed = true;
            std::mem::take(&mut idle.connections)
        };
        for session in connections {
            // Best effort: the server notices a closed socket as well.
            let _ = tokio::time::timeout(Duration::from_secs(1), session.connection.close()).await;
        }
    }

    /// `open` after `close`.
    pub fn reopen(&self) {
        self.idle.lock().closed = false;
    }
}

impl Session {
    /// Waits for an answer no longer than the server's own limit and a grace. Beyond that the session must be dropped, which
    /// the `Disconnected` says: the answer may still come, and nobody must mistake it for the next one's.
    async fn answered<T>(
        limit: Duration,
        doing: &str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(|e| fault(e, doing)),
            Err(_) => Err(Fault::new(FaultKind::Disconnected, "timeout", doing, format!("no answer within {limit:?}"))),
        }
    }

    /// A statement of ours without values or rows (BEGIN, COMMIT, SAVEPOINT).
    pub async fn command(&mut self, sql: &'static str, doing: &str) -> Result<(), Fault> {
        Self::answered(self.limit, doing, sqlx::raw_sql(sql).execute(&mut self.connection)).await.map(drop)
    }

    pub async fn execute<'q>(&mut self, query: PgQuery<'q>, doing: &str) -> Result<PgQueryResult, Fault> {
        Self::answered(self.limit, doing, query.execute(&mut self.connection)).await
    }

    pub async fn fetch_all<'q>(&mut self, query: PgQuery<'q>, doing: &str) -> Result<Vec<PgRow>, Fault> {
        Self::answered(self.limit, doing, query.fetch_all(&mut self.connection)).await
    }

    pub async fn fetch_one<'q>(&mut self, query: PgQuery<'q>, doing: &str) -> Result<PgRow, Fault> {
        Self::answered(self.limit, doing, query.fetch_one(&mut self.connection)).await
    }
}

pub(super) type PgQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;
