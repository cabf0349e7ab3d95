//! `gravity dlq`: what could not be applied or sent, why, and what to do about it.

use std::collections::BTreeSet;

use gravity_engine::status::{DeadLetter, DeadLetterDetail, ReleaseReport};
use serde_json::{Value, json};

use super::client::{Client, EngineArgs, block_on, step};
use super::exit::{Exit, Failure};
use super::show::{self, Rows, figure, text};

/// Dead letters: events that were parked, with their reasons.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// List what is parked now.
    #[command(after_help = "Examples:\n  gravity dlq list\n  gravity dlq list --route db1 --json")]
    List(ListArgs),
    /// Show one dead letter with its event.
    #[command(after_help = "Examples:\n  gravity dlq show 4711\n  gravity dlq show --route db1 4711 --json")]
    Show(ShowArgs),
    /// Try again: the named ones, or all of a route.
    #[command(after_help = "Examples:\n  gravity dlq retry --route db1\n  gravity dlq retry --route db1 4711 4712")]
    Retry(RetryArgs),
    /// Give up on the named ones for good; recorded with your name.
    #[command(
        after_help = "Examples:\n  gravity dlq skip --route db1 4711\n  gravity dlq skip --route ingest 12 13 --json"
    )]
    Skip(SkipArgs),
    /// Print dead letters with their events as JSON lines.
    #[command(
        after_help = "Examples:\n  gravity dlq export > parked.jsonl\n  gravity dlq export --route db1 | jq -r .error"
    )]
    Export(ExportArgs),
}

#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Only of this route; `ingest` holds undecodable input.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(clap::Args, Debug)]
pub struct ExportArgs {
    /// Only of this route; `ingest` holds undecodable input.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    /// Route of the dead letter; may be left out where only one has this sequence.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    sequence: u64,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(clap::Args, Debug)]
pub struct RetryArgs {
    /// Route of the dead letters.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Sequences; none: all of the route.
    sequence: Vec<u64>,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(clap::Args, Debug)]
pub struct SkipArgs {
    /// Route of the dead letters.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    #[arg(required = true)]
    sequence: Vec<u64>,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(command: Command) -> Result<Exit, Failure> {
    block_on(async {
        match command {
            Command::List(args) => list(args).await,
            Command::Show(args) => show_one(args).await,
            Command::Retry(args) => retry(args).await,
            Command::Skip(args) => skip(args).await,
            Command::Export(args) => export(args).await,
        }
    })
}

async fn letters(client: &Client, route: Option<&str>) -> Result<Vec<DeadLetter>, Failure> {
    match route {
        Some(route) => client.get(&format!("/v1/dlq?route={}", step(route))).await,
        None => client.get("/v1/dlq").await,
    }
}

/// The route that was named, or the only one that has these sequences parked.
async fn route_of(client: &Client, named: Option<String>, sequences: &[u64]) -> Result<String, Failure> {
    if let Some(route) = named {
        return Ok(route);
    }
    let letters = letters(client, None).await?;
    let concerned = |letter: &&DeadLetter| sequences.is_empty() || sequences.contains(&letter.sequence);
    let routes: BTreeSet<&str> = letters.iter().filter(concerned).map(|letter| letter.route.as_str()).collect();
    match routes.len() {
        1 => Ok(routes.into_iter().next().unwrap_or_default().to_owned()),
        0 if sequences.is_empty() => Err(Failure::usage("nothing is parked").hint("`gravity dlq list` shows what is")),
        0 => Err(Failure::usage("no route has these sequences parked").hint("`gravity dlq list` shows what is")),
        _ => {
            let names: Vec<&str> = routes.into_iter().collect();
            Err(Failure::usage(format!("several routes are concerned: {}", names.join(", ")))
                .hint("name one with --route"))
        }
    }
}

async fn list(args: ListArgs) -> Result<Exit, Failure> {
    let client = args.engine.connect()?;
    let letters = letters(&client, args.route.as_deref()).await?;
    if args.json {
        show::json(&letters)?;
        return Ok(Exit::Done);
    }
    if letters.is_empty() {
        show::say("nothing is parked");
        return Ok(Exit::Done);
    }
    let columns = [
        text("ROUTE"),
        figure("SEQUENCE"),
        text("EVENT"),
        text("KEY"),
        text("STAGE"),
        text("CODE"),
        text("RULE"),
        text("ERROR"),
    ];
    let mut rows = Rows::new(&columns);
    for letter in &letters {
        let error =
            if letter.waiting { "waits behind an earlier one of its key".to_owned() } else { shorten(&letter.error) };
        rows.add([
            letter.route.clone(),
            show::count(letter.sequence),
            letter.event.clone(),
            letter.key.clone().unwrap_or_else(|| "-".to_owned()),
            letter.stage.clone(),
            if letter.waiting { "waiting".to_owned() } else { letter.code.clone() },
            letter.rule.clone().unwrap_or_else(|| "-".to_owned()),
            error,
        ]);
    }
    show::print(&rows.render())?;
    let waiting = letters.iter().filter(|letter| letter.waiting).count();
    show::say(&format!("{} failed, {waiting} waiting", letters.len() - waiting));
    Ok(Exit::Done)
}

/// One line of a peer's words; `dlq show` has the whole.
fn shorten(error: &str) -> String {
    let line: String = error.chars().take(100).collect();
    if line.len() < error.len() { line + "…" } else { line }
}

async fn show_one(args: ShowArgs) -> Result<Exit, Failure> {
    let client = args.engine.connect()?;
    let route = route_of(&client, args.route, &[args.sequence]).await?;
    let detail: DeadLetterDetail = client.get(&format!("/v1/dlq/{}/{}", step(&route), args.sequence)).await?;
    if args.json {
        show::json(&detail)?;
        return Ok(Exit::Done);
    }
    let DeadLetterDetail { letter, record } = &detail;
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let facts = [
        ("route", letter.route.clone()),
        ("sequence", show::count(letter.sequence)),
        ("event", letter.event.clone()),
        ("key", or_none(&letter.key)),
        ("parked", letter.parked_at.clone()),
        ("stage", letter.stage.clone()),
        ("code", letter.code.clone()),
        ("rule", or_none(&letter.rule)),
        ("error", letter.error.clone()),
    ];
    let mut lines: Vec<String> =
        facts.into_iter().map(|(name, value)| format!("{name:<10}{}", show::printable(&value))).collect();
    if let Some(record) = record {
        lines.push(format!("{:<10}{} at {}", "received", record.source, record.received));
        lines.push(match (&record.payload, &record.raw) {
            (Some(payload), _) => format!("\n{}", payload.get()),
            (None, raw) => format!("\nbase64:{}", or_none(raw)),
        });
    }
    show::print(&lines.join("\n"))?;
    if crate::config::codes::page(&letter.code).is_some() {
        show::say(&format!("gravity explain {} tells what it means and how to mend it", letter.code));
    }
    Ok(Exit::Done)
}

async fn retry(args: RetryArgs) -> Result<Exit, Failure> {
    let client = args.engine.connect()?;
    let route = route_of(&client, args.route, &args.sequence).await?;
    let sequences = if args.sequence.is_empty() { Value::Null } else { json!(args.sequence) };
    let body = json!({"sequences": sequences});
    let report: ReleaseReport = client.post(&format!("/v1/dlq/{}/retry", step(&route)), &body).await?;
    tell(&report, &route, args.json)
}

async fn skip(args: SkipArgs) -> Result<Exit, Failure> {
    let client = args.engine.connect()?;
    let route = route_of(&client, args.route, &args.sequence).await?;
    let body = json!({"sequences": args.sequence});
    let report: ReleaseReport = client.post(&format!("/v1/dlq/{}/skip", step(&route)), &body).await?;
    tell(&report, &route, args.json)
}

/// Done is done even if some park again: the report says how many (INTERFACE 4).
fn tell(report: &ReleaseReport, route: &str, as_json: bool) -> Result<Exit, Failure> {
    if as_json {
        show::json(report)?;
        return Ok(Exit::Done);
    }
    show::say(&format!(
        "{route}: {} released, {} skipped, {} parked again (record {})",
        report.released.len(),
        report.skipped.len(),
        report.parked_again.len(),
        show::count(report.record)
    ));
    for blocked in &report.blocked {
        show::say(&format!(
            "{} did not run: it waits behind {}; retry or skip that one first",
            show::count(blocked.sequence),
            show::count(blocked.behind)
        ));
    }
    for why in &report.reasons {
        show::say(&format!("{}: {} [{}]", show::count(why.sequence), why.error, why.code));
    }
    Ok(Exit::Done)
}

async fn export(args: ExportArgs) -> Result<Exit, Failure> {
    let client = args.engine.connect()?;
    for letter in letters(&client, args.route.as_deref()).await? {
        let detail: DeadLetterDetail =
            client.get(&format!("/v1/dlq/{}/{}", step(&letter.route), letter.sequence)).await?;
        show::json_line(&detail)?;
    }
    Ok(Exit::Done)
}
