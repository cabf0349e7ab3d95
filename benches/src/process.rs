//! Processes: the system under test as a group, started through a shell and ended by its group id; and what /proc says of it
//! and of ourselves.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct System {
    child: Child,
    pub started: Instant,
}

/// What a process tree used up to now.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// Sum of the processes' high-water marks.
    pub peak_bytes: u64,
    /// CPU-seconds by thread name (digits at its end cut off), highest first.
    pub threads: Vec<(String, f64)>,
}

/// Ticks per second of /proc/PID/stat: fixed by Linux's interface, whatever the kernel's own rate is.
const TICKS: f64 = 100.0;

impl System {
    /// Runs `command` with `sh -c` in a group of its own; both outputs go to `log`.
    pub fn start(command: &str, log: &Path) -> Result<System, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", log.display());
        let out = File::create(log).map_err(wrong)?;
        let err = out.try_clone().map_err(wrong)?;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let started = Instant::now();
        let child = shell.spawn().map_err(|error| format!("sh: {error}"))?;
        Ok(System { child, started })
    }

    /// The error says that the command ended by itself.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the command ended ({status})")),
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        let mut threads: BTreeMap<String, f64> = BTreeMap::new();
        for pid in tree(self.child.id()) {
            let Some(stat) = Stat::read(&format!("/proc/{pid}/stat")) else { continue };
            usage.cpu_seconds += stat.own + stat.reaped;
            usage.peak_bytes += peak_bytes(&pid.to_string());
            for task in numbered(&format!("/proc/{pid}/task")) {
                if let Some(stat) = Stat::read(&format!("/proc/{pid}/task/{task}/stat")) {
                    let name = stat.name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
                    *threads.entry(name).or_default() += stat.own;
                }
            }
        }
        usage.threads = threads.into_iter().filter(|(_, seconds)| *seconds >= 0.05).collect();
        usage.threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        usage
    }

    /// SIGTERM to the group, SIGKILL to what is left after `patience`.
    pub fn stop(&mut self, patience: Duration) -> Result<(), String> {
        let group = format!("-{}", self.child.id());
        let signal = |name: &str| Command::new("kill").args([name, "--", &group]).stderr(Stdio::null()).status();
        signal("-TERM").map_err(|error| format!("kill: {error}"))?;
        let asked = Instant::now();
        while asked.elapsed() < patience {
            if self.check().is_err() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        signal("-KILL").map_err(|error| format!("kill: {error}"))?;
        self.child.wait().map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // A harness that fails half way leaves nothing running; that the group is gone already is no failure.
        let _ = self.stop(Duration::from_secs(5));
    }
}

struct Stat {
    name: String,
    parent: u32,
    own: f64,
    /// Of children that ended and were waited for.
    reaped: f64,
}

impl Stat {
    fn read(path: &str) -> Option<Stat> {
        let text = std::fs::read_to_string(path).ok()?;
        // The name may hold spaces and parentheses: it ends at the last one.
        let (head, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default() / TICKS;
        Some(Stat {
            name: head.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(11) + ticks(12),
            reaped: ticks(13) + ticks(14),
        })
    }
}

fn numbered(path: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The process and all its descendants.
fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = numbered("/proc")
        .into_iter()
        .filter_map(|pid| Some((pid, Stat::read(&format!("/proc/{pid}/stat"))?.parent)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// What this process used.
pub struct OwnUsage {
    pub cpu_seconds: f64,
    /// Sent to block devices, by the page cache's reckoning.
    pub written_bytes: u64,
}

impl OwnUsage {
    pub fn read() -> Result<OwnUsage, String> {
        let stat = Stat::read("/proc/self/stat").ok_or("/proc/self/stat cannot be read")?;
        let io = std::fs::read_to_string("/proc/self/io").map_err(|error| format!("/proc/self/io: {error}"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
        Ok(OwnUsage { cpu_seconds: stat.own, written_bytes: written.unwrap_or_default() })
    }

    pub fn since(&self, before: &OwnUsage) -> OwnUsage {
        OwnUsage {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// High-water mark of this process's memory.
pub fn own_peak_bytes() -> u64 {
    peak_bytes("self")
}

fn peak_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak.and_then(|text| text.trim().split(' ').next()?.parse().ok()).unwrap_or_default();
    kib * 1024
}
