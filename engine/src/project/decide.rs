//! Carries out an operator's retry or skip at the sequence of its record (SEMANTICS 4.2, 4.3).

use gravity_log::{Block, ReadLimits};
use gravity_model::failpoint::{self, Hit};
use gravity_model::{Counters, Fault, FaultKind, Sequence};

use crate::control::{self, Decision, Parked, Released, Stage};
use crate::project::apply::{Applier, Why, parked};
use crate::project::evaluate::{Stretch, Wants, judge_one, shown, touched};

impl Applier {
    /// Runs what the record at `record` names, then in sequence order every event that only waited and is now free; one
    /// transaction, which takes the checkpoint to the record.
    pub async fn decide(&mut self, record: Sequence) -> Result<(), Fault> {
        let (name, decision) = self.read_decision(record).await?;
        let skips = name == control::SKIP;
        let all: Vec<std::sync::Arc<Parked>> = self.means.gauge.ledger.lock().all_parked().cloned().collect();
        let named = |p: &Parked| match &decision.sequences {
            Some(sequences) => sequences.contains(&p.sequence),
            None => !p.waiting,
        };
        let mut all_counters: Vec<Counters> = self.lanes.iter().map(|lane| lane.counters).collect();
        let mut released = Released { route: self.means.gauge.name.clone(), record, ..Released::default() };
        let mut again: Vec<std::sync::Arc<Parked>> = Vec::new();
        // The ledger as it will be, event by event: what is released here frees later ones in the same pass.
        let mut ahead = crate::ledger::Ledger::default();
        all.iter().for_each(|p| ahead.park(p.clone()));
        let mut transaction = self.means.store.begin(&self.lanes).await?;
        for entry in &all {
            let free = !ahead.blocks(entry.sequence, &entry.blocks);
            if skips && named(entry) {
                uncount(&mut all_counters, entry.waiting);
                all_counters[0].skipped += 1;
                released.skipped.push(entry.sequence);
                free_from(&mut ahead, &released, entry.sequence);
                continue;
            }
            let runs = free && ((!skips && named(entry)) || entry.waiting);
            if !runs {
                continue;
            }
            uncount(&mut all_counters, entry.waiting);
            let outcome = match self.run_again(&mut transaction, entry.sequence).await {
                Ok(outcome) => outcome,
                Err(fault) => {
                    transaction.rollback().await;
                    return Err(fault);
                }
            };
            match outcome {
                Again::Applied => {
                    all_counters[0].applied += 1;
                    released.applied.push(entry.sequence);
                    free_from(&mut ahead, &released, entry.sequence);
                }
                Again::Filtered => {
                    all_counters[0].filtered += 1;
                    released.filtered.push(entry.sequence);
                    free_from(&mut ahead, &released, entry.sequence);
                }
                Again::Failed(failed) => {
                    all_counters[0].failed += 1;
                    released.parked_again.push(entry.sequence);
                    let failed = std::sync::Arc::new(failed);
                    ahead.park(failed.clone());
                    again.push(failed);
                }
            }
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
        self.all_lanes().commit_quietly(transaction, record, &all_counters, Vec::new()).await?;
        self.settle(released, again, &decision);
        self.announce();
        Ok(())
    }

    /// After the commit: the ledger follows, and states that have done their work end lazily.
    fn settle(&self, released: Released, again: Vec<std::sync::Arc<Parked>>, decision: &Decision) {
        tracing::info!(
            route = %self.means.gauge.name, record = %released.record, actor = %decision.actor, applied = released.applied.len(),
            skipped = released.skipped.len(), parked_again = released.parked_again.len(), "dead letters released"
        );
        let mut batch = gravity_log::Batch::new();
        for sequence in released.applied.iter().chain(&released.filtered).chain(&released.skipped) {
            control::end(&mut batch, control::PARKED, &control::numbered(&self.means.gauge.name, sequence.get()));
        }
        let mut ledger = self.means.gauge.ledger.lock();
        again.into_iter().for_each(|p| ledger.park(p));
        ledger.release(std::sync::Arc::new(released));
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
        sequence: Sequence,
    ) -> Result<Again, Fault> {
        let block = self.block_of(sequence).await?;
        let mut stretch = Stretch::default();
        let recorded = block.event(sequence).ok_or_else(|| self.lost(sequence))?;
        let judged = judge_one(&self.means.program, &recorded, &block, &mut stretch.evaluation);
        let why = match &judged.wants {
            Wants::Unmatched | Wants::Filtered => return Ok(Again::Filtered),
            Wants::Refused(refusal) => Why {
                stage: Stage::Map,
                code: refusal.code.to_owned(),
                error: refusal.message.clone(),
                rule: Some(refusal.rule.clone()),
            },
            Wants::Changes => match self.means.run_one(transaction, &stretch, &judged).await? {
                Ok(true) => return Ok(Again::Applied),
                Ok(false) => return Ok(Again::Filtered),
                Err(fault) => {
                    Why { stage: Stage::Apply, code: fault.code.to_string(), error: fault.to_string(), rule: None }
                }
            },
        };
        let (event, key) = shown(&block, sequence);
        let keys = touched(&self.means.names, &stretch.evaluation, &judged);
        Ok(Again::Failed(parked(&self.means.gauge.name, sequence, event, key, keys, false, Some(why))))
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

/// Takes a parked event out of the lane that counts one; `status` shows sums, and outcomes are counted in lane 0.
fn uncount(lanes: &mut [Counters], waiting: bool) {
    let kept = lanes.iter_mut().map(|c| if waiting { &mut c.waiting } else { &mut c.failed }).find(|count| **count > 0);
    if let Some(count) = kept {
        *count -= 1;
    }
}

fn free_from(ahead: &mut crate::ledger::Ledger, released: &Released, sequence: Sequence) {
    let one =
        Released { route: String::new(), record: released.record, applied: vec![sequence], ..Released::default() };
    ahead.release(std::sync::Arc::new(one));
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
