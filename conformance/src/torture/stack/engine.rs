//! The engine under test: `gravity run` as a child that is killed with SIGKILL, and its API.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::config::Layout;

pub struct Engine {
    layout: Layout,
    program: PathBuf,
    /// As in `GRAVITY_FAILPOINTS`.
    failpoints: Option<String>,
    child: Option<Child>,
    http: reqwest::Client,
}

impl Engine {
    /// Not started yet. The error says that there is no binary.
    pub fn new(layout: Layout, failpoints: Option<String>) -> Result<Engine, String> {
        Ok(Engine { layout, program: program()?, failpoints, child: None, http: client()? })
    }

    pub fn start(&mut self) -> Result<(), String> {
        let path = self.layout.directory.join("engine.log");
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let out = open().map_err(|error| format!("{}: {error}", path.display()))?;
        let err = open().map_err(|error| format!("{}: {error}", path.display()))?;
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg("-c")
            .arg(self.layout.config())
            .arg("--data")
            .arg(self.layout.data())
            .args(["--listen", &self.layout.listen])
            .env_remove("GRAVITY_FAILPOINTS")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        if let Some(failpoints) = &self.failpoints {
            command.env("GRAVITY_FAILPOINTS", failpoints);
        }
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The same engine once more, not started yet; its API at `listen`.
    pub fn successor_at(&self, listen: &str) -> Engine {
        Engine {
            layout: Layout { listen: listen.to_owned(), ..self.layout.clone() },
            program: self.program.clone(),
            failpoints: self.failpoints.clone(),
            child: None,
            http: self.http.clone(),
        }
    }

    pub fn listen(&self) -> &str {
        &self.layout.listen
    }

    /// Whether it has ended, or never ran.
    pub fn ended(&mut self) -> Result<bool, String> {
        let Some(child) = &mut self.child else { return Ok(true) };
        child.try_wait().map(|ended| ended.is_some()).map_err(|error| format!("asking after the engine: {error}"))
    }

    /// SIGTERM: drain and go.
    pub fn terminate(&self) -> Result<(), String> {
        self.signal("-TERM")
    }

    /// SIGSTOP: not one instruction more, until [`Engine::wake`].
    pub fn freeze(&self) -> Result<(), String> {
        self.signal("-STOP")
    }

    /// SIGCONT.
    pub fn wake(&self) -> Result<(), String> {
        self.signal("-CONT")
    }

    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, name: &str) -> Result<(), String> {
        let id = self.id().ok_or("no engine runs")?;
        // By the shell's own tool: a signal needs no unsafe code here.
        let status = Command::new("kill").args([name, &id.to_string()]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("kill {name} {id}: {status}")),
            Err(error) => Err(format!("kill {name} {id}: {error}")),
        }
    }

    /// SIGKILL. An engine that had ended by itself is an error: nothing else may end it.
    pub fn kill(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let ended = child.try_wait().map_err(|error| format!("asking after the engine: {error}"))?;
        child.kill().map_err(|error| format!("killing the engine: {error}"))?;
        child.wait().map_err(|error| format!("waiting for the engine: {error}"))?;
        match ended {
            None => Ok(()),
            Some(status) => Err(format!("the engine ended by itself ({status}): {}", self.last_words())),
        }
    }

    /// Waits until `/readyz` answers 200; how long that took.
    pub async fn ready(&mut self, patience: Duration) -> Result<Duration, String> {
        let started = Instant::now();
        loop {
            if let Ok(response) = self.http.get(self.url("/readyz")).send().await
                && response.status().is_success()
            {
                return Ok(started.elapsed());
            }
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!("the engine ended while starting ({status}): {}", self.last_words()));
            }
            if started.elapsed() > patience {
                return Err(format!("not ready after {} s: {}", patience.as_secs(), self.last_words()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn status(&self) -> Result<Value, String> {
        self.get("/v1/status").await
    }

    pub async fn get(&self, path: &str) -> Result<Value, String> {
        let text = self.get_text(path).await?;
        serde_json::from_str(&text).map_err(|error| format!("GET {path}: {error}: {text}"))
    }

    /// The document as it came: numbers keep their digits.
    pub async fn get_text(&self, path: &str) -> Result<String, String> {
        let response = self.http.get(self.url(path)).send().await.map_err(|error| format!("GET {path}: {error}"))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| format!("GET {path}: {error}"))?;
        if !status.is_success() {
            return Err(format!("GET {path}: {status}: {text}"));
        }
        Ok(text)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.layout.listen)
    }

    /// The end of what it printed, on one line.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.layout.directory.join("engine.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Requests are to loopback and small: what does not answer soon is down.
pub fn client() -> Result<reqwest::Client, String> {
    // Loopback only and without TLS, yet the client wants a provider; a second installation is refused, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .connect_timeout(Duration::from_secs(2))
        .no_proxy()
        .build()
        .map_err(|error| format!("an HTTP client: {error}"))
}

/// `gravity` beside this binary.
pub fn program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    let program = own.with_file_name("gravity");
    if program.is_file() { Ok(program) } else { Err(format!("{} is not built", program.display())) }
}

/// A free port on loopback, below the ephemeral range, so that no outgoing connection can take it between two starts.
pub fn free_port(from: u16) -> Result<u16, String> {
    // Two gates at the same time begin at different places.
    let begin = from + (std::process::id() % 4_000) as u16;
    (begin..32_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| "no free port".to_owned())
}
