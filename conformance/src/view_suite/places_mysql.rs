//! Databases of a MySQL or MariaDB server, read with the command `mariadb`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use gravity_connectors::mysql::{MySqlOptions, MySqlViews, TlsMode};
use gravity_model::ColumnType;
use gravity_model::port::view::ViewStore;

use super::places::{run, sorted, unhex};
use super::{Dialect, Place, Spec};

/// A database of its own on a server.
pub struct MySqlPlace {
    pub options: MySqlOptions,
    /// Exact texts: the collation that the server's flavor has for them.
    pub collation: &'static str,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl MySqlPlace {
    /// On the server that `GRAVITY_TEST_MARIADB` names.
    pub async fn mariadb() -> Option<MySqlPlace> {
        MySqlPlace::named("GRAVITY_TEST_MARIADB", "utf8mb4_nopad_bin")
    }

    /// On the server that `GRAVITY_TEST_MYSQL` names. Its accounts log in by `caching_sha2_password`, which wants TLS once; then
    /// the server remembers them, and the tests can read the wire.
    pub async fn mysql() -> Option<MySqlPlace> {
        let place = MySqlPlace::named("GRAVITY_TEST_MYSQL", "utf8mb4_0900_bin")?;
        place.store_with(|o| o.tls = TlsMode::Unverified).describe(&[]).await.expect("a first login with TLS");
        Some(place)
    }

    fn named(variable: &str, collation: &'static str) -> Option<MySqlPlace> {
        let Ok(url) = std::env::var(variable) else {
            println!("skipped: {variable} is not set");
            return None;
        };
        Some(MySqlPlace::on(mysql_options_of(&url), collation))
    }

    /// A new database on that server.
    pub fn on(server: MySqlOptions, collation: &'static str) -> MySqlPlace {
        let database = format!("view_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let place = MySqlPlace { options: MySqlOptions { db_name: database.clone(), ..server }, collation };
        run(&mut place.command(""), &format!("DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database};"));
        place
    }

    pub fn is_mariadb(&self) -> bool {
        self.collation == "utf8mb4_nopad_bin"
    }

    pub async fn remove(self) {
        run(&mut self.command(""), &format!("DROP DATABASE {};", self.options.db_name));
    }

    fn command(&self, database: &str) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.args(["--max-allowed-packet=256M", "--protocol=tcp"]);
        command.arg(format!("--host={}", self.options.host)).arg(format!("--port={}", self.options.port));
        command.arg(format!("--user={}", self.options.user)).arg(format!("--password={}", self.options.password));
        // Standard quotes for names, as the tests of all dialects write them.
        command.arg("--init-command=SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES'), time_zone = '+00:00'");
        if !database.is_empty() {
            command.arg(database);
        }
        command
    }

    /// Runs the client in the place's database.
    pub fn client(&self, sql: &str) -> String {
        run(&mut self.command(&self.options.db_name), sql)
    }

    pub fn store_with(&self, change: impl FnOnce(&mut MySqlOptions)) -> Arc<dyn ViewStore> {
        let mut options = self.options.clone();
        change(&mut options);
        Arc::new(MySqlViews::new(options))
    }
}

/// `mysql://USER[:PASSWORD]@HOST:PORT/`, for tests only: the product takes no URL.
pub fn mysql_options_of(url: &str) -> MySqlOptions {
    let rest = url.strip_prefix("mysql://").or_else(|| url.strip_prefix("mariadb://")).expect("a mysql:// URL");
    let (login, place) = rest.rsplit_once('@').expect("USER@HOST");
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (address, database) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "3306"));
    MySqlOptions {
        user: user.to_owned(),
        password: password.to_owned(),
        tls: TlsMode::Off,
        ..MySqlOptions::new(host, port.parse().expect("a port"), database)
    }
}

#[async_trait]
impl Place for MySqlPlace {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn store(&self) -> Arc<dyn ViewStore> {
        self.store_with(|_| {})
    }

    async fn make(&self, spec: &Spec<'_>) {
        let indexed = |name: &&str| spec.key.contains(name) || spec.unique.iter().any(|u| u.contains(name));
        let column = |(name, word, not_null): &(&str, &str, bool)| {
            let own = match word.parse().expect("a type word") {
                ColumnType::I64 => "bigint".to_owned(),
                // Only texts of a known length can be indexed whole.
                ColumnType::Text if indexed(name) => "varchar(512)".to_owned(),
                ColumnType::Text => "longtext".to_owned(),
                ColumnType::Varchar(n) => format!("varchar({n})"),
                other => panic!("{other} is not for tests of all dialects"),
            };
            format!("`{name}` {own}{}", if *not_null { " NOT NULL" } else { "" })
        };
        let columns: Vec<_> = spec.columns.iter().map(column).collect();
        let names = |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let uniques: String = spec.unique.iter().map(|u| format!(", UNIQUE ({})", names(u))).collect();
        self.dba(&format!(
            "CREATE TABLE `{}` ({}, PRIMARY KEY ({}){uniques}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={}",
            spec.table,
            columns.join(", "),
            names(spec.key),
            self.collation
        ))
        .await;
    }

    async fn dba(&self, sql: &str) {
        self.client(&format!("{sql};\n"));
    }

    async fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
        // As hexadecimal digits, so that no byte is lost on the way: texts after `t`, byte strings after `x`.
        let cell = |c: &&str| {
            format!(
                "IF(`{c}` IS NULL, '-', IF(CHARSET(CONCAT('', `{c}`)) = 'binary', CONCAT('x', HEX(`{c}`)), \
                 CONCAT('t', HEX(CONVERT(CONCAT('', `{c}`) USING utf8mb4)))))"
            )
        };
        let cells: Vec<_> = columns.iter().map(cell).collect();
        let output = self.client(&format!("SELECT {} FROM {table};\n", cells.join(", ")));
        let shown = |field: &str| match field.split_at(1) {
            ("-", _) => None,
            ("x", digits) => Some(format!("x{digits}")),
            ("t", digits) => Some(String::from_utf8(unhex(digits)).expect("UTF-8")),
            _ => panic!("{field:?}"),
        };
        sorted(output.lines().map(|line| line.split('\t').map(shown).collect()).collect())
    }
}
