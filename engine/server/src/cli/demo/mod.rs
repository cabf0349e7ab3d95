//! `gravity demo`: the whole chain in one process, nothing to configure: shop, log, rules, SQLite, an HTTP target.

mod folder;
mod panel;
mod rows;
mod shop;
mod target;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gravity_engine::status::{Outcome, RouteStatus, Status};
use gravity_engine::{Engine, Intake, IntakeError, IntakeRequest};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::folder::Folder;
use self::panel::Panel;
use self::shop::Shop;
use super::exit::{Exit, Failure};
use super::run::{Signals, largest_body, open_log, sound};
use super::show;
use super::status::balanced;
use crate::config::{Config, Flags};
use crate::http::{Api, Bound};
use crate::{assembly, platform};

/// Show the whole chain at work, embedded: no server, nothing to configure.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gravity demo\n  gravity demo --events 100000\n\n\
                        Leaves its folder: config, event log, SQLite file.")]
pub struct Args {
    /// End by itself after so many events, once everything is in step.
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Folder to make; `gravity-demo`, or the first free `gravity-demo-N`, without it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Events per second; as fast as it goes with --events, 2,000 without.
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// Seed of the shop: the same seed gives the same events.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What was done, as one JSON document on stdout.
    #[arg(long)]
    json: bool,
}

/// Events of one request.
const BATCH: u64 = 500;

/// Rate of a demo that runs until Ctrl-C.
const CALM_RATE: u64 = 2_000;

pub fn run(args: Args) -> Result<Exit, Failure> {
    platform::private_files();
    platform::frugal_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start a runtime").because(&error))?;
    let exit = runtime.block_on(demo(&args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

async fn demo(args: &Args) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let folder = Folder::create(args.dir.as_deref())?;
    let mut servers = JoinSet::new();
    let (told, target) = target::listen(&mut servers, folder.database()).await?;
    let (config, port) = configure(&folder, target).await?;
    let (rules, _) = sound(&config)?;
    let api = Api::new(&[], largest_body(&config));
    let bound = Bound::on(port, &config.settings);
    let bound = bound.map_err(|error| Failure::failed("the API cannot start").because(&error))?;
    let url = bound.url();
    let stop = CancellationToken::new();
    servers.spawn(bound.serve(api.clone(), stop.clone()));
    let log = open_log(&config).await?;
    let parts = assembly::parts(&config, rules, log, "demo", true)
        .map_err(|fault| Failure::failed(fault.to_string()).because(&fault))?;
    let engine =
        Engine::start(parts).await.map_err(|error| Failure::failed("the demo does not start").because(&error))?;
    api.set_engine(engine.clone());
    let intake = engine.intake("shop").ok_or_else(|| Failure::failed("the demo has no source"))?;
    show::say(&format!(
        "a shop's events -> event log -> rules -> {} -> HTTP target {target}\nAPI {url}, folder {}\n",
        folder.database().display(),
        folder.path.display()
    ));

    let began = Instant::now();
    let mut panel = Panel::new();
    let (sent, stopped) = {
        let sending = send(args, &engine, &intake, &told, &mut panel);
        tokio::select! {
            sent = sending => (sent?, false),
            _ = signals.end() => (engine.status().sources.iter().map(|source| source.received).sum(), true),
        }
    };
    let outcome = in_step(&engine, &told, sent, &mut panel, &mut signals).await;
    let took = began.elapsed();
    let status = engine.status();
    panel.finish(&status, sent, told.messages());
    engine.shutdown().await;
    stop.cancel();
    if let Some(Outcome::Stopped { what }) = &outcome {
        return Err(Failure::failed(format!("the demo cannot get in step: {what}")));
    }
    report(args, &folder, &status, sent, &told, took, stopped).await?;
    if told.missing() > 0 {
        return Err(Failure::failed("a message came before its row: this is a bug"));
    }
    Ok(match outcome {
        Some(Outcome::InStepWithNewDeadLetters) => Exit::Difference,
        _ => Exit::Done,
    })
}

/// Writes the config and reads it back: the demo runs what it leaves. Its API's port is held from here on.
async fn configure(folder: &Folder, target: std::net::SocketAddr) -> Result<(Config, TcpListener), Failure> {
    // The usual port, so that the commands find the engine; another one where that is taken.
    let cannot = |error: std::io::Error| Failure::failed("the demo finds no free port").because(&error);
    let port = match TcpListener::bind(("127.0.0.1", 7420)).await {
        Ok(usual) => usual,
        Err(_) => TcpListener::bind(("127.0.0.1", 0)).await.map_err(cannot)?,
    };
    folder.write(target, port.local_addr().map_err(cannot)?)?;
    Ok((Config::load(&folder.path, &Flags::new()), port))
}

/// Publishes batches at the wanted rate, as any producer would: through the intake, each answered once it is durable.
async fn send(
    args: &Args,
    engine: &Engine,
    intake: &Intake,
    told: &target::Told,
    panel: &mut Panel,
) -> Result<u64, Failure> {
    let (mut shop, mut sent, began) = (Shop::new(args.seed), 0u64, Instant::now());
    let rate = args.rate.or(if args.events.is_some() { None } else { Some(CALM_RATE) });
    let batch = rate.map_or(BATCH, |rate| (rate / 20).clamp(1, BATCH));
    while args.events.is_none_or(|events| sent < events) {
        let count = args.events.map_or(batch, |events| batch.min(events - sent));
        let mut body = String::new();
        (0..count).for_each(|_| shop.next_line(&mut body));
        publish(intake, Bytes::from(body)).await?;
        sent += count;
        panel.draw(&engine.status(), sent, told.messages());
        if let Some(rate) = rate.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    Ok(sent)
}

async fn publish(intake: &Intake, body: Bytes) -> Result<(), Failure> {
    let request = IntakeRequest { content_type: Some("application/x-ndjson".to_owned()), headers: Vec::new(), body };
    loop {
        match intake.submit(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(IntakeError::Busy) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(Failure::failed("an event was not taken").because(&error)),
        }
    }
}

/// Waits until everything is in step; `None` when a signal came first.
async fn in_step(
    engine: &Engine,
    told: &target::Told,
    sent: u64,
    panel: &mut Panel,
    signals: &mut Signals,
) -> Option<Outcome> {
    let finished = engine.finished();
    tokio::pin!(finished);
    loop {
        let period = panel.period();
        tokio::select! {
            outcome = &mut finished => return Some(outcome),
            _ = signals.end() => return None,
            () = tokio::time::sleep(period) => panel.draw(&engine.status(), sent, told.messages()),
        }
    }
}

/// What was done, and what to try next.
async fn report(
    args: &Args,
    folder: &Folder,
    status: &Status,
    sent: u64,
    told: &target::Told,
    took: Duration,
    stopped: bool,
) -> Result<(), Failure> {
    let Some(route) = status.routes.first() else { return Err(Failure::failed("the demo has no route")) };
    let tries = tries(folder);
    let database = folder.database();
    if args.json {
        let document = json!({
            "folder": folder.path, "database": database, "data": folder.data(), "seconds": took.as_secs_f64(), "sent": sent,
            "route": route, "balanced": balanced(route), "delivered": told.messages(), "repeated": told.repeated(), "looked_up": told.looked_up(), "missing": told.missing(),
            "next": tries,
        });
        return show::json(&document);
    }
    let rate = show::rate(route.read, took);
    let mut lines = vec![
        String::new(),
        format!(
            "{} events in {}: {} a second{}",
            show::count(sent),
            show::age(took),
            rate.trim_end_matches("/s"),
            if stopped { ", until you stopped it" } else { ", from the shop to the row" }
        ),
        format!("  {:<18}{}", "views", rows::counts(&database).await?),
        format!(
            "  {:<18}{}, {} repeated; {} looked into the view on arrival: {}",
            "messages",
            show::count(told.messages()),
            show::count(told.repeated()),
            show::count(told.looked_up()),
            if told.missing() == 0 {
                "every row was there".to_owned()
            } else {
                format!("{} rows MISSING", told.missing())
            }
        ),
        format!("  {:<18}{}", "balance", balance(route)),
        String::new(),
        "the first orders in the view:".to_owned(),
    ];
    lines.extend(rows::first_orders(&database).await?.lines().map(|line| format!("  {line}")));
    lines.extend([
        String::new(),
        format!("{} holds config and event log, {} the views. Try next:", folder.path.display(), database.display()),
    ]);
    lines.extend(tries.iter().map(|command| format!("  {command}")));
    show::print(&lines.join("\n"))
}

/// The identity of P4 in figures.
fn balance(route: &RouteStatus) -> String {
    format!(
        "read {} = applied {} + filtered {} + unmatched {} + parked {} + skipped {}: {}",
        show::count(route.read),
        show::count(route.applied),
        show::count(route.filtered),
        show::count(route.unmatched),
        show::count(route.parked),
        show::count(route.skipped),
        if balanced(route) { "nothing disappeared" } else { "WRONG, this is a bug" }
    )
}

/// Commands that work as they stand, whatever directory the binary is in.
fn tries(folder: &Folder) -> Vec<String> {
    let typed = std::env::args().next().unwrap_or_default();
    let gravity = if typed.contains('/') { quoted(&typed) } else { "gravity".to_owned() };
    let (config, data) = (quoted(&folder.path.display().to_string()), quoted(&folder.data().display().to_string()));
    vec![
        format!("{gravity} log tail -n 5 --data {data}"),
        format!("{gravity} check --live -c {config}"),
        format!("{gravity} log verify --data {data}"),
    ]
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
