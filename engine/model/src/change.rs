//! A folded batch of writes to the views of one route, in the form that connectors turn into statements.

use std::sync::Arc;

use crate::shape::SharedShape;
use crate::value::Value;

/// Everything that one database transaction writes to the views, table by table. Tables are independent of each other;
/// the steps inside one table run in order.
#[derive(Clone, Debug, Default)]
pub struct ChangeBatch {
    pub tables: Vec<TableChanges>,
}

impl ChangeBatch {
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|t| t.steps.is_empty())
    }

    pub fn rows(&self) -> usize {
        self.tables.iter().flat_map(|t| &t.steps).map(Step::rows).sum()
    }
}

#[derive(Clone, Debug)]
pub struct TableChanges {
    pub shape: SharedShape,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// Rows of distinct keys, sorted by canonical key.
    Rows(RowGroup),
    /// DELETE of all rows, on every database (SEMANTICS 2.2).
    DeleteAll,
}

impl Step {
    pub fn rows(&self) -> usize {
        match self {
            Step::Rows(group) => group.len(),
            Step::DeleteAll => 1,
        }
    }
}

/// What a row group does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowOp {
    /// DELETE by key; a missing row is no failure.
    Delete,
    /// UPDATE by key of rows that exist; missing rows are reported in [`Applied::missed`](crate::port::view::Applied).
    Patch,
    /// The same, but a missing row is a refusal of content (`"on_missing": "park"`): code `row-missing`.
    PatchRequired,
    /// UPDATE of the key itself and of the carried columns, old key first. A missing old row is created under the new key.
    Move,
    /// UPDATE by key, then INSERT of the keys not found: for rows that do not carry every NOT NULL column without default.
    UpdateElseInsert,
    /// INSERT, on an existing key UPDATE of the `set` columns.
    Upsert,
    /// INSERT. A row that exists with the same values counts as written; one with other values is refused.
    Insert,
    /// INSERT, an existing row is left alone.
    InsertIgnore,
}

/// Which columns a row group carries beside its key, as indices into [`TableShape::columns`](crate::shape::TableShape).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct ColumnSet {
    /// Written whether the row is created or changed, ascending.
    pub set: Box<[u16]>,
    /// Written only when the row is created (`default` of an absent source), ascending, disjoint from `set`.
    pub on_create: Box<[u16]>,
    /// How each column of `set` is written, same order; empty where all are [`ColumnOp::Set`].
    pub ops: Box<[ColumnOp]>,
}

impl ColumnSet {
    /// Some column is not simply set.
    pub fn joins(&self) -> bool {
        self.ops.iter().any(|op| *op != ColumnOp::Set)
    }

    /// How the column at `index` of `set` is written.
    pub fn op(&self, index: usize) -> ColumnOp {
        self.ops.get(index).copied().unwrap_or_default()
    }
}

/// How a carried value joins the one that the row has (SEMANTICS 2.7); [`ColumnOp::join`] is the meaning. A missing row and a
/// null count as 0 for `Add`, as empty for `Append`, and as no value for `Min` and `Max`, so a row that is created has the
/// carried value itself. A carried null changes nothing; rules do not carry it. In a column of JSON, `Append` makes a list
/// longer, and what is carried is the list of what is added (`[7]`), never the bare value: lists of several changes join, and
/// a new row has one already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ColumnOp {
    #[default]
    Set,
    Add,
    Min,
    Max,
    Append,
}

/// Rows with one operation and one column set. `values` is row-major; a row is: key values in primary key order (for
/// [`RowOp::Move`] the old key, then the new one), then `set`, then `on_create`.
#[derive(Clone, Debug)]
pub struct RowGroup {
    pub op: RowOp,
    pub columns: Arc<ColumnSet>,
    /// Values per row.
    pub width: usize,
    pub values: Vec<Value>,
}

impl RowGroup {
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn row(&self, index: usize) -> &[Value] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}
