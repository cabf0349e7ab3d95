//! What the rules of a route make of events: changes, in buffers that serve a whole batch.

use std::ops::Range;

use gravity_model::Value;
use hashbrown::HashMap;

use crate::capture::Rows;
use crate::scan::Slot;

/// What a change does; the engine folds changes into the row groups of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeOp {
    /// Write the row, create it if missing. The carried columns suffice to create it.
    Upsert,
    /// Write the row, create it if missing. The carried columns do *not* cover every NOT NULL column without default, so the
    /// UPDATE has to come first.
    UpdateElseInsert,
    Insert,
    InsertIgnore,
    Patch,
    Delete,
    /// The key changes from `old_key` to `key`.
    Move,
    /// Remove all rows of the table. No key, no values.
    DeleteAll,
}

/// One write to one row (or, with [`ChangeOp::DeleteAll`], to one table).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Index into [`RouteProgram::tables`](crate::RouteProgram::tables).
    pub table: u16,
    pub op: ChangeOp,
    /// For [`RouteProgram::column_set`](crate::RouteProgram::column_set).
    pub columns: u32,
    /// Canonical bytes of the key values, in [`Evaluation::keys`]. Empty with `DeleteAll`.
    pub key: Range<u32>,
    /// The former key of a `Move`.
    pub old_key: Option<Range<u32>>,
    /// The row in [`Evaluation::values`], laid out as [`RowGroup`](gravity_model::RowGroup) says. Empty when the event was
    /// refused.
    pub values: Range<u32>,
    /// The rule that made it, for [`RouteProgram::rule_place`](crate::RouteProgram::rule_place).
    pub rule: u16,
    /// `patch` with `"on_missing": "park"`: a missing row makes the event a dead letter.
    pub park_if_missing: bool,
}

/// Buffers that [`RouteProgram::evaluate`](crate::RouteProgram::evaluate) appends to. Cleared by the caller, once per batch;
/// ranges of earlier events stay valid until then.
#[derive(Debug, Default)]
pub struct Evaluation {
    pub changes: Vec<Change>,
    pub values: Vec<Value>,
    pub keys: Vec<u8>,
    /// Fields that no column takes, counted since the last [`Evaluation::take_unknown_fields`].
    pub(crate) unknown: UnknownCounts,
    pub(crate) scratch: Scratch,
}

impl Evaluation {
    pub fn new() -> Evaluation {
        Evaluation::default()
    }

    /// Forgets all changes; keeps the memory, and the counts of unknown fields.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.values.clear();
        self.keys.clear();
    }

    /// The key of a change.
    pub fn key(&self, change: &Change) -> &[u8] {
        &self.keys[change.key.start as usize..change.key.end as usize]
    }

    /// The former key of a move.
    pub fn old_key(&self, change: &Change) -> Option<&[u8]> {
        change.old_key.as_ref().map(|range| &self.keys[range.start as usize..range.end as usize])
    }

    /// The row of a change.
    pub fn row(&self, change: &Change) -> &[Value] {
        &self.values[change.values.start as usize..change.values.end as usize]
    }

    /// Pass-through fields that had no column: (table index, field, how often).
    pub fn take_unknown_fields(&mut self) -> Vec<(u16, String, u64)> {
        let mut all: Vec<_> =
            self.unknown.counts.drain().map(|((table, field), count)| (table, field.into_string(), count)).collect();
        all.sort();
        all
    }
}

/// Field names come from outside: their number is bounded, the rest is counted under `…`.
const MOST_UNKNOWN_NAMES: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct UnknownCounts {
    counts: HashMap<(u16, Box<str>), u64>,
}

#[derive(Hash)]
struct FieldRef<'f>(u16, &'f str);

impl hashbrown::Equivalent<(u16, Box<str>)> for FieldRef<'_> {
    fn equivalent(&self, key: &(u16, Box<str>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

impl UnknownCounts {
    pub fn add(&mut self, table: u16, field: &str) {
        let full = self.counts.len() >= MOST_UNKNOWN_NAMES && !self.counts.contains_key(&FieldRef(table, field));
        let field = if full { "…" } else { field };
        match self.counts.get_mut(&FieldRef(table, field)) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert((table, field.into()), 1);
            }
        }
    }
}

/// Working memory of one evaluation.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub slots: Vec<Slot>,
    /// Byte ranges of the payload's top-level keys, for pass-through rules.
    pub fields: Vec<(u32, u32)>,
    /// One bit per cell of a rule: carried by the event.
    pub carried: Vec<u64>,
    /// Values of the former key of a move.
    pub old_key: Vec<Value>,
    /// Rows of captured changes.
    pub rows: Rows,
    /// Which routings of the event hold, by index.
    pub held: Vec<bool>,
}

/// What became of an event on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No rule of this route names the event.
    Unmatched,
    /// Rules name it, but nothing is to be written or told: a null payload, or no filter that is true.
    Filtered,
    /// There is at least one change, or the rules only route.
    Matched,
    /// The event must be parked. Keys that could be computed are among the changes, which carry no values.
    Refused(Refusal),
}

/// Why an event cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code, has a page.
    pub code: &'static str,
    /// Always `map`.
    pub stage: &'static str,
    /// `file:line` of the rule.
    pub rule: String,
    pub message: String,
}
