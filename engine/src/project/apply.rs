//! Applies a judged stretch of the log to the database: fold, park, commit; on a refusal halve, then run singly.
//!
//! The order inside one part is the protocol: (1) decide which events run, wait or are refused, (2) make park records
//! durable, (3) write rows and checkpoint in one transaction. A park record binds even when (3) fails.

use std::sync::Arc;

use futures::future::join_all;
use gravity_log::{Batch, Block, EventLog};
use gravity_model::failpoint::{self, Hit};
use gravity_model::port::view::{EventOutcome, ViewStore, ViewTransaction};
use gravity_model::shape::SharedShape;
use gravity_model::{Checkpoint, Counters, Fault, FaultKind, Sequence, Value};
use gravity_rules::RouteProgram;
use parking_lot::Mutex;

use crate::control::{self, Missed, Parked};
use crate::ledger::Ledger;
use crate::project::evaluate::{Judged, Stretch, Wants, shown, touched};
use crate::project::fold::{Fold, Folded};
use crate::project::gauge::RouteGauge;
use crate::project::lanes::{Run, home_lane, runs};
use crate::project::park::{MAX_PARKED, MAX_WAITING, Why, parked};

/// A refused part of at most this many events runs event by event.
const SINGLY: usize = 32;

/// Writes a route's stretches for the length of one session.
pub struct Applier {
    pub means: Means,
    /// The checkpoint rows as the database has them, in lane order; never empty.
    pub lanes: Vec<Checkpoint>,
}

/// What it takes to judge, park and write.
pub struct Means {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewStore>,
    pub gauge: Arc<RouteGauge>,
    pub program: Arc<RouteProgram>,
    pub shapes: Vec<SharedShape>,
    /// Table names, shared with blocked keys.
    pub names: Vec<Arc<str>>,
    pub max_parked: u64,
    /// See [`DatabaseOptions`](crate::parts::DatabaseOptions).
    pub max_waiting_bytes: u64,
    /// Of the last batch, for the next: [`Folded::into_room`].
    pub room: Mutex<Vec<Value>>,
}

impl Applier {
    /// The route's checkpoint: what every lane has done.
    pub fn checkpoint(&self) -> Sequence {
        self.lanes.iter().map(|lane| lane.sequence).min().unwrap_or_default()
    }

    pub fn counters(&self) -> Counters {
        self.lanes.iter().fold(Counters::default(), |sum, lane| sum.plus(lane.counters))
    }

    /// Applies the whole stretch. On an error the session ends; what was committed stays, park records bind.
    pub async fn apply(&mut self, stretch: &Stretch, blocks: &[Block]) -> Result<(), Fault> {
        let input = Input { stretch, blocks };
        if self.lanes.len() == 1 {
            let events: Vec<u32> = (0..stretch.events.len() as u32).collect();
            return self.all_lanes().apply(&input, &events, stretch.through).await;
        }
        for run in runs(stretch, self.lanes.len()) {
            match run {
                Run::Together { events, through } => self.all_lanes().apply(&input, &events, through).await?,
                Run::Apart { by_lane, through } => {
                    let means = &self.means;
                    let lanes = self.lanes.iter_mut().zip(&by_lane).map(|(lane, events)| {
                        let mut writer = Writer { means, rows: std::slice::from_mut(lane), alone: false };
                        let input = &input;
                        async move { writer.apply(input, events, through).await }
                    });
                    // Every lane comes to its end before a fault is looked at: no transaction is dropped half way.
                    join_all(lanes).await.into_iter().collect::<Result<(), Fault>>()?;
                    self.announce();
                }
            }
        }
        Ok(())
    }

    /// A writer whose transactions move every lane.
    pub(crate) fn all_lanes(&mut self) -> Writer<'_> {
        Writer { means: &self.means, rows: &mut self.lanes, alone: true }
    }

    /// Wakes exporters and waiters: everything that they may ask about the new checkpoint must be known by now.
    pub(crate) fn announce(&self) {
        self.means.gauge.committed(self.checkpoint(), self.counters());
    }
}

/// A stretch with the blocks that hold its events.
pub(crate) struct Input<'s> {
    pub stretch: &'s Stretch,
    pub blocks: &'s [Block],
}

/// Writes for some lanes of a route; their rows move together, in the transaction that writes the events.
pub(crate) struct Writer<'r> {
    pub means: &'r Means,
    pub rows: &'r mut [Checkpoint],
    /// No other lane writes at the same time: each commit may be announced at once.
    pub alone: bool,
}

impl Writer<'_> {
    /// `events` are indices into the stretch, ascending. Afterwards the lanes stand at `through`.
    pub async fn apply(&mut self, input: &Input<'_>, events: &[u32], through: Sequence) -> Result<(), Fault> {
        // A lane may be ahead of the others after a restart: what it has done is not done again.
        let done = self.rows.iter().map(|row| row.sequence).min().unwrap_or_default();
        let first = events.partition_point(|i| input.stretch.events[*i as usize].sequence <= done);
        let mut parts = vec![(&events[first..], through)];
        while let Some((part, through)) = parts.pop() {
            if through <= done {
                continue;
            }
            match self.apply_part(input, part, through).await {
                Err(fault) if fault.kind == FaultKind::RefusedEvent && !part.is_empty() => {
                    tracing::debug!(route = %self.means.gauge.name, events = part.len(), error = %fault, "part refused");
                    if part.len() <= SINGLY {
                        match self.apply_singly(input, part, through).await {
                            // Refused at the commit (a deferred constraint): no event of the part is known to be at fault.
                            Err(fault) if fault.kind == FaultKind::RefusedEvent && part.len() == 1 => {
                                self.park_alone(input, part[0], through, &fault).await?;
                                continue;
                            }
                            Err(fault) if fault.kind == FaultKind::RefusedEvent => {}
                            other => {
                                other?;
                                continue;
                            }
                        }
                    }
                    let (left, right) = part.split_at(part.len() / 2);
                    let between = left.last().map_or(through, |i| input.stretch.events[*i as usize].sequence);
                    parts.push((right, through));
                    parts.push((left, between));
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn apply_part(&mut self, input: &Input<'_>, part: &[u32], through: Sequence) -> Result<(), Fault> {
        let plan = self.plan(input, part)?;
        let through = plan.full.as_ref().map_or(through, |full| full.through);
        let late = failpoint::sabotaged("project.park_after_checkpoint");
        if !late {
            self.means.append(plan.records.iter().map(|p| &**p), None).await?;
        }
        if failpoint::hit("project.after_park") == Hit::Fail {
            return Err(Fault::new(FaultKind::Transient, "injected", "apply", "failpoint project.after_park"));
        }
        let mut transaction = self.means.store.begin(self.rows).await?;
        let mut counters = plan.counters;
        let mut missed = Vec::new();
        if !plan.folded.batch.is_empty() {
            match transaction.apply(&plan.folded.batch).await {
                Ok(applied) => missed = plan.folded.missed(&applied.missed, input.stretch),
                Err(fault) => {
                    transaction.rollback().await;
                    return Err(fault);
                }
            }
            for judged in &missed {
                let counters = &mut counters[self.home(input.stretch, judged)];
                counters.applied -= 1;
                counters.filtered += 1;
            }
        }
        let missed = missed.iter().map(|judged| judged.sequence).collect();
        *self.means.room.lock() = plan.folded.into_room();
        self.commit(transaction, through, &counters, missed).await?;
        if late {
            self.means.append(plan.records.iter().map(|p| &**p), None).await?;
        }
        plan.full.map_or(Ok(()), |full| Err(full.fault))
    }

    /// Runs events one by one under savepoints, in log order, in one transaction; only what fails there is at fault.
    async fn apply_singly(&mut self, input: &Input<'_>, part: &[u32], through: Sequence) -> Result<(), Fault> {
        let mut transaction = self.means.store.begin(self.rows).await?;
        match self.run_singly(&mut transaction, input, part).await {
            Ok(Singly { counters, missed, full }) => {
                let through = full.as_ref().map_or(through, |full| full.through);
                self.commit(transaction, through, &counters, missed).await?;
                full.map_or(Ok(()), |full| Err(full.fault))
            }
            Err(fault) => {
                transaction.rollback().await;
                Err(fault)
            }
        }
    }

    /// Inside the transaction: runs, and makes what failed durable as dead letters. Returns the counters to commit, and the
    /// events that changed nothing.
    async fn run_singly(
        &self,
        transaction: &mut Box<dyn ViewTransaction>,
        input: &Input<'_>,
        part: &[u32],
    ) -> Result<Singly, Fault> {
        let mut all = self.counters();
        let (mut records, mut missed, mut full) = (Vec::new(), Vec::new(), None);
        for (taken, index) in part.iter().enumerate() {
            let judged = &input.stretch.events[*index as usize];
            let counters = &mut all[self.home(input.stretch, judged)];
            let parked = match self.means.fate(input.stretch, judged) {
                Fate::Unmatched => {
                    counters.unmatched += 1;
                    None
                }
                Fate::Filtered => {
                    counters.filtered += 1;
                    None
                }
                Fate::Known { waiting } => {
                    count_parked(counters, waiting);
                    None
                }
                Fate::Parks { waiting, refusal } => Some((waiting, refusal)),
                Fate::Runs => match self.means.run_one(transaction, input.stretch, judged).await? {
                    Ok(true) => {
                        counters.applied += 1;
                        None
                    }
                    Ok(false) => {
                        counters.filtered += 1;
                        missed.push(judged.sequence);
                        None
                    }
                    Err(refused) => Some((false, Some(Why::of(&refused)))),
                },
            };
            if let Some((waiting, why)) = parked {
                match self.means.park(input.stretch, input.blocks, judged, waiting, why) {
                    Ok(record) => records.push(record),
                    Err(fault) => {
                        full = Some(Full::at(input.stretch, part, taken, fault)?);
                        break;
                    }
                }
                count_parked(counters, waiting);
            }
            counters.read += 1;
        }
        self.means.append(records.iter().map(|p| &**p), None).await?;
        Ok(Singly { counters: all, missed, full })
    }

    /// Parks one event that the database takes but does not commit, and passes it.
    async fn park_alone(
        &mut self,
        input: &Input<'_>,
        index: u32,
        through: Sequence,
        fault: &Fault,
    ) -> Result<(), Fault> {
        let judged = &input.stretch.events[index as usize];
        let mut all = self.counters();
        let counters = &mut all[self.home(input.stretch, judged)];
        counters.read += 1;
        count_parked(counters, false);
        let record = self.means.park(input.stretch, input.blocks, judged, false, Some(Why::of(fault)))?;
        self.means.append(std::iter::once(&*record), None).await?;
        let transaction = self.means.store.begin(self.rows).await?;
        self.commit(transaction, through, &all, Vec::new()).await
    }

    /// Decides about each event of a part, parking in memory what must be parked.
    fn plan(&self, input: &Input<'_>, part: &[u32]) -> Result<Plan, Fault> {
        let mut all = self.counters();
        let (mut records, mut full) = (Vec::new(), None);
        let mut fold = Fold::new(&input.stretch.evaluation, &self.means.shapes);
        for (taken, index) in part.iter().enumerate() {
            let judged = &input.stretch.events[*index as usize];
            let counters = &mut all[self.home(input.stretch, judged)];
            match self.means.fate(input.stretch, judged) {
                Fate::Unmatched => counters.unmatched += 1,
                Fate::Filtered => counters.filtered += 1,
                Fate::Known { waiting } => count_parked(counters, waiting),
                Fate::Parks { waiting, refusal } => {
                    match self.means.park(input.stretch, input.blocks, judged, waiting, refusal) {
                        Ok(record) => records.push(record),
                        Err(fault) => {
                            full = Some(Full::at(input.stretch, part, taken, fault)?);
                            break;
                        }
                    }
                    count_parked(counters, waiting);
                }
                Fate::Runs => {
                    counters.applied += 1;
                    self.means.add(&mut fold, input.stretch, *index, judged);
                }
            }
            counters.read += 1;
        }
        let room = std::mem::take(&mut *self.means.room.lock());
        Ok(Plan { counters: all, records, folded: fold.finish(room), full })
    }

    /// Counters as committed, one entry per row.
    fn counters(&self) -> Vec<Counters> {
        self.rows.iter().map(|row| row.counters).collect()
    }

    /// Index of the row in which an event counts: that of its first view key.
    fn home(&self, stretch: &Stretch, judged: &Judged) -> usize {
        if self.rows.len() == 1 { 0 } else { home_lane(stretch, judged, self.rows.len()) }
    }

    /// Moves the checkpoints in the same transaction as the rows; tells everyone who waits, if it may.
    pub(crate) async fn commit(
        &mut self,
        transaction: Box<dyn ViewTransaction>,
        through: Sequence,
        counters: &[Counters],
        missed: Vec<Sequence>,
    ) -> Result<(), Fault> {
        self.commit_quietly(transaction, through, counters, missed).await?;
        if self.alone {
            let sum = self.rows.iter().fold(Counters::default(), |sum, row| sum.plus(row.counters));
            self.means.gauge.committed(through, sum);
        }
        Ok(())
    }

    /// The same without telling: for a decision, whose outcome must be known first.
    pub(crate) async fn commit_quietly(
        &mut self,
        transaction: Box<dyn ViewTransaction>,
        through: Sequence,
        counters: &[Counters],
        missed: Vec<Sequence>,
    ) -> Result<(), Fault> {
        if !missed.is_empty() {
            let mut batch = Batch::new();
            let key = control::numbered(&self.means.gauge.name, missed[missed.len() - 1].get());
            let record = Missed { route: self.means.gauge.name.clone(), sequences: missed.clone() };
            control::put(&mut batch, control::MISSED, &key, &record, None);
            if let Err(fault) = append_durable(&*self.means.log, batch, "record events that changed nothing").await {
                transaction.rollback().await;
                return Err(fault);
            }
        }
        let (log, at) = (self.means.log.clone(), through);
        let mark = tokio::task::spawn_blocking(move || log.block_mark(at)).await;
        let mark = match mark.map_err(|e| e.to_string()).and_then(|m| m.map_err(|e| e.to_string())) {
            Ok(mark) => mark,
            Err(detail) => {
                transaction.rollback().await;
                return Err(Fault::new(FaultKind::Transient, "log/read", "find the checkpoint's block", detail));
            }
        };
        let identity = self.means.log.identity();
        let moved = |(row, counters): (&Checkpoint, &Counters)| Checkpoint {
            sequence: through,
            fence: identity.fence,
            owner: identity.owner,
            block: mark,
            counters: *counters,
            ..row.clone()
        };
        let next: Vec<Checkpoint> = self.rows.iter().zip(counters).map(moved).collect();
        transaction.commit(&next).await?;
        self.rows.clone_from_slice(&next);
        self.means.gauge.ledger.lock().miss(missed);
        Ok(())
    }
}

impl Means {
    /// `Ok(true)` applied, `Ok(false)` every row that it patches is missing, `Err` refused by the database.
    pub(crate) async fn run_one(
        &self,
        transaction: &mut Box<dyn ViewTransaction>,
        stretch: &Stretch,
        judged: &Judged,
    ) -> Result<Result<bool, Fault>, Fault> {
        let mut fold = Fold::new(&stretch.evaluation, &self.shapes);
        self.add(&mut fold, stretch, 0, judged);
        let folded = fold.finish(Vec::new());
        if folded.batch.is_empty() {
            return Ok(Ok(true));
        }
        Ok(match transaction.apply_event(&folded.batch).await? {
            // Several changes may have become one row.
            EventOutcome::Applied(applied) => {
                let missed =
                    applied.missed.iter().map(|row| folded.patched.get(row).map_or(0, Vec::len)).sum::<usize>();
                Ok(missed < (judged.changes.end - judged.changes.start) as usize)
            }
            EventOutcome::Refused(fault) => Err(fault),
        })
    }

    fn add(&self, fold: &mut Fold<'_>, stretch: &Stretch, index: u32, judged: &Judged) {
        for change in &stretch.evaluation.changes[judged.changes.start as usize..judged.changes.end as usize] {
            fold.add(index, change, &self.program.column_set(change.columns));
        }
    }

    fn fate(&self, stretch: &Stretch, judged: &Judged) -> Fate {
        let ledger = self.gauge.ledger.lock();
        if let Some(parked) = ledger.parked(judged.sequence)
            && !failpoint::sabotaged("project.retry_parked_on_redo")
        {
            return Fate::Known { waiting: parked.waiting };
        }
        match &judged.wants {
            Wants::Unmatched => Fate::Unmatched,
            Wants::Filtered => Fate::Filtered,
            Wants::Refused(refusal) => Fate::Parks { waiting: false, refusal: Some(Why::of_rule(refusal)) },
            Wants::Changes if ledger.is_empty() => Fate::Runs,
            Wants::Changes => {
                let keys = touched(&self.names, &stretch.evaluation, judged);
                if ledger.blocks(judged.sequence, &keys) {
                    Fate::Parks { waiting: true, refusal: None }
                } else {
                    Fate::Runs
                }
            }
        }
    }

    fn park(
        &self,
        stretch: &Stretch,
        blocks: &[Block],
        judged: &Judged,
        waiting: bool,
        why: Option<Why>,
    ) -> Result<Arc<Parked>, Fault> {
        let holding = blocks.iter().find(|b| b.mark.first <= judged.sequence && judged.sequence <= b.last());
        let (event, key) = holding.map(|b| shown(b, judged.sequence)).unwrap_or_default();
        let keys = touched(&self.names, &stretch.evaluation, judged);
        let parked = Arc::new(parked(&self.gauge.name, judged.sequence, event, key, keys, waiting, why));
        let mut ledger = self.gauge.ledger.lock();
        self.has_room(&ledger, judged.sequence, waiting)?;
        ledger.park(parked.clone());
        Ok(parked)
    }

    /// The bounds of SEMANTICS 4.2. An operator's decision that is on the log already lifts them up to its record: the route
    /// could not come to it otherwise.
    fn has_room(&self, ledger: &Ledger, sequence: Sequence, waiting: bool) -> Result<(), Fault> {
        let (code, detail) = if !waiting && ledger.failed() >= self.max_parked {
            let detail =
                format!("{} events failed, as many as `max_parked` allows; retry or skip some", ledger.failed());
            (MAX_PARKED, detail)
        } else if waiting && ledger.waiting_bytes() >= self.max_waiting_bytes {
            let detail = format!(
                "{} events wait behind failed ones, {} MiB of records; retry or skip what they wait for",
                ledger.waiting(),
                ledger.waiting_bytes() >> 20
            );
            (MAX_WAITING, detail)
        } else {
            return Ok(());
        };
        if sequence < self.gauge.parks_until() {
            return Ok(());
        }
        Err(Fault::new(FaultKind::Misconfigured, code, format!("park the event at sequence {sequence}"), detail))
    }

    /// Appends park records, and what a decision released, and waits until they are durable.
    pub(crate) async fn append<'p>(
        &self,
        parked: impl Iterator<Item = &'p Parked>,
        released: Option<&control::Released>,
    ) -> Result<(), Fault> {
        let mut batch = Batch::new();
        for record in parked {
            let key = control::numbered(&self.gauge.name, record.sequence.get());
            control::put(&mut batch, control::PARKED, &key, record, None);
        }
        if let Some(released) = released {
            let key = control::numbered(&self.gauge.name, released.record.get());
            control::put(&mut batch, control::RELEASED, &key, released, None);
        }
        append_durable(&*self.log, batch, "record dead letters").await
    }
}

struct Plan {
    /// One entry per row.
    counters: Vec<Counters>,
    records: Vec<Arc<Parked>>,
    folded: Folded,
    full: Option<Full>,
}

/// What running events one by one came to.
struct Singly {
    /// One entry per row.
    counters: Vec<Counters>,
    missed: Vec<Sequence>,
    full: Option<Full>,
}

/// A part that ends early: its next event would have to be parked, and there is no room.
struct Full {
    /// The last event before it.
    through: Sequence,
    fault: Fault,
}

impl Full {
    /// `taken` events of the part come before; with none there is nothing to write.
    fn at(stretch: &Stretch, part: &[u32], taken: usize, fault: Fault) -> Result<Full, Fault> {
        match taken.checked_sub(1) {
            Some(last) => Ok(Full { through: stretch.events[part[last] as usize].sequence, fault }),
            None => Err(fault),
        }
    }
}

enum Fate {
    Unmatched,
    Filtered,
    /// A park record exists already.
    Known {
        waiting: bool,
    },
    Parks {
        waiting: bool,
        refusal: Option<Why>,
    },
    Runs,
}

fn count_parked(counters: &mut Counters, waiting: bool) {
    if waiting {
        counters.waiting += 1;
    } else {
        counters.failed += 1;
    }
}

pub(crate) async fn append_durable(log: &dyn EventLog, batch: Batch, doing: &str) -> Result<(), Fault> {
    if batch.is_empty() {
        return Ok(());
    }
    let failed = |error: gravity_log::LogError| {
        Fault::new(FaultKind::Transient, "log/write", doing, error.to_string()).with_source(error)
    };
    let ticket = crate::append::durable(log, batch).await.map_err(failed)?;
    ticket.durable().await.map(|_| ()).map_err(failed)
}
