//! Which events a subscription tells of, and what it says.

use std::sync::Arc;

use gravity_log::Block;
use gravity_model::{EventKind, Fault, FaultKind, Recorded, Sequence};
use gravity_rules::{Evaluation, RouteProgram};

use crate::control::{self, Parked};
use crate::export::backlog::{Place, key_of};
use crate::export::outgoing::Mark;
use crate::export::task::Subscription;
use crate::ledger::BlockedKey;
use crate::project::decide::read_block;
use crate::project::evaluate::{Wants, judge_one};

/// A retry or skip that a subscription has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// Of its own parked messages.
    Messages,
    /// Of its route's parked events.
    Events,
}

impl Subscription {
    /// The rules, if they tell this subscription of the event when it takes effect at `at`.
    pub fn wants(
        &self,
        recorded: &Recorded<'_>,
        block: &Block,
        at: Sequence,
    ) -> Result<Option<Arc<RouteProgram>>, Fault> {
        if recorded.event.kind == EventKind::Undecodable {
            return Ok(None);
        }
        // The rules in force there decide, also for what was written before the route's present ones.
        let Some(version) = self.task.rules.in_force(at) else { return Err(self.no_rules(at)) };
        let event = &recorded.event;
        if !version.set.fires(event.name, &self.task.route.name, &self.task.letterhead.exporter) {
            return Ok(None);
        }
        let program = self.program(at)?;
        // A null payload changes nothing unless a rule needs none: then the event was filtered. Where it is only routed,
        // it counts as applied and is told. Filters decide the same for any payload (SEMANTICS 5.1).
        let depends = event.payload.is_none() && program.writes(event.name);
        if depends || program.is_conditional(event.name) {
            let mut evaluation = Evaluation::new();
            let judged = judge_one(&program, recorded, block, &mut evaluation);
            let exporter = &self.task.letterhead.exporter;
            let subscription = version.set.subscription(&self.task.route.name, exporter);
            let told = subscription.is_some_and(|number| program.tells(event.name, number, &evaluation));
            // What is refused here is parked there, and told when its retry takes effect.
            if !told || !matches!(judged.wants, Wants::Changes) {
                return Ok(None);
            }
        }
        Ok(Some(program))
    }

    /// The compiled rules for `at`. A route that has not compiled them yet will: never a reason to say nothing.
    fn program(&self, at: Sequence) -> Result<Arc<RouteProgram>, Fault> {
        self.task.route.program(at).ok_or_else(|| self.no_rules(at))
    }

    fn no_rules(&self, at: Sequence) -> Fault {
        let detail = format!("route {} has not prepared the rules for sequence {at} yet", self.task.route.name);
        Fault::new(FaultKind::Transient, "route/not-prepared", "write messages", detail)
    }

    /// False for what is parked, took effect later, or changed nothing.
    pub fn is_in_effect(&self, sequence: Sequence) -> bool {
        let ledger = self.task.route.ledger.lock();
        ledger.parked(sequence).is_none() && ledger.effect_of(sequence).is_none() && !ledger.was_missed(sequence)
    }

    /// Which of its decisions an event is, if it is one.
    pub fn decided(&self, recorded: &Recorded<'_>) -> Option<Decided> {
        let event = &recorded.event;
        let decides = event.kind == EventKind::Control
            && matches!(event.name, control::RETRY | control::SKIP)
            && event.payload.is_some();
        let key = event.key.filter(|_| decides)?;
        let route = control::route_of(std::str::from_utf8(key).ok()?)?;
        if route == self.name {
            Some(Decided::Messages)
        } else {
            (route == self.task.route.name).then_some(Decided::Events)
        }
    }

    pub fn write(
        &self,
        program: &RouteProgram,
        recorded: &Recorded<'_>,
        block: &Block,
        place: Place,
    ) -> (Mark, gravity_model::port::export::Message) {
        let tables = tables_written(program, recorded, block);
        let mut message = self.task.letterhead.write(recorded, &tables, place.retried_at());
        if message.key.is_none() {
            message.key = crate::export::key::of_first_projection(program, recorded, block);
        }
        let key = message.key.as_ref().and_then(|key| order_key(key).row);
        (Mark { place, key, index: 0 }, message)
    }

    /// The message of an event that a retry released at `record`; `None` if the rules in force there tell nobody here.
    pub async fn write_released(
        &mut self,
        sequence: Sequence,
        record: Sequence,
    ) -> Result<Option<(Mark, gravity_model::port::export::Message)>, Fault> {
        let Some(block) = self.block_of(sequence).await? else { return Err(gone(sequence)) };
        let Some(recorded) = block.event(sequence) else { return Err(gone(sequence)) };
        let place = Place::of(sequence, Some(record));
        Ok(self.wants(&recorded, &block, record)?.map(|program| self.write(&program, &recorded, &block, place)))
    }

    /// The message that is parked: it was wanted when it was, whatever the rules say today.
    pub async fn write_parked(
        &mut self,
        parked: &Parked,
        place: Place,
    ) -> Result<(Mark, gravity_model::port::export::Message), Fault> {
        let Some(block) = self.block_of(place.sequence).await? else { return Err(gone(place.sequence)) };
        let Some(recorded) = block.event(place.sequence) else { return Err(gone(place.sequence)) };
        let program = self.program(place.effect)?;
        let (mark, message) = self.write(&program, &recorded, &block, place);
        Ok((Mark { key: key_of(parked), ..mark }, message))
    }

    /// The block that holds an event. Released events often stand close together: the last one is kept.
    async fn block_of(&mut self, sequence: Sequence) -> Result<Option<Block>, Fault> {
        let holds = |block: &Block| block.mark.first <= sequence && sequence <= block.last();
        if let Some(block) = self.block.as_ref().filter(|block| holds(block)) {
            return Ok(Some(block.clone()));
        }
        self.block = read_block(&self.task.log, sequence).await?;
        Ok(self.block.clone())
    }
}

/// The tables that the event wrote: all that its rules name, unless filters left some out.
fn tables_written<'p>(program: &'p RouteProgram, recorded: &Recorded<'_>, block: &Block) -> Vec<&'p str> {
    let all = program.tables_of(recorded.event.name);
    if !program.is_conditional(recorded.event.name) {
        return all;
    }
    let mut evaluation = Evaluation::new();
    judge_one(program, recorded, block, &mut evaluation);
    let written =
        |table: &&str| evaluation.changes.iter().any(|c| program.tables()[usize::from(c.table)].table == **table);
    all.into_iter().filter(written).collect()
}

/// What a message of this key holds back when it is parked.
pub fn order_key(key: &[u8]) -> BlockedKey {
    BlockedKey::row(&"".into(), key)
}

/// An event that retention took, or that another data directory had: nobody can be told of it any more.
fn gone(sequence: Sequence) -> Fault {
    let detail = format!("sequence {sequence} is not in the log any more");
    Fault::new(FaultKind::RefusedEvent, "log/gone", "write the message of a released event", detail)
}
