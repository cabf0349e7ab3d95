//! Applies a judged stretch of the log to the database: fold, park, commit; on a refusal halve, then run singly.
//!
//! The order inside one part is the protocol: (1) decide which events run, wait or are refused, (2) make park records
//! durable, (3) write rows and checkpoint in one transaction. A park record binds even when (3) fails.

use std::ops::Range;
use std::sync::Arc;

use gravity_log::{Batch, Block, EventLog};
use gravity_model::failpoint::{self, Hit};
use gravity_model::port::view::{EventOutcome, ViewStore, ViewTransaction};
use gravity_model::shape::SharedShape;
use gravity_model::{Checkpoint, Counters, Fault, FaultKind, Sequence};
use gravity_rules::RouteProgram;

use crate::control::{self, Missed, Parked, Stage};
use crate::project::evaluate::{Judged, Stretch, Wants, shown, touched};
use crate::project::fold::{Fold, Folded};
use crate::project::gauge::RouteGauge;

/// A refused part of at most this many events runs event by event.
const SINGLY: usize = 32;

/// What `Applier` needs of its route for the length of one session.
pub struct Applier {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ViewStore>,
    pub gauge: Arc<RouteGauge>,
    pub program: Arc<RouteProgram>,
    pub shapes: Vec<SharedShape>,
    /// Table names, shared with blocked keys.
    pub names: Vec<Arc<str>>,
    /// As the database has it.
    pub checkpoint: Checkpoint,
    pub max_parked: u64,
}

impl Applier {
    /// Applies the whole stretch. On an error the session ends; what was committed stays, park records bind.
    pub async fn apply(&mut self, stretch: &Stretch, blocks: &[Block]) -> Result<(), Fault> {
        let mut parts = vec![(0..stretch.events.len(), stretch.through)];
        while let Some((part, through)) = parts.pop() {
            if through <= self.checkpoint.sequence {
                continue;
            }
            match self.apply_part(stretch, blocks, part.clone(), through).await {
                Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                    tracing::debug!(route = %self.gauge.name, events = part.len(), error = %fault, "part refused");
                    if part.len() <= SINGLY {
                        match self.apply_singly(stretch, blocks, part.clone(), through).await {
                            // Refused at the commit (a deferred constraint): no event of the part is known to be at fault.
                            Err(fault) if fault.kind == FaultKind::RefusedEvent && part.len() == 1 => {
                                self.park_alone(stretch, blocks, part.start, through, &fault).await?;
                            }
                            Err(fault) if fault.kind == FaultKind::RefusedEvent => {}
                            other => {
                                other?;
                                continue;
                            }
                        }
                        if part.len() == 1 {
                            continue;
                        }
                    }
                    let middle = part.start + part.len() / 2;
                    let between = stretch.events[middle - 1].sequence;
                    parts.push((middle..part.end, through));
                    parts.push((part.start..middle, between));
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn apply_part(
        &mut self,
        stretch: &Stretch,
        blocks: &[Block],
        part: Range<usize>,
        through: Sequence,
    ) -> Result<(), Fault> {
        let plan = self.plan(stretch, blocks, part)?;
        let late = failpoint::sabotaged("project.park_after_checkpoint");
        if !late {
            self.append(plan.records.iter().map(|p| &**p), None).await?;
        }
        if failpoint::hit("project.after_park") == Hit::Fail {
            return Err(Fault::new(FaultKind::Transient, "injected", "apply", "failpoint project.after_park"));
        }
        let mut transaction = self.store.begin(std::slice::from_ref(&self.checkpoint)).await?;
        let mut counters = plan.counters;
        let mut missed = Vec::new();
        if !plan.folded.batch.is_empty() {
            match transaction.apply(&plan.folded.batch).await {
                Ok(applied) => missed = plan.missed(&applied.missed, stretch),
                Err(fault) => {
                    transaction.rollback().await;
                    return Err(fault);
                }
            }
            counters.applied -= missed.len() as u64;
            counters.filtered += missed.len() as u64;
        }
        self.commit(transaction, through, counters, missed).await?;
        if late {
            self.append(plan.records.iter().map(|p| &**p), None).await?;
        }
        Ok(())
    }

    /// Runs events one by one under savepoints, in log order, in one transaction; only what fails there is at fault.
    async fn apply_singly(
        &mut self,
        stretch: &Stretch,
        blocks: &[Block],
        part: Range<usize>,
        through: Sequence,
    ) -> Result<(), Fault> {
        let mut transaction = self.store.begin(std::slice::from_ref(&self.checkpoint)).await?;
        match self.run_singly(&mut transaction, stretch, blocks, part).await {
            Ok((counters, missed)) => self.commit(transaction, through, counters, missed).await,
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
        stretch: &Stretch,
        blocks: &[Block],
        part: Range<usize>,
    ) -> Result<(Counters, Vec<Sequence>), Fault> {
        let mut counters = self.checkpoint.counters;
        let (mut records, mut missed) = (Vec::new(), Vec::new());
        for judged in &stretch.events[part] {
            counters.read += 1;
            match self.fate(stretch, judged) {
                Fate::Unmatched => counters.unmatched += 1,
                Fate::Filtered => counters.filtered += 1,
                Fate::Known { waiting } => count_parked(&mut counters, waiting),
                Fate::Parks { waiting, refusal } => {
                    count_parked(&mut counters, waiting);
                    records.push(self.park(stretch, blocks, judged, waiting, refusal)?);
                }
                Fate::Runs => match self.run_one(transaction, stretch, judged).await? {
                    Ok(true) => counters.applied += 1,
                    Ok(false) => {
                        counters.filtered += 1;
                        missed.push(judged.sequence);
                    }
                    Err(refused) => {
                        count_parked(&mut counters, false);
                        let why = Why {
                            stage: Stage::Apply,
                            code: refused.code.to_string(),
                            error: refused.to_string(),
                            rule: None,
                        };
                        records.push(self.park(stretch, blocks, judged, false, Some(why))?);
                    }
                },
            }
        }
        self.append(records.iter().map(|p| &**p), None).await?;
        Ok((counters, missed))
    }

    /// Parks one event that the database takes but does not commit, and passes it.
    async fn park_alone(
        &mut self,
        stretch: &Stretch,
        blocks: &[Block],
        index: usize,
        through: Sequence,
        fault: &Fault,
    ) -> Result<(), Fault> {
        let judged = &stretch.events[index];
        let mut counters = self.checkpoint.counters;
        counters.read += 1;
        count_parked(&mut counters, false);
        let why = Why { stage: Stage::Apply, code: fault.code.to_string(), error: fault.to_string(), rule: None };
        let record = self.park(stretch, blocks, judged, false, Some(why))?;
        self.append(std::iter::once(&*record), None).await?;
        let transaction = self.store.begin(std::slice::from_ref(&self.checkpoint)).await?;
        self.commit(transaction, through, counters, Vec::new()).await
    }

    /// `Ok(true)` applied, `Ok(false)` every row that it patches is missing, `Err` refused by the database.
    pub(crate) async fn run_one(
        &self,
        transaction: &mut Box<dyn ViewTransaction>,
        stretch: &Stretch,
        judged: &Judged,
    ) -> Result<Result<bool, Fault>, Fault> {
        let mut fold = Fold::new(&stretch.evaluation, &self.shapes);
        self.add(&mut fold, stretch, 0, judged);
        let folded = fold.finish();
        if folded.batch.is_empty() {
            return Ok(Ok(true));
        }
        Ok(match transaction.apply_event(&folded.batch).await? {
            EventOutcome::Applied(applied) => {
                let changes = (judged.changes.end - judged.changes.start) as usize;
                Ok(applied.missed.len() < changes)
            }
            EventOutcome::Refused(fault) => Err(fault),
        })
    }

    fn add(&self, fold: &mut Fold<'_>, stretch: &Stretch, index: u32, judged: &Judged) {
        for change in &stretch.evaluation.changes[judged.changes.start as usize..judged.changes.end as usize] {
            fold.add(index, change, &self.program.column_set(change.columns));
        }
    }

    /// Decides about each event of a part, parking in memory what must be parked.
    fn plan(&self, stretch: &Stretch, blocks: &[Block], part: Range<usize>) -> Result<Plan, Fault> {
        let mut counters = self.checkpoint.counters;
        let mut records = Vec::new();
        let mut fold = Fold::new(&stretch.evaluation, &self.shapes);
        for index in part {
            let judged = &stretch.events[index];
            counters.read += 1;
            match self.fate(stretch, judged) {
                Fate::Unmatched => counters.unmatched += 1,
                Fate::Filtered => counters.filtered += 1,
                Fate::Known { waiting } => count_parked(&mut counters, waiting),
                Fate::Parks { waiting, refusal } => {
                    count_parked(&mut counters, waiting);
                    records.push(self.park(stretch, blocks, judged, waiting, refusal)?);
                }
                Fate::Runs => {
                    counters.applied += 1;
                    self.add(&mut fold, stretch, index as u32, judged);
                }
            }
        }
        Ok(Plan { counters, records, folded: fold.finish() })
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
            Wants::Refused(refusal) => Fate::Parks {
                waiting: false,
                refusal: Some(Why {
                    stage: Stage::Map,
                    code: refusal.code.to_owned(),
                    error: refusal.message.clone(),
                    rule: Some(refusal.rule.clone()),
                }),
            },
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
        if !waiting && ledger.failed() >= self.max_parked {
            return Err(Fault::new(
                FaultKind::Misconfigured,
                "route/max-parked",
                format!("park the event at sequence {}", judged.sequence),
                format!("{} events are parked, as many as `max_parked` allows; retry or skip some", ledger.failed()),
            ));
        }
        ledger.park(parked.clone());
        Ok(parked)
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

    /// Moves the checkpoint in the same transaction as the rows, and tells everyone who waits.
    pub(crate) async fn commit(
        &mut self,
        transaction: Box<dyn ViewTransaction>,
        through: Sequence,
        counters: Counters,
        missed: Vec<Sequence>,
    ) -> Result<(), Fault> {
        self.commit_quietly(transaction, through, counters, missed).await?;
        self.announce();
        Ok(())
    }

    /// Wakes exporters and waiters: everything that they may ask about the new checkpoint must be known by now.
    pub(crate) fn announce(&self) {
        self.gauge.committed(self.checkpoint.sequence, self.checkpoint.counters);
    }

    pub(crate) async fn commit_quietly(
        &mut self,
        transaction: Box<dyn ViewTransaction>,
        through: Sequence,
        counters: Counters,
        missed: Vec<Sequence>,
    ) -> Result<(), Fault> {
        if !missed.is_empty() {
            let mut batch = Batch::new();
            let key = control::numbered(&self.gauge.name, missed[missed.len() - 1].get());
            let record = Missed { route: self.gauge.name.clone(), sequences: missed.clone() };
            control::put(&mut batch, control::MISSED, &key, &record, None);
            if let Err(fault) = append_durable(&*self.log, batch, "record events that changed nothing").await {
                transaction.rollback().await;
                return Err(fault);
            }
        }
        let (log, at) = (self.log.clone(), through);
        let mark = tokio::task::spawn_blocking(move || log.block_mark(at)).await;
        let mark = match mark.map_err(|e| e.to_string()).and_then(|m| m.map_err(|e| e.to_string())) {
            Ok(mark) => mark,
            Err(detail) => {
                transaction.rollback().await;
                return Err(Fault::new(FaultKind::Transient, "log/read", "find the checkpoint's block", detail));
            }
        };
        let identity = self.log.identity();
        let next = Checkpoint {
            sequence: through,
            fence: identity.fence,
            owner: identity.owner,
            block: mark,
            counters,
            ..self.checkpoint.clone()
        };
        transaction.commit(std::slice::from_ref(&next)).await?;
        self.checkpoint = next;
        self.gauge.ledger.lock().miss(missed);
        Ok(())
    }
}

struct Plan {
    counters: Counters,
    records: Vec<Arc<Parked>>,
    folded: Folded,
}

impl Plan {
    /// Events of which every change patched a row that is not there.
    fn missed(&self, rows: &[(u32, u32, u32)], stretch: &Stretch) -> Vec<Sequence> {
        let mut misses: hashbrown::HashMap<u32, u32> = hashbrown::HashMap::new();
        for event in rows.iter().filter_map(|row| self.folded.patched.get(row)).flatten() {
            *misses.entry(*event).or_default() += 1;
        }
        let all_missed = |(event, count): (u32, u32)| {
            let judged = &stretch.events[event as usize];
            (count >= judged.changes.end - judged.changes.start).then_some(judged.sequence)
        };
        let mut sequences: Vec<Sequence> = misses.into_iter().filter_map(all_missed).collect();
        sequences.sort_unstable();
        sequences
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

/// Why an event failed.
#[derive(Clone, Debug)]
pub struct Why {
    pub stage: Stage,
    pub code: String,
    pub error: String,
    pub rule: Option<String>,
}

pub fn parked(
    route: &str,
    sequence: Sequence,
    event: String,
    key: Option<String>,
    blocks: Vec<crate::ledger::BlockedKey>,
    waiting: bool,
    why: Option<Why>,
) -> Parked {
    let why = why.unwrap_or(Why { stage: Stage::Apply, code: String::new(), error: String::new(), rule: None });
    Parked {
        route: route.to_owned(),
        sequence,
        stage: why.stage,
        code: why.code,
        error: why.error,
        rule: why.rule,
        key,
        event,
        waiting,
        blocks,
        at: crate::clock::now(),
    }
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
