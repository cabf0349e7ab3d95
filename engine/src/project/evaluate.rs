//! Runs a route's rules over a stretch of the log, without touching anything: which events there are, and what each wants.

use std::ops::Range;
use std::sync::Arc;

use gravity_log::Block;
use gravity_model::{EventKind, Micros, Recorded, Sequence};
use gravity_rules::{ChangeOp, Evaluation, Refusal, RouteProgram, Verdict};

use crate::control;
use crate::ingest::letters::readable;
use crate::ledger::BlockedKey;

/// What one event wants of a route.
#[derive(Debug)]
pub struct Judged {
    pub sequence: Sequence,
    pub wants: Wants,
    /// Into [`Stretch::evaluation`]'s changes.
    pub changes: Range<u32>,
}

#[derive(Debug)]
pub enum Wants {
    Unmatched,
    Filtered,
    Changes,
    Refused(Box<Refusal>),
}

/// A judged stretch of the log.
#[derive(Debug, Default)]
pub struct Stretch {
    pub events: Vec<Judged>,
    pub evaluation: Evaluation,
    /// Last sequence looked at; control events that no rule names are passed silently.
    pub through: Sequence,
    /// A control event of the route that must be dealt with next, right behind `through`.
    pub stop: Option<Stop>,
    /// When the first event of the stretch was received.
    pub oldest: Option<Micros>,
}

/// Why a stretch ends before its blocks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The rules change at this sequence.
    Config(Sequence),
    /// An operator's retry or skip stands at this sequence.
    Decision(Sequence),
}

/// Judges the events of `blocks` in `(range.0, range.1]`, up to the first control event that stops the route.
pub fn judge(route: &str, program: &RouteProgram, blocks: &[Block], range: (Sequence, Sequence), into: &mut Stretch) {
    let (after, last) = range;
    into.events.clear();
    into.evaluation.clear();
    (into.through, into.stop, into.oldest) = (after, None, None);
    for block in blocks {
        for recorded in block.iter() {
            if recorded.sequence <= after {
                continue;
            }
            if recorded.sequence > last {
                return;
            }
            if recorded.event.kind == EventKind::Control {
                if let Some(stop) = stop_of(route, &recorded) {
                    into.stop = Some(stop);
                    return;
                }
                if !program.wants(recorded.event.name) {
                    into.through = recorded.sequence;
                    continue;
                }
            }
            into.oldest.get_or_insert(recorded.event.received);
            into.events.push(judge_one(program, &recorded, block, &mut into.evaluation));
            into.through = recorded.sequence;
        }
    }
}

/// Judges one event, appending to `evaluation`.
pub fn judge_one(
    program: &RouteProgram,
    recorded: &Recorded<'_>,
    block: &Block,
    evaluation: &mut Evaluation,
) -> Judged {
    let first = evaluation.changes.len() as u32;
    let wants = if recorded.event.kind == EventKind::Undecodable {
        // Its dead letter is on `ingest`; here it matches nothing.
        Wants::Unmatched
    } else {
        match program.evaluate(recorded, block.records(), evaluation) {
            Verdict::Unmatched => Wants::Unmatched,
            Verdict::Filtered => Wants::Filtered,
            Verdict::Matched => Wants::Changes,
            Verdict::Refused(refusal) => Wants::Refused(Box::new(refusal)),
        }
    };
    Judged { sequence: recorded.sequence, wants, changes: first..evaluation.changes.len() as u32 }
}

/// What a control event asks of `route`.
pub fn stop_of(route: &str, recorded: &Recorded<'_>) -> Option<Stop> {
    match recorded.event.name {
        control::CONFIG_CHANGED if recorded.event.payload.is_some() => Some(Stop::Config(recorded.sequence)),
        control::RETRY | control::SKIP if recorded.event.payload.is_some() => {
            let key = std::str::from_utf8(recorded.event.key?).ok()?;
            (control::route_of(key) == Some(route)).then_some(Stop::Decision(recorded.sequence))
        }
        _ => None,
    }
}

/// Everything that an event's changes touch, for parking.
pub fn touched(names: &[Arc<str>], evaluation: &Evaluation, judged: &Judged) -> Vec<BlockedKey> {
    let mut keys = Vec::new();
    for change in &evaluation.changes[judged.changes.start as usize..judged.changes.end as usize] {
        let table = &names[usize::from(change.table)];
        if change.op == ChangeOp::DeleteAll {
            keys.push(BlockedKey::table(table));
            continue;
        }
        keys.push(BlockedKey::row(table, evaluation.key(change)));
        if let Some(old_key) = evaluation.old_key(change) {
            keys.push(BlockedKey::row(table, old_key));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What `dlq list` shows of an event: its name and its key.
pub fn shown(block: &Block, sequence: Sequence) -> (String, Option<String>) {
    match block.event(sequence) {
        Some(recorded) => (recorded.event.name.to_owned(), recorded.event.key.map(readable)),
        None => (String::new(), None),
    }
}
