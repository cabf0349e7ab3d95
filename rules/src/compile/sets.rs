//! The column sets that events of a route have needed so far.

use std::sync::{Arc, PoisonError, RwLock};

use gravity_model::{ColumnOp, ColumnSet, TableShape};
use hashbrown::HashMap;

use super::{Cell, RuleProgram};

/// A column set by number, and the first column that it leaves without value in a new row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InternedSet {
    pub id: u32,
    /// NOT NULL, without default, and not among key, `set` and `on_create`.
    pub uncovered: Option<u16>,
}

/// Column sets that events have needed so far. Few: one per combination of absent fields that occurs.
#[derive(Debug, Default)]
pub(crate) struct ColumnSets {
    inner: RwLock<SetsInner>,
}

#[derive(Debug, Default)]
struct SetsInner {
    sets: Vec<Arc<ColumnSet>>,
    by_set: HashMap<Arc<ColumnSet>, u32>,
    /// By (rule index, bits of the cells that the event carries).
    by_carried: HashMap<(u16, Box<[u64]>), InternedSet>,
}

impl ColumnSets {
    /// The set of no columns, which deletes carry.
    pub const EMPTY: u32 = 0;

    pub fn new() -> ColumnSets {
        let sets = ColumnSets::default();
        let empty = sets.intern(ColumnSet::default());
        debug_assert_eq!(empty, ColumnSets::EMPTY);
        sets
    }

    pub fn get(&self, id: u32) -> Arc<ColumnSet> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.sets.get(id as usize).cloned().unwrap_or_default()
    }

    pub fn intern(&self, set: ColumnSet) -> u32 {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = inner.by_set.get(&set) {
            return *id;
        }
        let set = Arc::new(set);
        let id = inner.sets.len() as u32;
        inner.sets.push(set.clone());
        inner.by_set.insert(set, id);
        id
    }

    /// The set for a rule and the cells that an event carries (one bit each).
    pub fn of_carried(&self, rule: &RuleProgram, carried: &[u64], shape: &TableShape) -> InternedSet {
        {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = inner.by_carried.get(&CarriedRef(rule.rule, carried)) {
                return *found;
            }
        }
        let is_carried = |index: usize| carried[index / 64] >> (index % 64) & 1 == 1;
        let pick = |wanted: &dyn Fn(usize, &Cell) -> bool| -> Box<[u16]> {
            rule.cells
                .iter()
                .enumerate()
                .filter(|(index, cell)| wanted(*index, cell))
                .map(|(_, cell)| cell.column)
                .collect()
        };
        let carried_cells = rule.cells.iter().enumerate().filter(|(index, _)| is_carried(*index));
        let set = ColumnSet {
            set: pick(&|index, _| is_carried(index)),
            on_create: pick(&|index, cell| !is_carried(index) && cell.default.is_some()),
            ops: ops(carried_cells.map(|(_, cell)| cell.op)),
        };
        let uncovered = first_uncovered(shape, &set);
        let interned = InternedSet { id: self.intern(set), uncovered };
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.by_carried.insert((rule.rule, carried.into()), interned);
        interned
    }
}

#[derive(Hash)]
struct CarriedRef<'c>(u16, &'c [u64]);

impl hashbrown::Equivalent<(u16, Box<[u64]>)> for CarriedRef<'_> {
    fn equivalent(&self, key: &(u16, Box<[u64]>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

/// The ops of a column set: empty where all columns are set, so that equal sets are one.
pub(super) fn ops(of_cells: impl Iterator<Item = ColumnOp>) -> Box<[ColumnOp]> {
    let ops: Box<[ColumnOp]> = of_cells.collect();
    if ops.iter().all(|op| *op == ColumnOp::Set) { Box::default() } else { ops }
}

/// The first column, key aside, that a row of this set lacks: NOT NULL, without default.
pub(super) fn first_uncovered(shape: &TableShape, set: &ColumnSet) -> Option<u16> {
    let needs = |index: u16| {
        let column = &shape.columns[index as usize];
        column.not_null && !column.has_default && !column.generated
    };
    (0..shape.columns.len() as u16).find(|index| {
        needs(*index)
            && !shape.primary_key.contains(index)
            && set.set.binary_search(index).is_err()
            && set.on_create.binary_search(index).is_err()
    })
}
