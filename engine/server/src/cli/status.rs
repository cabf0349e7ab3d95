//! `gravity status`: how the engine is doing, in figures that a person can read at 3 a.m.

use std::time::{Duration, Instant};

use gravity_engine::status::{RouteStatus, RunState, Status};

use super::client::{Client, EngineArgs, block_on};
use super::exit::{Exit, Failure};
use super::show::{self, Paint, Rows, figure, text};

/// Show sources, log, routes and exporters: rates, lag in events and time, the balance of events.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity status\n  gravity status --watch\n  gravity status --json | jq '.routes[] | {name, lag_events}'"
)]
pub struct Args {
    /// Show it again every second until Ctrl-C; with `--json` one line each.
    #[arg(long)]
    watch: bool,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Two looks this far apart give the rates.
const LOOK_AGAIN: Duration = Duration::from_millis(400);

pub fn run(args: &Args) -> Result<Exit, Failure> {
    block_on(async {
        let client = args.engine.connect()?;
        match (args.watch, args.json) {
            (false, true) => show::json(&look(&client).await?)?,
            (false, false) => {
                let (first, at) = (look(&client).await?, Instant::now());
                tokio::time::sleep(LOOK_AGAIN).await;
                let now = look(&client).await?;
                show::print(&page(&now, Some((&first, at.elapsed())), Paint::stdout()))?;
            }
            (true, as_json) => watch(&client, as_json).await?,
        }
        Ok(Exit::Done)
    })
}

async fn look(client: &Client) -> Result<Status, Failure> {
    client.get("/v1/status").await
}

async fn watch(client: &Client, as_json: bool) -> Result<(), Failure> {
    let paint = Paint::stdout();
    let mut before: Option<(Status, Instant)> = None;
    loop {
        let now = look(client).await?;
        if as_json {
            show::json_line(&now)?;
        } else {
            let page = page(&now, before.as_ref().map(|(status, at)| (status, at.elapsed())), paint);
            // Home and clear below instead of clear all: no flicker.
            let page = if paint.is_on() { format!("\x1b[H\x1b[J{page}") } else { page + "\n" };
            show::print(&page)?;
        }
        before = Some((now, Instant::now()));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// The whole page. `before` gives rates.
pub fn page(now: &Status, before: Option<(&Status, Duration)>, paint: Paint) -> String {
    let mut parts = vec![log_line(now, before, paint)];
    if !now.sources.is_empty() {
        parts.push(sources(now, before));
    }
    if !now.routes.is_empty() {
        parts.push(routes(now, before));
        parts.push(balances(now));
    }
    if !now.exporters.is_empty() {
        parts.push(exporters(now, before));
    }
    let troubles = troubles(now, paint);
    if !troubles.is_empty() {
        parts.push(troubles.join("\n"));
    }
    parts.join("\n\n")
}

fn log_line(now: &Status, before: Option<(&Status, Duration)>, paint: Paint) -> String {
    let log = &now.log;
    let rate = before.map_or_else(String::new, |(status, over)| {
        format!(", {}", show::rate(log.last.saturating_sub(status.log.last), over))
    });
    let state = if log.state == "running" { paint.green(&log.state) } else { paint.red(&show::printable(&log.state)) };
    format!(
        "{} {state}  {}..{}{rate}  {} in {} segments and {} hot  rules {}  id {}",
        paint.bold("log"),
        show::count(log.first),
        show::count(log.last),
        show::bytes(log.bytes),
        log.segments,
        show::bytes(log.hot_bytes),
        log.rules,
        log.id
    )
}

fn state_word(state: RunState) -> String {
    match state {
        RunState::Degraded => "backing off".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn sources(now: &Status, before: Option<(&Status, Duration)>) -> String {
    let columns = [
        text("SOURCE"),
        text("TYPE"),
        text("STATE"),
        figure("RECEIVED"),
        figure("RATE"),
        figure("DUPLICATES"),
        figure("LAG"),
    ];
    let mut rows = Rows::new(&columns);
    for source in &now.sources {
        let was = before.and_then(|(status, over)| {
            let earlier = status.sources.iter().find(|s| s.name == source.name)?;
            Some(show::rate(source.received.saturating_sub(earlier.received), over))
        });
        rows.add([
            source.name.clone(),
            source.kind.clone(),
            state_word(source.state),
            show::count(source.received),
            was.unwrap_or_else(|| "-".to_owned()),
            show::count(source.duplicates),
            source.lag_events.map_or_else(|| "-".to_owned(), show::count),
        ]);
    }
    rows.render()
}

fn routes(now: &Status, before: Option<(&Status, Duration)>) -> String {
    let columns = [
        text("ROUTE"),
        text("TYPE"),
        text("STATE"),
        figure("CHECKPOINT"),
        figure("RATE"),
        figure("LAG"),
        figure("BEHIND"),
    ];
    let mut rows = Rows::new(&columns);
    for route in &now.routes {
        let was = before.and_then(|(status, over)| {
            let earlier = status.routes.iter().find(|r| r.name == route.name)?;
            Some(show::rate(route.read.saturating_sub(earlier.read), over))
        });
        rows.add([
            route.name.clone(),
            route.kind.clone(),
            state_word(route.state),
            show::count(route.checkpoint),
            was.unwrap_or_else(|| "-".to_owned()),
            show::count(route.lag_events),
            show::age_of(route.lag_seconds),
        ]);
    }
    rows.render()
}

/// Where every event of every route went: a table of its own, so that both fit into a terminal.
fn balances(now: &Status) -> String {
    let columns = [
        text("ROUTE"),
        figure("READ"),
        figure("= APPLIED"),
        figure("+ FILTERED"),
        figure("+ UNMATCHED"),
        figure("+ PARKED"),
        figure("+ SKIPPED"),
        text("BALANCE"),
    ];
    let mut rows = Rows::new(&columns);
    for route in &now.routes {
        rows.add([
            route.name.clone(),
            show::count(route.read),
            show::count(route.applied),
            show::count(route.filtered),
            show::count(route.unmatched),
            show::count(route.parked),
            show::count(route.skipped),
            if balanced(route) { "ok".to_owned() } else { "WRONG".to_owned() },
        ]);
    }
    rows.render()
}

/// The identity of P4.
pub fn balanced(route: &RouteStatus) -> bool {
    route.parked == route.failed + route.waiting
        && route.read == route.applied + route.filtered + route.unmatched + route.parked + route.skipped
}

fn exporters(now: &Status, before: Option<(&Status, Duration)>) -> String {
    let columns = [
        text("EXPORTER"),
        text("ROUTE"),
        text("TYPE"),
        text("STATE"),
        figure("CURSOR"),
        figure("LAG"),
        figure("BEHIND"),
        figure("DELIVERED"),
        figure("RATE"),
        figure("PARKED"),
    ];
    let mut rows = Rows::new(&columns);
    for exporter in &now.exporters {
        let was = before.and_then(|(status, over)| {
            let same =
                |e: &&gravity_engine::status::SubscriptionStatus| e.name == exporter.name && e.route == exporter.route;
            let earlier = status.exporters.iter().find(same)?;
            Some(show::rate(exporter.delivered.saturating_sub(earlier.delivered), over))
        });
        rows.add([
            exporter.name.clone(),
            exporter.route.clone(),
            exporter.kind.clone(),
            state_word(exporter.state),
            show::count(exporter.cursor),
            show::count(exporter.lag_events),
            show::age_of(exporter.lag_seconds),
            show::count(exporter.delivered),
            was.unwrap_or_else(|| "-".to_owned()),
            show::count(exporter.parked),
        ]);
    }
    rows.render()
}

/// What needs a person, with the command that helps.
fn troubles(now: &Status, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tell = |what: String, error: &str| lines.push(format!("{} {}", paint.red(&what), show::printable(error)));
    for source in &now.sources {
        if let Some(error) = &source.error {
            tell(format!("source {}:", source.name), error);
        }
    }
    for route in &now.routes {
        if let Some(error) = &route.error {
            tell(format!("route {}:", route.name), error);
        }
        if route.parked > 0 {
            let line = format!(
                "{} failed and {} waiting (at most {} behind one key): gravity dlq list --route {}",
                show::count(route.failed),
                show::count(route.waiting),
                show::count(route.widest_blocked),
                route.name
            );
            tell(format!("route {}:", route.name), &line);
        }
        if !balanced(route) {
            tell(format!("route {}:", route.name), "events are missing from the balance: this is a bug of Gravity");
        }
    }
    for exporter in &now.exporters {
        if let Some(error) = &exporter.error {
            tell(format!("exporter {} of {}:", exporter.name, exporter.route), error);
        }
        if exporter.parked > 0 {
            let name = format!("{}@{}", exporter.name, exporter.route);
            let line = format!("{} messages parked: gravity dlq list --route {name}", show::count(exporter.parked));
            tell(format!("exporter {} of {}:", exporter.name, exporter.route), &line);
        }
    }
    lines
}
