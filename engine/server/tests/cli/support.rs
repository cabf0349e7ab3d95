//! Starts the binary: a command to its end, or an engine in a directory of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The binary, with an environment that no setting of the caller reaches.
pub fn gravity() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gravity"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GRAVITY_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn of(output: &Output) -> Ended {
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

/// Runs to the end.
pub fn run<const N: usize>(args: [&str; N]) -> Ended {
    Ended::of(&gravity().args(args).output().expect("the binary runs"))
}

/// A config directory.
pub struct Dir(pub TempDir);

impl Dir {
    pub fn new(files: &[(&str, &str)]) -> Dir {
        let dir = Dir(tempfile::tempdir().expect("a folder"));
        files.iter().for_each(|(name, text)| dir.write(name, text));
        dir
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn text(&self) -> String {
        self.0.path().display().to_string()
    }
}

pub const DATABASES: &str = r#"{"databases": {"db1": {"type": "sqlite", "path": "views.db", "ddl": "create"}}}"#;

pub const RULES: &str = r#"{"rules": [
  {"event": "userCreated", "table": "users", "method": "update", "mapping": [
    {"source": "id", "target": "id", "type": "i64", "primary": true},
    {"source": "name", "target": "name", "type": "text"}]}
]}"#;

/// One SQLite database, one rule, HTTP in.
pub fn plain() -> Dir {
    Dir::new(&[("databases.json", DATABASES), ("rules.json", RULES)])
}

/// A running engine on a free port; killed when dropped.
pub struct Engine {
    child: Child,
    pub url: String,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Engine {
    pub fn start(dir: &Dir, more: &[&str]) -> Engine {
        Engine::start_with(dir, more, &[])
    }

    pub fn start_with(dir: &Dir, more: &[&str], environment: &[(&str, &str)]) -> Engine {
        let mut command = gravity();
        command.args(["run", "-c"]).arg(dir.path()).args(["--listen", "127.0.0.1:0"]).args(more);
        command.envs(environment.iter().copied());
        Engine::run(command)
    }

    /// At an address that another one had.
    pub fn start_at(dir: &Dir, address: &str) -> Engine {
        let mut command = gravity();
        command.args(["run", "-c"]).arg(dir.path()).args(["--listen", address]);
        Engine::run(command)
    }

    fn run(mut command: Command) -> Engine {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        let mut engine = Engine { child, url: String::new(), lines, said: Vec::new() };
        let line = engine.wait_for("listens on ");
        engine.url = line.rsplit("listens on ").next().expect("an address").trim().to_owned();
        engine
    }

    /// The first line, said or to come, that contains `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        if let Some(line) = self.said.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("{text:?} was not said:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Everything said so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }

    /// A command that talks to this engine.
    pub fn ask<const N: usize>(&self, args: [&str; N]) -> Ended {
        Ended::of(&gravity().args(args).args(["--url", &self.url]).output().expect("the binary runs"))
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    /// Waits for the end; answers the exit code.
    pub fn wait(&mut self) -> i32 {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code().unwrap_or(-1);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the engine does not end:\n{}", self.said());
    }

    pub fn stop(mut self) -> i32 {
        self.signal("-TERM");
        self.wait()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nothing to do about a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `holds`; fails after ten seconds with what it last answered.
#[track_caller]
pub fn eventually<T: std::fmt::Debug>(mut look: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < until, "still {seen:?}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// One HTTP/1.1 request by hand: (status, body).
pub fn http(url: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    use std::io::Write;
    let address = url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
