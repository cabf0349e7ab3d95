//! Carries out an operator's retry or skip at the sequence of its record (SEMANTICS 4.2, 4.3).

use std::sync::Arc;

use gravity_log::{Block, ReadLimits};
use gravity_model::failpoint::{self, Hit};
use gravity_model::{Checkpoint, Counters, Fault, FaultKind, Sequence};

use crate::control::{self, Decision, Parked, Released};
use crate::ledger::Ledger;
use crate::project::apply::Applier;
use crate::project::evaluate::{Stretch, Wants, judge_one, touched};
use crate::project::park::{Why, parked};

impl Applier {
    /// Runs what the record at `record` names, then in sequence order every event that only waited and is now free; one
    /// transaction, which takes the checkpoint to the record.
    pub async fn decide(&mut self, record: Sequence) -> Result<(), Fault> {
        let (name, decision) = self.read_decision(record).await?;
        let skips = name == control::SKIP;
        match self.carry_out(record, skips, &decision, None).await {
            // A deferred constraint speaks at the commit only, and names no event: whatever ran is parked again.
            Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                let why = Why::of(&fault);
                self.carry_out(record, skips, &decision, Some(&why)).await
            }
            other => other,
        }
    }

    /// With `refused`, nothing runs: what would is parked again for that reason.
    async fn carry_out(
        &mut self,
        record: Sequence,
        skips: bool,
        decision: &Decision,
        refused: Option<&Why>,
    ) -> Result<(), Fault> {
        // Dead letters beyond the record may be known already, from before the database went back: they are not its business.
        let known: Vec<Arc<Parked>> = {
            let ledger = self.means.gauge.ledger.lock();
            ledger.all_parked().take_while(|p| p.sequence < record).cloned().collect()
        };
        // The ledger as it will be, event by event: what is released here frees later ones in the same pass.
        let mut ahead = Ledger::default();
        known.iter().for_each(|p| ahead.park(p.clone()));
        let mut released = Released { route: self.means.gauge.name.clone(), record, ..Released::default() };
        let mut again: Vec<Arc<Parked>> = Vec::new();
        let mut transaction = self.means.store.begin(&self.lanes).await?;
        for entry in &known {
            let named = decision.sequences.as_ref().map_or(!entry.waiting, |all| all.contains(&entry.sequence));
            if skips && named {
                released.skipped.push(entry.sequence);
                ahead.unpark(entry.sequence);
                continue;
            }
            let free = !ahead.blocks(entry.sequence, &entry.blocks);
            if !free || !(entry.waiting || (named && !skips)) {
                continue;
            }
            let outcome = match refused {
                Some(why) => Ok(Again::Failed(parked_again(entry, why.clone()))),
                None => self.run_again(&mut transaction, entry).await,
            };
            match outcome {
                Ok(Again::Applied) => released.applied.push(entry.sequence),
                Ok(Again::Filtered) => released.filtered.push(entry.sequence),
                Ok(Again::Failed(failed)) => {
                    released.parked_again.push(entry.sequence);
                    let failed = Arc::new(failed);
                    ahead.park(failed.clone());
                    again.push(failed);
                    continue;
                }
                Err(fault) => {
                    transaction.rollback().await;
                    return Err(fault);
                }
            }
            ahead.unpark(entry.sequence);
        }
        let appended = self.means.append(again.iter().map(|p| &**p), Some(&released)).await;
        if let Err(fault) = appended {
            transaction.rollback().await;
            return Err(fault);
        }
        if failpoint::hit("project.after_release_record") == Hit::Fail {
            transaction.rollback().await;
            return Err(Fault::new(
                FaultKind::Transient,
                "injected",
                "retry",
                "failpoint project.after_release_record",
            ));
        }
        let counters = account(&self.lanes, &released, &ahead);
        self.all_lanes().commit_quietly(transaction, record, &counters, Vec::new()).await?;
        self.settle(released, again, decision);
        self.announce();
        Ok(())
    }

    /// After the commit: the ledger follows, and states that have done their work end lazily.
    fn settle(&self, released: Released, again: Vec<Arc<Parked>>, decision: &Decision) {
        tracing::info!(
            route = %self.means.gauge.name, record = %released.record, actor = %decision.actor, applied = released.applied.len(),
            skipped = released.skipped.len(), parked_again = released.parked_again.len(), "dead letters released"
        );
        let mut batch = gravity_log::Batch::new();
        for sequence in released.freed() {
            control::end(&mut batch, control::PARKED, &control::numbered(&self.means.gauge.name, sequence.get()));
        }
        let mut ledger = self.means.gauge.ledger.lock();
        again.into_iter().for_each(|p| ledger.park(p));
        ledger.release(Arc::new(released));
        drop(ledger);
        if !batch.is_empty()
            && let Err(error) = self.means.log.append_lazy(batch)
        {
            tracing::debug!(route = %self.means.gauge.name, %error, "ended dead letters stay in live state until the next start");
        }
    }

    async fn read_decision(&self, record: Sequence) -> Result<(String, Decision), Fault> {
        let block = self.block_of(record).await?;
        let entry = block.event(record).ok_or_else(|| self.lost(record))?;
        let decision = control::read(entry.event.name, record, entry.event.payload.unwrap_or_default())
            .map_err(|e| Fault::new(FaultKind::NotOurs, "log/control", "read a retry or skip", e.to_string()))?;
        Ok((entry.event.name.to_owned(), decision))
    }

    async fn run_again(
        &self,
        transaction: &mut Box<dyn gravity_model::port::view::ViewTransaction>,
        entry: &Parked,
    ) -> Result<Again, Fault> {
        let block = self.block_of(entry.sequence).await?;
        let mut stretch = Stretch::default();
        let recorded = block.event(entry.sequence).ok_or_else(|| self.lost(entry.sequence))?;
        let judged = judge_one(&self.means.program, &recorded, &block, &mut stretch.evaluation);
        let why = match &judged.wants {
            Wants::Unmatched | Wants::Filtered => return Ok(Again::Filtered),
            Wants::Refused(refusal) => Why::of_rule(refusal),
            Wants::Changes => match self.means.run_one(transaction, &stretch, &judged).await? {
                Ok(true) => return Ok(Again::Applied),
                Ok(false) => return Ok(Again::Filtered),
                Err(fault) => Why::of(&fault),
            },
        };
        // Under the rules in force here it may touch other keys than before.
        let keys = touched(&self.means.names, &stretch.evaluation, &judged);
        Ok(Again::Failed(Parked { blocks: keys, ..parked_again(entry, why) }))
    }

    async fn block_of(&self, sequence: Sequence) -> Result<Block, Fault> {
        read_block(&self.means.log, sequence).await?.ok_or_else(|| self.lost(sequence))
    }

    fn lost(&self, sequence: Sequence) -> Fault {
        let detail = format!("sequence {sequence} is not in the log");
        Fault::new(FaultKind::Misconfigured, "log/gone", "read a parked event", detail)
    }
}

enum Again {
    Applied,
    Filtered,
    Failed(Parked),
}

fn parked_again(entry: &Parked, why: Why) -> Parked {
    let (event, key, blocks) = (entry.event.clone(), entry.key.clone(), entry.blocks.clone());
    parked(&entry.route, entry.sequence, event, key, blocks, false, Some(why))
}

/// Counters after a decision. What is parked stands in lane 0 from now on, in the classes that the dead letters have: a redo
/// may find other classes in them than were counted; `status` shows sums.
fn account(lanes: &[Checkpoint], released: &Released, ahead: &Ledger) -> Vec<Counters> {
    let mut all: Vec<Counters> = lanes.iter().map(|lane| Counters { failed: 0, waiting: 0, ..lane.counters }).collect();
    let parked = lanes.iter().map(|lane| lane.counters.parked()).sum::<u64>();
    let left = parked.saturating_sub(released.freed().count() as u64);
    let first = &mut all[0];
    first.applied += released.applied.len() as u64;
    first.filtered += released.filtered.len() as u64;
    first.skipped += released.skipped.len() as u64;
    first.failed = ahead.failed().min(left);
    first.waiting = left - first.failed;
    all
}

/// The block that holds one event.
pub async fn read_block(
    log: &std::sync::Arc<dyn gravity_log::EventLog>,
    sequence: Sequence,
) -> Result<Option<Block>, Fault> {
    let (log, after) = (log.clone(), Sequence(sequence.get().saturating_sub(1)));
    let read = tokio::task::spawn_blocking(move || log.read(after, ReadLimits { events: 1, bytes: 1 })).await;
    let blocks = read.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string()));
    let blocks = blocks.map_err(|detail| Fault::new(FaultKind::Transient, "log/read", "read one event", detail))?;
    Ok(blocks.into_iter().find(|b| b.mark.first <= sequence && sequence <= b.last()))
}
