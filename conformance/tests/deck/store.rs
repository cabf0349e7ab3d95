//! A database of each kind with the deck's table in it, read by that database's own client.

use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::server::{Database, unique};
use gravity_conformance::blackbox::tools::{mariadb, psql, sqlite};
use gravity_conformance::view_suite::MongoPlace;
use serde_json::{Value, json};

/// Of a database with types `bigint` and `text`.
pub const TABLE: &str = "CREATE TABLE users (id bigint PRIMARY KEY, col_name text, col_email text)";

const ROWS: &str = "SELECT id, col_name, col_email FROM users ORDER BY id";

pub enum Store {
    Postgres(Database),
    /// On this server, with this name.
    MariaDb(String, String),
    Sqlite(Folder),
    MongoDb(MongoPlace),
}

impl Store {
    /// `None`, like those below, after saying what is missing.
    pub fn postgres() -> Option<Store> {
        let database = Database::create()?;
        psql(&database.url, TABLE);
        Some(Store::Postgres(database))
    }

    pub fn mariadb() -> Option<Store> {
        let (server, name) = (gravity_conformance::blackbox::mariadb()?, unique("deck"));
        mariadb(&server, &format!("CREATE DATABASE {name}"));
        mariadb(&format!("{server}{name}"), TABLE);
        Some(Store::MariaDb(server, name))
    }

    pub fn sqlite() -> Option<Store> {
        let folder = Folder::new(&[]);
        sqlite(folder.at("views.db"), "CREATE TABLE users (id INTEGER PRIMARY KEY, col_name TEXT, col_email TEXT)");
        Some(Store::Sqlite(folder))
    }

    pub fn mongodb() -> Option<Store> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let place = runtime.block_on(MongoPlace::new())?;
        place.client(json!({"do": "make", "table": "users", "unique": []}));
        Some(Store::MongoDb(place))
    }

    /// Its entry in databases.json.
    pub fn entry(&self) -> Value {
        match self {
            Store::Postgres(database) => database.entry(),
            Store::MariaDb(server, name) => {
                let place = server.trim_start_matches("mysql://").trim_end_matches('/');
                let (login, address) = place.rsplit_once('@').expect("mysql://USER@HOST:PORT/");
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
                json!({"type": "mysql", "host": host, "port": port.parse::<u16>().expect("a port"), "username": user,
                    "password": password, "dbName": name})
            }
            Store::Sqlite(folder) => json!({"type": "sqlite", "path": folder.at("views.db")}),
            Store::MongoDb(place) => json!({"type": "mongodb", "uri": place.uri, "dbName": place.database}),
        }
    }

    /// The rows by key, as `psql` prints them: lines, with columns between `|`.
    pub fn rows(&self) -> String {
        match self {
            Store::Postgres(database) => database.psql(ROWS),
            Store::MariaDb(server, name) => mariadb(&format!("{server}{name}"), ROWS),
            Store::Sqlite(folder) => sqlite(folder.at("views.db"), ROWS),
            Store::MongoDb(place) => {
                let rows = place.documents("users", &["id", "col_name", "col_email"], false);
                let line = |row: &Vec<Option<String>>| {
                    row.iter().map(|cell| cell.as_deref().unwrap_or_default()).collect::<Vec<_>>().join("|")
                };
                rows.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A left-over costs disk only; a second panic would hide the first.
        if std::thread::panicking() {
            return;
        }
        match self {
            // These clean up behind themselves.
            Store::Postgres(_) | Store::Sqlite(_) => {}
            Store::MariaDb(server, name) => drop(mariadb(server, &format!("DROP DATABASE IF EXISTS {name}"))),
            Store::MongoDb(place) => drop(place.client(json!({"do": "drop"}))),
        }
    }
}
