//! The loop of one route: from its checkpoint to the end of the log, for ever, holding back nobody else (P6).

use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_log::{Block, EventLog, LogError, ReadLimits};
use gravity_model::port::view::{BookkeepingRewrite, ViewRow};
use gravity_model::{Checkpoint, Counters, Fault, FaultKind, Policy, Sequence};
use gravity_rules::RouteProgram;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::control;
use crate::engine::Route;
use crate::ledger::Ledger;
use crate::project::apply::Applier;
use crate::project::build::{AttachRequest, Builds, Hold, Parent};
use crate::project::evaluate::{Stop, Stretch, judge, stop_of};
use crate::project::park::{MAX_PARKED, MAX_WAITING};
use crate::project::prepare::{Opened, RouteSetup, history, parse_history};
use crate::rulebook::RulesVersion;
use crate::status::RunState;
use crate::supervise::BackOff;

/// Events of one database transaction: few while in step, many while behind, because bigger batches coalesce more.
const FEWEST: usize = 4_096;
const MOST: usize = 26_624;
const MOST_BYTES: usize = 16 << 20;
/// Control events alone move the checkpoint at most this often.
const PASS_AFTER: Duration = Duration::from_secs(1);
/// A build that found its route busy asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Up to so many events are judged on the spot; more go to a blocking thread.
const INLINE: usize = 512;

/// What operators ask of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    pub paused: bool,
    /// Grows with each `resume`: a stopped route tries again at once.
    pub kicks: u64,
    /// Grows with each reload that changes the connection or settings of the database or exporter.
    pub renewed: u64,
    /// Grows with each `resume --active-rules`: the route takes the newest rules from its checkpoint on.
    pub active_rules: u64,
}

pub struct RouteTask {
    setup: RouteSetup,
    orders: watch::Receiver<Orders>,
    cancel: CancellationToken,
    role: Role,
    /// Orders to take the active rules that were carried out.
    rules_taken: u64,
    /// Reloads of connection and settings that the session knows.
    renewed: u64,
    /// How far the log was searched for decisions, while the route can park no more.
    searched: Sequence,
}

enum Role {
    /// A database entry's route, with the views that are built beside it.
    Main(Builds),
    /// A view that catches up and then joins its route.
    Build(Parent),
}

/// Why a session ended without a fault.
enum Ended {
    Cancelled,
    Paused,
    /// Rules or views changed: prepare anew.
    Again,
    /// The view that was built here belongs to its route now.
    Joined,
}

impl RouteTask {
    /// `registry` is where the routes of views under construction are listed for `status`.
    pub fn new(
        setup: RouteSetup,
        orders: watch::Receiver<Orders>,
        cancel: CancellationToken,
        registry: Arc<Mutex<Vec<Route>>>,
    ) -> RouteTask {
        let builds = Builds::new(registry, cancel.clone());
        RouteTask {
            setup,
            orders,
            cancel,
            role: Role::Main(builds),
            rules_taken: 0,
            renewed: 0,
            searched: Sequence::ZERO,
        }
    }

    pub fn build(
        setup: RouteSetup,
        orders: watch::Receiver<Orders>,
        cancel: CancellationToken,
        parent: Parent,
    ) -> RouteTask {
        RouteTask {
            setup,
            orders,
            cancel,
            role: Role::Build(parent),
            rules_taken: 0,
            renewed: 0,
            searched: Sequence::ZERO,
        }
    }

    pub async fn run(mut self) {
        let mut back_off = BackOff::new();
        let mut is_known = false;
        while !self.cancel.is_cancelled() {
            if self.orders.borrow_and_update().paused {
                self.setup.gauge.set_state(RunState::Paused, None);
                if !std::mem::replace(&mut is_known, true)
                    && let Err(fault) = self.setup.look().await
                {
                    self.setup.gauge.set_state(RunState::Paused, Some(fault.to_string()));
                }
                tokio::select! {
                    () = self.cancel.cancelled() => break,
                    changed = self.orders.changed() => if changed.is_err() { break },
                }
                continue;
            }
            is_known = true;
            match self.session(&mut back_off).await {
                Ok(Ended::Cancelled | Ended::Joined) => break,
                Ok(Ended::Paused | Ended::Again) => {}
                Err(fault) => {
                    if matches!(&*fault.code, MAX_PARKED | MAX_WAITING) && self.is_decision_ahead().await {
                        continue;
                    }
                    if !self.rest(&fault, &mut back_off).await {
                        break;
                    }
                }
            }
        }
        if let Role::Main(builds) = &mut self.role {
            builds.join().await;
        }
        let (state, error) = self.setup.gauge.state();
        if state != RunState::Stopped {
            self.setup.gauge.set_state(RunState::Ended, error);
        }
    }

    /// Looks for an operator's retry or skip beyond the route's checkpoint. With one, dead letters up to it may be more than
    /// the bounds allow: what it decides makes room again.
    async fn is_decision_ahead(&mut self) -> bool {
        let gauge = self.setup.gauge.clone();
        let known = gauge.parks_until();
        let from = self.searched.max(known).max(gauge.checkpoint());
        let (log, name) = (self.setup.log.clone(), self.setup.name().to_owned());
        let found = tokio::task::spawn_blocking(move || newest_decision(&*log, &name, from)).await;
        let (found, through) = match found.map_err(|e| e.to_string()).and_then(|f| f.map_err(|e| e.to_string())) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(route = %gauge.name, error, "cannot look for a retry or skip");
                return false;
            }
        };
        self.searched = through;
        if let Some(record) = found {
            gauge.lift_bounds(record);
        }
        found.is_some()
    }

    /// Waits as the fault's policy says; false when cancelled.
    async fn rest(&mut self, fault: &Fault, back_off: &mut BackOff) -> bool {
        let policy = fault.policy();
        let state = if policy == Policy::BackOff { RunState::Degraded } else { RunState::Stopped };
        tracing::warn!(route = self.setup.name(), error = %fault, ?state, "route cannot go on");
        self.setup.gauge.set_state(state, Some(fault.to_string()));
        let pause = back_off.pause(None);
        let probing = policy != Policy::Stop;
        tokio::select! {
            () = self.cancel.cancelled() => false,
            changed = self.orders.changed() => changed.is_ok(),
            () = tokio::time::sleep(pause), if probing => true,
        }
    }

    /// From connect to the first fault. What the database says at its start is believed.
    async fn session(&mut self, back_off: &mut BackOff) -> Result<Ended, Fault> {
        let taken = self.orders.borrow().active_rules;
        if taken > self.rules_taken {
            self.setup.take_newest_rules().await?;
            self.rules_taken = taken;
        }
        self.renewed = self.orders.borrow().renewed;
        self.setup.renew();
        if matches!(self.role, Role::Build(_)) && self.setup.has_joined().await? {
            return Ok(Ended::Joined);
        }
        let Opened { mut applier, version, to_build } = self.setup.open().await?;
        let checkpoint = applier.checkpoint();
        let ledger = Ledger::rebuild(self.setup.name(), checkpoint, &self.setup.log).await;
        let ledger = ledger.map_err(|error| {
            Fault::new(FaultKind::NotOurs, "log/control", "load dead letters", error.to_string()).with_source(error)
        })?;
        *self.setup.gauge.ledger.lock() = ledger;
        self.setup.gauge.set_program(checkpoint.next(), applier.means.program.clone());
        let state = match &mut self.role {
            Role::Main(builds) => {
                // Before the checkpoint is told: rules that a build still needs are not forgotten meanwhile.
                builds.start(&self.setup, &version, &to_build);
                RunState::Running
            }
            Role::Build(_) => RunState::Building,
        };
        // Wakes the subscriptions: dead letters and rules must be known by now.
        self.setup.gauge.read_back(checkpoint, applier.counters());
        self.setup.gauge.set_state(state, None);
        tracing::info!(
            route = self.setup.name(), %checkpoint, rules = &version.hash()[..12], "route runs"
        );
        // Beyond this point a row that is not as expected means that our own last commit was read wrong or that someone
        // took over: read it again, and let the checks of `open` decide.
        match self.follow(&mut applier, &version, back_off).await {
            Err(fault) if fault.kind == FaultKind::NotOurs => Err(Fault { kind: FaultKind::Transient, ..fault }),
            other => other,
        }
    }

    async fn follow(
        &mut self,
        applier: &mut Applier,
        version: &RulesVersion,
        back_off: &mut BackOff,
    ) -> Result<Ended, Fault> {
        // A build follows its route, never the log itself: so it can meet it at one sequence.
        let mut ends = match &self.role {
            Role::Main(_) => self.setup.log.durable(),
            Role::Build(parent) => parent.gauge.watch(),
        };
        let mut position = applier.checkpoint();
        // The buffers of the stretch before, and what was judged while it was applied.
        let mut spare = Stretch::default();
        let mut ahead = None;
        let mut most = FEWEST;
        let mut passing_since: Option<Instant> = None;
        // A build that asked to join goes on to where its route holds.
        let mut hold: Option<Hold> = None;
        let mut asked: Option<Instant> = None;
        loop {
            let last = match &hold {
                Some(hold) => hold.sequence(),
                None => *ends.borrow_and_update(),
            };
            let near = last.get() <= position.get() + FEWEST as u64;
            let wants_to_join = matches!(self.role, Role::Build(_))
                && near
                && hold.is_none()
                && last > Sequence::ZERO
                // Told to begin ahead of its route, it waits for it.
                && last >= position
                && self.setup.gauge.ledger.lock().is_empty();
            if wants_to_join
                && asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN)
                && let Role::Build(parent) = &self.role
            {
                hold = ask_to_join(parent, &self.cancel).await;
                asked = Some(Instant::now());
                if hold.is_some() {
                    continue;
                }
            }
            if position >= last {
                most = FEWEST;
                // A dead letter on the last stretch keeps the view out: the route goes on without it.
                if let Some(hold) = hold.take().filter(|_| self.setup.gauge.ledger.lock().is_empty()) {
                    applier.pass(last).await?;
                    applier.join_route(&hold.lanes).await?;
                    let _ = hold.done.send(());
                    tracing::info!(route = self.setup.name(), sequence = %last, "the view joins its route");
                    return Ok(Ended::Joined);
                }
                let pass = passing_since.map(|since| PASS_AFTER.saturating_sub(since.elapsed()));
                tokio::select! {
                    () = self.cancel.cancelled() => return Ok(Ended::Cancelled),
                    changed = self.orders.changed() => {
                        if changed.is_err() { return Ok(Ended::Cancelled) }
                        if let Some(ended) = self.ordered() { return Ok(ended) }
                    }
                    changed = ends.changed() => if changed.is_err() { return Ok(Ended::Cancelled) },
                    () = tokio::time::sleep(pass.unwrap_or_default()), if pass.is_some() => {
                        applier.pass(position).await?;
                        passing_since = None;
                    }
                    () = tokio::time::sleep(ASK_AGAIN), if wants_to_join => {}
                    Some(request) = next_request(&mut self.role) => {
                        if request.answer(&applier.lanes, &self.cancel).await {
                            return Ok(Ended::Again);
                        }
                    }
                }
                continue;
            }
            if self.cancel.is_cancelled() {
                return Ok(Ended::Cancelled);
            }
            if self.orders.has_changed().unwrap_or(true)
                && let Some(ended) = self.ordered()
            {
                return Ok(ended);
            }
            if let Role::Main(builds) = &mut self.role
                && let Some(request) = builds.try_next_request()
                && request.answer(&applier.lanes, &self.cancel).await
            {
                return Ok(Ended::Again);
            }
            let program = applier.means.program.clone();
            let next = match ahead.take() {
                Some(next) => next,
                None => self.next(&program, (position, last), most, std::mem::take(&mut spare)).await?,
            };
            let Some((blocks, mut stretch)) = next else { continue };
            self.setup.gauge.passed(position, stretch.oldest);
            let unknown = stretch.evaluation.take_unknown_fields();
            if !unknown.is_empty() {
                let named = |(table, field, count): (u16, String, u64)| {
                    (applier.means.shapes[usize::from(table)].table.clone(), field, count)
                };
                self.setup.gauge.count_unknown(unknown.into_iter().map(named).collect());
            }
            if stretch.events.is_empty() {
                passing_since.get_or_insert_with(Instant::now);
            } else {
                // Far behind, the next stretch is judged while the database writes this one. Nothing that applying does
                // changes a judgement: rules change at a stop only, and parking is decided when the stretch's turn comes.
                let (through, wider) = (stretch.through, (most * 2).min(MOST));
                if stretch.stop.is_none() && last.get() - through.get() >= wider as u64 {
                    let next = self.next(&program, (through, last), wider, std::mem::take(&mut spare));
                    let (applied, next) = tokio::join!(applier.apply(&stretch, &blocks), next);
                    applied?;
                    ahead = Some(next?);
                } else {
                    applier.apply(&stretch, &blocks).await?;
                }
                back_off.reset();
                passing_since = None;
                if applier.lanes.len() != self.setup.lanes() {
                    // All lanes stand at one sequence now: the only place where their number may change.
                    return Ok(Ended::Again);
                }
            }
            position = stretch.through;
            self.setup.gauge.passed(position, None);
            most = if position < last { (most * 2).min(MOST) } else { FEWEST };
            let stop = stretch.stop;
            spare = stretch;
            match stop {
                None => {}
                Some(Stop::Decision(record)) => {
                    applier.decide(record).await?;
                    position = record;
                    passing_since = None;
                }
                Some(Stop::Config(record)) if Self::keeps_rules(record, version) => {
                    position = record;
                    passing_since.get_or_insert_with(Instant::now);
                }
                Some(Stop::Config(record)) => {
                    self.change_rules(applier, record).await?;
                    return Ok(Ended::Again);
                }
            }
        }
    }

    /// What orders ask of a running session.
    fn ordered(&mut self) -> Option<Ended> {
        let orders = *self.orders.borrow_and_update();
        match orders {
            Orders { paused: true, .. } => Some(Ended::Paused),
            Orders { renewed, .. } if renewed != self.renewed => Some(Ended::Again),
            _ => None,
        }
    }

    /// True when the record changes nothing here: a new view takes even the log's beginning under the rules that brought
    /// it, so older versions than its own do not concern it.
    fn keeps_rules(record: Sequence, version: &RulesVersion) -> bool {
        record <= version.sequence
    }

    async fn read(&self, after: Sequence, events: usize) -> Result<Vec<Block>, Fault> {
        let limits = ReadLimits { events, bytes: MOST_BYTES };
        if let Some(blocks) = self.setup.log.read_recent(after, limits) {
            return Ok(blocks);
        }
        let log = self.setup.log.clone();
        let read = tokio::task::spawn_blocking(move || log.read(after, limits)).await;
        let read = read.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string()));
        read.map_err(|detail| Fault::new(FaultKind::Misconfigured, "log/read", "read the log", detail))
    }

    /// Reads and judges what follows `range.0`, not beyond `range.1`; `None` where there is nothing. Touches nothing.
    async fn next(
        &self,
        program: &Arc<RouteProgram>,
        range: (Sequence, Sequence),
        events: usize,
        mut stretch: Stretch,
    ) -> Result<Option<(Vec<Block>, Stretch)>, Fault> {
        let mut blocks = self.read(range.0, events).await?;
        blocks.retain(|block| block.mark.first <= range.1);
        if blocks.is_empty() {
            return Ok(None);
        }
        if blocks.iter().map(|b| b.count as usize).sum::<usize>() <= INLINE {
            judge(self.setup.name(), program, &blocks, range, &mut stretch);
            return Ok(Some((blocks, stretch)));
        }
        let (name, program) = (self.setup.name().to_owned(), program.clone());
        let judged = tokio::task::spawn_blocking(move || {
            judge(&name, &program, &blocks, range, &mut stretch);
            (blocks, stretch)
        });
        let judged = judged.await;
        judged.map(Some).map_err(|e| Fault::new(FaultKind::Transient, "engine/task", "judge events", e.to_string()))
    }

    /// Takes the route over the record of a rule change: the views' histories say from where the new rules hold.
    async fn change_rules(&self, applier: &Applier, record: Sequence) -> Result<(), Fault> {
        let Some(version) = self.setup.rules.recorded_at(record) else {
            // Its record is on the log a moment before the book has it.
            return Err(Fault::new(
                FaultKind::Transient,
                "rules/unknown-version",
                format!("change the rules at sequence {record}"),
                "this version of the rules is not known",
            ));
        };
        let views = self.setup.store.views().await?;
        let mine: Vec<ViewRow> = views.into_iter().filter(|v| v.route == self.setup.name()).collect();
        let attached: Vec<String> = mine.iter().map(|v| v.table.clone()).collect();
        // Before anything moves: the new rules must fit the live tables.
        let (_, shapes) = self.setup.compile(&version, Some(&attached)).await?;
        self.setup.resolve_types(record, &shapes).await?;
        let identity = self.setup.log.identity();
        let block = crate::project::decide::read_block(&self.setup.log, record).await?;
        let block = block.map(|b| b.mark).unwrap_or_default();
        let moved = |lane: &Checkpoint| Checkpoint {
            sequence: record,
            fence: identity.fence,
            owner: identity.owner,
            block,
            ..lane.clone()
        };
        let put_views = mine.into_iter().map(|view| {
            let mut entries = parse_history(&view.history);
            if entries.last().is_none_or(|(_, label)| *label != version.label()) {
                entries.push((record.get() + 1, version.label()));
            }
            ViewRow { history: history(&entries), ..view }
        });
        let rewrite = BookkeepingRewrite {
            expect: applier.lanes.clone(),
            put: applier.lanes.iter().map(moved).collect(),
            put_views: put_views.collect(),
            ..BookkeepingRewrite::default()
        };
        self.setup.store.rewrite(rewrite).await?;
        tracing::info!(route = self.setup.name(), %record, rules = &version.hash()[..12], "rules changed");
        Ok(())
    }
}

/// The last retry or skip of `route` beyond `after`, and how far the log was read. Reads from disk.
pub(crate) fn newest_decision(
    log: &dyn EventLog,
    route: &str,
    mut after: Sequence,
) -> Result<(Option<Sequence>, Sequence), LogError> {
    let (last, mut found) = (*log.durable().borrow(), None);
    while after < last {
        let blocks = log.read(after, ReadLimits { events: MOST, bytes: MOST_BYTES })?;
        let Some(end) = blocks.last().map(Block::last) else { break };
        let beyond = blocks.iter().flat_map(Block::iter).filter(|recorded| recorded.sequence > after);
        let decisions = beyond.filter_map(|recorded| match stop_of(route, &recorded) {
            Some(Stop::Decision(record)) => Some(record),
            _ => None,
        });
        found = decisions.last().or(found);
        after = end;
    }
    Ok((found, after))
}

/// Waits for a build that asks to join; for ever where there can be none.
async fn next_request(role: &mut Role) -> Option<AttachRequest> {
    match role {
        Role::Main(builds) => builds.next_request().await,
        Role::Build(_) => std::future::pending().await,
    }
}

/// Asks the route to hold at its checkpoint.
async fn ask_to_join(parent: &Parent, cancel: &CancellationToken) -> Option<Hold> {
    let (sender, held) = oneshot::channel();
    let ask = async {
        parent.requests.send(AttachRequest { hold: sender }).await.ok()?;
        held.await.ok()
    };
    tokio::select! {
        () = cancel.cancelled() => None,
        // A route that is stopped or busy does not answer: go on building, ask again when it has moved.
        hold = tokio::time::timeout(Duration::from_secs(1), ask) => hold.ok().flatten(),
    }
}

impl Applier {
    /// Moves the checkpoint over control events that concern no rule.
    async fn pass(&mut self, through: Sequence) -> Result<(), Fault> {
        if through <= self.checkpoint() {
            return Ok(());
        }
        let transaction = self.means.store.begin(&self.lanes).await?;
        let counters: Vec<Counters> = self.lanes.iter().map(|lane| lane.counters).collect();
        self.all_lanes().commit(transaction, through, &counters, Vec::new()).await
    }
}

/// Control events whose state says that a route was paused.
pub fn is_paused(state: &[gravity_log::StateEntry], route: &str) -> bool {
    state.iter().any(|e| e.name == control::PAUSED && e.key == route)
}

/// Keeps the channel of a route's orders.
pub type OrderSender = Arc<watch::Sender<Orders>>;
