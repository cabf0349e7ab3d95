//! Retries and skips: of the route (events that took effect are told now) and of this subscription's own parked messages.

use gravity_log::Batch;
use gravity_model::{Fault, FaultKind, Recorded, Sequence};
use hashbrown::HashSet;

use crate::control::{self, Decision, Parked, ParkedMessage, Released};
use crate::export::backlog::Place;
use crate::export::outgoing::{Mark, Outgoing, Stretch};
use crate::export::select::Decided;
use crate::export::send::why;
use crate::export::task::{Halt, Subscription};
use crate::project::park::parked;

/// A retry or skip of parked messages that is being carried out. Kept while the subscription rests, so that nothing of it is
/// done twice; a crash forgets it, and what the log does not hold by then is done again.
pub struct Deciding {
    released: Released,
    /// Confirmed, or left out for ever.
    done: HashSet<Sequence>,
    /// Of these, whose park record is not ended on the log yet.
    unwritten: Vec<Sequence>,
    /// Refused again: not tried a second time.
    failed: HashSet<Sequence>,
}

impl Deciding {
    fn new(route: &str, record: Sequence) -> Deciding {
        let released = Released { route: route.to_owned(), record, ..Released::default() };
        Deciding { released, done: HashSet::new(), unwritten: Vec::new(), failed: HashSet::new() }
    }

    fn confirm(&mut self, sequence: Sequence) {
        self.released.applied.push(sequence);
        self.finish(sequence);
    }

    fn skip(&mut self, sequence: Sequence) {
        self.released.skipped.push(sequence);
        self.finish(sequence);
    }

    fn finish(&mut self, sequence: Sequence) {
        self.done.insert(sequence);
        self.unwritten.push(sequence);
    }

    fn fail(&mut self, sequence: Sequence) {
        self.released.parked_again.push(sequence);
        self.failed.insert(sequence);
    }
}

impl Subscription {
    /// Carries out the decision that `recorded` is; afterwards the cursor stands at it.
    pub async fn at_decision(&mut self, recorded: &Recorded<'_>, decided: Decided) -> Result<(), Halt> {
        let record = recorded.sequence;
        if decided == Decided::Events {
            return self.tell_released(record).await;
        }
        let payload = recorded.event.payload.unwrap_or_default();
        let decision: Decision = control::read(recorded.event.name, record, payload).map_err(|error| {
            Fault::new(FaultKind::NotOurs, "log/control", "read a retry or skip", error.to_string()).with_source(error)
        })?;
        let skips = recorded.event.name == control::SKIP;
        let mut deciding = match self.deciding.take() {
            Some(deciding) if deciding.released.record == record => deciding,
            _ => Deciding::new(&self.name, record),
        };
        let outcome = self.decide(&mut deciding, skips, &decision).await;
        self.block = None;
        if outcome.is_err() {
            self.deciding = Some(deciding);
        }
        outcome
    }

    /// Tells of the events that the route's decision at `record` released: there they took effect.
    async fn tell_released(&mut self, record: Sequence) -> Result<(), Halt> {
        let released = self.task.route.ledger.lock().released_at(record).cloned();
        let Some(released) = released else {
            if self.task.route.checkpoint() < record {
                // The view went back meanwhile, and will come to this decision again.
                return Err(Halt::Interrupted);
            }
            tracing::warn!(subscription = %self.name, %record, "what this decision released is not known any more");
            self.progress.reach(record);
            return Ok(());
        };
        let events = &released.applied;
        let mut next = usize::try_from(self.progress.cursor.released).unwrap_or(usize::MAX);
        while next < events.len() {
            let mut out = Outgoing::new(Stretch::Released { record, done: 0 });
            while next < events.len() && !out.is_full() {
                match self.write_released(events[next], record).await {
                    Ok(Some((mark, message))) => out.push(Mark { index: next as u64, ..mark }, message),
                    Ok(None) => {}
                    Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                        self.park_untold(Place::of(events[next], Some(record)), &fault).await?;
                    }
                    Err(fault) => return Err(fault.into()),
                }
                next += 1;
            }
            out.stretch = Stretch::Released { record, done: next as u64 };
            self.send(&mut out).await?;
            self.check_orders()?;
        }
        self.block = None;
        self.progress.reach(record);
        Ok(())
    }

    /// A dead letter for an event that cannot even be written as a message.
    async fn park_untold(&mut self, place: Place, fault: &Fault) -> Result<(), Halt> {
        if self.task.gauge.is_parked(place.sequence) {
            return Ok(());
        }
        let record = parked(&self.name, place.sequence, String::new(), None, Vec::new(), false, Some(why(fault)));
        self.park(vec![ParkedMessage { parked: record, effect: place.retried_at() }]).await
    }

    /// Sends parked messages again: those named that wait for nothing, then in order whatever only waited and is free now.
    async fn decide(&mut self, deciding: &mut Deciding, skips: bool, decision: &Decision) -> Result<(), Halt> {
        let named: Option<HashSet<Sequence>> = decision.sequences.as_ref().map(|all| all.iter().copied().collect());
        // Keys of which a message stays parked: what comes later of them must not overtake it.
        let mut held: HashSet<u128> = HashSet::new();
        let mut out = Outgoing::new(Stretch::Log { through: self.progress.cursor.through });
        for (place, key) in self.task.gauge.parked_in_order() {
            let parked = self.task.gauge.ledger.lock().parked(place.sequence).cloned();
            let Some(parked) = parked.filter(|_| !deciding.done.contains(&place.sequence)) else { continue };
            let named = named.as_ref().map_or(!parked.waiting, |named| named.contains(&place.sequence));
            if skips && named {
                deciding.skip(place.sequence);
                continue;
            }
            let free = key.is_none_or(|key| !held.contains(&key));
            let runs = free && (parked.waiting || (named && !skips)) && !deciding.failed.contains(&place.sequence);
            if !runs {
                held.extend(key);
                continue;
            }
            match self.write_parked(&parked, place).await {
                Ok((mark, message)) => out.push(mark, message),
                Err(fault) if fault.kind == FaultKind::RefusedEvent => {
                    held.extend(key);
                    let again = vec![parked_again(&parked, place, &fault)];
                    self.write_decided(deciding, again).await?;
                }
                Err(fault) => return Err(fault.into()),
            }
            if out.is_full() {
                self.send_again(&mut out, deciding, &mut held).await?;
            }
        }
        self.send_again(&mut out, deciding, &mut held).await?;
        self.conclude(deciding).await
    }

    async fn send_again(
        &mut self,
        out: &mut Outgoing,
        deciding: &mut Deciding,
        held: &mut HashSet<u128>,
    ) -> Result<(), Halt> {
        out.take(|mark| mark.key.is_some_and(|key| held.contains(&key)));
        while !out.is_empty() {
            self.check_orders()?;
            let attempt = self.attempt(out).await?;
            self.progress.delivered(attempt.confirmed.len() as u64);
            attempt.confirmed.iter().for_each(|mark| deciding.confirm(mark.place.sequence));
            let mut again = Vec::new();
            for (mark, _, fault) in &attempt.refused {
                held.extend(mark.key);
                let parked = self.task.gauge.ledger.lock().parked(mark.place.sequence).cloned();
                again.extend(parked.map(|parked| parked_again(&parked, mark.place, fault)));
            }
            // What follows a refused message of its key stays parked, as it is.
            out.take(|mark| mark.key.is_some_and(|key| held.contains(&key)));
            self.write_decided(deciding, again).await?;
            if let Some(trouble) = attempt.trouble
                && !out.is_empty()
            {
                self.bear(trouble).await?;
            }
        }
        Ok(())
    }

    /// Makes durable what a part of the decision did, so that a crash sends again no more than the next part.
    async fn write_decided(&mut self, deciding: &mut Deciding, again: Vec<ParkedMessage>) -> Result<(), Halt> {
        if deciding.unwritten.is_empty() && again.is_empty() {
            return Ok(());
        }
        let through = self.progress.cursor.through;
        let mut batch = Batch::new();
        self.end_parked(deciding, &mut batch);
        again.iter().for_each(|message| self.put_parked(message, &mut batch));
        self.progress.put(through, &mut batch);
        self.append(batch, "record released messages").await?;
        self.task.gauge.free(deciding.unwritten.drain(..));
        again.iter().for_each(|message| deciding.fail(message.parked.sequence));
        self.task.gauge.park(again);
        self.progress.is_noted(through);
        Ok(())
    }

    /// The decision has done its work: its outcome and the cursor behind it become durable in one batch, so that neither a
    /// released message comes back after a restart nor the decision is carried out twice.
    async fn conclude(&mut self, deciding: &mut Deciding) -> Result<(), Halt> {
        let record = deciding.released.record;
        let key = control::numbered(&self.name, record.get());
        let mut batch = Batch::new();
        self.end_parked(deciding, &mut batch);
        control::put(&mut batch, control::RELEASED, &key, &deciding.released, None);
        self.progress.put(record, &mut batch);
        self.append(batch, "record released messages").await?;
        deciding.unwritten.clear();
        tracing::info!(
            subscription = %self.name, %record, sent = deciding.released.applied.len(),
            skipped = deciding.released.skipped.len(), parked_again = deciding.released.parked_again.len(),
            "parked messages released"
        );
        self.progress.is_noted(record);
        self.task.gauge.release(std::mem::take(&mut deciding.released));
        Ok(())
    }

    fn end_parked(&self, deciding: &Deciding, batch: &mut Batch) {
        for sequence in &deciding.unwritten {
            control::end(batch, control::PARKED, &control::numbered(&self.name, sequence.get()));
        }
    }
}

fn parked_again(entry: &Parked, place: Place, fault: &Fault) -> ParkedMessage {
    let (event, key, blocks) = (entry.event.clone(), entry.key.clone(), entry.blocks.clone());
    let record = parked(&entry.route, entry.sequence, event, key, blocks, false, Some(why(fault)));
    ParkedMessage { parked: record, effect: place.retried_at() }
}
