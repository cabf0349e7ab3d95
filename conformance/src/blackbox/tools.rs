//! Child processes that look from outside: `psql`, `mariadb`, `sqlite3`, `curl`, `kcat`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

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

/// Publishes one message to partition 0, exactly these bytes; `None` is a null value, which needs a key.
#[track_caller]
pub fn kcat_publish(hosts: &str, topic: &str, key: Option<&str>, headers: &[&str], value: Option<&[u8]>) {
    let mut command = Command::new("kcat");
    command.args(["-q", "-b", hosts, "-P", "-t", topic, "-p", "0", "-X", "message.max.bytes=20000000"]);
    command.args(headers.iter().flat_map(|header| ["-H", header]));
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    match value {
        // A file named on the command line is one message.
        Some(value) => {
            file.write_all(value).expect("written");
            command.args(key.iter().flat_map(|key| ["-k", key])).arg(file.path()).stdin(Stdio::null());
        }
        // Only behind a key does an empty line make a message.
        None => {
            writeln!(file, "{}\u{1f}", key.expect("a null value needs a key")).expect("written");
            command.args(["-Z", "-K", "\\x1f"]).stdin(file.reopen().expect("opened"));
        }
    }
    Ended::run(&mut command).expect(0);
}

/// Messages of a topic so far, each in this `kcat` format (which must end with `\n`).
#[track_caller]
pub fn kcat_read(hosts: &str, topic: &str, format: &str) -> Vec<String> {
    let args = ["-q", "-b", hosts, "-C", "-t", topic, "-o", "beginning", "-e", "-f", format];
    let ended = Ended::run(Command::new("kcat").args(args).stdin(Stdio::null())).expect(0);
    ended.out.lines().map(str::to_owned).collect()
}

/// A `kcat` consumer that goes on; each line comes when the message does.
pub struct KcatFollow {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl KcatFollow {
    /// From the topic's beginning.
    pub fn start(hosts: &str, topic: &str, format: &str) -> KcatFollow {
        let args = ["-q", "-u", "-b", hosts, "-C", "-t", topic, "-o", "beginning", "-f", format];
        let mut child =
            Command::new("kcat").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kcat runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        KcatFollow { child, lines }
    }

    /// The next message, within 30 s.
    #[track_caller]
    pub fn next(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("a message within 30 s")
    }

    /// What came within this time.
    pub fn within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }
}

impl Drop for KcatFollow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
