//! Connections: made, set up, lent and given back.
//!
//! sqlx's pool and its transactions are not used, for the same reason as with PostgreSQL: whoever takes a connection *owns* it
//! until the server has answered that no transaction is open; dropping it in between, by whatever path, closes the socket.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gravity_model::{Fault, FaultKind};
use parking_lot::Mutex;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlQueryResult, MySqlRow};
use sqlx::{Connection, MySqlConnection, Row};

use super::config::MySqlOptions;
use super::dialect::{Dialect, Facts, Flavor};
use super::error::fault;
use crate::sql::statement::{Statement, StatementBuilder};

/// Idle connections kept; more lanes than this reconnect now and then.
const IDLE: usize = 16;

const FACTS: &str = "SELECT CAST(VERSION() AS CHAR), CAST(COALESCE(DATABASE(), '') AS CHAR), \
     CAST(@@SESSION.max_allowed_packet AS SIGNED), CAST(@@GLOBAL.lower_case_table_names AS SIGNED)";

pub(super) struct Connections {
    options: MySqlOptions,
    connect: MySqlConnectOptions,
    idle: Mutex<Idle>,
    /// Of the newest connection.
    dialect: Mutex<Option<Dialect>>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Session>,
    closed: bool,
}

/// A connection, the limit for its answers, and what it knows of its server.
pub(super) struct Session {
    connection: MySqlConnection,
    limit: Duration,
    pub facts: Arc<Facts>,
}

impl Connections {
    pub fn new(options: MySqlOptions) -> Connections {
        let connect = options.connect_options();
        Connections { options, connect, idle: Mutex::default(), dialect: Mutex::default() }
    }

    pub fn options(&self) -> &MySqlOptions {
        &self.options
    }

    /// The server's, once there was a connection.
    pub fn dialect(&self) -> Dialect {
        self.dialect.lock().unwrap_or(Dialect::ASSUMED)
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
        let connecting = MySqlConnection::connect_with(&self.connect);
        let connection = match tokio::time::timeout(self.options.connect_timeout, connecting).await {
            Ok(result) => result.map_err(|e| fault(e, doing()))?,
            Err(_) => {
                let waited = format!("no connection within {:?}", self.options.connect_timeout);
                return Err(Fault::new(FaultKind::Disconnected, "timeout", doing(), waited));
            }
        };
        self.set_up(connection).await
    }

    /// Asks what the server is, then takes every setting of the session that decides what a statement means into our hands.
    async fn set_up(&self, connection: MySqlConnection) -> Result<Session, Fault> {
        const DOING: &str = "set a new session up";
        let limit = self.options.statement_timeout + self.options.answer_grace;
        let facts = Facts { dialect: Dialect::ASSUMED, database: String::new(), max_packet: 0, folds_names: false };
        let mut session = Session { connection, limit, facts: Arc::new(facts) };
        let row = session.fetch_one(sqlx::query(FACTS), DOING).await?;
        let unread = |e| fault(e, DOING);
        let dialect = Dialect::parse(&row.try_get::<String, _>(0).map_err(unread)?);
        session.facts = Arc::new(Facts {
            dialect,
            database: row.try_get(1).map_err(unread)?,
            max_packet: usize::try_from(row.try_get::<i64, _>(2).map_err(unread)?).unwrap_or_default(),
            folds_names: row.try_get::<i64, _>(3).map_err(unread)? != 0,
        });
        *self.dialect.lock() = Some(dialect);
        // READ COMMITTED: no gap locks between lanes, and every statement sees what is committed, as with PostgreSQL.
        session.command("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", DOING).await?;
        let settings = settings(&self.options, dialect);
        session.run(&settings, DOING).await?;
        Ok(session)
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
            && session.command("DO 1", "ping an idle connection").await.is_ok()
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

/// The session's settings, in one statement.
fn settings(options: &MySqlOptions, dialect: Dialect) -> Statement {
    let seconds = |limit: Duration| limit.as_millis().div_ceil(1000).clamp(1, 31_536_000) as usize;
    let ms = |limit: Duration| limit.as_millis().clamp(1, 31_536_000_000) as usize;
    let mut b = StatementBuilder::with_backticks();
    // Strict: what does not fit is an error, not a warning and another value. NO_AUTO_VALUE_ON_ZERO: a key of 0 is 0.
    b.add(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
         ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', ",
    );
    // A client's or a server's own habit of chaining transactions, of skipping checks, of refusing DELETE without a key.
    b.add("time_zone = '+00:00', autocommit = 1, completion_type = 0, foreign_key_checks = 1, unique_checks = 1, ");
    b.add("sql_safe_updates = 0, sql_auto_is_null = 0, sql_select_limit = DEFAULT, ");
    b.add("innodb_lock_wait_timeout = ").number(seconds(options.lock_timeout));
    b.add(", lock_wait_timeout = ").number(seconds(options.lock_timeout));
    match dialect.flavor {
        Flavor::MariaDb => {
            b.add(", check_constraint_checks = 1, max_statement_time = ").number(ms(options.statement_timeout));
            b.add(" / 1000, idle_transaction_timeout = ").number(seconds(options.idle_in_transaction_timeout));
        }
        Flavor::MySql => {
            b.add(", max_execution_time = ").number(ms(options.statement_timeout));
            b.add(", wait_timeout = ").number(seconds(options.idle_in_transaction_timeout));
        }
    }
    b.finish()
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

    /// A statement of ours without values or rows (START TRANSACTION, COMMIT, SAVEPOINT).
    pub async fn command(&mut self, sql: &'static str, doing: &str) -> Result<(), Fault> {
        Self::answered(self.limit, doing, sqlx::raw_sql(sql).execute(&mut self.connection)).await.map(drop)
    }

    /// A built statement without values, unprepared.
    pub async fn run(&mut self, statement: &Statement, doing: &str) -> Result<(), Fault> {
        let work = sqlx::raw_sql(statement.text()).execute(&mut self.connection);
        Self::answered(self.limit, doing, work).await.map(drop)
    }

    pub async fn execute<'q>(&mut self, query: MySqlQuery<'q>, doing: &str) -> Result<MySqlQueryResult, Fault> {
        Self::answered(self.limit, doing, query.execute(&mut self.connection)).await
    }

    pub async fn fetch_all<'q>(&mut self, query: MySqlQuery<'q>, doing: &str) -> Result<Vec<MySqlRow>, Fault> {
        Self::answered(self.limit, doing, query.fetch_all(&mut self.connection)).await
    }

    pub async fn fetch_one<'q>(&mut self, query: MySqlQuery<'q>, doing: &str) -> Result<MySqlRow, Fault> {
        Self::answered(self.limit, doing, query.fetch_one(&mut self.connection)).await
    }
}

pub(super) type MySqlQuery<'q> = sqlx::query::Query<'q, sqlx::MySql, MySqlArguments>;
