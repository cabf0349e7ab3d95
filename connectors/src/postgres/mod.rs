//! Views in PostgreSQL: rows and checkpoint in one transaction (P3), rows in key-sorted array statements.
//!
//! `config` options, `client` connections, `codec` cells to bytes, `plan` statement texts, `write` batches, `transaction`
//! Protocol B, `catalogue` what tables look like, `inspect` what endangers them, `error` SQLSTATE to fault.

mod catalogue;
mod client;
mod codec;
mod config;
mod error;
mod inspect;
mod join;
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
pub use self::config::PostgresOptions;
use self::error::fault;
use self::plan::Plan;
use self::transaction::{PostgresTransaction, advance, lock_keys, open_transaction};
use crate::sql::Bookkeeping;
pub use crate::sql::TlsMode;
use crate::sql::bookkeeping::{
    CHECKPOINTS, CheckpointColumns, POSTGRES_DDL, VIEWS, bind_columns, checkpoint_of, claimed, compare, rewritten_keys,
    state_word, statements, view_of,
};
use crate::sql::name::TableName;
use crate::sql::rows::PlanCache;
use crate::sql::statement::{Statement, StatementBuilder};

/// A [`ViewStore`] over one PostgreSQL database.
pub struct PostgresViews {
    shared: Arc<Shared>,
}

struct Shared {
    connections: Connections,
    plans: PlanCache<Plan>,
}

impl PostgresViews {
    /// Connects nowhere yet. Fails when the options cannot be turned into connection settings.
    pub fn new(options: PostgresOptions) -> Result<PostgresViews, Fault> {
        let connect = options.connect_options()?;
        let connections = Connections::new(options, connect);
        Ok(PostgresViews { shared: Arc::new(Shared { connections, plans: PlanCache::default() }) })
    }

    /// Which of the bookkeeping tables are there.
    async fn bookkeeping_present(session: &mut Session) -> Result<(bool, bool), Fault> {
        const DOING: &str = "look for the bookkeeping tables";
        // From pg_class, not by to_regclass: that may answer from a cache older than the advisory lock of `make_bookkeeping`.
        let query = sqlx::query(
            "SELECT coalesce(bool_or(relname = $1), false), coalesce(bool_or(relname = $2), false) \
             FROM pg_class WHERE relname IN ($1, $2) AND pg_table_is_visible(oid)",
        )
        .bind(CHECKPOINTS)
        .bind(VIEWS);
        let row = session.fetch_one(query, DOING).await?;
        let read = |i: usize| row.try_get(i).map_err(|e| fault(e, DOING));
        Ok((read(0)?, read(1)?))
    }

    async fn make_bookkeeping(session: &mut Session) -> Result<(), Fault> {
        const DOING: &str = "make the bookkeeping tables";
        session.command("BEGIN", DOING).await?;
        // Two engines that start at once must not both create them. The number is only a name.
        session.execute(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(0x6772_6176_6974_7901_i64), DOING).await?;
        let (checkpoints, views) = Self::bookkeeping_present(session).await?;
        if !checkpoints {
            session.command(POSTGRES_DDL.checkpoints, DOING).await?;
        }
        if !views {
            session.command(POSTGRES_DDL.views, DOING).await?;
        }
        session.command("COMMIT", DOING).await
    }

    async fn refuse_unfit_server(session: &mut Session) -> Result<(), Fault> {
        const DOING: &str = "look at the server";
        let query = sqlx::query(
            "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'), pg_is_in_recovery()",
        );
        let row = session.fetch_one(query, DOING).await?;
        let unread = |e| fault(e, DOING);
        let version: i32 = row.try_get(0).map_err(unread)?;
        let encoding: String = row.try_get(1).map_err(unread)?;
        let standby: bool = row.try_get(2).map_err(unread)?;
        if version < 120_000 {
            let detail = format!("the server is version {}, 12 or newer is needed", version / 10_000);
            return Err(Fault::new(FaultKind::Misconfigured, "live/server", DOING, detail));
        }
        if encoding != "UTF8" {
            let detail = format!("the database's encoding is {encoding}: text would not come back as it was sent");
            return Err(Fault::new(FaultKind::Misconfigured, "live/server", DOING, detail));
        }
        if standby {
            return Err(Fault::new(FaultKind::Transient, "25006", DOING, "the server is a read-only standby"));
        }
        Ok(())
    }

    /// The OID that each name stands for, 0 where there is no such table.
    async fn physical(session: &mut Session, names: &[String]) -> Result<Vec<i64>, Fault> {
        const DOING: &str = "look up the tables of the bookkeeping";
        let quoted: Vec<String> =
            names.iter().map(|n| TableName::parse(n).map_or_else(|_| String::new(), |t| t.quoted())).collect();
        let query = sqlx::query(
            "SELECT coalesce(CASE WHEN name <> '' THEN to_regclass(name)::oid::int8 END, 0) \
             FROM UNNEST($1::text[]) WITH ORDINALITY AS n(name, i) ORDER BY i",
        )
        .bind(quoted);
        let rows = session.fetch_all(query, DOING).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|e| fault(e, DOING))).collect()
    }

    async fn rewrite_in(session: &mut Session, rewrite: &BookkeepingRewrite) -> Result<(), Fault> {
        const DOING: &str = "rewrite the bookkeeping";
        let found = lock_keys(session, &rewritten_keys(rewrite), DOING).await?;
        compare(DOING, &found, &rewrite.expect)?;
        for (route, lane) in &rewrite.delete {
            let query = sqlx::query(statements::DELETE).bind(route.as_str()).bind(i32::from(*lane));
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
                        .bind(i32::from(put.lane));
                    session.execute(query, DOING).await.map_err(|f| lost_race(f, &put.route))?;
                }
            }
        }
        if rewrite.put_views.is_empty() && rewrite.delete_views.is_empty() {
            return Ok(());
        }
        // No row may appear between the look and the write, whatever name it gives the table.
        session.command("LOCK TABLE gravity_views IN SHARE ROW EXCLUSIVE MODE", DOING).await?;
        for table in &rewrite.delete_views {
            session.execute(sqlx::query(statements::DELETE_VIEW).bind(table.as_str()), DOING).await?;
        }
        let rows = session.fetch_all(sqlx::query(statements::VIEWS), DOING).await?;
        let held: Vec<ViewRow> = rows.iter().map(view_of).collect::<Result<_, _>>()?;
        let names: Vec<String> =
            held.iter().map(|v| v.table.clone()).chain(rewrite.put_views.iter().map(|v| v.table.clone())).collect();
        let oids = Self::physical(session, &names).await?;
        let (held_oids, put_oids) = oids.split_at(held.len());
        for (put, oid) in rewrite.put_views.iter().zip(put_oids) {
            let same = |(holder, held_oid): &(&ViewRow, &i64)| {
                holder.table == put.table || (**held_oid != 0 && *held_oid == oid)
            };
            if let Some((holder, _)) = held
                .iter()
                .zip(held_oids)
                .filter(same)
                .find(|(holder, _)| (holder.log_id, &holder.route) != (put.log_id, &put.route))
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

/// A key violation while a first checkpoint is written: somebody else was quicker.
fn lost_race(fault: Fault, route: &str) -> Fault {
    if fault.code != "23505" {
        return fault;
    }
    let detail = format!("somebody else wrote a checkpoint for route {route} at the same time");
    Fault::new(FaultKind::NotOurs, "checkpoint-changed", "rewrite the bookkeeping", detail).with_source(fault)
}

#[async_trait]
impl ViewStore for PostgresViews {
    async fn open(&self) -> Result<(), Fault> {
        let connections = &self.shared.connections;
        connections.reopen();
        let manual = connections.options().bookkeeping == Bookkeeping::Manual;
        let mut session = connections.sound().await?;
        Self::refuse_unfit_server(&mut session).await?;
        match Self::bookkeeping_present(&mut session).await? {
            (true, true) => {}
            _ if manual => {
                return Err(Fault::new(
                    FaultKind::Misconfigured,
                    "live/bookkeeping",
                    "open the view store",
                    format!("bookkeeping is manual and a table is missing; run:\n{}", self.bookkeeping_sql()),
                ));
            }
            _ => Self::make_bookkeeping(&mut session).await?,
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
        POSTGRES_DDL.script()
    }

    async fn create(&self, ddl: &[String]) -> Result<(), Fault> {
        let ddl = ddl.iter().map(|text| Statement::proposed_ddl(text)).collect::<Result<Vec<_>, _>>()?;
        let mut session = open_transaction(&self.shared).await?;
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
        b.add("SELECT EXISTS (SELECT FROM ").table(&table).add(")");
        let statement = b.finish();
        let doing = format!("look for rows in {}", table.quoted());
        let mut session = self.shared.connections.sound().await?;
        let row = session.fetch_one(sqlx::query(statement.text()), &doing).await?;
        self.shared.connections.give_back(session);
        row.try_get(0).map_err(|e| fault(e, doing))
    }

    async fn checkpoints(&self, route: &str) -> Result<Vec<Checkpoint>, Fault> {
        let mut session = self.shared.connections.sound().await?;
        let query = sqlx::query(statements::OF_ROUTE_POSTGRES).bind(route);
        let rows = session.fetch_all(query, "read the checkpoints").await?;
        self.shared.connections.give_back(session);
        rows.iter().map(checkpoint_of).collect()
    }

    async fn views(&self) -> Result<Vec<ViewRow>, Fault> {
        let mut session = self.shared.connections.sound().await?;
        let rows = session.fetch_all(sqlx::query(statements::VIEWS), "read the view rows").await?;
        self.shared.connections.give_back(session);
        rows.iter().map(view_of).collect()
    }

    async fn rewrite(&self, rewrite: BookkeepingRewrite) -> Result<(), Fault> {
        let mut session = open_transaction(&self.shared).await?;
        // Any error drops the connection, and with it the transaction.
        Self::rewrite_in(&mut session, &rewrite).await?;
        session.command("COMMIT", "rewrite the bookkeeping").await?;
        self.shared.connections.give_back(session);
        Ok(())
    }

    async fn begin(&self, expect: &[Checkpoint]) -> Result<Box<dyn ViewTransaction>, Fault> {
        Ok(Box::new(PostgresTransaction::begin(self.shared.clone(), expect).await?))
    }

    async fn close(&self) {
        self.shared.connections.close().await;
    }
}
