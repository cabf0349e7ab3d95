//! The loop of one subscription (Protocol D): what the view already shows is sent, confirmed, and only then behind us.
//!
//! The cursor is a lazy control event. Between two of them a crash sends some messages again, with the same ids.

use std::sync::Arc;
use std::time::Duration;

use gravity_log::{Batch, Block, EventLog, ReadLimits};
use gravity_model::port::export::Exporter;
use gravity_model::{Fault, FaultKind, LogId, Policy, Sequence};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::{self, Cursor, ParkedMessage};
use crate::engine::SharedExporter;
use crate::export::backlog::Backlog;
use crate::export::decide::Deciding;
use crate::export::gauge::SubscriptionGauge;
use crate::export::message::Letterhead;
use crate::export::outgoing::{MOST_BYTES, MOST_MESSAGES, Outgoing, Pace, Stretch};
use crate::export::progress::{Progress, When};
use crate::ledger::Ledger;
use crate::project::apply::append_durable;
use crate::project::gauge::RouteGauge;
use crate::project::park::{MAX_PARKED, MAX_WAITING};
use crate::project::route::{Orders, newest_decision};
use crate::rulebook::RuleBook;
use crate::status::RunState;
use crate::supervise::BackOff;

pub struct SubscriptionTask {
    /// What the newest reload says of the exporter, and which of them is in use below.
    pub spec: SharedExporter,
    pub renewed: u64,
    pub exporter: Arc<dyn Exporter>,
    pub letterhead: Letterhead,
    pub log: Arc<dyn EventLog>,
    pub route: Arc<RouteGauge>,
    pub rules: Arc<RuleBook>,
    pub gauge: Arc<SubscriptionGauge>,
    pub park_on_refused: bool,
    /// Bounds of parked messages: those of the route's database.
    pub max_parked: u64,
    pub max_waiting_bytes: u64,
    /// The rule change that brought the subscription (the last time, if it was away): it tells of what comes after.
    pub added: Sequence,
    /// Where it begins instead, if it has told of nothing since then.
    pub begin_after: Option<Sequence>,
    pub orders: watch::Receiver<Orders>,
    pub cancel: CancellationToken,
}

/// What an exporter's entry comes to for one subscription.
pub struct Destination {
    pub sends: Arc<dyn Exporter>,
    pub letterhead: Letterhead,
    pub park_on_refused: bool,
}

impl Destination {
    pub fn of(spec: &SharedExporter, log_id: LogId, route: &str) -> Destination {
        let spec = spec.lock();
        let letterhead = Letterhead {
            log_id,
            exporter: spec.name.clone(),
            route: route.to_owned(),
            format: spec.format,
            binding: spec.exporter.binding(),
        };
        Destination { sends: spec.exporter.clone(), letterhead, park_on_refused: spec.park_on_refused }
    }
}

/// A subscription at work.
pub struct Subscription {
    pub task: SubscriptionTask,
    /// `EXPORTER@ROUTE`.
    pub name: String,
    pub progress: Progress,
    pub pace: Pace,
    pub back_off: BackOff,
    /// A retry or skip that was interrupted.
    pub deciding: Option<Deciding>,
    /// The block read last for a released event.
    pub block: Option<Block>,
    /// Up to this record of a retry or skip, parked messages may be more than the bounds allow.
    pub parks_until: Sequence,
    /// How far the log was searched for such a record.
    searched: Sequence,
}

/// Why work ended before its end. What was done stays done; the cursor says from where to go on.
pub enum Halt {
    Fault(Fault),
    /// By a pause, a shutdown, or because the ground moved: look around and go on.
    Interrupted,
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Halt {
        Halt::Fault(fault)
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woke {
    Cancelled,
    Orders,
    Time,
    /// The route's checkpoint moved.
    News,
}

impl SubscriptionTask {
    pub async fn run(self) {
        let gauge = self.gauge.clone();
        match Subscription::begin(self).await {
            Ok(mut subscription) => subscription.run().await,
            Err(error) => {
                tracing::error!(subscription = %gauge.name(), %error, "subscription cannot begin");
                gauge.set_state(RunState::Stopped, Some(error.to_string()));
            }
        }
    }

    /// Takes the connection and settings that the newest reload brought.
    fn renew(&mut self) {
        let renewed = self.orders.borrow().renewed;
        if renewed != self.renewed {
            let destination = Destination::of(&self.spec, self.letterhead.log_id, &self.letterhead.route);
            (self.exporter, self.letterhead) = (destination.sends, destination.letterhead);
            (self.park_on_refused, self.renewed) = (destination.park_on_refused, renewed);
        }
    }

    /// A refusal that makes a dead letter; every other fault concerns the target, not the message.
    pub fn parks(&self, fault: &Fault) -> bool {
        fault.kind == FaultKind::RefusedEvent || (self.park_on_refused && fault.kind == FaultKind::Misconfigured)
    }
}

impl Subscription {
    /// Takes up what the log holds.
    async fn begin(task: SubscriptionTask) -> Result<Subscription, Box<dyn std::error::Error + Send + Sync>> {
        let name = task.gauge.name();
        let state = task.log.state();
        let stored = state.iter().find(|entry| entry.name == control::CURSOR && entry.key == name);
        let (mut cursor, noted) = match stored {
            Some(entry) => (control::read::<Cursor>(&entry.name, entry.sequence, &entry.payload)?, entry.sequence),
            None => (Cursor::default(), Sequence::ZERO),
        };
        // One that was away begins anew: what it would have told of before is known to nobody any more.
        if noted < task.added {
            cursor.move_to(task.begin_after.unwrap_or(task.added));
            if task.begin_after.is_some() {
                // The next start may not say it again.
                let mut batch = Batch::new();
                control::put(&mut batch, control::CURSOR, &name, &cursor, None);
                append_durable(&*task.log, batch, "note where a subscription begins").await?;
            }
        }
        let ledger = Ledger::rebuild(&name, cursor.through, &task.log).await?;
        let mut backlog = Backlog::default();
        for entry in state.iter().filter(|entry| entry.name == control::PARKED) {
            if control::route_of(&entry.key) == Some(name.as_str()) {
                let message: ParkedMessage = control::read(&entry.name, entry.sequence, &entry.payload)?;
                if ledger.parked(message.parked.sequence).is_some() {
                    backlog.add(&message);
                }
            }
        }
        task.gauge.begin(&cursor, ledger, backlog);
        Ok(Subscription {
            progress: Progress::new(task.log.clone(), task.gauge.clone(), cursor),
            task,
            name,
            pace: Pace::new(),
            back_off: BackOff::new(),
            deciding: None,
            block: None,
            parks_until: Sequence::ZERO,
            searched: Sequence::ZERO,
        })
    }

    async fn run(&mut self) {
        self.task.gauge.set_state(RunState::Running, None);
        while !self.task.cancel.is_cancelled() {
            if self.task.orders.borrow_and_update().paused {
                self.progress.note(When::Now);
                self.task.gauge.set_state(RunState::Paused, None);
                if self.wait(None, None).await == Woke::Cancelled {
                    break;
                }
                if !self.task.orders.borrow().paused {
                    self.task.gauge.set_state(RunState::Running, None);
                }
                continue;
            }
            self.task.renew();
            if let Err(Halt::Fault(fault)) = self.follow().await {
                self.progress.note(When::Now);
                let full = matches!(&*fault.code, MAX_PARKED | MAX_WAITING);
                if !(full && self.is_decision_ahead().await) {
                    self.rest(&fault).await;
                }
            }
        }
        self.progress.finish().await;
        let (_, error) = self.task.gauge.state();
        self.task.gauge.set_state(RunState::Ended, error);
    }

    /// Follows the route until cancelled, paused, or a fault.
    async fn follow(&mut self) -> Result<(), Halt> {
        let mut checkpoint = self.task.route.watch();
        loop {
            self.check_orders()?;
            let reached = *checkpoint.borrow_and_update();
            let after = self.progress.cursor.through;
            if after >= reached {
                if reached > Sequence::ZERO {
                    self.is_well();
                }
                self.wait(None, Some(&mut checkpoint)).await;
                continue;
            }
            let blocks = self.read(after).await?;
            let mut out = Outgoing::new(Stretch::Log { through: after });
            for block in &blocks {
                self.send_block(block, reached, &mut out).await?;
            }
            self.send(&mut out).await?;
            if self.progress.cursor.through == after {
                let detail = format!("nothing can be read behind sequence {after}");
                return Err(Fault::new(FaultKind::Transient, "log/read", "read the log", detail).into());
            }
        }
    }

    async fn read(&self, after: Sequence) -> Result<Vec<Block>, Fault> {
        let limits = ReadLimits { events: MOST_MESSAGES * 4, bytes: MOST_BYTES };
        if let Some(blocks) = self.task.log.read_recent(after, limits) {
            return Ok(blocks);
        }
        let log = self.task.log.clone();
        let read = tokio::task::spawn_blocking(move || log.read(after, limits)).await;
        let read = read.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string()));
        read.map_err(|detail| Fault::new(FaultKind::Transient, "log/read", "read the log", detail))
    }

    /// Takes up what `block` holds in `(through, reached]`, sending whenever there is enough of it.
    async fn send_block(&mut self, block: &Block, reached: Sequence, out: &mut Outgoing) -> Result<(), Halt> {
        for recorded in block.iter() {
            let sequence = recorded.sequence;
            let Stretch::Log { through } = out.stretch else { return Ok(()) };
            if sequence <= through {
                continue;
            }
            if sequence > reached {
                break;
            }
            if let Some(decided) = self.decided(&recorded) {
                self.send(out).await?;
                self.at_decision(&recorded, decided).await?;
                self.check_orders()?;
            } else if let Some(program) = self.wants(&recorded, block, sequence)?
                && self.is_in_effect(sequence)
            {
                if out.is_empty() {
                    self.task.gauge.working_on(Some(recorded.event.received));
                }
                let place = crate::export::backlog::Place::of(sequence, None);
                let (mark, message) = self.write(&program, &recorded, block, place);
                out.push(mark, message);
            }
            out.stretch = Stretch::Log { through: sequence };
            if out.is_full() {
                self.send(out).await?;
            }
        }
        Ok(())
    }

    /// Waits as the fault's policy says: for some time, until a probe passes, or for an operator.
    async fn rest(&mut self, fault: &Fault) {
        let policy = fault.policy();
        if policy == Policy::BackOff {
            self.is_unwell(RunState::Degraded, fault);
            let pause = self.back_off.pause(None);
            self.wait(Some(pause), None).await;
            return;
        }
        self.is_unwell(RunState::Stopped, fault);
        if policy == Policy::Stop {
            self.wait(None, None).await;
            return;
        }
        loop {
            let pause = self.back_off.pause(None);
            if self.wait(Some(pause), None).await != Woke::Time {
                return;
            }
            let probed = tokio::select! {
                () = self.task.cancel.cancelled() => return,
                changed = self.task.orders.changed() => {
                    drop(changed);
                    return;
                }
                probed = self.task.exporter.probe() => probed,
            };
            match probed {
                // Whether it takes messages again is for the next one to find out; until then the state stays.
                Ok(()) => return,
                Err(fault) => self.task.gauge.set_state(RunState::Stopped, Some(fault.to_string())),
            }
        }
    }

    /// Looks for an operator's retry or skip beyond the cursor. With one, parked messages up to it may be more than the
    /// bounds allow: what it decides makes room again.
    async fn is_decision_ahead(&mut self) -> bool {
        let from = self.searched.max(self.parks_until).max(self.progress.cursor.through);
        let (log, name) = (self.task.log.clone(), self.name.clone());
        let found = tokio::task::spawn_blocking(move || newest_decision(&*log, &name, from)).await;
        match found.map_err(|e| e.to_string()).and_then(|f| f.map_err(|e| e.to_string())) {
            Ok((found, through)) => {
                self.searched = through;
                self.parks_until = found.map_or(self.parks_until, |record| self.parks_until.max(record));
                found.is_some()
            }
            Err(error) => {
                tracing::warn!(subscription = %self.name, error, "cannot look for a retry or skip");
                false
            }
        }
    }

    /// Waits, while the cursor is noted as it falls due. With `pause`, no longer than that.
    pub async fn wait(&mut self, pause: Option<Duration>, mut news: Option<&mut watch::Receiver<Sequence>>) -> Woke {
        let until = pause.map(|pause| Instant::now() + pause);
        loop {
            let due = self.progress.due_in();
            let (task, progress) = (&mut self.task, &mut self.progress);
            tokio::select! {
                () = task.cancel.cancelled() => return Woke::Cancelled,
                changed = task.orders.changed() => {
                    return if changed.is_ok() { Woke::Orders } else { Woke::Cancelled };
                }
                () = changed(news.as_deref_mut()) => return Woke::News,
                () = until_then(until) => return Woke::Time,
                () = task.gauge.asked() => progress.note(When::Due),
                () = progress.written() => {}
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => progress.note(When::Due),
            }
        }
    }

    /// Between two steps: is there a reason to leave off?
    pub fn check_orders(&self) -> Result<(), Halt> {
        let orders = *self.task.orders.borrow();
        let leaves = self.task.cancel.is_cancelled() || orders.paused || orders.renewed != self.task.renewed;
        if leaves { Err(Halt::Interrupted) } else { Ok(()) }
    }

    pub fn is_well(&mut self) {
        if self.task.gauge.state().0 != RunState::Running {
            tracing::info!(subscription = %self.name, "subscription goes on");
            self.task.gauge.set_state(RunState::Running, None);
        }
    }

    pub fn is_unwell(&mut self, state: RunState, fault: &Fault) {
        if self.task.gauge.state().0 != state {
            tracing::warn!(subscription = %self.name, error = %fault, ?state, "subscription cannot go on");
        }
        self.task.gauge.set_state(state, Some(fault.to_string()));
    }
}

async fn changed(news: Option<&mut watch::Receiver<Sequence>>) {
    match news {
        // The gauge that sends is ours as well: there is always somebody to wait for.
        Some(news) => drop(news.changed().await),
        None => std::future::pending().await,
    }
}

async fn until_then(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
