//! One running engine: starts its tasks, shows how they are doing, ends them in order.

use std::sync::Arc;
use std::time::Duration;

use gravity_log::{EventLog, Health};
use gravity_model::Sequence;
use gravity_model::port::export::Exporter;
use gravity_model::port::view::ViewStore;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::beyond::{Beyond, Found};
use crate::control;
use crate::export::gauge::SubscriptionGauge;
use crate::export::task::{Destination, SubscriptionTask};
use crate::housekeeping::Housekeeper;
use crate::ingest::intake::Intake;
use crate::ingest::letters::IngestLetters;
use crate::ingest::sources::Sources;
use crate::ingest::task::DRAIN_WITHIN;
use crate::parts::{DatabaseSpec, EngineParts, ExporterSpec};
use crate::project::gauge::RouteGauge;
use crate::project::prepare::RouteSetup;
use crate::project::route::{OrderSender, Orders, RouteTask, is_paused};
use crate::rulebook::{RuleBook, RuleBookError};
use crate::status::{LogStatus, Outcome, Readiness, RunState, Status};
use crate::supervise::Tasks;

/// A running engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub log: Arc<dyn EventLog>,
    pub rules: Arc<RuleBook>,
    pub letters: Arc<IngestLetters>,
    pub sources: Sources,
    /// Views under construction included.
    pub routes: Arc<Mutex<Vec<Route>>>,
    pub subscriptions: Mutex<Vec<SubscriptionEntry>>,
    databases: Mutex<HashMap<String, SharedDatabase>>,
    /// Connections that a reload replaced; closed once nobody works with them.
    pub retired: Mutex<Vec<Arc<dyn ViewStore>>>,
    exporters: Mutex<HashMap<String, SharedExporter>>,
    pub retired_exporters: Mutex<Vec<Arc<dyn Exporter>>>,
    tasks: Mutex<TaskGroups>,
    /// Operators' decisions about dead letters of `ingest` that are not settled yet.
    pub decisions: TaskTracker,
    /// See [`EngineParts::begin_after`].
    pub begin_after: Option<Sequence>,
    pub draining: CancellationToken,
    stop_routes: CancellationToken,
    pub stop_exporters: CancellationToken,
}

#[derive(Default)]
struct TaskGroups {
    routes: Tasks,
    exporters: Tasks,
    housekeeping: Tasks,
}

/// Where a subscription sends, as a reload may replace it.
pub(crate) type SharedExporter = Arc<Mutex<ExporterSpec>>;

/// Where a route writes, as a reload may replace it.
pub(crate) type SharedDatabase = Arc<Mutex<DatabaseSpec>>;

#[derive(Clone)]
pub(crate) struct Route {
    pub gauge: Arc<RouteGauge>,
    pub orders: OrderSender,
}

#[derive(Clone)]
pub(crate) struct SubscriptionEntry {
    pub gauge: Arc<SubscriptionGauge>,
    pub orders: OrderSender,
}

/// Why an engine does not start. Nothing was changed but, possibly, the log's record of the rules.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Rules(#[from] RuleBookError),
    #[error(transparent)]
    Control(#[from] control::UnreadableControl),
    #[error("the log cannot be read: {0}")]
    Log(Box<dyn std::error::Error + Send + Sync>),
    #[error("nothing can begin at sequence {from}: the log ends at {last}; allowed: 1 to {}", .last.next())]
    BeginsBeyond { from: Sequence, last: Sequence },
    #[error("{what} {name:?} is not among the parts that were given")]
    Missing { what: &'static str, name: String },
}

impl Engine {
    pub async fn start(parts: EngineParts) -> Result<Engine, StartError> {
        let EngineParts { log, sources, databases, exporters, rules, stop_at_end, begin_after } = parts;
        let last = *log.durable().borrow();
        if let Some(after) = begin_after.filter(|after| *after > last) {
            return Err(StartError::BeginsBeyond { from: after.next(), last });
        }
        // What an entry of its own has is nobody's earlier name, whatever is said of it.
        let is_entry = |name: &str| databases.iter().any(|d| d.name == name);
        let renamed = databases.iter().filter_map(|d| Some((d.options.was.clone()?, d.name.clone())));
        let renames: Vec<(String, String)> = renamed.filter(|(was, _)| !is_entry(was)).collect();
        for (was, name) in &renames {
            crate::rename::carry_over(&*log, was, name).await.map_err(|e| StartError::Log(Box::new(e)))?;
        }
        let (book, changed) = RuleBook::open(&*log, &rules, &renames).await?;
        if changed {
            tracing::info!(rules = &crate::rulebook::hex(&rules.set.hash())[..12], "rules recorded");
        }
        let state = log.state();
        let draining = CancellationToken::new();
        let letters = Arc::new(IngestLetters::load(&state)?);
        let all = Sources::new(log.clone(), letters.clone(), stop_at_end, draining.clone());
        all.take(sources).await.map_err(StartError::Log)?;
        let inner = Arc::new(Inner {
            log,
            rules: Arc::new(book),
            letters,
            sources: all,
            routes: Arc::default(),
            subscriptions: Mutex::default(),
            databases: Mutex::new(databases.into_iter().map(|d| (d.name.clone(), Arc::new(Mutex::new(d)))).collect()),
            retired: Mutex::default(),
            exporters: Mutex::new(exporters.into_iter().map(|e| (e.name.clone(), Arc::new(Mutex::new(e)))).collect()),
            retired_exporters: Mutex::default(),
            tasks: Mutex::default(),
            decisions: TaskTracker::new(),
            begin_after,
            draining,
            stop_routes: CancellationToken::new(),
            stop_exporters: CancellationToken::new(),
        });
        let engine = Engine { inner };
        engine.start_consumers()?;
        let housekeeper = Housekeeper::new(engine.inner.clone());
        engine.inner.tasks.lock().housekeeping.start("housekeeping".to_owned(), housekeeper.run());
        Ok(engine)
    }

    /// Starts the routes and subscriptions that the newest rules name and that do not run yet.
    pub(crate) fn start_consumers(&self) -> Result<(), StartError> {
        let inner = &self.inner;
        let Some(version) = inner.rules.newest() else { return Ok(()) };
        let state = inner.log.state();
        for name in version.set.databases() {
            if inner.routes.lock().iter().any(|r| r.gauge.name == name) {
                continue;
            }
            let databases = inner.databases.lock();
            let Some(database) = databases.get(name) else {
                return Err(StartError::Missing { what: "database", name: name.to_owned() });
            };
            let gauge = Arc::new(RouteGauge::new(name, database.lock().kind));
            let orders = Arc::new(watch::Sender::new(Orders { paused: is_paused(&state, name), ..Orders::default() }));
            let (log, rules) = (inner.log.clone(), inner.rules.clone());
            let begin_after = inner.begin_after.unwrap_or_default();
            let setup = RouteSetup::of_route(database.clone(), log, rules, gauge.clone()).beginning_after(begin_after);
            let task = RouteTask::new(setup, orders.subscribe(), inner.stop_routes.clone(), inner.routes.clone());
            inner.tasks.lock().routes.start(format!("route {name}"), task.run());
            inner.routes.lock().push(Route { gauge, orders });
        }
        for subscription in version.set.subscriptions() {
            let known = |s: &SubscriptionEntry| {
                s.gauge.exporter == subscription.exporter && s.gauge.route == subscription.database
            };
            if inner.subscriptions.lock().iter().any(known) {
                continue;
            }
            let exporters = inner.exporters.lock();
            let Some(exporter) = exporters.get(&subscription.exporter) else {
                return Err(StartError::Missing { what: "exporter", name: subscription.exporter.clone() });
            };
            let route = inner.routes.lock().iter().find(|r| r.gauge.name == subscription.database).cloned();
            let Some(route) = route else {
                return Err(StartError::Missing { what: "route", name: subscription.database.clone() });
            };
            let bounds = inner.databases.lock().get(&subscription.database).map(|d| d.lock().options.clone());
            let bounds = bounds.unwrap_or_default();
            let kind = exporter.lock().kind;
            let gauge = Arc::new(SubscriptionGauge::new(&subscription.exporter, &subscription.database, kind));
            let orders =
                Arc::new(watch::Sender::new(Orders { paused: is_paused(&state, &gauge.name()), ..Orders::default() }));
            let Destination { sends, letterhead, park_on_refused } =
                Destination::of(exporter, inner.log.identity().log_id, &subscription.database);
            let task = SubscriptionTask {
                spec: exporter.clone(),
                renewed: 0,
                exporter: sends,
                letterhead,
                log: inner.log.clone(),
                route: route.gauge,
                rules: inner.rules.clone(),
                gauge: gauge.clone(),
                park_on_refused,
                max_parked: bounds.max_parked,
                max_waiting_bytes: bounds.max_waiting_bytes,
                added: inner.rules.added_subscription(subscription),
                begin_after: inner.begin_after,
                orders: orders.subscribe(),
                cancel: inner.stop_exporters.clone(),
            };
            inner.tasks.lock().exporters.start(format!("subscription {}", gauge.name()), task.run());
            inner.subscriptions.lock().push(SubscriptionEntry { gauge, orders });
        }
        Ok(())
    }

    /// Makes databases and exporters known that a reload brings. Where one of that name runs, its route goes on with the new
    /// connection and settings from the end of its batch (SEMANTICS 6.1).
    pub(crate) fn take_parts(&self, databases: Vec<DatabaseSpec>, exporters: Vec<ExporterSpec>) {
        for spec in databases {
            let known = self.inner.databases.lock().get(&spec.name).cloned();
            let Some(known) = known else {
                self.inner.databases.lock().insert(spec.name.clone(), Arc::new(Mutex::new(spec)));
                continue;
            };
            let name = spec.name.clone();
            let old = std::mem::replace(&mut *known.lock(), spec);
            self.inner.retired.lock().push(old.store);
            let routes = self.inner.routes.lock().clone();
            let builds = format!("{name}/");
            for route in routes.iter().filter(|r| r.gauge.name == name || r.gauge.name.starts_with(&builds)) {
                route.orders.send_modify(|orders| orders.renewed += 1);
            }
        }
        for spec in exporters {
            let known = self.inner.exporters.lock().get(&spec.name).cloned();
            let Some(known) = known else {
                self.inner.exporters.lock().insert(spec.name.clone(), Arc::new(Mutex::new(spec)));
                continue;
            };
            let name = spec.name.clone();
            let old = std::mem::replace(&mut *known.lock(), spec);
            self.inner.retired_exporters.lock().push(old.exporter);
            for subscription in self.inner.subscriptions.lock().iter().filter(|s| s.gauge.exporter == name) {
                subscription.orders.send_modify(|orders| orders.renewed += 1);
            }
        }
    }

    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.inner.log
    }

    pub fn intake(&self, source: &str) -> Option<Intake> {
        self.inner.sources.intake(source)
    }

    /// Names of the sources that are pushed into, sorted.
    pub fn push_sources(&self) -> Vec<String> {
        let mut names: Vec<String> = self.inner.sources.intakes().iter().map(|i| i.source().to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// May read from disk, for the age of what a view lacks: call it where blocking is allowed.
    pub fn status(&self) -> Status {
        self.glance(|beyond, position, last| beyond.look(&*self.inner.log, position, last))
    }

    /// `look` tells what lies on the log between a reader's position and where it could be.
    fn glance(&self, look: impl Fn(&Beyond, Sequence, Sequence) -> Found) -> Status {
        let inner = &self.inner;
        let stat = inner.log.stat();
        let state = match &*inner.log.health().borrow() {
            Health::Running => "running".to_owned(),
            Health::WriteFailed { detail } => detail.clone(),
            Health::Closed => "closed".to_owned(),
        };
        let (routes, subscriptions) = (inner.routes.lock().clone(), inner.subscriptions.lock().clone());
        let reached = |name: &str| routes.iter().find(|r| r.gauge.name == name).map(|r| r.gauge.shown_checkpoint());
        let route = |gauge: &RouteGauge| gauge.status(stat.last, look(&gauge.beyond, gauge.position(), stat.last));
        let exporter = |gauge: &SubscriptionGauge| {
            let reached = reached(&gauge.route).unwrap_or_default();
            gauge.status(reached, look(&gauge.beyond, gauge.cursor(), reached))
        };
        Status {
            log: LogStatus {
                id: inner.log.identity().log_id,
                first: stat.first.get(),
                last: stat.last.get(),
                bytes: stat.bytes,
                hot_bytes: stat.hot_bytes,
                segments: stat.segments,
                state,
                dedupe_entries: stat.dedupe_entries,
                dedupe_from: stat.dedupe_from.get(),
                rules: inner.rules.newest().map(|v| v.hash()[..12].to_owned()).unwrap_or_default(),
            },
            sources: inner.sources.gauges().iter().map(|s| s.status()).collect(),
            routes: routes.iter().map(|r| route(&r.gauge)).collect(),
            exporters: subscriptions.iter().map(|s| exporter(&s.gauge)).collect(),
        }
    }

    pub fn readiness(&self) -> Readiness {
        let draining = self.inner.draining.is_cancelled();
        let mut reasons = Vec::new();
        if draining {
            reasons.push("draining before a stop".to_owned());
        }
        let status = self.glance(|_, _, _| Found::default());
        let troubled = |s: RunState| matches!(s, RunState::Degraded | RunState::Stopped);
        let why = |error: &Option<String>| error.clone().unwrap_or_else(|| "no reason given".to_owned());
        for source in status.sources.iter().filter(|s| troubled(s.state)) {
            reasons.push(format!("source {}: {}", source.name, why(&source.error)));
        }
        for route in status.routes.iter().filter(|r| troubled(r.state)) {
            reasons.push(format!("route {}: {}", route.name, why(&route.error)));
        }
        for exporter in status.exporters.iter().filter(|e| troubled(e.state)) {
            reasons.push(format!("exporter {}@{}: {}", exporter.name, exporter.route, why(&exporter.error)));
        }
        if status.log.state != "running" {
            reasons.push(format!("log: {}", status.log.state));
        }
        Readiness { ready: !draining, reasons }
    }

    /// For `--stop-at-end`: ready once every source is at its end and every route and subscription is in step, or one of
    /// them has stopped.
    pub async fn finished(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            // Progress comes from many tasks; a look every 20 ms costs less than wiring all of them up for this one use.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        let inner = &self.inner;
        let stopped = |what: &str, name: &str, (state, error): (RunState, Option<String>)| {
            let why = match state {
                RunState::Stopped => error.unwrap_or_default(),
                // A pause outlives restarts: nobody will lift it while this run waits.
                RunState::Paused => "paused; `gravity route resume` lets it go on".to_owned(),
                _ => return None,
            };
            Some(Outcome::Stopped { what: format!("{what} {name}: {why}") })
        };
        let sources = inner.sources.gauges();
        let sources_stopped = sources.iter().find_map(|s| stopped("source", &s.name, s.state()));
        if sources_stopped.is_some() {
            return sources_stopped;
        }
        let (routes, subscriptions) = (inner.routes.lock().clone(), inner.subscriptions.lock().clone());
        let others = routes
            .iter()
            .find_map(|r| stopped("route", &r.gauge.name, r.gauge.state()))
            .or_else(|| subscriptions.iter().find_map(|s| stopped("exporter", &s.gauge.name(), s.gauge.state())));
        if others.is_some() {
            return others;
        }
        if !sources.iter().all(|s| s.is_at_end()) {
            return None;
        }
        let last = *inner.log.durable().borrow();
        let in_step = routes.iter().all(|r| match r.gauge.state().0 {
            RunState::Running => r.gauge.position() >= last && r.gauge.checkpoint() > Sequence::ZERO,
            // A view with dead letters does not join its route by itself: beside it is as far as it gets.
            RunState::Building => {
                let parent = r.gauge.name.rsplit_once('/').map_or("", |(route, _)| route);
                let beside = |p: &Route| p.gauge.name == parent && r.gauge.checkpoint() >= p.gauge.checkpoint();
                r.gauge.counters().parked() > 0 && routes.iter().any(beside)
            }
            _ => false,
        }) && subscriptions.iter().all(|s| {
            routes
                .iter()
                .find(|r| r.gauge.name == s.gauge.route)
                .is_none_or(|r| s.gauge.cursor() >= r.gauge.checkpoint())
        });
        if !in_step {
            return None;
        }
        let new_letters = routes.iter().any(|r| r.gauge.newly_parked())
            || subscriptions.iter().any(|s| s.gauge.newly_parked())
            || inner.letters.has_new();
        Some(if new_letters { Outcome::InStepWithNewDeadLetters } else { Outcome::InStep })
    }

    /// Ends in order: intake, what is in flight, routes at a batch boundary, exporters with their cursors, the log.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        self.inner.draining.cancel();
        self.inner.decisions.close();
        let decisions = tokio::time::timeout(DRAIN_WITHIN, self.inner.decisions.wait());
        let ((), decided) = tokio::join!(self.inner.sources.join(), decisions);
        if decided.is_err() {
            tracing::warn!("left with decisions about dead letters of ingest that are not durable yet");
        }
        self.inner.sources.gauges().iter().for_each(|source| source.note(&*self.inner.log));
        self.inner.stop_routes.cancel();
        tasks.routes.join().await;
        self.inner.stop_exporters.cancel();
        tasks.exporters.join().await;
        tasks.housekeeping.join().await;
        let stores: Vec<_> = self.inner.databases.lock().values().map(|d| d.lock().store.clone()).collect();
        let retired = std::mem::take(&mut *self.inner.retired.lock());
        for store in stores.into_iter().chain(retired) {
            store.close().await;
        }
        let exporters: Vec<_> = self.inner.exporters.lock().values().map(|e| e.lock().exporter.clone()).collect();
        let retired = std::mem::take(&mut *self.inner.retired_exporters.lock());
        for exporter in exporters.into_iter().chain(retired) {
            exporter.close().await;
        }
        let log = self.inner.log.clone();
        if tokio::task::spawn_blocking(move || log.close()).await.is_err() {
            tracing::error!("the log did not close");
        }
    }
}
