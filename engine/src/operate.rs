//! What operators and applications ask of a running engine: dead letters, pauses, positions, events, new rules.

use std::sync::Arc;
use std::time::Duration;

use gravity_log::{Batch, Block, LogError, ReadLimits};
use gravity_model::{Sequence, failpoint};
use tokio::sync::watch;

use crate::control::{self, Decision, Parked, Paused, Released};
use crate::engine::{Engine, StartError};
use crate::ingest::letters::INGEST;
use crate::ledger::Ledger;
use crate::parts::{ChangedParts, RulesInForce};
use crate::project::evaluate::{Wants, judge_one};
use crate::project::gauge::RouteGauge;
use crate::project::route::{OrderSender, Orders};
use crate::rulebook::RuleBookError;
use crate::status::{Blocked, DeadLetter, DeadLetterDetail, EventView, Fate, ReleaseReport, RunState, ViewPosition};

/// How long a retry or skip waits for the route to carry it out.
const DECISION_WITHIN: Duration = Duration::from_secs(60);

/// How long a pause waits for the batch under way.
const PAUSE_WITHIN: Duration = Duration::from_secs(30);

/// Why an operator's call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("no {what} is named {name:?}; known: {}", known.join(", "))]
    Unknown { what: &'static str, name: String, known: Vec<String> },
    #[error("sequence {sequence} is not a dead letter of {route}")]
    NotParked { route: String, sequence: u64 },
    #[error("{what}")]
    Conflict { what: String },
    #[error("the log: {0}")]
    Log(#[from] LogError),
    #[error(transparent)]
    Rules(#[from] RuleBookError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the task that did the work is gone")]
    Gone,
}

impl ApiError {
    /// Stable code; has a page under docs/errors.
    pub fn code(&self) -> &'static str {
        match self {
            ApiError::Unknown { .. } => "api/unknown",
            ApiError::NotParked { .. } => "api/not-parked",
            ApiError::Conflict { .. } => "api/conflict",
            ApiError::Log(_) => "api/log",
            ApiError::Rules(_) | ApiError::Start(_) => "api/rules",
            ApiError::Gone => "api/gone",
        }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            ApiError::Unknown { .. } | ApiError::NotParked { .. } => 404,
            ApiError::Conflict { .. } | ApiError::Rules(_) | ApiError::Start(_) => 409,
            ApiError::Log(LogError::OutOfRange { .. }) => 404,
            ApiError::Log(_) | ApiError::Gone => 503,
        }
    }
}

/// What a reload changed.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ReloadReport {
    /// False: the rules on disk are the rules in force.
    pub changed: bool,
    /// From which sequence the new rules hold.
    pub from: u64,
    /// First 12 digits of the hash in force.
    pub rules: String,
}

/// A route, or a subscription under its name `EXPORTER@ROUTE`.
enum Target {
    Route(Arc<RouteGauge>, OrderSender),
    Subscription(Arc<crate::export::gauge::SubscriptionGauge>, OrderSender),
}

impl Engine {
    /// Dead letters of one route (or subscription, or `ingest`), or of all of them.
    pub async fn dead_letters(&self, route: Option<&str>) -> Result<Vec<DeadLetter>, ApiError> {
        let mut letters: Vec<DeadLetter> = Vec::new();
        if route.is_none_or(|r| r == INGEST) {
            letters.extend(self.inner.letters.all().iter().map(letter));
        }
        for target in self.targets() {
            let (name, ledger) = match &target {
                Target::Route(gauge, _) => (gauge.name.clone(), gauge.ledger.lock()),
                Target::Subscription(gauge, _) => (gauge.name(), gauge.ledger.lock()),
            };
            if route.is_none_or(|r| r == name) {
                letters.extend(ledger.all_parked().map(|p| letter(p)));
            }
        }
        match route {
            Some(name) if letters.is_empty() && name != INGEST => self.target(name).map(|_| letters),
            _ => Ok(letters),
        }
    }

    /// One dead letter with its event.
    pub async fn dead_letter(&self, route: &str, sequence: u64) -> Result<Option<DeadLetterDetail>, ApiError> {
        let found = self.dead_letters(Some(route)).await?.into_iter().find(|l| l.sequence == sequence);
        let Some(letter) = found else { return Ok(None) };
        let record = self.block(Sequence(sequence)).await?;
        let record = record.and_then(|b| b.event(Sequence(sequence)).map(|r| EventView::of(&r)));
        Ok(Some(DeadLetterDetail { letter, record }))
    }

    /// Runs parked events again: those named, or every failed one. What waited behind them follows.
    pub async fn retry(
        &self,
        route: &str,
        sequences: Option<Vec<u64>>,
        actor: &str,
    ) -> Result<ReleaseReport, ApiError> {
        if route == INGEST {
            return self.retry_ingest(sequences, actor).await;
        }
        self.decide(control::RETRY, route, sequences, actor).await
    }

    /// Leaves parked events out for ever; the decision and its actor are on the log.
    pub async fn skip(&self, route: &str, sequences: Vec<u64>, actor: &str) -> Result<ReleaseReport, ApiError> {
        if route == INGEST {
            return self.skip_ingest(sequences, actor).await;
        }
        self.decide(control::SKIP, route, Some(sequences), actor).await
    }

    async fn decide(
        &self,
        name: &'static str,
        route: &str,
        sequences: Option<Vec<u64>>,
        actor: &str,
    ) -> Result<ReleaseReport, ApiError> {
        let target = self.target(route)?;
        for sequence in sequences.iter().flatten() {
            let parked = match &target {
                Target::Route(gauge, _) => gauge.ledger.lock().parked(Sequence(*sequence)).is_some(),
                Target::Subscription(gauge, _) => gauge.ledger.lock().parked(Sequence(*sequence)).is_some(),
            };
            if !parked {
                return Err(ApiError::NotParked { route: route.to_owned(), sequence: *sequence });
            }
        }
        let decision = Decision {
            route: route.to_owned(),
            sequences: sequences.map(|all| all.into_iter().map(Sequence).collect()),
            actor: actor.to_owned(),
            at: crate::clock::now(),
        };
        let mut batch = Batch::new();
        let key = control::numbered(route, decision.at.unsigned_abs());
        control::tell(&mut batch, name, &key, &decision, Some(actor));
        let record = crate::append::durable(&*self.inner.log, batch).await?.durable().await?.first;
        // A route that stopped because it can park no more looks for this record at once.
        target.orders().send_modify(|orders| orders.kicks += 1);
        let done = async {
            loop {
                let released = match &target {
                    Target::Route(gauge, _) => gauge.ledger.lock().released_at(record).cloned(),
                    Target::Subscription(gauge, _) => gauge.ledger.lock().released_at(record).cloned(),
                };
                if let Some(released) = released {
                    return released;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(DECISION_WITHIN, done).await {
            Ok(released) => {
                let numbers = |all: &[Sequence]| all.iter().map(|s| s.get()).collect::<Vec<_>>();
                let mut ran = numbers(&released.applied);
                ran.extend(numbers(&released.filtered));
                Ok(ReleaseReport {
                    record: record.get(),
                    released: ran,
                    parked_again: numbers(&released.parked_again),
                    skipped: numbers(&released.skipped),
                    blocked: if name == control::RETRY { target.blocked(&decision, &released) } else { Vec::new() },
                    reasons: Vec::new(),
                })
            }
            Err(_) => {
                let state = target.state();
                let why = state.1.unwrap_or_else(|| format!("{:?}", state.0).to_lowercase());
                Err(ApiError::Conflict {
                    what: format!(
                        "the decision is recorded at sequence {record} and holds, but {route} has not come to it yet: {why}"
                    ),
                })
            }
        }
    }

    /// Stops a route or subscription at its next batch boundary, and answers when it stands there; survives restarts.
    pub async fn pause(&self, route: &str, actor: &str) -> Result<(), ApiError> {
        let target = self.target(route)?;
        let mut batch = Batch::new();
        let paused = Paused { actor: actor.to_owned(), at: crate::clock::now() };
        control::put(&mut batch, control::PAUSED, route, &paused, Some(actor));
        crate::append::durable(&*self.inner.log, batch).await?.durable().await?;
        target.orders().send_modify(|orders| orders.paused = true);
        let stands = async {
            while !matches!(target.state().0, RunState::Paused | RunState::Ended) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PAUSE_WITHIN, stands).await.map_err(|_| ApiError::Conflict {
            what: format!("{route} will pause, but has not come to the end of its batch yet"),
        })
    }

    /// Lets a paused route go on, and makes a stopped one try again at once.
    pub async fn resume(&self, route: &str, active_rules: bool, actor: &str) -> Result<(), ApiError> {
        let target = self.target(route)?;
        if active_rules {
            return self.take_active_rules(&target).await;
        }
        if target.orders().borrow().paused {
            let mut batch = Batch::new();
            control::end(&mut batch, control::PAUSED, route);
            crate::append::durable(&*self.inner.log, batch).await?.durable().await?;
            tracing::info!(route, actor, "route resumed");
        }
        target.orders().send_modify(|orders| *orders = Orders { paused: false, kicks: orders.kicks + 1, ..*orders });
        Ok(())
    }

    async fn take_active_rules(&self, target: &Target) -> Result<(), ApiError> {
        let Target::Route(gauge, orders) = target else {
            return Err(ApiError::Conflict { what: "only a route has rules".to_owned() });
        };
        if gauge.state().0 != RunState::Stopped {
            return Err(ApiError::Conflict {
                what: format!("route {} is not stopped; rules change at their record in the log", gauge.name),
            });
        }
        orders.send_modify(|orders| {
            *orders =
                Orders { paused: false, kicks: orders.kicks + 1, active_rules: orders.active_rules + 1, ..*orders };
        });
        Ok(())
    }

    /// Where a view stands; with `wait`, answers once it contains that sequence or the time is over.
    pub async fn view_position(
        &self,
        view: &str,
        wait: Option<u64>,
        timeout: Duration,
    ) -> Result<ViewPosition, ApiError> {
        let (database, table) = view.split_once('.').unwrap_or((view, ""));
        // A view under construction has a route of its own.
        let target = self.target(&format!("{database}/{table}")).or_else(|_| self.target(database))?;
        let Target::Route(gauge, _) = target else {
            return Err(ApiError::Unknown { what: "view", name: view.to_owned(), known: self.views() });
        };
        if !self.views().iter().any(|known| known == view) {
            return Err(ApiError::Unknown { what: "view", name: view.to_owned(), known: self.views() });
        }
        let Some(wanted) = wait else {
            let sequence = gauge.position().get();
            return Ok(ViewPosition { view: view.to_owned(), sequence, reached: None, fate: None });
        };
        let mut checkpoint = gauge.watch();
        let there = async {
            while gauge.position().get() < wanted {
                if checkpoint.changed().await.is_err() {
                    return;
                }
            }
        };
        let reached = tokio::time::timeout(timeout, there).await.is_ok();
        let fate = if reached { self.fate(&gauge, Sequence(wanted)).await? } else { None };
        Ok(ViewPosition { view: view.to_owned(), sequence: gauge.position().get(), reached: Some(reached), fate })
    }

    /// `DATABASE.TABLE` of every view that the rules in force write.
    fn views(&self) -> Vec<String> {
        let Some(version) = self.inner.rules.newest() else { return Vec::new() };
        let databases = version.set.databases().into_iter();
        databases.flat_map(|d| version.set.requests(d).into_iter().map(move |r| format!("{d}.{}", r.table))).collect()
    }

    async fn fate(&self, gauge: &RouteGauge, sequence: Sequence) -> Result<Option<Fate>, ApiError> {
        {
            let ledger = gauge.ledger.lock();
            if ledger.parked(sequence).is_some() {
                return Ok(Some(Fate::Parked));
            }
            if ledger.was_missed(sequence) {
                return Ok(Some(Fate::Filtered));
            }
            if let Some(released) = ledger.effect_of(sequence).and_then(|record| ledger.released_at(record)) {
                let skipped = released.skipped.contains(&sequence);
                let filtered = released.filtered.contains(&sequence);
                return Ok(Some(if skipped {
                    Fate::Skipped
                } else if filtered {
                    Fate::Filtered
                } else {
                    Fate::Applied
                }));
            }
        }
        let Some(block) = self.block(sequence).await? else { return Ok(None) };
        let Some(recorded) = block.event(sequence) else { return Ok(None) };
        let Some(program) = gauge.program(sequence) else { return Ok(None) };
        let mut evaluation = gravity_rules::Evaluation::new();
        Ok(Some(match judge_one(&program, &recorded, &block, &mut evaluation).wants {
            Wants::Unmatched => Fate::Unmatched,
            Wants::Filtered => Fate::Filtered,
            // Behind the checkpoint and not parked any more: an operator left it out, long enough ago to be forgotten.
            Wants::Refused(_) => Fate::Skipped,
            Wants::Changes => Fate::Applied,
        }))
    }

    /// Events after `after`, control events included.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<EventView>, ApiError> {
        let mut views = Vec::new();
        let mut after = Sequence(after);
        while views.len() < limit {
            let log = self.inner.log.clone();
            let limits = ReadLimits { events: limit - views.len(), bytes: 4 << 20 };
            let blocks = tokio::task::spawn_blocking(move || log.read(after, limits)).await;
            let blocks = blocks.map_err(|_| ApiError::Gone)??;
            let Some(last) = blocks.last().map(Block::last) else { break };
            let recorded = blocks.iter().flat_map(Block::iter).filter(|r| r.sequence > after);
            views.extend(recorded.take(limit - views.len()).map(|r| EventView::of(&r)));
            after = last;
        }
        Ok(views)
    }

    /// One event.
    pub async fn event(&self, sequence: u64) -> Result<EventView, ApiError> {
        let block = self.block(Sequence(sequence)).await?;
        let view = block.and_then(|b| b.event(Sequence(sequence)).map(|r| EventView::of(&r)));
        view.ok_or_else(|| {
            let stat = self.inner.log.stat();
            ApiError::Log(LogError::OutOfRange { wanted: Sequence(sequence), first: stat.first, last: stat.last })
        })
    }

    /// Puts new rules in force from the next sequence on. `changed` holds what is new or changed: what runs goes on with it,
    /// what the rules need and does not run yet is started.
    pub async fn reload(&self, rules: RulesInForce, changed: ChangedParts) -> Result<ReloadReport, ApiError> {
        let newest = self.inner.rules.newest();
        let mut report =
            ReloadReport { rules: crate::rulebook::hex(&rules.set.hash())[..12].to_owned(), ..Default::default() };
        if newest.is_none_or(|n| n.set.hash() != rules.set.hash()) {
            let version = self.inner.rules.change(&*self.inner.log, &rules).await?;
            failpoint::hit("reload.recorded");
            report.changed = true;
            report.from = version.sequence.get() + 1;
        }
        // After the record: a log that cannot write it refuses the reload whole.
        self.inner.sources.take(changed.sources).await.map_err(StartError::Log)?;
        self.take_parts(changed.databases, changed.exporters);
        self.start_consumers()?;
        Ok(report)
    }

    pub(crate) async fn block(&self, sequence: Sequence) -> Result<Option<Block>, ApiError> {
        let (log, after) = (self.inner.log.clone(), Sequence(sequence.get().saturating_sub(1)));
        let read = tokio::task::spawn_blocking(move || log.read(after, ReadLimits { events: 1, bytes: 1 })).await;
        let blocks = read.map_err(|_| ApiError::Gone)??;
        Ok(blocks.into_iter().find(|b| b.mark.first <= sequence && sequence <= b.last()))
    }

    fn targets(&self) -> Vec<Target> {
        let routes = self.inner.routes.lock().clone().into_iter().map(|r| Target::Route(r.gauge, r.orders));
        let subscriptions = self.inner.subscriptions.lock().clone().into_iter();
        routes.chain(subscriptions.map(|s| Target::Subscription(s.gauge, s.orders))).collect()
    }

    fn target(&self, name: &str) -> Result<Target, ApiError> {
        let targets = self.targets();
        let mut known: Vec<String> = targets.iter().map(Target::name).collect();
        match targets.into_iter().find(|t| t.name() == name) {
            Some(target) => Ok(target),
            None => {
                known.push(INGEST.to_owned());
                Err(ApiError::Unknown { what: "route", name: name.to_owned(), known })
            }
        }
    }
}

impl Target {
    fn name(&self) -> String {
        match self {
            Target::Route(gauge, _) => gauge.name.clone(),
            Target::Subscription(gauge, _) => gauge.name(),
        }
    }

    fn state(&self) -> (RunState, Option<String>) {
        match self {
            Target::Route(gauge, _) => gauge.state(),
            Target::Subscription(gauge, _) => gauge.state(),
        }
    }

    /// What a retry asked for that did not run, and what each waits for.
    fn blocked(&self, decision: &Decision, released: &Released) -> Vec<Blocked> {
        let asked = match (&decision.sequences, self) {
            (Some(sequences), _) => sequences.clone(),
            (None, Target::Route(gauge, _)) => failed(&gauge.ledger.lock()),
            (None, Target::Subscription(gauge, _)) => failed(&gauge.ledger.lock()),
        };
        let ran = |sequence: &Sequence| released.parked_again.contains(sequence);
        let blocked = asked.into_iter().filter(|sequence| !ran(sequence)).filter_map(|sequence| {
            let behind = match self {
                Target::Route(gauge, _) => gauge.ledger.lock().waits_for(sequence),
                Target::Subscription(gauge, _) => gauge.waits_for(sequence),
            };
            behind.map(|behind| Blocked { sequence: sequence.get(), behind: behind.get() })
        });
        blocked.collect()
    }

    fn orders(&self) -> &watch::Sender<Orders> {
        match self {
            Target::Route(_, orders) | Target::Subscription(_, orders) => orders,
        }
    }
}

fn failed(ledger: &Ledger) -> Vec<Sequence> {
    ledger.all_parked().filter(|parked| !parked.waiting).map(|parked| parked.sequence).collect()
}

fn letter(parked: &Parked) -> DeadLetter {
    DeadLetter {
        route: parked.route.clone(),
        sequence: parked.sequence.get(),
        stage: parked.stage.word().to_owned(),
        code: parked.code.clone(),
        error: if parked.waiting {
            "waits behind an earlier dead letter of its key".to_owned()
        } else {
            parked.error.clone()
        },
        key: parked.key.clone(),
        event: parked.event.clone(),
        waiting: parked.waiting,
        rule: parked.rule.clone(),
        parked_at: crate::clock::rfc3339(parked.at),
    }
}
