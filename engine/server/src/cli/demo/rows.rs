//! Reads the demo's own SQLite file, to show its first rows: the one place of the binary that asks a view.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Row};

use crate::cli::exit::Failure;
use crate::cli::show::{Rows, count, figure, text};

fn cannot(error: &sqlx::Error) -> Failure {
    Failure::failed("cannot read the demo's SQLite file").because(error)
}

async fn open(file: &Path) -> Result<SqliteConnection, Failure> {
    SqliteConnectOptions::new().filename(file).read_only(true).connect().await.map_err(|error| cannot(&error))
}

/// Looks payments up, one after the other, over one connection.
pub struct Payments(SqliteConnection);

impl Payments {
    pub async fn open(file: &Path) -> Result<Payments, Failure> {
        Ok(Payments(open(file).await?))
    }

    /// True when the view has the row now.
    pub async fn has(&mut self, id: i64) -> Result<bool, Failure> {
        let found = sqlx::query("SELECT 1 FROM payments WHERE id = ?").bind(id).fetch_optional(&mut self.0).await;
        found.map(|row| row.is_some()).map_err(|error| cannot(&error))
    }
}

/// Rows in each view.
pub async fn counts(file: &Path) -> Result<String, Failure> {
    const COUNTS: &str =
        "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM orders), (SELECT count(*) FROM payments)";
    let mut connection = open(file).await?;
    let row = sqlx::query(COUNTS).fetch_one(&mut connection).await.map_err(|error| cannot(&error))?;
    let number = |index: usize| count(row.get::<i64, _>(index).unsigned_abs());
    Ok(format!("customers {}, orders {}, payments {}", number(0), number(1), number(2)))
}

/// The first rows of `orders`, as a table.
pub async fn first_orders(file: &Path) -> Result<String, Failure> {
    const FIRST: &str = "SELECT id, customer_id, CAST(total AS TEXT) AS total, items, CAST(placed_at AS TEXT) AS placed_at, state \
                         FROM orders ORDER BY id LIMIT 5";
    let mut connection = open(file).await?;
    let found = sqlx::query(FIRST).fetch_all(&mut connection).await.map_err(|error| cannot(&error))?;
    let mut rows = Rows::new(&[
        figure("id"),
        figure("customer_id"),
        figure("total"),
        figure("items"),
        text("placed_at"),
        text("state"),
    ]);
    for row in &found {
        let number = |name: &str| row.get::<Option<i64>, _>(name).map_or_else(|| "NULL".to_owned(), |n| n.to_string());
        let words = |name: &str| row.get::<Option<String>, _>(name).unwrap_or_else(|| "NULL".to_owned());
        rows.add([
            number("id"),
            number("customer_id"),
            words("total"),
            number("items"),
            words("placed_at"),
            words("state"),
        ]);
    }
    Ok(rows.render())
}
