//! `gravity import`: files of events into the log of a running engine, each record exactly once however often it is asked for.
//!
//! A file is sent in batches that depend on nothing but its content and the flags. Each batch carries an idempotency key made
//! of the content's digest and the batch's lines, so a repetition after a kill, a lost answer or by mistake adds nothing.

mod csv;
mod read;
mod send;

use std::path::PathBuf;

use serde::Serialize;

use super::client::{EngineArgs, block_on};
use super::exit::{Exit, Failure};
use super::show;
use crate::config::codes;
use read::{Input, Shape};

/// Load files of events: JSON lines, CSV, or dumps of Debezium messages.
///
/// A JSON line is a message as the source reads it: Gravity's envelope, a CloudEvent, a Debezium change, or with `--event` the
/// payload alone. A row of CSV is a payload whose fields are named by the header. The same file may be imported again: what the
/// log has is not added twice, for as long as it keeps idempotency keys (`dedupe_keep`, 7 days at most), and is counted.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity import orders.jsonl --source web\n  gravity import customers.csv --source web --event customerCreated --key id --json-columns id,active\n  \
                  zcat dump.jsonl.gz | gravity import - --source web --skip-bad --json\n\n\
                  Exit codes: 0 everything is in the log, 1 the engine does not answer or the import was stopped, 2 bad lines or bad usage, 3 done, but lines were skipped."
)]
pub struct Args {
    /// Files that end in `.jsonl`, `.ndjson` or `.csv`, also with `.zst` behind; `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name of an http source, which says how messages are read.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// What the files hold, where the name does not tell.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Name of the event; each line or row is then a payload. Needed for CSV.
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Column of CSV that holds the event key.
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// Columns of CSV whose cells are JSON (numbers, true and false, nested values); all others are text.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    json_columns: Vec<String>,
    /// Leave bad lines out and go on; they are listed. Without it nothing is sent of a file with a line that is no JSON, and
    /// the import ends before the batch that holds an event the source refuses.
    #[arg(long)]
    skip_bad: bool,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jsonl,
    Csv,
}

/// A line that is no event. `line` and `column` count from 1.
#[derive(Clone, Debug, Serialize)]
struct BadLine {
    file: String,
    line: u64,
    column: u64,
    code: String,
    message: String,
}

/// What became of one file.
#[derive(Debug, Default, Serialize)]
struct FileReport {
    file: String,
    /// Records read so far, bad ones included.
    records: u64,
    /// Events of them that the log has now, whether this run added them or an earlier one.
    events: u64,
    /// Of those: the log had them before this run.
    duplicates: u64,
    skipped: u64,
    first: Option<u64>,
    last: Option<u64>,
    /// Every record was dealt with.
    done: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    files: Vec<FileReport>,
    bad: Vec<BadLine>,
}

/// Bad lines that people are shown; `--json` lists all.
const SHOWN: usize = 20;

pub fn run(args: Args) -> Result<Exit, Failure> {
    let mut inputs = Vec::with_capacity(args.files.len());
    for file in &args.files {
        inputs.push(Input::open(file, shape(&args, file)?)?);
    }
    let mut report = Report::default();
    if !args.skip_bad {
        for input in &inputs {
            report.bad.extend(input.syntax_errors()?);
        }
        if !report.bad.is_empty() {
            return finish(&args, &report, Some("nothing was sent"));
        }
    }
    let stopped = block_on(send::all(&args.engine, &args.source, args.skip_bad, &inputs, &mut report));
    match stopped {
        Ok(()) if args.skip_bad || report.bad.is_empty() => finish(&args, &report, None),
        Ok(()) => finish(&args, &report, Some("the import ended before the batch with this line")),
        Err(failure) => {
            tell(&args, &report)?;
            Err(failure)
        }
    }
}

fn shape(args: &Args, file: &std::path::Path) -> Result<Shape, Failure> {
    let name = file.to_string_lossy();
    let bare = name.strip_suffix(".zst").unwrap_or(&name);
    let format = match args.format {
        Some(format) => format,
        None if bare == "-" || [".jsonl", ".ndjson", ".json"].iter().any(|end| bare.ends_with(end)) => Format::Jsonl,
        None if bare.ends_with(".csv") => Format::Csv,
        None if bare.ends_with(".gz") => {
            let message = format!("{name}: gzip is not read");
            return Err(
                Failure::usage(message).hint(format!("zcat {name} | gravity import - --source {}", args.source))
            );
        }
        None => {
            let message = format!("{name}: the name does not tell what the file holds");
            return Err(Failure::usage(message).hint("add --format jsonl or --format csv"));
        }
    };
    match (format, &args.event) {
        (Format::Jsonl, _) if args.key.is_some() || !args.json_columns.is_empty() => {
            Err(Failure::usage(format!("{name}: --key and --json-columns are for CSV"))
                .hint("an event of JSON lines carries its key in the envelope"))
        }
        (Format::Jsonl, event) => Ok(Shape::Lines { event: event.clone() }),
        (Format::Csv, Some(event)) => {
            Ok(Shape::Csv { event: event.clone(), key: args.key.clone(), json_columns: args.json_columns.clone() })
        }
        (Format::Csv, None) => {
            Err(Failure::usage(format!("{name}: a row of CSV does not name its event")).hint("add --event NAME"))
        }
    }
}

/// Says how it went, and why it ended early where it did.
fn finish(args: &Args, report: &Report, ended: Option<&str>) -> Result<Exit, Failure> {
    tell(args, report)?;
    match ended {
        None if report.bad.is_empty() => Ok(Exit::Done),
        None => Ok(Exit::Difference),
        Some(ended) => {
            let lines = match report.bad.len() {
                1 => "1 bad line".to_owned(),
                more => format!("{} bad lines", show::count(more as u64)),
            };
            Err(Failure::usage(format!("{lines}: {ended}"))
                .code(codes::BAD_IMPORT)
                .hint("mend them and import the file again, or leave them out with --skip-bad"))
        }
    }
}

fn tell(args: &Args, report: &Report) -> Result<(), Failure> {
    for bad in report.bad.iter().take(SHOWN) {
        let BadLine { file, line, column, code, message } = bad;
        show::say(&format!("{file}:{line}:{column}: {} ({code})", show::printable(message)));
    }
    if report.bad.len() > SHOWN {
        show::say(&format!("… and {} more", show::count((report.bad.len() - SHOWN) as u64)));
    }
    for file in &report.files {
        let skipped = match file.skipped {
            0 => String::new(),
            skipped => format!(", {} skipped", show::count(skipped)),
        };
        let place = match (file.first, file.last) {
            (Some(first), Some(last)) => format!(", sequences {} to {}", show::count(first), show::count(last)),
            _ => String::new(),
        };
        let events = show::count(file.events);
        let before = match file.duplicates {
            0 => String::new(),
            all if all == file.events => ", all of them were there before".to_owned(),
            some => format!(", {} of them were there before", show::count(some)),
        };
        let state = if file.done { "" } else { ", not to its end" };
        show::say(&format!("{}: {events} events are in the log{before}{skipped}{place}{state}", file.file));
    }
    if args.json { show::json(report) } else { Ok(()) }
}
