//! The database of a round: made fresh, polled cheaply, and compared with the oracle row by row.

use std::str::FromStr;

use futures::TryStreamExt;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row as _};

use crate::workload::{CREATE_INDEX, CREATE_TABLE, Oracle, Row};

/// Where a DSN points to, in parts that a command's template can name.
#[derive(Clone, Debug)]
pub struct Place {
    pub dsn: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Place {
    /// Reads `postgres://USER[:PASSWORD]@HOST:PORT/DATABASE`; parts are taken as they stand, so none may need escapes.
    pub fn parse(dsn: &str) -> Result<Place, String> {
        let wrong = || format!("{dsn:?} is not postgres://USER[:PASSWORD]@HOST:PORT/DATABASE");
        let rest = dsn.split_once("://").ok_or_else(wrong)?.1;
        let (account, rest) = rest.rsplit_once('@').ok_or_else(wrong)?;
        let (authority, database) = rest.split_once('/').ok_or_else(wrong)?;
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let (user, password) = account.split_once(':').unwrap_or((account, ""));
        Ok(Place {
            dsn: dsn.to_owned(),
            host: host.to_owned(),
            port: port.parse().map_err(|_| wrong())?,
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
        })
    }

    pub fn with_database(&self, name: &str) -> Place {
        let head = &self.dsn[..self.dsn.len() - self.database.len()];
        Place { dsn: format!("{head}{name}"), database: name.to_owned(), ..self.clone() }
    }
}

pub fn wrong(error: sqlx::Error) -> String {
    format!("PostgreSQL: {error}")
}

pub async fn connect(place: &Place) -> Result<PgConnection, String> {
    let options = PgConnectOptions::from_str(&place.dsn).map_err(wrong)?;
    options.disable_statement_logging().connect().await.map_err(wrong)
}

/// Drops and makes the database, with the table and its index.
pub async fn create(server: &Place, place: &Place) -> Result<(), String> {
    drop_database(server, place).await?;
    let mut connection = connect(server).await?;
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE \"{}\"", place.database))).await.map_err(wrong)?;
    connection.close().await.map_err(wrong)?;
    let mut connection = connect(place).await?;
    connection.execute(CREATE_TABLE).await.map_err(wrong)?;
    connection.execute(CREATE_INDEX).await.map_err(wrong)?;
    connection.close().await.map_err(wrong)
}

pub async fn drop_database(server: &Place, place: &Place) -> Result<(), String> {
    let mut connection = connect(server).await?;
    let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", place.database);
    connection.execute(AssertSqlSafe(drop)).await.map_err(wrong)?;
    connection.close().await.map_err(wrong)
}

/// Starts every round with the same distance to the next checkpoint of the server.
pub async fn checkpoint(place: &Place) -> Result<(), String> {
    let mut connection = connect(place).await?;
    connection.execute("CHECKPOINT").await.map_err(wrong)?;
    connection.close().await.map_err(wrong)
}

/// Version and the settings that decide what a commit costs.
pub async fn settings(place: &Place) -> Result<String, String> {
    let mut connection = connect(place).await?;
    let mut parts = Vec::new();
    for name in ["server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size"] {
        let row =
            sqlx::query("SELECT current_setting($1)").bind(name).fetch_one(&mut connection).await.map_err(wrong)?;
        parts.push(format!("{name} {}", row.get::<String, _>(0)));
    }
    connection.close().await.map_err(wrong)?;
    Ok(format!("PostgreSQL: {}", parts.join(", ")))
}

/// How many of the orders `ids` are there.
pub async fn present(connection: &mut PgConnection, ids: &[i64]) -> Result<i64, String> {
    let query = sqlx::query("SELECT count(*) FROM orders WHERE id = ANY($1)").bind(ids);
    Ok(query.fetch_one(connection).await.map_err(wrong)?.get(0))
}

/// True once the table holds a row.
pub async fn has_rows(connection: &mut PgConnection) -> Result<bool, String> {
    let query = sqlx::query("SELECT EXISTS (SELECT FROM orders)");
    Ok(query.fetch_one(connection).await.map_err(wrong)?.get(0))
}

/// Differences between the table and the fold: how many, and the first few in words.
#[derive(Default)]
pub struct Difference {
    pub rows: usize,
    pub count: usize,
    pub examples: Vec<String>,
}

impl Difference {
    fn note(&mut self, what: String) {
        self.count += 1;
        if self.examples.len() < 10 {
            self.examples.push(what);
        }
    }
}

/// Reads the whole table and compares every column of every row.
pub async fn compare(connection: &mut PgConnection, oracle: &Oracle) -> Result<Difference, String> {
    let mut difference = Difference::default();
    let mut seen = 0;
    let query = sqlx::query(
        "SELECT id, customer, status, note, amount::text, (extract(epoch FROM placed_at) * 1000000)::bigint, express, \
         details::text, quantity FROM orders",
    );
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(wrong)? {
        difference.rows += 1;
        let id: i64 = row.get(0);
        let details: Option<String> = row.get(7);
        let details: Option<Value> =
            details.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| error.to_string())?;
        let found = Row {
            customer: row.get(1),
            status: row.get(2),
            note: row.get(3),
            amount: row.get(4),
            placed_at: row.get(5),
            express: row.get(6),
            details,
            quantity: row.get(8),
        };
        match oracle.rows.get(&id) {
            Some(expected) => {
                seen += 1;
                if *expected != found {
                    difference.note(format!("order {id}: expected {expected:?}, found {found:?}"));
                }
            }
            None => difference.note(format!("order {id}: should not be there")),
        }
    }
    let missing = oracle.rows.len() - seen;
    if missing > 0 {
        difference.note(format!("{missing} orders are missing"));
        difference.count += missing - 1;
    }
    Ok(difference)
}
