//! `databases.json` as it is typed: where views stand. The deck's keys, and what was added.

use gravity_rules::file::UnknownFields;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::secret::Secret;
use super::shared::TransportKeys;
use super::tag;

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "databases.json: where Gravity keeps views", deny_unknown_fields)]
pub struct DatabasesFile {
    /// Where editors find this schema.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Databases by name; each is a route of that name.
    pub databases: IndexMap<String, DatabaseEntry>,
}

/// One database; `type` decides which keys it takes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DatabaseEntry {
    Postgres(PostgresKeys),
    MySql(MySqlKeys),
    MongoDb(MongoDbKeys),
    Sqlite(SqliteKeys),
}

impl DatabaseEntry {
    /// Reads an entry of a known `type`.
    pub fn read(value: Value) -> Result<DatabaseEntry, serde_json::Error> {
        match value["type"].as_str() {
            Some(tag::MySql::WORD) => serde_json::from_value(value).map(DatabaseEntry::MySql),
            Some(tag::MongoDb::WORD) => serde_json::from_value(value).map(DatabaseEntry::MongoDb),
            Some(tag::Sqlite::WORD) => serde_json::from_value(value).map(DatabaseEntry::Sqlite),
            _ => serde_json::from_value(value).map(DatabaseEntry::Postgres),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            DatabaseEntry::Postgres(_) => tag::Postgres::WORD,
            DatabaseEntry::MySql(_) => tag::MySql::WORD,
            DatabaseEntry::MongoDb(_) => tag::MongoDb::WORD,
            DatabaseEntry::Sqlite(_) => tag::Sqlite::WORD,
        }
    }

    /// `None` for a file.
    pub fn patience(&self) -> Option<&PatienceKeys> {
        match self {
            DatabaseEntry::Postgres(keys) => Some(&keys.patience),
            DatabaseEntry::MySql(keys) => Some(&keys.patience),
            DatabaseEntry::MongoDb(keys) => Some(&keys.patience),
            DatabaseEntry::Sqlite(_) => None,
        }
    }

    pub fn route(&self) -> &RouteKeys {
        match self {
            DatabaseEntry::Postgres(keys) => &keys.route,
            DatabaseEntry::MySql(keys) => &keys.route,
            DatabaseEntry::MongoDb(keys) => &keys.route,
            DatabaseEntry::Sqlite(keys) => &keys.route,
        }
    }
}

/// Keys of every database: how its route behaves.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct RouteKeys {
    /// `none`: tables are yours, mismatches are reported. `create`: Gravity creates what is missing.
    #[serde(default)]
    pub ddl: Ddl,
    /// Parallel writers. 1 by default: the view is then always exactly the fold of a prefix of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub lanes: Option<u16>,
    /// What to do with a table that has rows and no checkpoint. Absent: refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_rows: Option<ExistingRows>,
    /// `manual`: Gravity creates no `gravity_*` tables; `check --live --sql` prints their DDL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bookkeeping: Option<Bookkeeping>,
    /// Fields of pass-through rules that have no column: count and leave out (`ignore`), or park the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_fields: Option<UnknownFields>,
    /// Failed events that may be parked at the same time; at the bound the route stops. 100,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parked: Option<u64>,
    /// Earlier name of this entry, so that its checkpoint is found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
}

/// Who creates tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ddl {
    #[default]
    None,
    Create,
}

/// What to do with rows that Gravity did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExistingRows {
    Adopt,
}

/// Who creates the bookkeeping tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bookkeeping {
    Manual,
}

/// Keys of the original's databases, with what to write instead.
fn removed() -> Value {
    serde_json::json!({
        "dbname": "write `dbName`",
        "database": "write `dbName`",
        "param": "remove it",
        "ca_file": "write `caFile`",
        "authSource": "put it into `uri`",
        "initialLoad": "remove it: a new view is filled from the log by itself"
    })
}

/// Keys of every database behind a network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct PatienceKeys {
    /// Longest that one statement may take, 1 s or more. The server ends it then; a server that does not answer is given up a
    /// quarter later, a second at least, and what was not committed is done again. 60 s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout: Option<super::unit::Span>,
}

/// PostgreSQL 12 or newer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-removed" = removed()))]
pub struct PostgresKeys {
    #[serde(rename = "type")]
    pub kind: tag::Postgres,
    /// Name, address, or the directory of a Unix socket.
    pub host: String,
    /// 5432 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Database name.
    #[serde(rename = "dbName")]
    pub db_name: String,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub patience: PatienceKeys,
    #[serde(flatten)]
    pub route: RouteKeys,
}

/// MySQL 8 or MariaDB.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-removed" = removed()))]
pub struct MySqlKeys {
    #[serde(rename = "type")]
    pub kind: tag::MySql,
    pub host: String,
    /// 3306 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Database name.
    #[serde(rename = "dbName")]
    pub db_name: String,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub patience: PatienceKeys,
    #[serde(flatten)]
    pub route: RouteKeys,
}

/// MongoDB; a replica set is needed for transactions.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-removed" = removed()))]
pub struct MongoDbKeys {
    #[serde(rename = "type")]
    pub kind: tag::MongoDb,
    /// Connection string, instead of `host` and `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// 27017 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Database name; may stand beside `uri`.
    #[serde(rename = "dbName", default, skip_serializing_if = "Option::is_none")]
    pub db_name: Option<String>,
    /// How long a stand-alone server keeps the mark of a deleted document. 24 h by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone_keep: Option<super::unit::Span>,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub patience: PatienceKeys,
    #[serde(flatten)]
    pub route: RouteKeys,
}

/// A SQLite file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SqliteKeys {
    #[serde(rename = "type")]
    pub kind: tag::Sqlite,
    /// The file, relative to the config directory.
    pub path: String,
    #[serde(flatten)]
    pub route: RouteKeys,
}
