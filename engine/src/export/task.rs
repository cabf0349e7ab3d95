//! The loop of one subscription (Protocol D): what the view already shows is sent, confirmed, and only then behind us.
//!
//! The cursor is a lazy control event. Between two of them a crash sends some messages again, with the same ids.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_log::{Batch, Block, EventLog, ReadLimits};
use gravity_model::failpoint;
use gravity_model::port::export::{Delivery, Exporter, Message};
use gravity_model::{EventKind, Fault, FaultKind, Policy, Recorded, Sequence};
use gravity_rules::RouteProgram;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::{self, Cursor, Decision, Parked, Released, Stage};
use crate::export::gauge::SubscriptionGauge;
use crate::export::message::Letterhead;
use crate::ledger::{BlockedKey, Ledger};
use crate::project::apply::{Why, append_durable, parked};
use crate::project::decide::read_block;
use crate::project::gauge::RouteGauge;
use crate::project::route::Orders;
use crate::rulebook::RuleBook;
use crate::status::RunState;
use crate::supervise::BackOff;

/// Messages handed to the exporter at once.
const MOST_MESSAGES: usize = 512;
const MOST_BYTES: usize = 4 << 20;
/// Cursors a second, at most, and only after a delivery.
const CURSOR_EVERY: Duration = Duration::from_millis(250);
/// Delivery pauses while the newest cursor has waited so long for the disk.
const CURSOR_DURABLE_WITHIN: Duration = Duration::from_secs(1);

pub struct SubscriptionTask {
    pub exporter: Arc<dyn Exporter>,
    pub letterhead: Letterhead,
    pub log: Arc<dyn EventLog>,
    pub route: Arc<RouteGauge>,
    pub rules: Arc<RuleBook>,
    pub gauge: Arc<SubscriptionGauge>,
    pub park_on_refused: bool,
    /// Where a subscription without cursor begins.
    pub begin_after: Sequence,
    pub orders: watch::Receiver<Orders>,
    pub cancel: CancellationToken,
}

/// A message with what it takes to park it.
struct Outgoing {
    message: Message,
    order: Option<BlockedKey>,
}

/// The cursor, in memory and on its way to the log.
struct Progress {
    cursor: Cursor,
    noted: Cursor,
    noted_at: Instant,
    /// Sequence and time of a cursor record that is not durable yet.
    pending: Option<(Sequence, Instant)>,
}

impl SubscriptionTask {
    pub async fn run(mut self) {
        let name = self.gauge.name();
        let state = self.log.state();
        let cursor = state.iter().find(|e| e.name == control::CURSOR && e.key == name);
        let cursor = cursor.and_then(|e| control::read::<Cursor>(&e.name, e.sequence, &e.payload).ok());
        let cursor = cursor.unwrap_or(Cursor { through: self.begin_after, delivered: 0 });
        let ledger = match Ledger::rebuild(&name, cursor.through, &self.log).await {
            Ok(ledger) => ledger,
            Err(error) => return self.gauge.set_state(RunState::Stopped, Some(error.to_string())),
        };
        self.gauge.begin(cursor.through, cursor.delivered, ledger);
        let mut progress = Progress { cursor, noted: cursor, noted_at: Instant::now(), pending: None };
        let mut back_off = BackOff::new();
        while !self.cancel.is_cancelled() {
            if self.orders.borrow_and_update().paused {
                self.gauge.set_state(RunState::Paused, None);
                tokio::select! {
                    () = self.cancel.cancelled() => break,
                    changed = self.orders.changed() => if changed.is_err() { break },
                }
                continue;
            }
            self.gauge.set_state(RunState::Running, None);
            match self.follow(&mut progress, &mut back_off).await {
                Ok(()) => {}
                Err(fault) => {
                    let policy = fault.policy();
                    let state = if policy == Policy::BackOff { RunState::Degraded } else { RunState::Stopped };
                    tracing::warn!(subscription = %name, error = %fault, ?state, "subscription cannot go on");
                    self.gauge.set_state(state, Some(fault.to_string()));
                    let pause = back_off.pause(None);
                    tokio::select! {
                        () = self.cancel.cancelled() => break,
                        changed = self.orders.changed() => if changed.is_err() { break },
                        () = tokio::time::sleep(pause) => {}
                    }
                    if policy != Policy::BackOff
                        && let Err(fault) = self.exporter.probe().await
                    {
                        self.gauge.set_state(RunState::Stopped, Some(fault.to_string()));
                    }
                }
            }
        }
        self.note(&mut progress, true);
        let (_, error) = self.gauge.state();
        self.gauge.set_state(RunState::Ended, error);
    }

    /// Follows the route until cancelled, paused, or a fault.
    async fn follow(&mut self, progress: &mut Progress, back_off: &mut BackOff) -> Result<(), Fault> {
        let mut checkpoint = self.route.watch();
        loop {
            let reached = *checkpoint.borrow_and_update();
            let after = progress.cursor.through;
            if after >= reached {
                let unnoted =
                    progress.noted != progress.cursor && progress.cursor.delivered != progress.noted.delivered;
                tokio::select! {
                    () = self.cancel.cancelled() => return Ok(()),
                    changed = self.orders.changed() => {
                        if changed.is_err() || self.orders.borrow().paused { return Ok(()) }
                    }
                    changed = checkpoint.changed() => if changed.is_err() { return Ok(()) },
                    () = tokio::time::sleep(CURSOR_EVERY), if unnoted => self.note(progress, true),
                }
                continue;
            }
            if self.cancel.is_cancelled() || self.orders.borrow().paused {
                return Ok(());
            }
            for block in self.read(after).await? {
                self.send_block(&block, reached, progress, back_off).await?;
                if self.cancel.is_cancelled() {
                    return Ok(());
                }
            }
        }
    }

    async fn read(&self, after: Sequence) -> Result<Vec<Block>, Fault> {
        let limits = ReadLimits { events: MOST_MESSAGES * 4, bytes: MOST_BYTES };
        if let Some(blocks) = self.log.read_recent(after, limits) {
            return Ok(blocks);
        }
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || log.read(after, limits)).await;
        let read = read.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string()));
        read.map_err(|detail| Fault::new(FaultKind::Transient, "log/read", "read the log", detail))
    }

    /// Sends what `block` holds in `(cursor, reached]`, moving the cursor as messages are confirmed.
    async fn send_block(
        &self,
        block: &Block,
        reached: Sequence,
        progress: &mut Progress,
        back_off: &mut BackOff,
    ) -> Result<(), Fault> {
        let mut outgoing: Vec<Outgoing> = Vec::new();
        let mut through = progress.cursor.through;
        for recorded in block.iter() {
            if recorded.sequence <= progress.cursor.through {
                continue;
            }
            if recorded.sequence > reached {
                break;
            }
            if recorded.event.kind == EventKind::Control
                && matches!(recorded.event.name, control::RETRY | control::SKIP)
            {
                self.send(&mut outgoing, through, progress, back_off).await?;
                self.at_decision(&recorded, progress, back_off).await?;
                through = recorded.sequence;
                continue;
            }
            if let Some(program) = self.wants(&recorded)
                && self.is_in_effect(recorded.sequence)
            {
                self.gauge.working_on(Some(recorded.event.received));
                outgoing.push(self.write(&program, &recorded, block, None));
            }
            through = recorded.sequence;
            if outgoing.len() >= MOST_MESSAGES {
                self.send(&mut outgoing, through, progress, back_off).await?;
            }
        }
        self.send(&mut outgoing, through, progress, back_off).await
    }

    /// The rules, if a routing of the event to this subscription is in force.
    fn wants(&self, recorded: &Recorded<'_>) -> Option<Arc<RouteProgram>> {
        if recorded.event.kind == EventKind::Undecodable || recorded.event.payload.is_none() {
            return None;
        }
        // The rules in force there decide, also for what was written before the route's present ones.
        let version = self.rules.in_force(recorded.sequence)?;
        let fires = version.set.fires(recorded.event.name, &self.route.name, &self.letterhead.exporter);
        if fires { self.route.program(recorded.sequence) } else { None }
    }

    /// False for what is parked, took effect later, or changed nothing.
    fn is_in_effect(&self, sequence: Sequence) -> bool {
        let ledger = self.route.ledger.lock();
        ledger.parked(sequence).is_none() && ledger.effect_of(sequence).is_none() && !ledger.was_missed(sequence)
    }

    fn write(
        &self,
        program: &RouteProgram,
        recorded: &Recorded<'_>,
        block: &Block,
        effect: Option<Sequence>,
    ) -> Outgoing {
        let tables = program.tables_of(recorded.event.name);
        let mut message = self.letterhead.write(recorded, &tables, effect);
        if message.key.is_none() {
            message.key = crate::export::key::of_first_projection(program, recorded, block);
        }
        let scope: Arc<str> = "".into();
        let order = message.key.as_ref().map(|key| BlockedKey::row(&scope, key));
        Outgoing { message, order }
    }

    /// A retry or skip: of the route (events that now took effect are sent), or of this subscription's own messages.
    async fn at_decision(
        &self,
        recorded: &Recorded<'_>,
        progress: &mut Progress,
        back_off: &mut BackOff,
    ) -> Result<(), Fault> {
        let key = recorded.event.key.and_then(|k| std::str::from_utf8(k).ok()).and_then(control::route_of);
        let (record, skips) = (recorded.sequence, recorded.event.name == control::SKIP);
        let Some(payload) = recorded.event.payload else { return self.moved(record, progress) };
        if key == Some(self.gauge.name().as_str()) {
            let decision: Decision = control::read(recorded.event.name, record, payload)
                .map_err(|e| Fault::new(FaultKind::NotOurs, "log/control", "read a retry or skip", e.to_string()))?;
            self.decide(record, skips, &decision, progress, back_off).await?;
        } else if key == Some(self.route.name.as_str()) {
            let released = self.route.ledger.lock().released_at(record).cloned();
            let mut outgoing = Vec::new();
            for sequence in released.iter().flat_map(|r| r.applied.iter().copied()) {
                self.write_one(sequence, Some(record), &mut outgoing).await?;
            }
            self.send(&mut outgoing, record, progress, back_off).await?;
        }
        self.moved(record, progress)
    }

    fn moved(&self, through: Sequence, progress: &mut Progress) -> Result<(), Fault> {
        progress.cursor.through = through;
        self.gauge.passed(through, progress.cursor.delivered);
        Ok(())
    }

    async fn write_one(
        &self,
        sequence: Sequence,
        effect: Option<Sequence>,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<(), Fault> {
        let Some(block) = read_block(&self.log, sequence).await? else { return Ok(()) };
        if let Some(recorded) = block.event(sequence)
            && let Some(program) = self.wants(&recorded)
        {
            outgoing.push(self.write(&program, &recorded, &block, effect));
        }
        Ok(())
    }

    /// Carries out a retry or skip of parked messages.
    async fn decide(
        &self,
        record: Sequence,
        skips: bool,
        decision: &Decision,
        progress: &mut Progress,
        back_off: &mut BackOff,
    ) -> Result<(), Fault> {
        let all: Vec<Arc<Parked>> = self.gauge.ledger.lock().all_parked().cloned().collect();
        let mut released = Released { route: self.gauge.name(), record, ..Released::default() };
        for entry in all {
            let named = match &decision.sequences {
                Some(sequences) => sequences.contains(&entry.sequence),
                None => !entry.waiting,
            };
            let free = !self.gauge.ledger.lock().blocks(entry.sequence, &entry.blocks);
            if skips && named {
                released.skipped.push(entry.sequence);
            } else if free && (named || entry.waiting) {
                let effect = self.route.ledger.lock().effect_of(entry.sequence);
                let mut outgoing = Vec::new();
                self.write_one(entry.sequence, effect, &mut outgoing).await?;
                let refused = self.deliver(&mut outgoing, progress, back_off).await?;
                if let Some((message, fault)) = refused.into_iter().next() {
                    self.park(&[(message, Some(fault))]).await?;
                    released.parked_again.push(entry.sequence);
                    continue;
                }
                released.applied.push(entry.sequence);
            } else {
                continue;
            }
            let done = Released { record, applied: vec![entry.sequence], ..Released::default() };
            self.gauge.ledger.lock().release(Arc::new(done));
        }
        let mut batch = Batch::new();
        for sequence in released.freed() {
            control::end(&mut batch, control::PARKED, &control::numbered(&self.gauge.name(), sequence.get()));
        }
        control::put(
            &mut batch,
            control::RELEASED,
            &control::numbered(&self.gauge.name(), record.get()),
            &released,
            None,
        );
        append_durable(&*self.log, batch, "record released messages").await?;
        self.gauge.ledger.lock().release(Arc::new(released));
        Ok(())
    }

    /// Sends and parks until nothing is left, then moves the cursor to `through`.
    async fn send(
        &self,
        outgoing: &mut Vec<Outgoing>,
        through: Sequence,
        progress: &mut Progress,
        back_off: &mut BackOff,
    ) -> Result<(), Fault> {
        if failpoint::sabotaged("export.cursor_before_confirm") && !outgoing.is_empty() {
            self.moved(through, progress)?;
            progress.cursor.delivered += 1;
            self.note(progress, true);
            let durable = self.log.durable();
            if let Some((record, _)) = progress.pending {
                let _ = durable.clone().wait_for(|d| *d >= record).await;
            }
        }
        // What shares a key with a parked message waits behind it.
        let (mut waiting, mut free) = (Vec::new(), Vec::new());
        for out in outgoing.drain(..) {
            let keys: Vec<BlockedKey> = out.order.clone().into_iter().collect();
            let blocked = self.gauge.ledger.lock().blocks(out.message.sequence, &keys);
            let already = self.gauge.ledger.lock().parked(out.message.sequence).is_some();
            match (already, blocked) {
                (true, _) => {}
                (false, true) => waiting.push((out, None)),
                (false, false) => free.push(out),
            }
        }
        self.park(&waiting).await?;
        while !free.is_empty() {
            let refused = self.deliver(&mut free, progress, back_off).await?;
            if refused.is_empty() {
                continue;
            }
            let parked: Vec<_> = refused.into_iter().map(|(out, fault)| (out, Some(fault))).collect();
            self.park(&parked).await?;
            // The refused ones' keys are blocked now: later messages of those keys wait.
            let (mut behind, mut still) = (Vec::new(), Vec::new());
            for out in free.drain(..) {
                let keys: Vec<BlockedKey> = out.order.clone().into_iter().collect();
                match self.gauge.ledger.lock().blocks(out.message.sequence, &keys) {
                    true => behind.push((out, None)),
                    false => still.push(out),
                }
            }
            self.park(&behind).await?;
            free = still;
        }
        self.moved(through, progress)?;
        self.note(progress, false);
        Ok(())
    }

    /// Hands messages to the exporter until each is confirmed or refused; leaves in `free` what must follow a refused one
    /// of its key. Returns the refused ones.
    async fn deliver(
        &self,
        free: &mut Vec<Outgoing>,
        progress: &mut Progress,
        back_off: &mut BackOff,
    ) -> Result<Vec<(Outgoing, Fault)>, Fault> {
        self.cursor_is_durable(progress).await;
        let messages: Vec<Message> = free.iter().map(|out| out.message.clone()).collect();
        let deliveries = self.exporter.export(&messages).await;
        let mut refused = Vec::new();
        let mut left = Vec::new();
        let mut stop: Option<(Fault, Option<Duration>)> = None;
        for (out, delivery) in free.drain(..).zip(deliveries) {
            match delivery {
                Delivery::Delivered => progress.cursor.delivered += 1,
                Delivery::Failed { fault, .. }
                    if fault.kind == FaultKind::RefusedEvent
                        || (self.park_on_refused && fault.kind == FaultKind::Misconfigured) =>
                {
                    refused.push((out, fault));
                }
                Delivery::Failed { fault, retry_after } => {
                    left.push(out);
                    stop.get_or_insert((fault, retry_after));
                }
            }
        }
        *free = left;
        self.gauge.passed(self.gauge.cursor(), progress.cursor.delivered);
        if !refused.is_empty() {
            return Ok(refused);
        }
        let Some((fault, retry_after)) = stop else {
            back_off.reset();
            self.gauge.set_state(RunState::Running, None);
            return Ok(Vec::new());
        };
        if fault.policy() != Policy::BackOff {
            return Err(fault);
        }
        // What was confirmed is not sent again: the rest of this batch is retried here, under the same cursor.
        self.gauge.set_state(RunState::Degraded, Some(fault.to_string()));
        if !back_off.wait(&self.cancel, retry_after).await {
            return Err(Fault::new(FaultKind::Closed, "closed", "deliver messages", "the engine stops"));
        }
        Ok(Vec::new())
    }

    /// Parks messages durably, in memory first so that later ones of their keys wait.
    async fn park(&self, outgoing: &[(Outgoing, Option<Fault>)]) -> Result<(), Fault> {
        let mut batch = Batch::new();
        let name = self.gauge.name();
        for (out, fault) in outgoing {
            let why = fault.as_ref().map(|fault| Why {
                stage: Stage::Export,
                code: fault.code.to_string(),
                error: fault.to_string(),
                rule: None,
            });
            let key = out.message.key.as_deref().map(crate::ingest::letters::readable);
            let blocks = out.order.clone().into_iter().collect();
            let (sequence, event) = (out.message.sequence, out.message.event.clone());
            let record =
                Parked { stage: Stage::Export, ..parked(&name, sequence, event, key, blocks, fault.is_none(), why) };
            control::put(&mut batch, control::PARKED, &control::numbered(&name, sequence.get()), &record, None);
            self.gauge.ledger.lock().park(Arc::new(record));
        }
        append_durable(&*self.log, batch, "record refused messages").await
    }

    /// Notes the cursor in the log: lazily, not too often, and only after a delivery.
    fn note(&self, progress: &mut Progress, now: bool) {
        let due = now || progress.noted_at.elapsed() >= CURSOR_EVERY;
        if !due || progress.noted.delivered == progress.cursor.delivered {
            return;
        }
        let mut batch = Batch::new();
        control::put(&mut batch, control::CURSOR, &self.gauge.name(), &progress.cursor, None);
        match self.log.append_lazy(batch) {
            Ok(range) => {
                progress.pending.get_or_insert((range.last, Instant::now()));
                (progress.noted, progress.noted_at) = (progress.cursor, Instant::now());
            }
            Err(error) => tracing::debug!(subscription = %self.gauge.name(), %error, "cursor not noted"),
        }
    }

    /// Bounds what a crash sends again: no delivery while a cursor has waited too long for the disk.
    async fn cursor_is_durable(&self, progress: &mut Progress) {
        let Some((record, since)) = progress.pending else { return };
        let mut durable = self.log.durable();
        if *durable.borrow() >= record {
            progress.pending = None;
        } else if since.elapsed() >= CURSOR_DURABLE_WITHIN {
            tokio::select! {
                () = self.cancel.cancelled() => {}
                _ = durable.wait_for(|d| *d >= record) => progress.pending = None,
            }
        }
    }
}
