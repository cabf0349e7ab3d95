//! Databases of a test's own: one on the PostgreSQL under test, or a whole server where a test must say how it is set up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::command::Ended;
use super::tools::psql;

/// A database on the server under test; dropped with its value.
pub struct Database {
    pub url: String,
    pub name: String,
    pub user: String,
    pub host: String,
    pub port: u16,
    server: String,
}

impl Database {
    /// `None` after saying that the server's variable is not set.
    pub fn create() -> Option<Database> {
        Some(Database::on(&super::postgres()?, &unique("bb")))
    }

    #[track_caller]
    pub fn on(server: &str, name: &str) -> Database {
        let authority = server.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("postgres://USER@…");
        let (user, place) = authority.rsplit_once('@').expect("a user in the address");
        let (host, port) = place.rsplit_once(':').expect("a port in the address");
        let user_name = user.split(':').next().expect("a user").to_owned();
        psql(server, &format!("CREATE DATABASE {name}"));
        Database {
            url: format!("postgres://{authority}/{name}"),
            name: name.to_owned(),
            user: user_name,
            host: host.to_owned(),
            port: port.parse().expect("a port"),
            server: server.to_owned(),
        }
    }

    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        psql(&self.url, sql)
    }

    /// Its entry in databases.json.
    pub fn entry(&self) -> serde_json::Value {
        serde_json::json!({"type": "postgres", "host": self.host, "port": self.port, "username": self.user,
            "password": "", "dbName": self.name})
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A left-over costs disk only.
        let _ = Command::new("psql").args(["-X", "-q", &self.server, "-c", &sql]).stdin(Stdio::null()).output();
    }
}

/// A PostgreSQL server of a test's own, by the project's own script; ended and wiped with its value.
pub struct PrivatePostgres {
    /// Of its superuser.
    pub url: String,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl PrivatePostgres {
    /// `options`: further settings as on the server's command line.
    pub fn start(options: &str) -> PrivatePostgres {
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().expect("a folder");
        let port = free_port();
        let server = PrivatePostgres { url: format!("postgres://gravity@127.0.0.1:{port}/postgres"), port, folder };
        Ended::run(server.command(&["up", "postgres"]).env("GRAVITY_POSTGRES_OPTIONS", options)).expect(0);
        server
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(root().join("conformance/servers"));
        command
            .args(args)
            .env("GRAVITY_WORK", self.folder.path())
            .env("GRAVITY_POSTGRES_PORT", self.port.to_string())
            .env_remove("GRAVITY_TEST_POSTGRES")
            .env_remove("GRAVITY_SERVERS_STARTED")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--kill", "postgres"]).output();
        let _ = self.command(&["wipe", "postgres"]).output();
    }
}

/// A MariaDB server of a test's own, by the project's own script; ended and wiped with its value.
pub struct PrivateMariaDb {
    pub port: u16,
    options: String,
    folder: tempfile::TempDir,
}

impl PrivateMariaDb {
    /// `options`: further settings as on the server's command line, which stand behind the script's own and win.
    pub fn start(options: &str) -> PrivateMariaDb {
        let folder = tempfile::Builder::new().prefix("my-").tempdir().expect("a folder");
        let server = PrivateMariaDb { port: free_port(), options: options.to_owned(), folder };
        Ended::run(&mut server.command(&["up", "mariadb"])).expect(0);
        server
    }

    /// Of its superuser.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/", self.port)
    }

    /// Ends it, by `kill -9` where asked for, and starts it again with the same data.
    #[track_caller]
    pub fn restart(&self, kill: bool) {
        let args: &[&str] = if kill { &["restart", "--kill", "mariadb"] } else { &["restart", "mariadb"] };
        Ended::run(&mut self.command(args)).expect(0);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(root().join("conformance/servers"));
        command
            .args(args)
            .env("GRAVITY_WORK", self.folder.path())
            .env("GRAVITY_MARIADB_PORT", self.port.to_string())
            .env("GRAVITY_MARIADB_OPTIONS", &self.options)
            .env_remove("GRAVITY_TEST_MARIADB")
            .env_remove("GRAVITY_SERVERS_STARTED")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for PrivateMariaDb {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--kill", "mariadb"]).output();
        let _ = self.command(&["wipe", "mariadb"]).output();
    }
}

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// A name that no other test, and no other run, has.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
    format!("{prefix}_{process}_{}_{number}", now.as_millis() % 100_000_000)
}

/// Below the ephemeral range, so that no outgoing connection takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = 10_500 + std::process::id() % 3_000;
    loop {
        let port = u16::try_from(begin + NEXT.fetch_add(1, Ordering::SeqCst)).expect("a port");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
