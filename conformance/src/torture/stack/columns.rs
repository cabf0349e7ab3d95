//! Single columns of a run's databases, for gates that look often and need no whole tables; each read on a connection of its own.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, MySqlConnection, PgConnection, Row};

use super::arms::{Server, Store};
use super::config::Layout;
use super::documents;

/// Reads the first column of a query.
macro_rules! column {
    ($layout:expr, $store:expr, $sql:expr, $type:ty) => {{
        let (layout, store, sql): (&Layout, Store, String) = ($layout, $store, $sql);
        let wrong = |error: sqlx::Error| format!("{}: {error}", store.route());
        macro_rules! cells {
            ($connection:ident) => {{
                let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut $connection).await.map_err(wrong)?;
                rows.iter().map(|row| row.try_get(0)).collect()
            }};
        }
        let cells: Result<Vec<$type>, sqlx::Error> = match store {
            Store::Postgres => {
                let url = layout.database_url(Server::Postgres)?;
                let mut connection = PgConnection::connect(&url).await.map_err(wrong)?;
                cells!(connection)
            }
            Store::MariaDb => {
                let url = layout.database_url(Server::MariaDb)?;
                let mut connection = MySqlConnection::connect(&url).await.map_err(wrong)?;
                cells!(connection)
            }
            Store::Sqlite => {
                let options = SqliteConnectOptions::new().filename(layout.sqlite()).read_only(true);
                let mut connection = options.connect().await.map_err(wrong)?;
                cells!(connection)
            }
            Store::MongoDb => return Err(format!("{} speaks no SQL", store.route())),
        };
        cells.map_err(wrong)
    }};
}

/// Numbers of the orders of an entity, ascending.
pub async fn orders(layout: &Layout, store: Store, entity: i64) -> Result<Vec<i64>, String> {
    if store == Store::MongoDb {
        let uri = layout.peers.at(Server::MongoDb)?;
        return documents::orders(uri, &layout.database, entity).await;
    }
    column!(layout, store, format!("SELECT number FROM orders WHERE entity = {entity} ORDER BY number"), i64)
}

/// The items that the audit tells of, ascending.
pub async fn items(layout: &Layout, store: Store) -> Result<Vec<i64>, String> {
    if store == Store::MongoDb {
        return documents::items(layout.peers.at(Server::MongoDb)?, &layout.database).await;
    }
    column!(layout, store, "SELECT i FROM audit ORDER BY i".to_owned(), i64)
}

/// Owners of the checkpoint rows.
pub async fn owners(layout: &Layout, store: Store) -> Result<Vec<String>, String> {
    if store == Store::MongoDb {
        return documents::owners(layout.peers.at(Server::MongoDb)?, &layout.database).await;
    }
    column!(layout, store, "SELECT owner FROM gravity_checkpoints".to_owned(), String)
}
