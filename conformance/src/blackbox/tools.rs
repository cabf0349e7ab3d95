//! Child processes that look from outside: `psql`, `mariadb`, `sqlite3`, `curl`, and a module of its own for each broker's client.

mod amqp;
mod kcat;
mod nats;

pub use amqp::{amqp_declare_queue, amqp_publish};
pub use kcat::{KcatFollow, kcat_publish, kcat_read};
pub use nats::Nats;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::command::Ended;

/// What `psql` prints for a statement: rows as lines, columns between `|`.
#[track_caller]
pub fn psql(url: &str, sql: &str) -> String {
    let ended = Ended::run(psql_command(url).args(["-c", sql]));
    ended.expect(0).out.trim_end().to_owned()
}

/// `psql` without start-up files, aligned output and greetings.
pub fn psql_command(url: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url]).stdin(Stdio::null());
    command
}

/// What `mariadb` prints for statements, in `psql`'s form: rows as lines, columns between `|`. The address is
/// `mysql://USER[:PASSWORD]@HOST:PORT/DATABASE`.
#[track_caller]
pub fn mariadb(url: &str, sql: &str) -> String {
    let (user, place) = url.strip_prefix("mysql://").and_then(|rest| rest.rsplit_once('@')).expect("mysql://USER@…");
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (address, database) = place.split_once('/').expect("a database in the address");
    let (host, port) = address.rsplit_once(':').expect("a port in the address");
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--batch", "--skip-column-names", "--protocol=tcp", "-h", host, "-P", port]);
    command.args(["-u", user, &format!("--password={password}"), "-e", sql]).stdin(Stdio::null());
    if !database.is_empty() {
        command.arg(database);
    }
    Ended::run(&mut command).expect(0).out.trim_end().replace('\t', "|")
}

/// What `sqlite3` prints for a statement.
#[track_caller]
pub fn sqlite(path: impl AsRef<Path>, sql: &str) -> String {
    let mut command = Command::new("sqlite3");
    command.arg("-batch").args(["-cmd", ".timeout 10000"]).arg(path.as_ref()).arg(sql).stdin(Stdio::null());
    Ended::run(&mut command).expect(0).out.trim_end().to_owned()
}

/// A `sqlite3` session that stays open, for locks.
pub struct SqliteSession(Child);

impl SqliteSession {
    pub fn open(path: impl AsRef<Path>, sql: &str) -> SqliteSession {
        let mut child = Command::new("sqlite3")
            .arg("-batch")
            .args(["-cmd", ".timeout 10000"])
            .arg(path.as_ref())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3 runs");
        let input = child.stdin.as_mut().expect("piped");
        writeln!(input, "{sql}\nSELECT 'done';").expect("sqlite3 reads");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("sqlite3 answers");
        assert_eq!(line.trim(), "done");
        SqliteSession(child)
    }

    /// Ends the session, and with it its transaction.
    pub fn close(self) {}
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `curl ARGS`: (status, body).
#[track_caller]
pub fn curl(args: &[&str]) -> (u16, String) {
    let ended = Ended::run(Command::new("curl").args(["-sS", "-m", "30", "-w", "\n%{http_code}"]).args(args));
    let (body, status) = ended.out.rsplit_once('\n').unwrap_or_else(|| panic!("{ended:?}"));
    (status.parse().expect("a status"), body.to_owned())
}
