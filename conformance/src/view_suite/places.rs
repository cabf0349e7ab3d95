//! The kinds of place, and how each is read back without the code under test. MySQL's are in `places_mysql`, MongoDB's in `places_mongodb`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use gravity_connectors::memory::view::MemoryViews;
use gravity_connectors::postgres::{PostgresOptions, PostgresViews, TlsMode};
use gravity_connectors::sqlite::{SqliteOptions, SqliteViews};
use gravity_model::port::view::ViewStore;
use gravity_model::{ColumnShape, ColumnType, TableShape, Value};

use super::{Place, Spec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Memory,
    Sqlite,
    Postgres,
    /// Both flavors.
    Mysql,
    /// MongoDB, and FerretDB in its place.
    Mongodb,
}

/// The double.
#[derive(Default)]
pub struct MemoryPlace {
    pub views: MemoryViews,
}

impl MemoryPlace {
    pub async fn new() -> Option<MemoryPlace> {
        Some(MemoryPlace::default())
    }

    pub async fn remove(self) {}
}

#[async_trait]
impl Place for MemoryPlace {
    fn dialect(&self) -> Dialect {
        Dialect::Memory
    }

    fn store(&self) -> Arc<dyn ViewStore> {
        Arc::new(self.views.clone())
    }

    async fn make(&self, spec: &Spec<'_>) {
        let columns: Vec<ColumnShape> = spec
            .columns
            .iter()
            .map(|(name, word, not_null)| ColumnShape {
                name: (*name).to_owned(),
                column_type: word.parse().expect("a type word"),
                database_type: (*word).to_owned(),
                not_null: *not_null,
                has_default: false,
                generated: false,
            })
            .collect();
        let places = |names: &[&str]| {
            names.iter().map(|n| columns.iter().position(|c| c.name == *n).expect("a column") as u16).collect()
        };
        let primary_key = places(spec.key);
        let unique = spec.unique.iter().map(|u| places(u)).collect();
        self.views.put_table(TableShape { table: spec.table.to_owned(), columns, primary_key, unique });
    }

    async fn dba(&self, sql: &str) {
        panic!("memory speaks no SQL: {sql}");
    }

    async fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
        let shape = super::shape(&self.views, table, &[]).await;
        let pick: Vec<usize> = columns.iter().map(|c| usize::from(shape.column(c).expect("a column"))).collect();
        let rows = self.views.rows(table);
        sorted(rows.iter().map(|row| pick.iter().map(|c| shown(&row[*c])).collect()).collect())
    }
}

/// Only what the suite's tests on memory write.
fn shown(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Int(i) => i.to_string(),
        Value::Text(t) | Value::Decimal(t) | Value::Json(t) => t.to_string(),
        other => format!("{other:?}"),
    })
}

pub(super) fn sorted(mut rows: Vec<Vec<Option<String>>>) -> Vec<Vec<Option<String>>> {
    rows.sort();
    rows
}

fn columns_of(columns: &[&str]) -> String {
    columns.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ")
}

fn keys_of(spec: &Spec<'_>) -> String {
    let mut text = format!("PRIMARY KEY ({})", columns_of(spec.key));
    for unique in spec.unique {
        text.push_str(&format!(", UNIQUE ({})", columns_of(unique)));
    }
    text
}

/// A file in a folder of its own, read with `sqlite3`.
pub struct SqlitePlace {
    folder: tempfile::TempDir,
}

impl SqlitePlace {
    pub async fn new() -> Option<SqlitePlace> {
        if Command::new("sqlite3").arg("-version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: the command sqlite3 is not installed");
            return None;
        }
        Some(SqlitePlace { folder: tempfile::tempdir().expect("a temporary folder") })
    }

    pub fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("views.db")
    }

    /// Runs `sqlite3` on the file.
    pub fn client(&self, sql: &str) -> String {
        run(
            Command::new("sqlite3").args(["-batch", "-bail", "-noheader", "-cmd", ".timeout 5000"]).arg(self.file()),
            sql,
        )
    }

    pub async fn remove(self) {}
}

#[async_trait]
impl Place for SqlitePlace {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn store(&self) -> Arc<dyn ViewStore> {
        Arc::new(SqliteViews::new(SqliteOptions::new(self.file())).expect("options"))
    }

    async fn make(&self, spec: &Spec<'_>) {
        let column = |(name, word, not_null): &(&str, &str, bool)| {
            let (storage, check) = match word.parse().expect("a type word") {
                ColumnType::I64 => ("INTEGER", String::new()),
                ColumnType::Text => ("TEXT", String::new()),
                ColumnType::Varchar(n) => ("TEXT", format!(" CHECK (length(\"{name}\") <= {n})")),
                other => panic!("{other} is not for tests of all dialects"),
            };
            format!("\"{name}\" {storage}{}{check}", if *not_null { " NOT NULL" } else { "" })
        };
        let columns: Vec<_> = spec.columns.iter().map(column).collect();
        self.dba(&format!("CREATE TABLE \"{}\" ({}, {})", spec.table, columns.join(", "), keys_of(spec))).await;
    }

    async fn dba(&self, sql: &str) {
        self.client(&format!("{sql};\n"));
    }

    async fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
        // As hexadecimal digits with the storage class before them, so that no byte is lost on the way.
        let cells: Vec<_> = columns.iter().map(|c| format!("typeof(\"{c}\"), hex(\"{c}\")")).collect();
        let output = self.client(&format!(".mode list\n.separator |\nSELECT {} FROM {table};\n", cells.join(", ")));
        sorted(output.lines().map(sqlite_cells).collect())
    }
}

fn sqlite_cells(line: &str) -> Vec<Option<String>> {
    let parts: Vec<&str> = line.split('|').collect();
    parts
        .chunks(2)
        .map(|pair| match pair {
            ["null", _] => None,
            ["blob", digits] => Some(format!("x{digits}")),
            [_, digits] => Some(String::from_utf8(unhex(digits)).expect("UTF-8")),
            _ => panic!("{line:?}"),
        })
        .collect()
}

pub fn unhex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
        .collect()
}

/// A schema of its own in the database that `GRAVITY_TEST_POSTGRES` names, read with `psql`.
pub struct PostgresPlace {
    pub url: String,
    pub schema: String,
    pub options: PostgresOptions,
}

static SCHEMAS: AtomicU32 = AtomicU32::new(0);

impl PostgresPlace {
    pub async fn new() -> Option<PostgresPlace> {
        let Ok(url) = std::env::var("GRAVITY_TEST_POSTGRES") else {
            println!("skipped: GRAVITY_TEST_POSTGRES is not set");
            return None;
        };
        let schema = format!("view_{}_{}", std::process::id(), SCHEMAS.fetch_add(1, Ordering::Relaxed));
        let options = PostgresOptions { schema: Some(schema.clone()), ..options_of(&url) };
        let place = PostgresPlace { url, schema, options };
        place.dba(&format!("CREATE SCHEMA {}", place.schema)).await;
        Some(place)
    }

    pub async fn remove(self) {
        self.dba(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }

    /// Runs `psql`.
    pub fn client(&self, sql: &str) -> String {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]).arg(&self.url);
        command.env("PGOPTIONS", format!("-c search_path={} -c client_min_messages=warning", self.schema));
        command.env("PGTZ", "UTC");
        run(&mut command, sql)
    }

    pub fn store_with(&self, change: impl FnOnce(&mut PostgresOptions)) -> Arc<dyn ViewStore> {
        let mut options = self.options.clone();
        change(&mut options);
        Arc::new(PostgresViews::new(options).expect("options"))
    }
}

/// `postgres://USER[:PASSWORD]@HOST:PORT/DATABASE`, for tests only: the product takes no URL.
pub fn options_of(url: &str) -> PostgresOptions {
    let rest =
        url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).expect("a postgres:// URL");
    let (login, place) = rest.rsplit_once('@').expect("USER@HOST");
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (address, database) = place.split_once('/').unwrap_or((place, "postgres"));
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
    PostgresOptions {
        user: user.to_owned(),
        password: password.to_owned(),
        tls: TlsMode::Off,
        ..PostgresOptions::new(host, port.parse().expect("a port"), database)
    }
}

#[async_trait]
impl Place for PostgresPlace {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn store(&self) -> Arc<dyn ViewStore> {
        self.store_with(|_| {})
    }

    async fn make(&self, spec: &Spec<'_>) {
        let column = |(name, word, not_null): &(&str, &str, bool)| {
            let own = match word.parse().expect("a type word") {
                ColumnType::I64 => "bigint".to_owned(),
                ColumnType::Text => "text".to_owned(),
                ColumnType::Varchar(n) => format!("varchar({n})"),
                other => panic!("{other} is not for tests of all dialects"),
            };
            format!("\"{name}\" {own}{}", if *not_null { " NOT NULL" } else { "" })
        };
        let columns: Vec<_> = spec.columns.iter().map(column).collect();
        self.dba(&format!("CREATE TABLE \"{}\" ({}, {})", spec.table, columns.join(", "), keys_of(spec))).await;
    }

    async fn dba(&self, sql: &str) {
        self.client(&format!("{sql};\n"));
    }

    async fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
        let output = self.client(&format!("COPY (SELECT {} FROM {table}) TO STDOUT;\n", columns_of(columns)));
        sorted(output.split_terminator('\n').map(|line| line.split('\t').map(copy_cell).collect()).collect())
    }
}

/// A field of COPY's text format.
fn copy_cell(field: &str) -> Option<String> {
    if field == "\\N" {
        return None;
    }
    let mut out = String::new();
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('v') => out.push('\u{b}'),
                Some(other) => out.push(other),
                None => panic!("{field:?}"),
            },
            c => out.push(c),
        }
    }
    Some(out)
}

/// Runs a client with `sql` on its standard input.
pub(super) fn run(command: &mut Command, sql: &str) -> String {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the database's client runs");
    child.stdin.take().expect("piped").write_all(sql.as_bytes()).expect("the client reads");
    let output = child.wait_with_output().expect("the client ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}\n{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
