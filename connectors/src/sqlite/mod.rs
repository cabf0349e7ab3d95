//! Views in one SQLite file: rows and checkpoint in one transaction (P3), rows in multi-row statements, one writer.
//!
//! `config` options, `client` connections, `codec` types and cells, `plan` statement texts, `write` batches, `transaction`
//! Protocol B, `catalogue` what tables look like, `inspect` what endangers them, `error` result codes to faults.

mod catalogue;
mod client;
mod codec;
mod config;
mod error;
mod inspect;
mod plan;
mod transaction;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::port::view::{
    BookkeepingRewrite, Described, LiveFinding, TableRequest, ViewRow, ViewStore, ViewTransaction,
};
use gravity_model::{Checkpoint, Fault, FaultKind};
use sqlx::Row;

use self::client::{Connections, Session};
pub use self::config::SqliteOptions;
use self::error::fault;
use self::plan::Plan;
use self::transaction::{SqliteTransaction, advance, read_keys};
use crate::sql::Bookkeeping;
use crate::sql::bookkeeping::{
    CHECKPOINTS, CheckpointColumns, SQLITE_DDL, VIEWS, bind_columns, checkpoint_of, claimed, compare, rewritten_keys,
    state_word, statements, view_of,
};
use crate::sql::name::TableName;
use crate::sql::rows::PlanCache;
use crate::sql::statement::{Statement, StatementBuilder};

/// A [`ViewStore`] over one SQLite file.
pub struct SqliteViews {
    shared: Arc<Shared>,
}

struct Shared {
    connections: Connections,
    plans: PlanCache<Plan>,
}

impl SqliteViews {
    /// Opens nothing yet. Fails when the path names no file.
    pub fn new(options: SqliteOptions) -> Result<SqliteViews, Fault> {
        let connect = options.connect_options()?;
        let connections = Connections::new(options, connect);
        Ok(SqliteViews { shared: Arc::new(Shared { connections, plans: PlanCache::default() }) })
    }

    async fn missing_bookkeeping(session: &mut Session) -> Result<Vec<&'static str>, Fault> {
        const DOING: &str = "look for the bookkeeping tables";
        let mut missing = Vec::new();
        for (table, ddl) in [(CHECKPOINTS, SQLITE_DDL.checkpoints), (VIEWS, SQLITE_DDL.views)] {
            let query = sqlx::query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?").bind(table);
            if session.fetch_all(query, DOING).await?.is_empty() {
                missing.push(ddl);
            }
        }
        Ok(missing)
    }

    async fn rewrite_in(session: &mut Session, rewrite: &BookkeepingRewrite) -> Result<(), Fault> {
        const DOING: &str = "rewrite the bookkeeping";
        let found = read_keys(session, &rewritten_keys(rewrite), DOING).await?;
        compare(DOING, &found, &rewrite.expect)?;
        for (route, lane) in &rewrite.delete {
            let query = sqlx::query(statements::DELETE).bind(route.as_str()).bind(i64::from(*lane));
            session.execute(query, DOING).await?;
        }
        for put in &rewrite.put {
            let key = (put.route.clone(), put.lane);
            let old = found.iter().find(|c| (&c.route, c.lane) == (&put.route, put.lane));
            match old.filter(|_| !rewrite.delete.contains(&key)) {
                Some(old) => advance(session, old, put, DOING).await?,
                None => {
                    let query = bind_columns!(sqlx::query(statements::INSERT), CheckpointColumns::from(put))
                        .bind(put.route.as_str())
                        .bind(i64::from(put.lane));
                    session.execute(query, DOING).await?;
                }
            }
        }
        for table in &rewrite.delete_views {
            session.execute(sqlx::query(statements::DELETE_VIEW).bind(table.as_str()), DOING).await?;
        }
        if rewrite.put_views.is_empty() {
            return Ok(());
        }
        let rows = session.fetch_all(sqlx::query(statements::VIEWS), DOING).await?;
        let held: Vec<ViewRow> = rows.iter().map(view_of).collect::<Result<_, _>>()?;
        for put in &rewrite.put_views {
            if let Some(holder) = held
                .iter()
                .filter(|h| physical(&h.table) == physical(&put.table))
                .find(|h| (h.log_id, &h.route) != (put.log_id, &put.route))
            {
                return Err(claimed(put, holder));
            }
            session.execute(sqlx::query(statements::DELETE_VIEW).bind(put.table.as_str()), DOING).await?;
            let query = sqlx::query(statements::INSERT_VIEW)
                .bind(put.table.as_str())
                .bind(put.log_id.to_string())
                .bind(put.route.as_str())
                .bind(state_word(put.state))
                .bind(i64::from(put.generation))
                .bind(put.history.as_str());
            session.execute(query, DOING).await?;
        }
        Ok(())
    }
}

/// What a name stands for: SQLite ignores the case of names, and `main.` is where they are looked up anyway.
fn physical(table: &str) -> String {
    let lower = table.to_ascii_lowercase();
    lower.strip_prefix("main.").map_or_else(|| lower.clone(), str::to_owned)
}

#[async_trait]
impl ViewStore for SqliteViews {
    async fn open(&self) -> Result<(), Fault> {
        let connections = &self.shared.connections;
        connections.reopen();
        let mut session = connections.writer().await?;
        let missing = Self::missing_bookkeeping(&mut session).await?;
        if !missing.is_empty() {
            if connections.options().bookkeeping == Bookkeeping::Manual {
                return Err(Fault::new(
                    FaultKind::Misconfigured,
                    "live/bookkeeping",
                    "open the view store",
                    format!("bookkeeping is manual and a table is missing; run:\n{}", self.bookkeeping_sql()),
                ));
            }
            const DOING: &str = "make the bookkeeping tables";
            session.command("BEGIN IMMEDIATE", DOING).await?;
            // Looked up again: another process may have been quicker.
            for ddl in Self::missing_bookkeeping(&mut session).await? {
                session.command(ddl, DOING).await?;
            }
            session.command("COMMIT", DOING).await?;
        }
        connections.give_back(session);
        Ok(())
    }

    async fn describe(&self, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
        let mut session = self.shared.connections.reader().await?;
        let described = catalogue::describe(&mut session, requests).await?;
        self.shared.connections.give_back(session);
        Ok(described)
    }

    async fn inspect(&self, requests: &[TableRequest]) -> Result<Vec<LiveFinding>, Fault> {
        let mut session = self.shared.connections.reader().await?;
        let mut findings = inspect::inspect(&mut session, requests).await?;
        let missing = Self::missing_bookkeeping(&mut session).await?;
        if !missing.is_empty() && self.shared.connections.options().bookkeeping == Bookkeeping::Manual {
            findings.push(LiveFinding {
                code: "live/bookkeeping",
                fatal: true,
                table: CHECKPOINTS.to_owned(),
                column: None,
                found: "a bookkeeping table is missing, and bookkeeping is manual".to_owned(),
                allowed: "the bookkeeping tables".to_owned(),
                sql: Some(self.bookkeeping_sql()),
            });
        }
        self.shared.connections.give_back(session);
        Ok(findings)
    }

    fn bookkeeping_sql(&self) -> String {
        SQLITE_DDL.script()
    }

    async fn create(&self, ddl: &[String]) -> Result<(), Fault> {
        let ddl = ddl.iter().map(|text| Statement::proposed_ddl(text)).collect::<Result<Vec<_>, _>>()?;
        let mut session = self.shared.connections.writer().await?;
        session.command("BEGIN IMMEDIATE", "create tables").await?;
        for statement in &ddl {
            session.execute(sqlx::query(statement.text()).persistent(false), "create a table").await?;
        }
        session.command("COMMIT", "create tables").await?;
        self.shared.connections.give_back(session);
        Ok(())
    }

    async fn has_rows(&self, table: &str) -> Result<bool, Fault> {
        let table = TableName::parse(table)?;
        let mut b = StatementBuilder::new();
        b.add("SELECT EXISTS (SELECT 1 FROM ").table(&table).add(")");
        let statement = b.finish();
        let doing = format!("look for rows in {}", table.quoted());
        let mut session = self.shared.connections.reader().await?;
        let row = session.fetch_one(sqlx::query(statement.text()), &doing).await?;
        self.shared.connections.give_back(session);
        row.try_get(0).map_err(|e| fault(e, doing))
    }

    async fn checkpoints(&self, route: &str) -> Result<Vec<Checkpoint>, Fault> {
        let mut session = self.shared.connections.reader().await?;
        let query = sqlx::query(statements::OF_ROUTE_SQLITE).bind(route);
        let rows = session.fetch_all(query, "read the checkpoints").await?;
        self.shared.connections.give_back(session);
        rows.iter().map(checkpoint_of).collect()
    }

    async fn views(&self) -> Result<Vec<ViewRow>, Fault> {
        let mut session = self.shared.connections.reader().await?;
        let rows = session.fetch_all(sqlx::query(statements::VIEWS), "read the view rows").await?;
        self.shared.connections.give_back(session);
        rows.iter().map(view_of).collect()
    }

    async fn rewrite(&self, rewrite: BookkeepingRewrite) -> Result<(), Fault> {
        let mut session = self.shared.connections.writer().await?;
        session.command("BEGIN IMMEDIATE", "rewrite the bookkeeping").await?;
        // Any error drops the connection, and with it the transaction.
        Self::rewrite_in(&mut session, &rewrite).await?;
        session.command("COMMIT", "rewrite the bookkeeping").await?;
        self.shared.connections.give_back(session);
        Ok(())
    }

    async fn begin(&self, expect: &[Checkpoint]) -> Result<Box<dyn ViewTransaction>, Fault> {
        Ok(Box::new(SqliteTransaction::begin(self.shared.clone(), expect).await?))
    }

    async fn close(&self) {
        self.shared.connections.close().await;
    }
}
