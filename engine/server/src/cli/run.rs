//! `gravity run`: the engine, from config to the last sync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_engine::status::Outcome;
use gravity_engine::{Engine, StartError};
use gravity_log::EventLog;
use gravity_model::Sequence;
use gravity_rules::RuleSet;
use gravity_rules::diagnose::{Findings, Severity, render};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::flags::{ConfigDirectory, SettingFlags};
use super::log::log_failure;
use super::show::{self, Paint};
use crate::config::Config;
use crate::http::{Api, Bound};
use crate::{assembly, messages, platform, reload};

/// Run the engine until a signal, or until everything is in step.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity run -c shop\n  gravity run -c shop --data /var/lib/gravity --listen 127.0.0.1:7421\n  \
                        gravity run -c shop --stop-at-end\n  gravity run -c shop --from 1200000\n\n\
                        SIGTERM and Ctrl-C drain in order within 20 s, a second one ends at once. SIGHUP reads the config again."
)]
pub struct Args {
    #[command(flatten)]
    directory: ConfigDirectory,
    /// End once every source is read to its present end and everything is in step: exit code 0, or 3 with new dead letters.
    #[arg(long)]
    stop_at_end: bool,
    /// Views, databases and exporters that have no position yet begin at this event, instead of the log's beginning (exporters:
    /// the change that added them). Those that have one go on from there.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    #[command(flatten)]
    flags: SettingFlags,
}

/// Longest orderly end; what is not done then is done again after the next start.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

pub fn run(args: Args) -> Result<Exit, Failure> {
    // Everything synchronous happens before a second thread exists.
    platform::private_files();
    platform::no_core_dumps();
    platform::frugal_memory();
    let config = Config::load(&args.directory.config, &args.flags.0);
    let (rules, warnings) = sound(&config)?;
    messages::start(config.settings.level(), config.settings.json_messages());
    abort_on_panic();
    warn_of(&warnings);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("gravity")
        .build()
        .map_err(|error| Failure::failed("cannot start a runtime").because(&error))?;
    let exit = runtime.block_on(serve(&args, config, rules));
    // Threads that are stuck in a database driver must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

/// The rules of a config that may start, and its warnings; otherwise every finding on stderr and exit code 2.
pub fn sound(config: &Config) -> Result<(RuleSet, Findings), Failure> {
    let refused = assembly::not_built(config);
    let rules = assembly::rules(config);
    let mut findings = Findings::new();
    findings.extend(config.findings.iter().filter(|f| !refused.iter().any(|r| r.message == f.message)).cloned());
    findings.extend(refused);
    match &rules {
        Ok(set) => findings.extend(set.warnings().iter().cloned()),
        Err(of_rules) => findings.extend(of_rules.iter().cloned()),
    }
    findings.sort();
    match rules {
        Ok(set) if !findings.has_errors() => Ok((set, findings)),
        _ => {
            for finding in findings.iter() {
                show::say(&format!("{}\n", render(finding, Paint::stderr().is_on())));
            }
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let count = if errors == 1 { "an error".to_owned() } else { format!("{errors} errors") };
            let message = format!("the config in {} has {count}: nothing was started", config.directory.display());
            Err(Failure::usage(message).hint("`gravity check` shows the same without starting anything"))
        }
    }
}

/// What is printed at every start: plaintext, literal passwords, everything accepted by name.
fn warn_of(findings: &Findings) {
    for finding in findings.iter() {
        let place = if finding.line > 0 { format!("{}:{}", finding.file, finding.line) } else { finding.file.clone() };
        tracing::warn!(code = finding.code, %place, "{}", finding.message);
    }
}

/// A panic is a broken invariant: whatever goes on could make it worse. The log recovers; a half-dead process does not.
fn abort_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        tracing::error!("a panic ends the process: {panic}");
        std::process::abort();
    }));
}

async fn serve(args: &Args, config: Config, rules: RuleSet) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let bound =
        Bound::new(&config.settings).await.map_err(|error| Failure::failed("the API cannot start").because(&error))?;
    let url = bound.url();
    let api = Api::new(config.settings.tokens(), largest_body(&config));
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    servers.spawn(bound.serve(api.clone(), stop.clone()));

    let log = open_log(&config).await?;
    let mut parts = assembly::parts(&config, rules, log.clone(), "start", args.stop_at_end)
        .map_err(|fault| Failure::usage(fault.to_string()).because(&fault))?;
    parts.begin_after = args.from.map(|from| Sequence(from - 1));
    let engine = match Engine::start(parts).await {
        Ok(engine) => engine,
        Err(error) => {
            close(log).await;
            return Err(match error {
                StartError::BeginsBeyond { .. } => Failure::usage(format!("--from: {error}")),
                error => Failure::failed("the engine does not start").because(&error),
            });
        }
    };
    api.set_engine(engine.clone());
    banner(&config, &engine, &url);

    let mut reloading = reload::Reloading::new(args.directory.config.clone(), args.flags.0.clone(), &config);
    let outcome = loop {
        tokio::select! {
            outcome = engine.finished(), if args.stop_at_end => break Ended::Outcome(outcome),
            asked = signals.next() => match asked {
                Asked::End(name) => break Ended::Signal(name),
                Asked::Reload => reloading.reload(&engine).await,
            },
            Some(ended) = servers.join_next() => break Ended::Server(format!("{ended:?}")),
        }
    };
    match &outcome {
        Ended::Signal(name) => tracing::info!(signal = name, "draining; a second signal ends at once"),
        Ended::Outcome(_) => tracing::info!("everything is in step; ending"),
        Ended::Server(why) => tracing::error!(%why, "the API ended by itself; draining"),
    }
    let began = Instant::now();
    tokio::select! {
        done = tokio::time::timeout(DRAIN_WITHIN, engine.shutdown()) => match done {
            Ok(()) => tracing::info!(took_ms = began.elapsed().as_millis() as u64, "drained"),
            Err(_) => {
                tracing::warn!(within_s = DRAIN_WITHIN.as_secs(), "not drained in time; the rest is done after the next start");
                return Err(Failure::failed(format!("not drained within {} s", DRAIN_WITHIN.as_secs())));
            }
        },
        name = signals.end() => {
            tracing::warn!(signal = name, "ended at once; the rest is done after the next start");
            return Err(Failure::failed("ended at once by a second signal"));
        }
    }
    stop.cancel();
    // A client that reads slowly must not hold the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), async { while servers.join_next().await.is_some() {} }).await;
    match outcome {
        Ended::Signal(_) | Ended::Outcome(Outcome::InStep) => Ok(Exit::Done),
        Ended::Outcome(Outcome::InStepWithNewDeadLetters) => {
            show::say("in step, with new dead letters: gravity dlq list");
            Ok(Exit::Difference)
        }
        Ended::Outcome(Outcome::Stopped { what }) => Err(Failure::failed(format!("cannot get in step: {what}"))),
        Ended::Server(why) => Err(Failure::failed(format!("the API ended by itself: {why}"))),
    }
}

/// Why the main loop was left.
enum Ended {
    Signal(&'static str),
    Outcome(Outcome),
    Server(String),
}

/// The greatest `max_batch` of the sources that are pushed into.
pub fn largest_body(config: &Config) -> usize {
    let sizes = config.sources.iter().map(|(_, entry)| entry.intake().max_batch.map_or(assembly::MAX_BATCH, |s| s.0));
    sizes.max().unwrap_or(assembly::MAX_BATCH) as usize
}

/// Opens the log off the runtime's threads and says what was found.
pub async fn open_log(config: &Config) -> Result<Arc<dyn EventLog>, Failure> {
    let keep = config.sources.iter().filter_map(|(_, entry)| entry.intake().dedupe_keep).map(|size| size.0).max();
    let options = config.settings.log_options(keep);
    let directory = options.directory.clone();
    let began = Instant::now();
    let opened = tokio::task::spawn_blocking(move || gravity_log::open(options)).await;
    let log = match opened {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => return Err(log_failure(&error)),
        Err(error) => return Err(Failure::failed("the log could not be opened").because(&error)),
    };
    let stat = log.stat();
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::info!(
        directory = %directory.display(), first = stat.first.get(), last = stat.last.get(), bytes = stat.bytes,
        hot_bytes = stat.hot_bytes, segments = stat.segments, took_ms, "log recovered"
    );
    Ok(log)
}

async fn close(log: Arc<dyn EventLog>) {
    if tokio::task::spawn_blocking(move || log.close()).await.is_err() {
        tracing::error!("the log did not close");
    }
}

/// What runs, in one look; the weakenings were said before it.
fn banner(config: &Config, engine: &Engine, url: &str) {
    let identity = engine.log().identity();
    let status = engine.status();
    let list = |entries: Vec<String>| if entries.is_empty() { "none".to_owned() } else { entries.join(", ") };
    let sources = list(config.sources.iter().map(|(name, entry)| format!("{name} ({})", entry.kind())).collect());
    let routes = list(status.routes.iter().map(|route| format!("{} ({})", route.name, route.kind)).collect());
    let exporters = list(status.exporters.iter().map(|e| format!("{} of {} ({})", e.name, e.route, e.kind)).collect());
    let budget = show::bytes(memory_budget(config));
    if config.settings.json_messages() {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), log_id = %identity.log_id, fence = identity.fence.0,
            rules = status.log.rules, %sources, %routes, %exporters, %budget, api = url, "started"
        );
        return;
    }
    show::say(&format!(
        "Gravity {} listens on {url}\n  log       {}, {} events, opening {}\n  rules     {}\n  sources   {sources}\n  \
         routes    {routes}\n  exporters {exporters}\n  memory    at most {budget} in buffers",
        env!("CARGO_PKG_VERSION"),
        identity.log_id,
        show::count(status.log.last),
        identity.fence,
        status.log.rules,
    ));
}

/// Sum of the buffers that can fill up at the same time, in bytes.
fn memory_budget(config: &Config) -> u64 {
    let log = config.settings.log_options(None);
    // librdkafka: its queue, and one answer in flight. SQLite: its page cache. Routes and subscriptions: a batch each.
    const KAFKA: u64 = 24 << 20;
    const SQLITE: u64 = 16 << 20;
    const BATCH: u64 = 8 << 20;
    let pulled = config.sources.iter().filter(|(_, entry)| entry.kind() != "http").count() as u64;
    let files = config.databases.iter().filter(|(_, entry)| entry.kind() == "sqlite").count() as u64;
    let consumers = (config.databases.len() + config.exporters.len()) as u64;
    (log.queue_bytes + log.ring_bytes) as u64 + pulled * KAFKA + files * SQLITE + consumers * BATCH
}

/// What a signal asks for.
enum Asked {
    End(&'static str),
    Reload,
}

/// The signals that mean something.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub fn new() -> Result<Signals, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed("cannot listen for signals").because(&error));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// SIGTERM or Ctrl-C.
    pub async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Whatever comes next.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("SIGTERM"),
            _ = self.interrupt.recv() => Asked::End("SIGINT"),
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}
