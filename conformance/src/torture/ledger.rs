//! What a gate found, as one JSON line: figures come from the run and are never typed in. `conformance/ledger.jsonl` keeps them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The end of one gate.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Subcommand with what tells its runs apart: `log-kill sled`.
    pub gate: String,
    pub seed: u64,
    /// Counts, in the order in which they are printed.
    pub figures: Vec<(&'static str, u64)>,
    /// The line that the gate prints.
    pub line: String,
    /// Why the gate is red; empty where it is green.
    pub failures: Vec<String>,
    pub elapsed: Duration,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub gate: String,
    pub commit: String,
    /// Files of the project differed from the commit.
    pub modified: bool,
    pub seed: u64,
    pub full: bool,
    pub passed: bool,
    /// Unix seconds at the end.
    pub time: u64,
    pub seconds: u64,
    pub figures: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

impl Entry {
    pub fn of(outcome: &Outcome, full: bool) -> Entry {
        Entry {
            gate: outcome.gate.clone(),
            commit: git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned()),
            // The ledger itself grows with every run.
            modified: git(&["status", "--porcelain", "--", ":/", ":!:/conformance/ledger.jsonl"])
                .is_none_or(|text| !text.is_empty()),
            seed: outcome.seed,
            full,
            passed: outcome.passed(),
            time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            seconds: outcome.elapsed.as_secs(),
            figures: outcome.figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            failures: outcome.failures.iter().take(5).cloned().collect(),
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(project_root()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The checkout: `GRAVITY_ROOT`, else the nearest folder above the working directory that holds `conformance/`.
pub fn project_root() -> PathBuf {
    if let Some(root) = std::env::var_os("GRAVITY_ROOT") {
        return PathBuf::from(root);
    }
    let here = std::env::current_dir().unwrap_or_default();
    let root = here.ancestors().find(|path| path.join("conformance/Cargo.toml").is_file());
    root.map_or_else(|| here.clone(), Path::to_owned)
}

pub fn path() -> PathBuf {
    project_root().join("conformance/ledger.jsonl")
}

pub fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_string(entry)?;
    line.push('\n');
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

/// Sums of one gate over the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub runs: u64,
    pub red: u64,
    pub seconds: u64,
    pub figures: BTreeMap<String, u64>,
}

/// Adds up all lines, by gate. A line that cannot be read is an error: a ledger with holes proves nothing.
pub fn sums(path: &Path) -> io::Result<BTreeMap<String, Sum>> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for (number, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        let line = line?;
        let entry: Entry = serde_json::from_str(&line)
            .map_err(|error| io::Error::other(format!("{}:{}: {error}", path.display(), number + 1)))?;
        let sum = sums.entry(entry.gate).or_default();
        sum.runs += 1;
        sum.red += u64::from(!entry.passed);
        sum.seconds += entry.seconds;
        for (name, value) in entry.figures {
            *sum.figures.entry(name).or_default() += value;
        }
    }
    Ok(sums)
}

/// The sums as a table of text, one gate a line.
pub fn report(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    for (gate, sum) in sums(path)? {
        let figures: Vec<String> = sum.figures.iter().map(|(name, value)| format!("{value} {name}")).collect();
        text.push_str(&format!(
            "{gate:<24} {:>4} runs, {} red, {:>6} s: {}\n",
            sum.runs,
            sum.red,
            sum.seconds,
            figures.join(", ")
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up_by_gate_and_a_hole_is_an_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("ledger.jsonl");
        for (kills, failure) in [(10, None), (5, Some("lost 1".to_owned()))] {
            let outcome = Outcome {
                gate: "log-kill sled".to_owned(),
                seed: 7,
                figures: vec![("kills", kills), ("lost", 0)],
                failures: failure.into_iter().collect(),
                ..Outcome::default()
            };
            append(&path, &Entry::of(&outcome, true)).expect("append");
        }
        let sums = sums(&path).expect("readable");
        let sum = &sums["log-kill sled"];
        assert_eq!((sum.runs, sum.red, sum.figures["kills"], sum.figures["lost"]), (2, 1, 15, 0));
        assert!(report(&path).expect("readable").starts_with("log-kill sled"));
        OpenOptions::new().append(true).open(&path).expect("open").write_all(b"{\"gate\"\n").expect("write");
        assert!(super::sums(&path).is_err());
    }
}
