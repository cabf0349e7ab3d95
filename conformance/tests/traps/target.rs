//! A database of a test's own under the whole engine: configured for it, made by a DBA, read with the database's own client.

use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::proxy::Proxy;
use gravity_conformance::blackbox::server::Database;
use gravity_conformance::blackbox::tools::SqliteSession;
use gravity_conformance::view_suite::places::options_of;
use gravity_conformance::view_suite::{MongoPlace, MySqlPlace, Place, PostgresPlace, Spec, SqlitePlace};
use serde_json::{Value, json};

/// Name of the one route.
pub const ROUTE: &str = "db";

pub struct Target {
    kind: Kind,
    runtime: tokio::runtime::Runtime,
}

enum Kind {
    Sqlite(SqlitePlace),
    Postgres(Box<PostgresPlace>, Database),
    MariaDb(MySqlPlace),
    Mongo(MongoPlace),
}

fn on_runtime(open: impl FnOnce(&tokio::runtime::Runtime) -> Option<Kind>) -> Option<Target> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    open(&runtime).map(|kind| Target { kind, runtime })
}

/// Each `None` has said why.
impl Target {
    pub fn sqlite() -> Option<Target> {
        on_runtime(|runtime| runtime.block_on(SqlitePlace::new()).map(Kind::Sqlite))
    }

    pub fn postgres() -> Option<Target> {
        let database = Database::create()?;
        let options = options_of(&database.url);
        let place = PostgresPlace { url: database.url.clone(), schema: "public".to_owned(), options };
        on_runtime(|_| Some(Kind::Postgres(Box::new(place), database)))
    }

    pub fn mariadb() -> Option<Target> {
        on_runtime(|runtime| runtime.block_on(MySqlPlace::mariadb()).map(Kind::MariaDb))
    }

    pub fn mongodb() -> Option<Target> {
        on_runtime(|runtime| runtime.block_on(MongoPlace::new()).map(Kind::Mongo))
    }
}

impl Target {
    pub fn remove(self) {
        match self.kind {
            Kind::Sqlite(place) => self.runtime.block_on(place.remove()),
            Kind::Postgres(_, database) => drop(database),
            Kind::MariaDb(place) => self.runtime.block_on(place.remove()),
            Kind::Mongo(place) => self.runtime.block_on(place.remove()),
        }
    }

    fn place(&self) -> &dyn Place {
        match &self.kind {
            Kind::Sqlite(place) => place,
            Kind::Postgres(place, _) => &**place,
            Kind::MariaDb(place) => place,
            Kind::Mongo(place) => place,
        }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.kind, Kind::Sqlite(_))
    }

    pub fn is_mongodb(&self) -> bool {
        matches!(self.kind, Kind::Mongo(_))
    }

    /// FerretDB, which stores no decimals, does not tell either that an index is sparse.
    pub fn is_ferretdb(&self) -> bool {
        matches!(&self.kind, Kind::Mongo(place) if !place.decimals)
    }

    pub fn make(&self, spec: &Spec<'_>) {
        self.runtime.block_on(self.place().make(spec));
    }

    /// Runs SQL as a DBA.
    pub fn dba(&self, sql: &str) {
        self.runtime.block_on(self.place().dba(sql));
    }

    /// Takes a table away.
    pub fn drop_table(&self, table: &str) {
        match &self.kind {
            Kind::Mongo(place) => drop(place.command(json!({"drop": table}))),
            _ => self.dba(&format!("DROP TABLE {table}")),
        }
    }

    /// Takes a view's row out of the bookkeeping.
    pub fn forget_view(&self, table: &str) {
        match &self.kind {
            Kind::Mongo(place) => {
                let all = json!([{"q": {"_id": table}, "limit": 0}]);
                drop(place.command(json!({"delete": "gravity_views", "deletes": all})));
            }
            _ => self.dba(&format!("DELETE FROM gravity_views WHERE table_name = '{table}'")),
        }
    }

    /// The same as `rows`; none while the engine is still about to make the table.
    pub fn rows_if_there(&self, table: &str, columns: &[&str]) -> Vec<String> {
        let there = match &self.kind {
            Kind::Sqlite(place) => place.client(&format!("SELECT name FROM sqlite_master WHERE name = '{table}';\n")),
            Kind::Postgres(place, _) => place.client(&format!("SELECT to_regclass('{table}');\n")),
            Kind::MariaDb(place) => place.client(&format!("SHOW TABLES LIKE '{table}';\n")),
            Kind::Mongo(_) => table.to_owned(),
        };
        if there.trim().is_empty() { Vec::new() } else { self.rows(table, columns) }
    }

    /// Rows in the order of the first column's text, each cell as the database's own client shows it, nulls as `-`.
    pub fn rows(&self, table: &str, columns: &[&str]) -> Vec<String> {
        let rows = self.runtime.block_on(self.place().rows(table, columns));
        rows.iter().map(|row| row.iter().map(|c| c.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ")).collect()
    }

    /// Its entry in databases.json, with this `ddl`.
    pub fn entry(&self, ddl: &str) -> Value {
        match &self.kind {
            Kind::Sqlite(place) => json!({"type": "sqlite", "path": place.file(), "ddl": ddl}),
            Kind::Postgres(_, database) => {
                let mut entry = database.entry();
                entry["ddl"] = json!(ddl);
                entry
            }
            Kind::MariaDb(place) => {
                let o = &place.options;
                json!({"type": "mysql", "host": o.host, "port": o.port, "username": o.user, "password": o.password,
                    "dbName": o.db_name, "ddl": ddl})
            }
            Kind::Mongo(place) => {
                json!({"type": "mongodb", "uri": place.uri, "dbName": place.database, "ddl": ddl})
            }
        }
    }

    /// A config directory with this database and these rules; tables are made where they are missing.
    pub fn config(&self, rules: &[Value]) -> Folder {
        config_of(&self.entry("create"), rules)
    }

    /// The same with the tables in the DBA's hands.
    pub fn config_of_dba(&self, rules: &[Value]) -> Folder {
        config_of(&self.entry("none"), rules)
    }

    /// The same with a proxy between engine and server; `None` where there is no server.
    pub fn config_behind_proxy(&self, rules: &[Value]) -> Option<(Folder, Proxy)> {
        let mut entry = self.entry("create");
        let proxy = match entry["uri"].as_str().map(str::to_owned) {
            Some(uri) => {
                let address = uri.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
                let upstream = address.rsplit('@').next().expect("an address");
                let proxy = Proxy::start(upstream);
                entry["uri"] = json!(uri.replace(upstream, &proxy.address.to_string()));
                proxy
            }
            None => {
                let proxy = Proxy::start(&format!("{}:{}", entry["host"].as_str()?, entry["port"]));
                (entry["host"], entry["port"]) = (json!("127.0.0.1"), json!(proxy.address.port()));
                proxy
            }
        };
        Some((config_of(&entry, rules), proxy))
    }

    /// Keeps the engine from writing for as long as the value lives; SQLite's way of being away.
    pub fn lock(&self) -> Option<SqliteSession> {
        match &self.kind {
            Kind::Sqlite(place) => Some(SqliteSession::open(place.file(), "BEGIN IMMEDIATE;")),
            _ => None,
        }
    }
}

pub fn config_of(entry: &Value, rules: &[Value]) -> Folder {
    let folder = Folder::new(&[]);
    folder.write_json("databases.json", &json!({"databases": {ROUTE: entry}}));
    folder.write_json("rules.json", &json!({"rules": rules}));
    folder
}

/// A rule; the first `keys` columns are the key. Each column is filled from the field of its name.
pub fn rule(event: &str, table: &str, method: &str, columns: &[(&str, &str)], keys: usize) -> Value {
    let mapping = columns.iter().enumerate().map(|(at, (name, word))| {
        let mut mapping = json!({"source": name, "target": name, "type": word});
        if at < keys {
            mapping["primary"] = json!(true);
        }
        mapping
    });
    json!({"event": event, "table": table, "method": method, "mapping": mapping.collect::<Vec<_>>()})
}

pub const USERS: &[(&str, &str)] = &[("id", "i64"), ("name", "text"), ("email", "text")];

/// `userSaved` updates, `userAdded` inserts, `userDeleted` deletes.
pub fn users() -> Vec<Value> {
    vec![
        rule("userSaved", "users", "update", USERS, 1),
        rule("userAdded", "users", "insert", USERS, 1),
        rule("userDeleted", "users", "delete", &USERS[..1], 1),
    ]
}

/// A table whose e-mail is unique; of a known length, as MySQL wants it.
pub const MAILED: Spec<'static> = Spec {
    table: "users",
    columns: &[("id", "i64", true), ("name", "text", false), ("email", "varchar(200)", false)],
    key: &["id"],
    unique: &[&["email"]],
};

/// `userSaved` for that table.
pub fn mailed() -> Vec<Value> {
    vec![rule("userSaved", "users", "update", &[USERS[0], USERS[1], ("email", "varchar(200)")], 1)]
}

pub fn event(name: &str, payload: &Value) -> Value {
    json!({"event": name, "payload": payload})
}

pub fn saved(id: i64, name: &str) -> Value {
    event("userSaved", &json!({"id": id, "name": name}))
}

pub fn deleted(id: i64) -> Value {
    event("userDeleted", &json!({"id": id}))
}

/// Sends all in one request: one block of the log, and one batch of the route.
#[track_caller]
pub fn post(engine: &Engine, events: &[Value]) {
    let (status, answer) = engine.post(&Value::from(events).to_string()).expect("an answer");
    assert_eq!(status, 200, "{answer}");
}

/// Waits until so many events were read and none is left; the account must balance, with so many parked.
#[track_caller]
pub fn settled(engine: &Engine, read: usize, parked: u64) -> Value {
    let route = engine.in_step(ROUTE, read as u64);
    assert_identity(&engine.status());
    assert_eq!(route["parked"], parked, "{route}");
    route
}

/// Codes of the route's dead letters in log order, `waiting` for those that only wait.
#[track_caller]
pub fn parked_codes(engine: &Engine) -> Vec<String> {
    let letters = engine.ask(&["dlq", "list", "--route", ROUTE, "--json"]).expect(0).json();
    let code = |letter: &Value| match letter["waiting"] == true {
        true => "waiting".to_owned(),
        false => letter["code"].as_str().unwrap_or_default().to_owned(),
    };
    letters.as_array().expect("a list").iter().map(code).collect()
}
