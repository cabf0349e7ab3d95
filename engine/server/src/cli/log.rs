//! `gravity log`: what the event log holds, of a running engine or of a stopped one's directory.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gravity_engine::status::{EventView, Status};
use gravity_log::{EventLog, LogError, ReadLimits, SequenceRange, Verified};
use gravity_model::Sequence;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, EngineArgs, block_on};
use super::exit::{Exit, Failure};
use super::show::{self, Paint};

/// The event log. With `--data DIR` also of a stopped engine.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Size and extent of the log.
    #[command(after_help = "Examples:\n  gravity log stat\n  gravity log stat --data shop/data --json")]
    Stat(StatArgs),
    /// The newest events; with `-f` also those that come.
    #[command(after_help = "Examples:\n  gravity log tail -n 5\n  gravity log tail -f --json | jq .event")]
    Tail(TailArgs),
    /// One event, whole.
    #[command(after_help = "Examples:\n  gravity log get 4711\n  gravity log get 4711 --data shop/data --json")]
    Get(GetArgs),
    /// Read everything again: checksums, digest chain, gapless sequences.
    #[command(
        after_help = "Examples:\n  gravity log verify\n  gravity log verify --data shop/data --from 1000\n\nExit code 3 when something is damaged."
    )]
    Verify(VerifyArgs),
    /// Events as JSON lines.
    #[command(
        after_help = "Examples:\n  gravity log export > events.jsonl\n  gravity log export --from 1000 --to 2000 --data shop/data"
    )]
    Export(ExportArgs),
}

#[derive(clap::Args, Debug)]
struct Place {
    /// Data directory of a stopped engine.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    data: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(clap::Args, Debug)]
pub struct StatArgs {
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args, Debug)]
pub struct TailArgs {
    /// How many.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    lines: u64,
    /// Wait for more until Ctrl-C.
    #[arg(short = 'f', long, conflicts_with = "data")]
    follow: bool,
    /// JSON lines on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args, Debug)]
pub struct GetArgs {
    sequence: u64,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// First sequence; the beginning of the log without it.
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
    /// Last sequence; the end of the log without it.
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args, Debug)]
pub struct ExportArgs {
    /// First sequence.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// Last sequence; the end of the log without it.
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,
    #[command(flatten)]
    place: Place,
}

/// Where events are read from.
enum Reader {
    Engine(Box<Client>),
    Directory(Arc<dyn EventLog>),
}

/// Events of one request or read.
const PAGE: usize = 1_000;

pub fn run(command: Command) -> Result<Exit, Failure> {
    block_on(async {
        match command {
            Command::Stat(args) => stat(args).await,
            Command::Tail(args) => tail(args).await,
            Command::Get(args) => get(args).await,
            Command::Verify(args) => verify(args).await,
            Command::Export(args) => export(args).await,
        }
    })
}

impl Place {
    fn open(&self) -> Result<Reader, Failure> {
        match &self.data {
            Some(directory) => Ok(Reader::Directory(open_directory(directory)?)),
            None => Ok(Reader::Engine(Box::new(self.engine.connect()?))),
        }
    }
}

fn open_directory(directory: &Path) -> Result<Arc<dyn EventLog>, Failure> {
    gravity_log::open_read_only(directory).map_err(|error| log_failure(&error))
}

/// A log that cannot be opened, read or written, with the exit code that scripts rely on.
pub fn log_failure(error: &LogError) -> Failure {
    let failure = |exit| Failure::new(exit, format!("{error}"));
    match error {
        LogError::Locked { .. } => failure(Exit::Refused)
            .hint("an engine is running on this directory: ask it instead, without --data, or stop it first"),
        LogError::Refused { .. } => failure(Exit::Refused).hint("nothing was changed"),
        LogError::Damaged { .. } => {
            failure(Exit::Failed).hint("nothing was changed; `gravity log verify --data DIR` names every damaged range")
        }
        LogError::WriteFailed { .. } => failure(Exit::Disk),
        LogError::OutOfRange { .. } => failure(Exit::Usage),
        _ => failure(Exit::Failed),
    }
}

#[derive(Deserialize)]
struct Page {
    events: Vec<EventView>,
}

impl Reader {
    async fn events(&self, after: u64, limit: usize) -> Result<Vec<EventView>, Failure> {
        match self {
            Reader::Engine(client) => {
                let page: Page = client.get(&format!("/v1/events?after={after}&limit={limit}")).await?;
                Ok(page.events)
            }
            Reader::Directory(log) => {
                let limits = ReadLimits { events: limit, bytes: 8 << 20 };
                let blocks = log.read(Sequence(after), limits).map_err(|error| log_failure(&error))?;
                let recorded = blocks.iter().flat_map(|block| block.iter());
                let behind = recorded.filter(|recorded| recorded.sequence.get() > after);
                Ok(behind.take(limit).map(|recorded| EventView::of(&recorded)).collect())
            }
        }
    }

    async fn last(&self) -> Result<u64, Failure> {
        match self {
            Reader::Engine(client) => Ok(client.get::<Status>("/v1/status").await?.log.last),
            Reader::Directory(log) => Ok(log.stat().last.get()),
        }
    }
}

async fn stat(args: StatArgs) -> Result<Exit, Failure> {
    let document = match args.place.open()? {
        Reader::Engine(client) => {
            let status: Status = client.get("/v1/status").await?;
            json!(status.log)
        }
        Reader::Directory(log) => {
            let stat = log.stat();
            json!({
                "id": log.identity().log_id, "first": stat.first, "last": stat.last, "bytes": stat.bytes,
                "hot_bytes": stat.hot_bytes, "hot_generations": stat.hot_generations, "segments": stat.segments,
                "blocks": stat.blocks, "dedupe_entries": stat.dedupe_entries, "dedupe_from": stat.dedupe_from,
            })
        }
    };
    if args.json {
        show::json(&document)?;
        return Ok(Exit::Done);
    }
    let mut lines = Vec::new();
    for (name, value) in document.as_object().into_iter().flatten() {
        let shown = match (name.as_str(), value.as_u64()) {
            ("bytes" | "hot_bytes", Some(bytes)) => show::bytes(bytes),
            (_, Some(number)) => show::count(number),
            _ => show::printable(value.as_str().unwrap_or_default()),
        };
        lines.push(format!("{name:<16}{shown:>36}"));
    }
    show::print(&lines.join("\n"))?;
    Ok(Exit::Done)
}

/// One event on one line.
fn line(event: &EventView) -> String {
    let payload = match (&event.payload, &event.raw) {
        (Some(payload), _) => payload.get().split_whitespace().collect::<Vec<_>>().join(" "),
        (None, Some(raw)) => format!("base64:{raw}"),
        (None, None) => String::new(),
    };
    let mut shown: String = payload.chars().take(120).collect();
    if shown.len() < payload.len() {
        shown.push('…');
    }
    let key = event.key.as_deref().map_or_else(String::new, |key| format!(" key={key}"));
    let name = if event.event.is_empty() { "(undecodable)" } else { &event.event };
    show::printable(&format!(
        "{:>10}  {}  {} {name}{key}  {shown}",
        show::count(event.sequence),
        event.received,
        event.source
    ))
}

fn put(event: &EventView, as_json: bool) -> Result<(), Failure> {
    if as_json { show::json_line(event) } else { show::print(&line(event)) }
}

async fn tail(args: TailArgs) -> Result<Exit, Failure> {
    let reader = args.place.open()?;
    let mut after = reader.last().await?.saturating_sub(args.lines);
    loop {
        let events = reader.events(after, PAGE).await?;
        for event in &events {
            put(event, args.json)?;
            after = event.sequence;
        }
        if events.len() == PAGE {
            continue;
        }
        if !args.follow {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

async fn get(args: GetArgs) -> Result<Exit, Failure> {
    let reader = args.place.open()?;
    let found = reader.events(args.sequence.saturating_sub(1), 1).await?;
    let Some(event) = found.into_iter().find(|event| event.sequence == args.sequence) else {
        let last = reader.last().await?;
        let message = format!("sequence {} is not in the log; the last one is {last}", args.sequence);
        return Err(Failure::usage(message));
    };
    if args.json {
        show::json(&event)?;
        return Ok(Exit::Done);
    }
    let opt = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![
        ("sequence", show::count(event.sequence)),
        ("event", event.event.clone()),
        ("source", event.source.clone()),
        ("key", opt(&event.key)),
        ("id", opt(&event.id)),
        ("time", opt(&event.time)),
        ("received", event.received.clone()),
    ];
    lines.extend(event.traceparent.clone().map(|value| ("traceparent", value)));
    lines.extend(event.actor.clone().map(|value| ("actor", value)));
    lines.extend(event.causation.map(|sequence| ("causation", show::count(sequence))));
    lines.extend(event.headers.iter().map(|(name, value)| ("header", format!("{name}: {value}"))));
    let mut text: Vec<String> =
        lines.into_iter().map(|(name, value)| format!("{name:<12}{}", show::printable(&value))).collect();
    text.push(match (&event.payload, &event.raw) {
        (Some(payload), _) => format!("\n{}", payload.get()),
        (None, raw) => format!("\nbase64:{}", opt(raw)),
    });
    show::print(&text.join("\n"))?;
    Ok(Exit::Done)
}

/// The outcome of a verification as `log verify --json` and the API show it.
pub fn verified_document(verified: &Verified) -> Value {
    let bad = |(what, range, why): &(String, SequenceRange, String)| json!({"what": what, "first": range.first, "last": range.last, "why": why});
    json!({
        "blocks": verified.blocks, "events": verified.events, "bytes": verified.bytes,
        "head": verified.head.to_string(), "bad": verified.bad.iter().map(bad).collect::<Vec<_>>(),
    })
}

/// The range between two optional ends; `None` is everything, the chain of history included.
pub fn range_of(log: &dyn EventLog, from: Option<u64>, to: Option<u64>) -> Option<SequenceRange> {
    if from.is_none() && to.is_none() {
        return None;
    }
    let stat = log.stat();
    let first = from.map_or(stat.first, Sequence);
    let last = to.map_or(stat.last, |to| Sequence(to.min(stat.last.get())));
    Some(SequenceRange { first, last })
}

async fn verify(args: VerifyArgs) -> Result<Exit, Failure> {
    let document = match args.place.open()? {
        Reader::Engine(client) => client.post("/v1/log/verify", &json!({"from": args.from, "to": args.to})).await?,
        Reader::Directory(log) => {
            let range = range_of(&*log, args.from, args.to);
            let bar = progress(log.stat().last.get());
            let verified =
                log.verify(range, &mut |done| bar.set_position(done)).map_err(|error| log_failure(&error))?;
            bar.finish_and_clear();
            verified_document(&verified)
        }
    };
    let bad = document["bad"].as_array().cloned().unwrap_or_default();
    if args.json {
        show::json(&document)?;
    } else {
        let number = |name: &str| document[name].as_u64().unwrap_or(0);
        let summary = format!(
            "{} events in {} blocks, {}; chain head {}",
            show::count(number("events")),
            show::count(number("blocks")),
            show::bytes(number("bytes")),
            document["head"].as_str().unwrap_or_default()
        );
        show::print(&summary)?;
        for damage in &bad {
            let text = |name: &str| show::printable(damage[name].as_str().unwrap_or_default());
            let (first, last) = (damage["first"].as_u64().unwrap_or(0), damage["last"].as_u64().unwrap_or(0));
            let what = Paint::stdout().red(&format!("damaged: {}", text("what")));
            show::print(&format!("{what} {}..={}: {}", show::count(first), show::count(last), text("why")))?;
        }
        if bad.is_empty() {
            show::say("nothing is damaged, nothing is missing");
        }
    }
    Ok(if bad.is_empty() { Exit::Done } else { Exit::Difference })
}

/// A bar on stderr where that is a terminal.
fn progress(of: u64) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(of);
    let style = "{bar:32} {human_pos} of {human_len} events, {per_sec}, {eta} left";
    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

async fn export(args: ExportArgs) -> Result<Exit, Failure> {
    let reader = args.place.open()?;
    let end = match args.to {
        Some(last) => last,
        None => reader.last().await?,
    };
    let mut after = args.from.saturating_sub(1);
    while after < end {
        let events = reader.events(after, PAGE).await?;
        let Some(newest) = events.last().map(|event| event.sequence) else { break };
        for event in events.iter().take_while(|event| event.sequence <= end) {
            show::json_line(event)?;
        }
        after = newest;
    }
    Ok(Exit::Done)
}
