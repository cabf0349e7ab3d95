//! Row groups as both dialects see them: where the parts of a row are, which plan fits, and what to say of a row.

use std::ops::Range;
use std::sync::Arc;

use gravity_model::change::{ColumnOp, ColumnSet};
use gravity_model::shape::SharedShape;
use gravity_model::{Fault, FaultKind, RowGroup, RowOp, TableShape};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::text::shown;

/// Where the parts of a row are, as ranges into its values.
#[derive(Debug)]
pub(crate) struct RowLayout {
    /// Column of each value.
    pub columns: Vec<u16>,
    /// The key by which rows are found.
    pub old_keys: Range<usize>,
    /// The key that rows have afterwards; the same but for a move.
    pub keys: Range<usize>,
    pub set: Range<usize>,
    pub on_create: Range<usize>,
    /// As in the column set.
    ops: Box<[ColumnOp]>,
}

impl RowLayout {
    pub fn new(shape: &TableShape, op: RowOp, set: &ColumnSet, width: usize) -> Result<RowLayout, Fault> {
        let keys = shape.primary_key.len();
        let repeat = if op == RowOp::Move { 2 } else { 1 };
        let columns: Vec<u16> = std::iter::repeat_n(shape.primary_key.iter(), repeat)
            .flatten()
            .chain(set.set.iter())
            .chain(set.on_create.iter())
            .copied()
            .collect();
        if keys == 0 || columns.len() != width {
            let detail = format!("a row of {width} values does not fit a key of {keys} in {} columns", columns.len());
            return Err(shape_fault(&shape.table, detail));
        }
        for column in &columns {
            match shape.columns.get(usize::from(*column)) {
                None => return Err(shape_fault(&shape.table, format!("there is no column number {column}"))),
                Some(c) if c.generated => {
                    return Err(shape_fault(&shape.table, format!("column {} is computed by the database", c.name)));
                }
                Some(_) => {}
            }
        }
        let whole = set.ops.is_empty() || set.ops.len() == set.set.len();
        if !whole || (set.joins() && matches!(op, RowOp::Insert | RowOp::InsertIgnore)) {
            let detail = format!("{op:?} of {} columns with {} ops", set.set.len(), set.ops.len());
            return Err(shape_fault(&shape.table, detail));
        }
        let set_from = keys * repeat;
        let create_from = set_from + set.set.len();
        Ok(RowLayout {
            old_keys: 0..keys,
            keys: set_from - keys..set_from,
            set: set_from..create_from,
            on_create: create_from..columns.len(),
            ops: set.ops.clone(),
            columns,
        })
    }

    /// How the value at `cell` of a row is written.
    pub fn op(&self, cell: usize) -> ColumnOp {
        let index = cell.checked_sub(self.set.start).filter(|_| self.set.contains(&cell));
        index.and_then(|index| self.ops.get(index)).copied().unwrap_or_default()
    }

    /// Cells that join what the row has.
    pub fn joining(&self) -> impl Iterator<Item = usize> + '_ {
        self.set.clone().filter(|cell| self.op(*cell) != ColumnOp::Set)
    }

    pub fn is_move(&self) -> bool {
        self.keys != self.old_keys
    }

    /// Whether an UPDATE has anything to assign.
    pub fn assigns(&self) -> bool {
        !self.set.is_empty() || self.is_move()
    }

    /// What an UPDATE assigns. A move sets the key as well; its new key stands directly before the `set` values.
    pub fn assigned(&self) -> Range<usize> {
        if self.is_move() { self.keys.start..self.set.end } else { self.set.clone() }
    }

    /// What an INSERT writes.
    pub fn inserted(&self) -> Range<usize> {
        self.keys.start..self.on_create.end
    }
}

/// Plans by shape (its address), operation and columns.
pub(crate) struct PlanCache<P>(Mutex<HashMap<PlanKey, Planned<P>>>);

#[derive(PartialEq, Eq, Hash)]
struct PlanKey {
    shape: usize,
    op: RowOp,
    columns: Arc<ColumnSet>,
    width: usize,
}

struct Planned<P> {
    plan: Arc<P>,
    /// Keeps the shape alive, so that its address stays its own.
    _shape: SharedShape,
}

impl<P> Default for PlanCache<P> {
    fn default() -> Self {
        PlanCache(Mutex::default())
    }
}

impl<P> PlanCache<P> {
    /// A rule set has a few plans per table; beyond this something makes new shapes all the time.
    const MOST: usize = 4096;

    pub fn of(
        &self,
        shape: &SharedShape,
        group: &RowGroup,
        make: impl FnOnce(RowLayout) -> Result<P, Fault>,
    ) -> Result<Arc<P>, Fault> {
        if group.width == 0 || !group.values.len().is_multiple_of(group.width) {
            let detail = format!("{} values in rows of {}", group.values.len(), group.width);
            return Err(shape_fault(&shape.table, detail));
        }
        let key = PlanKey {
            shape: Arc::as_ptr(shape) as usize,
            op: group.op,
            columns: group.columns.clone(),
            width: group.width,
        };
        if let Some(planned) = self.0.lock().get(&key) {
            return Ok(planned.plan.clone());
        }
        let plan = Arc::new(make(RowLayout::new(shape, group.op, &group.columns, group.width)?)?);
        let mut plans = self.0.lock();
        if plans.len() >= Self::MOST {
            plans.clear();
        }
        plans.insert(key, Planned { plan: plan.clone(), _shape: shape.clone() });
        Ok(plan)
    }
}

pub(crate) fn shape_fault(table: &str, detail: String) -> Fault {
    Fault::new(FaultKind::Misconfigured, "live/shape", format!("plan a write to {table}"), detail)
}

/// `patch 12 rows of users`
pub(crate) fn doing(op: RowOp, rows: usize, table: &str) -> String {
    let verb = match op {
        RowOp::Delete => "delete",
        RowOp::Patch | RowOp::PatchRequired => "patch",
        RowOp::Move => "move",
        RowOp::UpdateElseInsert | RowOp::Upsert => "write",
        RowOp::Insert | RowOp::InsertIgnore => "insert",
    };
    format!("{verb} {rows} {} of {table}", if rows == 1 { "row" } else { "rows" })
}

/// `(id) = (7)`
fn key_of(shape: &TableShape, group: &RowGroup, row: usize) -> String {
    let names: Vec<_> = shape.primary_key.iter().map(|c| shape.columns[usize::from(*c)].name.as_str()).collect();
    let values: Vec<_> = group.row(row)[..names.len()].iter().map(shown).collect();
    format!("({}) = ({})", names.join(", "), values.join(", "))
}

/// An insert met a row with other values. `code` is the database's own for a primary key violation.
pub(crate) fn row_exists(code: &'static str, shape: &TableShape, group: &RowGroup, row: usize) -> Fault {
    let detail = format!("a row with {} exists with other values", key_of(shape, group, row));
    Fault::new(FaultKind::RefusedEvent, code, doing(group.op, 1, &shape.table), detail)
}

/// A patch that needs its row did not find it.
pub(crate) fn row_missing(shape: &TableShape, group: &RowGroup, row: usize) -> Fault {
    let detail = format!("there is no row with {}", key_of(shape, group, row));
    Fault::new(FaultKind::RefusedEvent, "row-missing", doing(group.op, 1, &shape.table), detail)
}
