//! The views as the databases hold them, read with plain SQL and nothing of Gravity's.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ColumnIndex, ConnectOptions, Connection, Decode, MySqlConnection, PgConnection, Row, Type};

use super::oracle::{Expectation, Order};
use super::script::User;

/// All rows of the run's three tables.
#[derive(Debug, Default)]
pub struct Tables {
    pub users: BTreeMap<i64, User>,
    pub orders: BTreeMap<(i64, i64), Order>,
    /// (sequence, item).
    pub audit: Vec<(i64, i64)>,
}

/// How far tables are from the oracle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rows missing, too many, or with another value.
    pub rows: u64,
    /// Audit rows beyond the first of an item.
    pub duplicated: u64,
    pub examples: Vec<String>,
}

pub async fn postgres(url: &str) -> Result<Tables, String> {
    let wrong = |error: sqlx::Error| format!("reading PostgreSQL: {error}");
    let mut connection = PgConnection::connect(url).await.map_err(wrong)?;
    let users = sqlx::query("SELECT id, name, email, age, amount::text, active::int::bigint FROM users");
    let orders = sqlx::query("SELECT entity, number, total::text, state FROM orders");
    let audit = sqlx::query("SELECT sequence, i FROM audit");
    let users = users.fetch_all(&mut connection).await.map_err(wrong)?;
    let orders = orders.fetch_all(&mut connection).await.map_err(wrong)?;
    let audit = audit.fetch_all(&mut connection).await.map_err(wrong)?;
    collect(&users, &orders, &audit).map_err(wrong)
}

pub async fn mariadb(url: &str) -> Result<Tables, String> {
    let wrong = |error: sqlx::Error| format!("reading MariaDB: {error}");
    let mut connection = MySqlConnection::connect(url).await.map_err(wrong)?;
    let users = sqlx::query("SELECT id, name, email, age, CAST(amount AS CHAR), CAST(active AS SIGNED) FROM users");
    let orders = sqlx::query("SELECT entity, number, CAST(total AS CHAR), state FROM orders");
    let audit = sqlx::query("SELECT sequence, i FROM audit");
    let users = users.fetch_all(&mut connection).await.map_err(wrong)?;
    let orders = orders.fetch_all(&mut connection).await.map_err(wrong)?;
    let audit = audit.fetch_all(&mut connection).await.map_err(wrong)?;
    collect(&users, &orders, &audit).map_err(wrong)
}

pub async fn sqlite(path: &Path) -> Result<Tables, String> {
    let wrong = |error: sqlx::Error| format!("reading SQLite: {error}");
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = options.connect().await.map_err(wrong)?;
    let users = sqlx::query("SELECT id, name, email, age, CAST(amount AS TEXT), CAST(active AS INTEGER) FROM users");
    let orders = sqlx::query("SELECT entity, number, CAST(total AS TEXT), state FROM orders");
    let audit = sqlx::query("SELECT sequence, i FROM audit");
    let users = users.fetch_all(&mut connection).await.map_err(wrong)?;
    let orders = orders.fetch_all(&mut connection).await.map_err(wrong)?;
    let audit = audit.fetch_all(&mut connection).await.map_err(wrong)?;
    collect(&users, &orders, &audit).map_err(wrong)
}

fn collect<R: Row>(users: &[R], orders: &[R], audit: &[R]) -> Result<Tables, sqlx::Error>
where
    usize: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut tables = Tables::default();
    for row in users {
        let user = User {
            name: row.try_get(1)?,
            email: row.try_get(2)?,
            age: row.try_get(3)?,
            amount: row.try_get::<Option<String>, _>(4)?.map(|text| digits(&text)),
            active: row.try_get::<Option<i64>, _>(5)?.map(|number| number != 0),
        };
        tables.users.insert(row.try_get(0)?, user);
    }
    for row in orders {
        let order = Order { total: digits(&row.try_get::<String, _>(2)?), state: row.try_get(3)? };
        tables.orders.insert((row.try_get(0)?, row.try_get(1)?), order);
    }
    for row in audit {
        tables.audit.push((row.try_get(0)?, row.try_get(1)?));
    }
    Ok(tables)
}

/// A decimal without trailing zeros: how many of them a database shows is its own affair.
pub fn digits(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

impl Tables {
    /// `sequences` says where the log has each item.
    pub fn compare(&self, expected: &Expectation, sequences: &BTreeMap<u64, u64>) -> Difference {
        let mut difference = Difference::default();
        let users = expected.users.iter().map(|(id, user)| {
            let amount = user.amount.as_deref().map(digits);
            (*id, User { amount, ..user.clone() })
        });
        compare("users", &self.users, &users.collect(), &mut difference);
        let orders = expected
            .orders
            .iter()
            .map(|(key, order)| (*key, Order { total: digits(&order.total), state: order.state.clone() }));
        compare("orders", &self.orders, &orders.collect(), &mut difference);

        let mut found: BTreeMap<i64, i64> = BTreeMap::new();
        for (sequence, item) in &self.audit {
            if found.insert(*item, *sequence).is_some() {
                difference.duplicated += 1;
                difference.example(format!("audit: item {item} has several rows, one at sequence {sequence}"));
            }
        }
        let audit = expected.audit.iter().map(|item| {
            let sequence = sequences.get(item).copied().unwrap_or_default();
            (*item as i64, sequence as i64)
        });
        compare("audit", &found, &audit.collect(), &mut difference);
        difference
    }
}

fn compare<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    table: &str,
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
    difference: &mut Difference,
) {
    for (key, value) in expected {
        let there = found.get(key);
        if there != Some(value) {
            difference.rows += 1;
            difference.example(format!("{table} {key:?}: {there:?}, expected {value:?}"));
        }
    }
    for (key, value) in found.iter().filter(|(key, _)| !expected.contains_key(key)) {
        difference.rows += 1;
        difference.example(format!("{table} {key:?}: {value:?}, expected no row"));
    }
}

impl Difference {
    fn example(&mut self, text: String) {
        if self.examples.len() < 6 {
            self.examples.push(text);
        }
    }
}

/// Makes the run's own database, empty.
pub async fn create_postgres(server: &str, name: &str) -> Result<(), String> {
    on_postgres(server, &[format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")]).await
}

pub async fn drop_postgres(server: &str, name: &str) -> Result<(), String> {
    on_postgres(server, &[format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")]).await
}

/// Makes the run's own database, empty.
pub async fn create_mariadb(server: &str, name: &str) -> Result<(), String> {
    on_mariadb(server, &[format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")]).await
}

pub async fn drop_mariadb(server: &str, name: &str) -> Result<(), String> {
    on_mariadb(server, &[format!("DROP DATABASE IF EXISTS {name}")]).await
}

async fn on_postgres(server: &str, statements: &[String]) -> Result<(), String> {
    let wrong = |error: sqlx::Error| format!("PostgreSQL: {error}");
    let mut connection = PgConnection::connect(server).await.map_err(wrong)?;
    for statement in statements {
        // The name is the gate's own: letters, digits and underscores.
        sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut connection).await.map_err(wrong)?;
    }
    Ok(())
}

async fn on_mariadb(server: &str, statements: &[String]) -> Result<(), String> {
    let wrong = |error: sqlx::Error| format!("MariaDB: {error}");
    let mut connection = MySqlConnection::connect(server).await.map_err(wrong)?;
    for statement in statements {
        // As above.
        sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut connection).await.map_err(wrong)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_counted() {
        let user =
            |name: &str| User { name: Some(name.to_owned()), amount: Some("1.5000".to_owned()), ..User::default() };
        let expected = Expectation {
            users: BTreeMap::from([(1, user("a")), (2, user("b"))]),
            audit: [5, 6].into(),
            ..Expectation::default()
        };
        let sequences = BTreeMap::from([(5, 10), (6, 11)]);
        let shown = |name: &str| User { amount: Some("1.5".to_owned()), ..user(name) };
        let mut tables = Tables {
            users: BTreeMap::from([(1, shown("a")), (2, shown("b"))]),
            audit: vec![(10, 5), (11, 6)],
            ..Tables::default()
        };
        assert_eq!(tables.compare(&expected, &sequences), Difference::default());
        tables.users.insert(2, shown("other"));
        tables.users.insert(3, shown("c"));
        tables.users.remove(&1);
        tables.audit = vec![(10, 5), (12, 5)];
        let difference = tables.compare(&expected, &sequences);
        // Three users, item 5 at another sequence, item 6 missing.
        assert_eq!((difference.rows, difference.duplicated), (5, 1), "{difference:?}");
    }

    #[test]
    fn digits_are_compared_by_value() {
        assert_eq!(digits("12.3400"), "12.34");
        assert_eq!(digits("100"), "100");
        assert_eq!(digits("-7.0000"), "-7");
    }
}
