//! Views in MySQL and MariaDB: rows and checkpoint in one InnoDB transaction (P3), rows in prepared multi-row statements.
//!
//! `config` options, `client` connections, `dialect` what the two spell differently, `codec` types and cells, `plan` statement
//! texts, `write` batches, `transaction` Protocol B, `bookkeeping` checkpoints and claims, `catalogue` what tables look like,
//! `inspect` what endangers them, `error` error numbers to faults.

mod bookkeeping;
mod catalogue;
mod client;
mod codec;
mod config;
mod dialect;
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

use self::client::Connections;
pub use self::config::MySqlOptions;
use self::error::fault;
use self::plan::Plan;
use self::transaction::MySqlTransaction;
use crate::sql::Bookkeeping;
pub use crate::sql::TlsMode;
use crate::sql::bookkeeping::{CHECKPOINTS, VIEWS};
use crate::sql::name::{BadName, TableName};
use crate::sql::rows::PlanCache;
use crate::sql::statement::{Statement, StatementBuilder};

/// A [`ViewStore`] over one database of a MySQL or MariaDB server.
pub struct MySqlViews {
    shared: Arc<Shared>,
}

struct Shared {
    connections: Connections,
    plans: PlanCache<Plan>,
}

impl MySqlViews {
    /// Connects nowhere yet.
    pub fn new(options: MySqlOptions) -> MySqlViews {
        MySqlViews { shared: Arc::new(Shared { connections: Connections::new(options), plans: PlanCache::default() }) }
    }
}

/// A table's name; those of the server's own databases are refused.
fn table_name(text: &str) -> Result<TableName, BadName> {
    let name = TableName::parse(text)?;
    let own = |schema: &str| ["mysql", "performance_schema", "sys"].contains(&schema.to_ascii_lowercase().as_str());
    match &name.schema {
        Some(schema) if own(schema.as_str()) => {
            Err(BadName { name: text.to_owned(), why: "the schema belongs to the database itself" })
        }
        _ => Ok(name),
    }
}

#[async_trait]
impl ViewStore for MySqlViews {
    async fn open(&self) -> Result<(), Fault> {
        let connections = &self.shared.connections;
        connections.reopen();
        let manual = connections.options().bookkeeping == Bookkeeping::Manual;
        let mut session = connections.sound().await?;
        inspect::refuse_unfit_server(&mut session).await?;
        let mut present = bookkeeping::present(&mut session).await?;
        let complete = |present: &[(String, String)]| {
            [CHECKPOINTS, VIEWS].iter().all(|table| present.iter().any(|(name, _)| name == table))
        };
        if !complete(&present) {
            if manual {
                return Err(Fault::new(
                    FaultKind::Misconfigured,
                    "live/bookkeeping",
                    "open the view store",
                    format!("bookkeeping is manual and a table is missing; run:\n{}", self.bookkeeping_sql()),
                ));
            }
            bookkeeping::make(&mut session, &present).await?;
            present = bookkeeping::present(&mut session).await?;
        }
        if let Some((table, engine)) = present.iter().find(|(_, engine)| !engine.eq_ignore_ascii_case("InnoDB")) {
            // Rows would commit or roll back without their checkpoint.
            let detail = format!("the engine of {table} is {engine}; run: ALTER TABLE {table} ENGINE=InnoDB");
            return Err(Fault::new(FaultKind::Misconfigured, "live/engine", "open the view store", detail));
        }
        connections.give_back(session);
        Ok(())
    }

    async fn describe(&self, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
        let mut session = self.shared.connections.sound().await?;
        let described = catalogue::describe(&mut session, requests).await?;
        self.shared.connections.give_back(session);
        Ok(described)
    }

    async fn inspect(&self, requests: &[TableRequest]) -> Result<Vec<LiveFinding>, Fault> {
        let mut session = self.shared.connections.sound().await?;
        let bookkeeping = self.shared.connections.options().bookkeeping;
        let findings = inspect::inspect(&mut session, requests, bookkeeping, &self.bookkeeping_sql()).await?;
        self.shared.connections.give_back(session);
        Ok(findings)
    }

    fn bookkeeping_sql(&self) -> String {
        bookkeeping::ddl(self.shared.connections.dialect()).script()
    }

    async fn create(&self, ddl: &[String]) -> Result<(), Fault> {
        let ddl = ddl.iter().map(|text| Statement::proposed_ddl(text)).collect::<Result<Vec<_>, _>>()?;
        let mut session = self.shared.connections.sound().await?;
        // Each commits by itself: MySQL has no transactions over DDL.
        for statement in &ddl {
            session.run(statement, "create a table").await?;
        }
        self.shared.connections.give_back(session);
        Ok(())
    }

    async fn has_rows(&self, table: &str) -> Result<bool, Fault> {
        let doing = format!("look for rows in {table}");
        let mut b = StatementBuilder::with_backticks();
        b.add("SELECT CAST(EXISTS (SELECT 1 FROM ").table(&table_name(table)?).add(") AS SIGNED)");
        let statement = b.finish();
        let mut session = self.shared.connections.sound().await?;
        let row = session.fetch_one(sqlx::query(statement.text()), &doing).await?;
        self.shared.connections.give_back(session);
        row.try_get::<i64, _>(0).map(|exists| exists != 0).map_err(|e| fault(e, doing))
    }

    async fn checkpoints(&self, route: &str) -> Result<Vec<Checkpoint>, Fault> {
        let mut session = self.shared.connections.sound().await?;
        let found = bookkeeping::of_route(&mut session, route).await?;
        self.shared.connections.give_back(session);
        Ok(found)
    }

    async fn views(&self) -> Result<Vec<ViewRow>, Fault> {
        let mut session = self.shared.connections.sound().await?;
        let found = bookkeeping::views(&mut session).await?;
        self.shared.connections.give_back(session);
        Ok(found)
    }

    async fn rewrite(&self, rewrite: BookkeepingRewrite) -> Result<(), Fault> {
        const DOING: &str = "rewrite the bookkeeping";
        let mut session = self.shared.connections.sound().await?;
        // For the next transaction only.
        session.command("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", DOING).await?;
        session.command("START TRANSACTION READ WRITE", DOING).await?;
        // Any error drops the connection, and with it the transaction.
        bookkeeping::rewrite(&mut session, &rewrite).await?;
        session.command("COMMIT", DOING).await?;
        self.shared.connections.give_back(session);
        Ok(())
    }

    async fn begin(&self, expect: &[Checkpoint]) -> Result<Box<dyn ViewTransaction>, Fault> {
        Ok(Box::new(MySqlTransaction::begin(self.shared.clone(), expect).await?))
    }

    async fn close(&self) {
        self.shared.connections.close().await;
    }
}
