//! Folds the changes of many events into few rows: per key, in order, without changing any outcome (SEMANTICS 3.3).
//!
//! Two changes of one key merge only where the merged statement has the same effect and the same counts as the two in
//! order. Where that cannot be known without the database, the later change goes into a later *step* of its table; steps
//! run in order. So the worst case is one step per change, and the usual case (upserts of full or partial rows) is one row.

use std::ops::Range;
use std::sync::Arc;

use gravity_model::shape::SharedShape;
use gravity_model::{ChangeBatch, ColumnSet, RowGroup, RowOp, Step, TableChanges, Value};
use gravity_rules::{Change, ChangeOp, Evaluation};
use hashbrown::{HashMap, HashTable};

use crate::project::combine::{Carried, combined, may_be_refused};
use crate::project::evaluate::{Judged, Stretch};

/// A folded batch, and which events stand behind rows whose absence must be counted.
#[derive(Debug, Default)]
pub struct Folded {
    pub batch: ChangeBatch,
    /// (table, step, row) in `batch` → indices of the folded events, for patches only.
    pub patched: HashMap<(u32, u32, u32), Vec<u32>>,
}

impl Folded {
    /// The memory of the largest group, for the next batch: tens of thousands of rows take pages that the system would
    /// have to clear anew for every batch. Nothing where the batch used little of it, so that it is free once a route is idle.
    pub fn into_room(self) -> Vec<Value> {
        let groups = self.batch.tables.into_iter().flat_map(|table| table.steps).filter_map(|step| match step {
            Step::Rows(group) => Some(group.values),
            Step::DeleteAll => None,
        });
        let mut room = groups.max_by_key(Vec::capacity).unwrap_or_default();
        if room.len() < room.capacity() / 4 {
            return Vec::new();
        }
        room.clear();
        room
    }

    /// Events of which every change patched a row that is not there. `rows` is what the database reported.
    pub fn missed<'s>(&self, rows: &[(u32, u32, u32)], stretch: &'s Stretch) -> Vec<&'s Judged> {
        let mut misses: HashMap<u32, u32> = HashMap::new();
        for event in rows.iter().filter_map(|row| self.patched.get(row)).flatten() {
            *misses.entry(*event).or_default() += 1;
        }
        let all_missed = |(event, count): (u32, u32)| {
            let judged = &stretch.events[event as usize];
            (count >= judged.changes.end - judged.changes.start).then_some(judged)
        };
        let mut missed: Vec<&Judged> = misses.into_iter().filter_map(all_missed).collect();
        missed.sort_unstable_by_key(|judged| judged.sequence);
        missed
    }
}

/// Collects changes of one batch. `evaluation` is the arena that all changes point into.
pub struct Fold<'e> {
    evaluation: &'e Evaluation,
    shapes: &'e [SharedShape],
    sets: Vec<Arc<ColumnSet>>,
    set_ids: HashMap<ColumnSet, u32>,
    tables: Vec<TableFold>,
    /// Rows made by merging; a row that was never merged stays in the arena.
    merged: Vec<Value>,
}

#[derive(Default)]
struct TableFold {
    slots: Vec<Slot>,
    /// Newest slot of each key.
    newest: HashTable<u32>,
    /// Steps before this one are closed by a `DELETE` of everything.
    floor: u32,
    /// Highest step in use.
    top: u32,
    /// Steps that are a `DELETE` of everything.
    delete_all: Vec<u32>,
}

struct Slot {
    /// Of the key: neither a lookup nor a growing table computes it again.
    hash: u64,
    step: u32,
    op: RowOp,
    set: u32,
    key: Range<u32>,
    row: Row,
    /// For patches: the events that wrote here.
    events: Vec<u32>,
    /// False for the old key of a move, which only holds the place.
    emitted: bool,
}

/// A canonical key in the arena, with its hash.
struct Keyed {
    hash: u64,
    range: Range<u32>,
}

#[derive(Clone)]
enum Row {
    Arena(Range<u32>),
    Merged(Range<u32>),
}

impl<'e> Fold<'e> {
    pub fn new(evaluation: &'e Evaluation, shapes: &'e [SharedShape]) -> Fold<'e> {
        let tables = shapes.iter().map(|_| TableFold::default()).collect();
        Fold { evaluation, shapes, sets: Vec::new(), set_ids: HashMap::new(), tables, merged: Vec::new() }
    }

    /// Adds the next change, in log order. `event` is the caller's index of the event.
    pub fn add(&mut self, event: u32, change: &Change, columns: &Arc<ColumnSet>) {
        let table = usize::from(change.table);
        if change.op == ChangeOp::DeleteAll {
            let fold = &mut self.tables[table];
            let step = if fold.slots.is_empty() && fold.delete_all.is_empty() { 0 } else { fold.top + 1 };
            fold.delete_all.push(step);
            fold.newest.clear();
            (fold.top, fold.floor) = (step, step + 1);
            return;
        }
        let set = self.intern(columns);
        let op = row_op(change);
        let key = self.keyed(&change.key);
        let previous = self.find(table, &key);
        if let Some(old_key) = &change.old_key {
            let old_key = self.keyed(old_key);
            let old = self.find(table, &old_key);
            let step = [previous, old].into_iter().flatten().map(|i| self.tables[table].slots[i].step + 1).max();
            let step = step.unwrap_or(self.tables[table].floor);
            let moved = |key: &Keyed, emitted| Slot { emitted, ..slot(step, op, set, key, change, event) };
            let index = self.push(table, moved(&key, true));
            self.point(table, &key, index);
            // The old key is taken too: whatever follows on it runs after the move.
            let ghost = self.push(table, moved(&old_key, false));
            self.point(table, &old_key, ghost);
            return;
        }
        let Some(previous) = previous else {
            let step = self.tables[table].floor;
            let index = self.push(table, slot(step, op, set, &key, change, event));
            self.point(table, &key, index);
            return;
        };
        let earlier = &self.tables[table].slots[previous];
        let merged = match merge_of(earlier.op, op) {
            Merge::KeepEarlier => true,
            Merge::Replace if may_be_refused(&self.sets[earlier.set as usize]) => false,
            Merge::Replace => {
                let slot = &mut self.tables[table].slots[previous];
                (slot.op, slot.set, slot.row) = (op, set, arena(change));
                true
            }
            Merge::Overlay(result) => self.overlay(table, previous, result, set, change, event),
            Merge::NextStep => false,
        };
        if !merged {
            let step = self.tables[table].slots[previous].step + 1;
            let index = self.push(table, slot(step, op, set, &key, change, event));
            self.point(table, &key, index);
        }
    }

    /// Sorts by key and lays the rows out for the connector, in `room` where it is large enough.
    pub fn finish(self, mut room: Vec<Value>) -> Folded {
        let mut folded = Folded::default();
        for (table, fold) in self.tables.iter().enumerate() {
            if fold.slots.is_empty() && fold.delete_all.is_empty() {
                continue;
            }
            let keys = &self.evaluation.keys;
            let mut order: Vec<u32> =
                (0..fold.slots.len() as u32).filter(|i| fold.slots[*i as usize].emitted).collect();
            // The first bytes of a key decide nearly always; the key itself is far away in memory.
            let sorted_by = |i: &u32| {
                let slot = &fold.slots[*i as usize];
                (slot.step, slot.op, slot.set, prefix(bytes(keys, &slot.key)), *i)
            };
            let mut sorted: Vec<_> = order.iter().map(sorted_by).collect();
            sorted.sort_unstable_by(|a, b| {
                let key = |entry: &(u32, RowOp, u32, u128, u32)| bytes(keys, &fold.slots[entry.4 as usize].key);
                (a.0, a.1, a.2, a.3).cmp(&(b.0, b.1, b.2, b.3)).then_with(|| key(a).cmp(key(b)))
            });
            order.clear();
            order.extend(sorted.into_iter().map(|entry| entry.4));
            let mut delete_all = fold.delete_all.iter().copied().peekable();
            let mut steps: Vec<Step> = Vec::new();
            let mut open: Option<(u32, RowOp, u32)> = None;
            let table_index = folded.batch.tables.len() as u32;
            let place = |index: &u32| {
                let slot = &fold.slots[*index as usize];
                (slot.step, slot.op, slot.set)
            };
            for (at, index) in order.iter().enumerate() {
                let slot = &fold.slots[*index as usize];
                while delete_all.next_if(|step| *step < slot.step).is_some() {
                    steps.push(Step::DeleteAll);
                    open = None;
                }
                let row = self.row(&slot.row);
                if open != Some(place(index)) {
                    open = Some(place(index));
                    let columns = self.sets[slot.set as usize].clone();
                    // In one piece: a batch has tens of thousands of rows, and growing would copy them again and again.
                    let rows = order[at..].iter().take_while(|later| open == Some(place(later))).count();
                    let needed = rows * row.len();
                    let values =
                        if room.capacity() >= needed { std::mem::take(&mut room) } else { Vec::with_capacity(needed) };
                    steps.push(Step::Rows(RowGroup { op: slot.op, columns, width: row.len(), values }));
                }
                let step_index = steps.len() as u32 - 1;
                if let Some(Step::Rows(group)) = steps.last_mut() {
                    if !slot.events.is_empty() {
                        let place = (table_index, step_index, group.len() as u32);
                        folded.patched.insert(place, slot.events.clone());
                    }
                    group.values.extend_from_slice(row);
                }
            }
            steps.extend(delete_all.map(|_| Step::DeleteAll));
            folded.batch.tables.push(TableChanges { shape: self.shapes[table].clone(), steps });
        }
        folded
    }

    fn intern(&mut self, columns: &Arc<ColumnSet>) -> u32 {
        if let Some(id) = self.set_ids.get(&**columns) {
            return *id;
        }
        let id = self.sets.len() as u32;
        self.sets.push(columns.clone());
        self.set_ids.insert((**columns).clone(), id);
        id
    }

    fn keyed(&self, range: &Range<u32>) -> Keyed {
        Keyed { hash: xxhash_rust::xxh3::xxh3_64(bytes(&self.evaluation.keys, range)), range: range.clone() }
    }

    fn find(&self, table: usize, key: &Keyed) -> Option<usize> {
        let (keys, fold) = (&self.evaluation.keys, &self.tables[table]);
        let wanted = bytes(keys, &key.range);
        let same = |i: &u32| {
            let slot = &fold.slots[*i as usize];
            slot.hash == key.hash && bytes(keys, &slot.key) == wanted
        };
        fold.newest.find(key.hash, same).map(|i| *i as usize)
    }

    fn push(&mut self, table: usize, slot: Slot) -> u32 {
        let fold = &mut self.tables[table];
        fold.top = fold.top.max(slot.step);
        fold.slots.push(slot);
        fold.slots.len() as u32 - 1
    }

    fn point(&mut self, table: usize, key: &Keyed, slot: u32) {
        let keys = &self.evaluation.keys;
        let wanted = bytes(keys, &key.range);
        let TableFold { slots, newest, .. } = &mut self.tables[table];
        let at = |i: &u32| slots[*i as usize].hash == key.hash && bytes(keys, &slots[*i as usize].key) == wanted;
        match newest.find_mut(key.hash, at) {
            Some(found) => *found = slot,
            None => {
                newest.insert_unique(key.hash, slot, |i| slots[*i as usize].hash);
            }
        }
    }

    /// Writes `change` over the row of `slot`: carried columns win or join, columns filled at creation stay. False where only the
    /// database can tell what comes of both.
    fn overlay(&mut self, table: usize, slot: usize, result: RowOp, set: u32, change: &Change, event: u32) -> bool {
        let shape = &self.shapes[table];
        let key_width = shape.primary_key.len();
        let earlier = &self.tables[table].slots[slot];
        let events = events(result, event);
        let columns = &self.sets[set as usize];
        if earlier.set == set && columns.on_create.is_empty() && !columns.joins() {
            let slot = &mut self.tables[table].slots[slot];
            (slot.op, slot.row) = (result, arena(change));
            slot.events.extend(events);
            return true;
        }
        let (old_set, new_set) = (self.sets[earlier.set as usize].clone(), self.sets[set as usize].clone());
        let old_row = self.row(&earlier.row);
        let new_row = &self.evaluation.values[change.values.start as usize..change.values.end as usize];
        let earlier = Carried { columns: &old_set, values: &old_row[key_width..] };
        let later = Carried { columns: &new_set, values: &new_row[key_width..] };
        let Some((columns, values)) = combined(shape, result, earlier, later) else { return false };
        let (columns, key) = (Arc::new(columns), old_row[..key_width].to_vec());
        // A text that grows change by change is held once, not as often as it grew.
        if let Row::Merged(range) = &self.tables[table].slots[slot].row {
            self.merged[range.start as usize..range.end as usize].fill(Value::Null);
        }
        let start = self.merged.len() as u32;
        self.merged.extend(key.into_iter().chain(values));
        let end = self.merged.len() as u32;
        let id = self.intern(&columns);
        let slot = &mut self.tables[table].slots[slot];
        (slot.op, slot.set, slot.row) = (result, id, Row::Merged(start..end));
        slot.events.extend(events);
        true
    }

    fn row(&self, row: &Row) -> &[Value] {
        match row {
            Row::Arena(range) => &self.evaluation.values[range.start as usize..range.end as usize],
            Row::Merged(range) => &self.merged[range.start as usize..range.end as usize],
        }
    }
}

enum Merge {
    /// The later change has no effect on the row.
    KeepEarlier,
    /// The later change alone has the effect of both.
    Replace,
    /// One row with the later change's columns over the earlier's, where they join to one.
    Overlay(RowOp),
    /// Only the database can tell: run it after the earlier one.
    NextStep,
}

fn merge_of(earlier: RowOp, later: RowOp) -> Merge {
    use RowOp::{Delete, Insert, InsertIgnore, Move, Patch, PatchRequired, UpdateElseInsert, Upsert};
    match (earlier, later) {
        (Delete, Delete) => Merge::KeepEarlier,
        // After an upsert the row exists: what follows is an update of it, whatever it was called.
        (Upsert, Upsert | UpdateElseInsert | Patch | PatchRequired) => Merge::Overlay(Upsert),
        (UpdateElseInsert, Upsert) => Merge::Overlay(Upsert),
        (UpdateElseInsert, UpdateElseInsert | Patch | PatchRequired) => Merge::Overlay(UpdateElseInsert),
        (Upsert | UpdateElseInsert, Delete) => Merge::Replace,
        (Upsert | UpdateElseInsert, InsertIgnore) => Merge::KeepEarlier,
        // Both find the row or neither does.
        (Patch, Patch) => Merge::Overlay(Patch),
        (PatchRequired, PatchRequired) => Merge::Overlay(PatchRequired),
        (Upsert | UpdateElseInsert, Insert | Move)
        | (Delete | Patch | PatchRequired | Insert | InsertIgnore | Move, _) => Merge::NextStep,
    }
}

fn row_op(change: &Change) -> RowOp {
    match change.op {
        ChangeOp::Upsert => RowOp::Upsert,
        ChangeOp::UpdateElseInsert => RowOp::UpdateElseInsert,
        ChangeOp::Insert => RowOp::Insert,
        ChangeOp::InsertIgnore => RowOp::InsertIgnore,
        ChangeOp::Patch if change.park_if_missing => RowOp::PatchRequired,
        ChangeOp::Patch => RowOp::Patch,
        ChangeOp::Move => RowOp::Move,
        // `DeleteAll` never reaches a slot: `add` turns it into a step of its own.
        ChangeOp::Delete | ChangeOp::DeleteAll => RowOp::Delete,
    }
}

fn slot(step: u32, op: RowOp, set: u32, key: &Keyed, change: &Change, event: u32) -> Slot {
    let (hash, key) = (key.hash, key.range.clone());
    Slot { hash, step, op, set, key, row: arena(change), events: events(op, event), emitted: true }
}

/// The first 16 bytes as a number that sorts as they do.
fn prefix(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    let taken = key.len().min(first.len());
    first[..taken].copy_from_slice(&key[..taken]);
    u128::from_be_bytes(first)
}

fn events(op: RowOp, event: u32) -> Vec<u32> {
    if matches!(op, RowOp::Patch) { vec![event] } else { Vec::new() }
}

fn arena(change: &Change) -> Row {
    Row::Arena(change.values.clone())
}

fn bytes<'k>(keys: &'k [u8], range: &Range<u32>) -> &'k [u8] {
    &keys[range.start as usize..range.end as usize]
}
