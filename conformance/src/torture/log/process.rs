//! The children of a log gate: a writer that is killed with SIGKILL at a chosen moment, a checker that reports as JSON.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::LogTarget;
use super::check::{Acknowledged, Findings};

/// Recovery takes seconds at most for logs of this size; a checker that needs longer hangs.
const CHECK_PATIENCE: Duration = Duration::from_secs(120);

/// One life of a writer.
#[derive(Debug, Default)]
pub struct Life {
    /// The last thing it said was durable, if anything.
    pub acknowledged: Option<Acknowledged>,
    /// It got as far as having the log open.
    pub opened: bool,
    /// Why it ended before it was killed; that is a failure.
    pub ended: Option<String>,
}

fn child(command: &str, target: &LogTarget, seed: u64) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    let mut child = Command::new(program);
    child
        .arg(command)
        .arg("--directory")
        .arg(&target.directory)
        .args(["--store", target.store.word()])
        .args(["--generation-bytes", &target.generation_bytes.to_string()])
        .args(["--seed", &seed.to_string()])
        .env_remove("GRAVITY_FAILPOINTS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(child)
}

/// Runs a writer for `life` from its start on, then kills it.
pub fn write_until_killed(
    target: &LogTarget,
    seed: u64,
    rate: u64,
    life: Duration,
    failpoints: Option<&str>,
) -> Result<Life, String> {
    let mut command = child("log-writer", target, seed)?;
    command.args(["--rate", &rate.to_string()]);
    if let Some(failpoints) = failpoints {
        command.env("GRAVITY_FAILPOINTS", failpoints);
    }
    let mut writer = command.spawn().map_err(|error| format!("starting a writer: {error}"))?;
    let complaints = drain(&mut writer);
    let Some(out) = writer.stdout.take() else { return Err("a writer without standard output".to_owned()) };
    let listener = std::thread::spawn(move || listen(BufReader::new(out)));
    let ended = wait_at_most(&mut writer, life)?;
    if ended.is_none() {
        writer.kill().map_err(|error| format!("killing the writer: {error}"))?;
        writer.wait().map_err(|error| format!("waiting for the writer: {error}"))?;
    }
    let mut life = listener.join().map_err(|_| "the listener panicked".to_owned())?;
    let complaint = complaints.join().unwrap_or_default();
    life.ended = ended.map(|status| format!("the writer ended by itself ({status}): {}", last_lines(&complaint)));
    Ok(life)
}

/// Reads the writer's lines up to the end; a line without its end was not said.
fn listen(mut out: impl BufRead) -> Life {
    let mut life = Life::default();
    let mut line = String::new();
    while out.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().map(str::parse), words.next().map(str::parse)) {
            (Some("OPEN"), ..) => life.opened = true,
            (Some("ACK"), Some(Ok(events)), Some(Ok(sequence))) => {
                life.acknowledged = Some(Acknowledged { events, sequence });
            }
            _ => {}
        }
        line.clear();
    }
    life
}

/// How a checker is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    /// Closes the log when it is done.
    Closes,
    /// Ends without closing: the next opening must cope.
    Leaves,
}

/// Opens and checks the log in a process of its own. `Err` means that it could not be opened, or that the checker hung or fell.
pub fn check(target: &LogTarget, seed: u64, acknowledged: Acknowledged, how: Checker) -> Result<Findings, String> {
    let mut command = child("log-check", target, seed)?;
    command
        .args(["--events", &acknowledged.events.to_string()])
        .args(["--sequence", &acknowledged.sequence.to_string()]);
    if how == Checker::Leaves {
        command.arg("--leave-open");
    }
    let mut checker = command.spawn().map_err(|error| format!("starting a checker: {error}"))?;
    let complaints = drain(&mut checker);
    let Some(mut out) = checker.stdout.take() else { return Err("a checker without standard output".to_owned()) };
    let (sender, text) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        // Nobody waits any more where the checker hung.
        let _ = sender.send(text);
    });
    let status = wait_at_most(&mut checker, CHECK_PATIENCE)?;
    if status.is_none() {
        let _ = checker.kill();
        let _ = checker.wait();
        return Err(format!("opening or reading took longer than {} s", CHECK_PATIENCE.as_secs()));
    }
    let text = text.recv().unwrap_or_default();
    let complaint = complaints.join().unwrap_or_default();
    serde_json::from_str(&text).map_err(|_| last_lines(&complaint))
}

/// Starts recovery and kills it: the next opening finds a log that died while it was being repaired.
pub fn die_while_opening(target: &LogTarget, seed: u64, life: Duration) -> Result<(), String> {
    let mut checker =
        child("log-check", target, seed)?.spawn().map_err(|error| format!("starting a checker: {error}"))?;
    std::thread::sleep(life);
    let _ = checker.kill();
    checker.wait().map(|_| ()).map_err(|error| format!("waiting for the checker: {error}"))
}

/// Collects standard error aside, so that a talkative child never blocks.
fn drain(child: &mut Child) -> std::thread::JoinHandle<String> {
    let err = child.stderr.take();
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut err) = err {
            let _ = err.read_to_string(&mut text);
        }
        text
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

/// The exit status, or `None` once `patience` has passed.
fn wait_at_most(child: &mut Child, patience: Duration) -> Result<Option<std::process::ExitStatus>, String> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("waiting for a child: {error}"))? {
            return Ok(Some(status));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        std::thread::sleep(left.min(Duration::from_millis(2)));
    }
}
