//! `gravity run` as a child: its address, its words, its end, and the commands that ask it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::command::{Ended, gravity, gravity_under};
use super::folder::Folder;

/// A running engine on a free port; killed when dropped.
pub struct Engine {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    said: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    /// Starts on the directory and waits until it listens. The data directory is `data` in it.
    #[track_caller]
    pub fn start(folder: &Folder) -> Engine {
        Engine::start_with(folder, &[], &[])
    }

    #[track_caller]
    pub fn start_with(folder: &Folder, more: &[&str], environment: &[(&str, &str)]) -> Engine {
        let mut command = gravity();
        command.args(["run", "-c"]).arg(folder.path()).args(["--listen", "127.0.0.1:0"]).args(more);
        command.envs(environment.iter().copied());
        Engine::launch(command)
    }

    /// Started by another program, which becomes it.
    #[track_caller]
    pub fn start_under(folder: &Folder, wrapper: &[&str], more: &[&str]) -> Engine {
        let mut command = gravity_under(wrapper);
        command.args(["run", "-c"]).arg(folder.path()).args(["--listen", "127.0.0.1:0"]).args(more);
        Engine::launch(command)
    }

    #[track_caller]
    fn launch(mut command: Command) -> Engine {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&said);
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().push(line)));
        let mut engine = Engine { child, url: String::new(), said };
        let line = engine.wait_for("listens on ");
        engine.url = line.rsplit("listens on ").next().expect("an address").trim().to_owned();
        engine.wait_until_ready();
        engine
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.get("/readyz").0 != 200 {
            assert!(Instant::now() < until, "not ready:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The first line, said or to come, that contains `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(line) = self.said.lock().iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none() && Instant::now() < until, "{text:?} was not said ({ended:?}):\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn said(&self) -> String {
        self.said.lock().join("\n")
    }

    /// A command that talks to this engine.
    pub fn ask(&self, args: &[&str]) -> Ended {
        Ended::run(gravity().args(args).args(["--url", &self.url]))
    }

    /// `status --json` as the command prints it.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.ask(&["status", "--json"]).expect(0).json()
    }

    /// One route of the status.
    #[track_caller]
    pub fn route(&self, name: &str) -> Value {
        named(&self.status()["routes"], name)
    }

    /// One exporter of the status.
    #[track_caller]
    pub fn exporter(&self, name: &str) -> Value {
        named(&self.status()["exporters"], name)
    }

    /// Waits until the route has no lag; answers its status.
    #[track_caller]
    pub fn in_step(&self, route: &str, read: u64) -> Value {
        super::eventually(|| self.route(route), |r| r["read"] == read && r["lag_events"] == 0)
    }

    /// `GET` over a connection of its own: (status, body).
    pub fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, &[], b"").expect("an answer")
    }

    /// Posts JSON; `None` where no whole answer came.
    pub fn post(&self, body: &str) -> Option<(u16, String)> {
        self.request("POST", "/v1/events", &[("content-type", "application/json")], body.as_bytes())
    }

    /// One HTTP/1.1 request by hand; `None` where no whole answer came.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<(u16, String)> {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.pid().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "kill {name}");
    }

    /// Waits for the end; answers the exit code, -1 for a signal.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "the engine does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and 0 as exit code.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.wait(), 0, "{}", self.said());
    }

    /// SIGKILL: what a crash is.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nothing to do about a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn named(list: &Value, name: &str) -> Value {
    let found = list.as_array().and_then(|all| all.iter().find(|entry| entry["name"] == name));
    found.cloned().unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// The identity of P4 on every route of a status: each event read is accounted for once.
#[track_caller]
pub fn assert_identity(status: &Value) {
    for route in status["routes"].as_array().expect("routes") {
        let count = |name: &str| route[name].as_u64().unwrap_or_else(|| panic!("{name} in {route}"));
        assert_eq!(count("parked"), count("failed") + count("waiting"), "{route}");
        let accounted: u64 = ["applied", "filtered", "unmatched", "parked", "skipped"].map(count).iter().sum();
        assert_eq!(count("read"), accounted, "{route}");
    }
}
