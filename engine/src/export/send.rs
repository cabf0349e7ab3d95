//! Hands messages over, and deals with the answers: confirmed, refused (parked, with what follows of their keys), or left
//! for another attempt. After each hand-over the cursor is where it would be if nothing else ever happened.

use std::time::{Duration, Instant};

use gravity_log::Batch;
use gravity_model::failpoint;
use gravity_model::port::export::{Delivery, Message};
use gravity_model::{Fault, FaultKind, Policy};

use crate::control::{self, Parked, ParkedMessage, Stage};
use crate::export::backlog::Place;
use crate::export::outgoing::{Attempt, Outgoing, Stretch, keys};
use crate::export::progress::When;
use crate::export::select::order_key;
use crate::export::task::{Halt, Subscription, Woke};
use crate::project::apply::append_durable;
use crate::project::park::{MAX_PARKED, MAX_WAITING, Why, parked};
use crate::status::RunState;

/// How long a hand-over may go on after the engine was told to stop. What it confirms later is not known: it is sent again.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Code of messages that exporters did not send because of an earlier one.
const HELD_BACK: &str = "held-back";

impl Subscription {
    /// Sends and parks until nothing of `out` is left, the cursor following; leaves it empty also when that fails.
    pub async fn send(&mut self, out: &mut Outgoing) -> Result<(), Halt> {
        let released: Vec<_> = match out.stretch {
            Stretch::Log { .. } => Vec::new(),
            Stretch::Released { .. } => out.marks.iter().map(|mark| mark.place.sequence).collect(),
        };
        let sent = self.send_all(out).await;
        out.clear();
        if sent.is_ok() {
            self.progress.forget_ahead(&released);
        }
        sent
    }

    async fn send_all(&mut self, out: &mut Outgoing) -> Result<(), Halt> {
        if failpoint::sabotaged("export.cursor_before_confirm") && !out.is_empty() {
            self.note_before_confirm(out.stretch).await;
        }
        // A message that is parked here, or was confirmed before its turn in an earlier attempt, needs nothing more.
        let (gauge, ahead) = (self.task.gauge.clone(), &self.progress.cursor.ahead);
        out.take(|mark| ahead.contains(&mark.place.sequence) || gauge.is_parked(mark.place.sequence));
        // What shares a key with a parked message waits behind it.
        let waiting = out.take(|mark| gauge.before(mark.place, mark.key).is_some());
        self.park(waiting.into_iter().map(|(mark, message)| self.parked(mark.place, &message, None)).collect()).await?;
        loop {
            self.follow_with_cursor(out);
            self.progress.note(When::Due);
            if out.is_empty() {
                self.task.gauge.working_on(None);
                return Ok(());
            }
            self.check_orders()?;
            let attempt = self.attempt(out).await?;
            attempt.confirmed.iter().for_each(|mark| self.progress.confirmed(mark.place.sequence));
            if !attempt.refused.is_empty() {
                let held = keys(attempt.refused.iter().map(|(mark, _, _)| mark));
                let mut records: Vec<ParkedMessage> = attempt
                    .refused
                    .iter()
                    .map(|(mark, message, fault)| self.parked(mark.place, message, Some(fault)))
                    .collect();
                let behind = out.take(|mark| mark.key.is_some_and(|key| held.contains(&key)));
                records.extend(behind.iter().map(|(mark, message)| self.parked(mark.place, message, None)));
                self.park(records).await?;
            }
            if let Some(trouble) = attempt.trouble
                && !out.is_empty()
            {
                self.follow_with_cursor(out);
                self.progress.note(When::Due);
                self.bear(trouble).await?;
            }
        }
    }

    /// Moves the cursor to before the first message that is left.
    fn follow_with_cursor(&mut self, out: &Outgoing) {
        match (out.stretch, out.marks.first()) {
            (Stretch::Log { through }, None) => self.progress.reach(through),
            (Stretch::Log { .. }, Some(first)) => {
                self.progress.reach(gravity_model::Sequence(first.place.sequence.get() - 1));
            }
            (Stretch::Released { done, .. }, first) => {
                self.progress.reach_released(first.map_or(done, |first| first.index));
            }
        }
    }

    /// One hand-over of as many messages as the target's pace allows; takes out of `out` what was confirmed or refused.
    pub async fn attempt(&mut self, out: &mut Outgoing) -> Result<Attempt, Halt> {
        self.wait_for_cursor().await?;
        let count = self.pace.of(&out.marks);
        let begun = Instant::now();
        let cancel = self.task.cancel.clone();
        let overdue = async {
            cancel.cancelled().await;
            tokio::time::sleep(FINISH_WITHIN).await;
        };
        let deliveries = tokio::select! {
            deliveries = self.task.exporter.export(&out.messages[..count]) => deliveries,
            () = overdue => return Err(Halt::Interrupted),
        };
        self.pace.took(begun.elapsed());
        let mut deliveries = deliveries.into_iter();
        let mut attempt = Attempt::default();
        let (mut index, mut refusals) = (0, Vec::new());
        let settled = out.take(|_| {
            index += 1;
            if index > count {
                return false;
            }
            let (fault, retry_after) = match deliveries.next() {
                Some(Delivery::Delivered) => {
                    refusals.push(None);
                    return true;
                }
                Some(Delivery::Failed { fault, .. }) if self.task.parks(&fault) => {
                    refusals.push(Some(fault));
                    return true;
                }
                Some(Delivery::Failed { fault, retry_after }) => (fault, retry_after),
                None => (silent(), None),
            };
            graver(&mut attempt.trouble, fault, retry_after);
            false
        });
        for ((mark, message), refusal) in settled.into_iter().zip(refusals) {
            match refusal {
                None => attempt.confirmed.push(mark),
                Some(fault) => attempt.refused.push((mark, message, fault)),
            }
        }
        if !attempt.confirmed.is_empty() {
            self.back_off.reset();
        }
        // What was held back behind a refused message is parked with it: that is no trouble of the target's.
        let refused = !attempt.refused.is_empty();
        attempt.trouble.take_if(|(fault, _)| refused && fault.code == HELD_BACK);
        if attempt.trouble.is_none() {
            self.is_well();
        }
        Ok(attempt)
    }

    /// Waits before the next attempt, or gives up until the target is in order again.
    pub async fn bear(&mut self, (fault, retry_after): (Fault, Option<Duration>)) -> Result<(), Halt> {
        if fault.policy() != Policy::BackOff {
            return Err(Halt::Fault(fault));
        }
        // What was confirmed is not sent again: the rest is tried again from here.
        self.is_unwell(RunState::Degraded, &fault);
        let pause = self.back_off.pause(retry_after);
        match self.wait(Some(pause), None).await {
            Woke::Cancelled => Err(Halt::Interrupted),
            Woke::Orders | Woke::Time | Woke::News => self.check_orders(),
        }
    }

    /// Delivery pauses while what was confirmed has not become durable for too long.
    async fn wait_for_cursor(&mut self) -> Result<(), Halt> {
        loop {
            tokio::select! {
                () = self.task.cancel.cancelled() => return Err(Halt::Interrupted),
                changed = self.task.orders.changed() => if changed.is_err() { return Err(Halt::Interrupted) },
                () = self.progress.durable_enough() => return Ok(()),
            }
            self.check_orders()?;
        }
    }

    /// What parks a message; without a fault it only waits.
    pub fn parked(&self, place: Place, message: &Message, fault: Option<&Fault>) -> ParkedMessage {
        let key = message.key.as_deref();
        let record = parked(
            &self.name,
            place.sequence,
            message.event.clone(),
            key.map(crate::ingest::letters::readable),
            key.map(order_key).into_iter().collect(),
            fault.is_none(),
            fault.map(why),
        );
        ParkedMessage { parked: Parked { stage: Stage::Export, ..record }, effect: place.retried_at() }
    }

    /// Makes park records durable, and only then believes them: a message that is parked in memory alone would be passed by
    /// the cursor and lost.
    pub async fn park(&mut self, messages: Vec<ParkedMessage>) -> Result<(), Halt> {
        if messages.is_empty() {
            return Ok(());
        }
        self.has_room(&messages)?;
        let mut batch = Batch::new();
        messages.iter().for_each(|message| self.put_parked(message, &mut batch));
        self.append(batch, "record refused messages").await?;
        self.task.gauge.park(messages);
        Ok(())
    }

    pub fn put_parked(&self, message: &ParkedMessage, batch: &mut Batch) {
        let key = control::numbered(&self.name, message.parked.sequence.get());
        control::put(batch, control::PARKED, &key, message, None);
    }

    /// At a bound the subscription stops instead of dropping, unless a retry or skip that makes room stands ahead.
    fn has_room(&self, messages: &[ParkedMessage]) -> Result<(), Fault> {
        if messages.iter().all(|message| message.effect.unwrap_or(message.parked.sequence) < self.parks_until) {
            return Ok(());
        }
        let ledger = self.task.gauge.ledger.lock();
        let failed = ledger.failed() + messages.iter().filter(|message| !message.parked.waiting).count() as u64;
        let (code, detail) = if failed > self.task.max_parked {
            let known = ledger.failed();
            (
                MAX_PARKED,
                format!(
                    "{known} messages are parked and `max_parked` allows {}; retry or skip some",
                    self.task.max_parked
                ),
            )
        } else if ledger.waiting_bytes() > self.task.max_waiting_bytes {
            let mebibytes = ledger.waiting_bytes() >> 20;
            (
                MAX_WAITING,
                format!("messages that wait behind parked ones take {mebibytes} MiB; retry or skip what they wait for"),
            )
        } else {
            return Ok(());
        };
        Err(Fault::new(FaultKind::Misconfigured, code, format!("park messages of {}", self.name), detail))
    }

    /// Appends and waits until it is durable, or until the engine must stop.
    pub async fn append(&self, batch: Batch, doing: &str) -> Result<(), Halt> {
        let overdue = async {
            self.task.cancel.cancelled().await;
            tokio::time::sleep(FINISH_WITHIN).await;
        };
        tokio::select! {
            appended = append_durable(&*self.task.log, batch, doing) => Ok(appended?),
            () = overdue => Err(Halt::Interrupted),
        }
    }

    /// Sabotage, for gates that must notice it.
    async fn note_before_confirm(&mut self, stretch: Stretch) {
        match stretch {
            Stretch::Log { through } => self.progress.reach(through),
            Stretch::Released { done, .. } => self.progress.reach_released(done),
        }
        self.progress.delivered(1);
        self.progress.note(When::Now);
        let _durable = tokio::time::timeout(FINISH_WITHIN, self.progress.written()).await;
    }
}

/// For a message of which the exporter did not say what became of it.
fn silent() -> Fault {
    Fault::new(FaultKind::Transient, "engine/task", "deliver messages", "the exporter did not say what became of it")
}

/// Why a message is parked.
pub fn why(fault: &Fault) -> Why {
    Why { stage: Stage::Export, code: fault.code.to_string(), error: fault.to_string(), rule: None }
}

/// Keeps the fault that says most: what stops the subscription before what passes, a reason before "because of another".
fn graver(trouble: &mut Option<(Fault, Option<Duration>)>, fault: Fault, retry_after: Option<Duration>) {
    let rank = |fault: &Fault| match fault.policy() {
        Policy::Stop => 3,
        Policy::StopAndProbe | Policy::Park => 2,
        Policy::BackOff if fault.code != HELD_BACK => 1,
        Policy::BackOff => 0,
    };
    match trouble {
        Some((known, after)) => {
            *after = (*after).max(retry_after);
            if rank(&fault) > rank(known) {
                *known = fault;
            }
        }
        None => *trouble = Some((fault, retry_after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_fault_is_what_counts() {
        let fault = |kind, code: &'static str| Fault::new(kind, code, "send", "x");
        let mut trouble = None;
        graver(&mut trouble, fault(FaultKind::Transient, HELD_BACK), None);
        graver(&mut trouble, fault(FaultKind::Transient, "503"), Some(Duration::from_secs(3)));
        assert_eq!(trouble.as_ref().map(|(f, _)| &*f.code), Some("503"));
        graver(&mut trouble, fault(FaultKind::Misconfigured, "404"), None);
        graver(&mut trouble, fault(FaultKind::Transient, "503"), Some(Duration::from_secs(1)));
        let (fault, after) = trouble.expect("there");
        assert_eq!((&*fault.code, after), ("404", Some(Duration::from_secs(3))));
    }
}
