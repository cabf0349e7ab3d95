//! Statement texts for row groups: multi-row `VALUES`, one text per table, operation, column set and row count.

use std::ops::Range;

use gravity_model::{Fault, TableShape};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::codec::Storage;
use crate::sql::name::{Name, TableName};
use crate::sql::rows::{RowLayout, shape_fault};
use crate::sql::statement::{Statement, StatementBuilder};

/// SQLite's default limit of parameters.
const PARAMETERS: usize = 32_766;
/// Where more rows per statement gain nothing (performance notes).
const ROWS: usize = 500;

/// Everything about a group that does not depend on its rows, with the texts made so far.
pub(super) struct Plan {
    table: TableName,
    pub cells: Vec<Cell>,
    pub layout: RowLayout,
    texts: Mutex<HashMap<(Form, usize), Statement>>,
}

/// A value of a row: its column and how it is bound.
pub(super) struct Cell {
    pub column: u16,
    pub storage: Storage,
    name: Name,
}

/// What a statement does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Delete,
    /// INSERT of rows whose key is known to be free, or must be.
    Insert,
    InsertOrUpdate,
    InsertOrNothing,
    /// UPDATE of the rows that exist.
    Update,
    /// INSERT of those that do not.
    InsertMissing,
    /// Numbers of the rows that do not exist.
    Missing,
    /// Numbers of the rows that exist, with class and value of each column that joins.
    Present,
    /// Number of the first row that is not in the table as it was to be written.
    FirstDifference,
}

impl Plan {
    pub fn new(shape: &TableShape, layout: RowLayout) -> Result<Plan, Fault> {
        if layout.columns.len() > PARAMETERS {
            return Err(shape_fault(&shape.table, format!("more than {PARAMETERS} columns are written at once")));
        }
        let cells = layout.columns.iter().map(|c| cell(shape, *c)).collect::<Result<Vec<_>, _>>()?;
        Ok(Plan { table: TableName::parse(&shape.table)?, cells, layout, texts: Mutex::default() })
    }

    /// Cells of a row that a form binds, in their order.
    pub fn bound(&self, form: Form) -> Range<usize> {
        match form {
            Form::Delete => self.layout.old_keys.clone(),
            Form::Insert | Form::InsertOrUpdate | Form::InsertOrNothing => self.layout.inserted(),
            _ => 0..self.cells.len(),
        }
    }

    /// Row ranges of a few fixed lengths, so that few texts are prepared: 500, then powers of two.
    pub fn chunks(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let full = ROWS.min(PARAMETERS / self.cells.len()).max(1);
        let mut start = rows.start;
        std::iter::from_fn(move || {
            let left = rows.end - start;
            let take = match left {
                0 => return None,
                _ if left >= full => full,
                _ => 1 << left.ilog2(),
            };
            start += take;
            Some(start - take..start)
        })
    }

    /// The text for `rows` rows.
    pub fn text(&self, form: Form, rows: usize) -> Statement {
        self.texts.lock().entry((form, rows)).or_insert_with(|| self.write(form, rows)).clone()
    }

    fn write(&self, form: Form, rows: usize) -> Statement {
        let mut b = StatementBuilder::new();
        match form {
            Form::Delete => self.delete(&mut b, rows),
            Form::Insert => self.insert(&mut b, rows),
            Form::InsertOrNothing => {
                self.insert(&mut b, rows);
                self.on_conflict(&mut b);
                b.add("NOTHING");
            }
            Form::InsertOrUpdate => {
                self.insert(&mut b, rows);
                self.on_conflict(&mut b);
                if self.layout.set.is_empty() {
                    b.add("NOTHING");
                } else {
                    b.add("UPDATE SET ");
                    b.list(", ", self.layout.set.len(), |b, i| {
                        let name = &self.cells[self.layout.set.start + i].name;
                        b.name(name).add(" = excluded.").name(name);
                    });
                }
            }
            Form::Update => self.update(&mut b, rows),
            Form::InsertMissing => self.insert_missing(&mut b, rows),
            Form::Missing => {
                self.rows(&mut b, rows);
                b.add(" SELECT u.n FROM gravity_rows AS u WHERE ");
                self.not_there(&mut b);
            }
            Form::Present => {
                self.rows(&mut b, rows);
                b.add(" SELECT u.n");
                for cell in self.layout.joining() {
                    let name = &self.cells[cell].name;
                    b.add(", typeof(t.").name(name).add("), t.").name(name);
                }
                b.add(" FROM gravity_rows AS u JOIN ").table(&self.table).add(" AS t ON ");
                self.found_by_key(&mut b);
            }
            Form::FirstDifference => self.first_difference(&mut b, rows),
        }
        b.finish()
    }

    /// `(?,?),(?,?)`
    fn tuples(b: &mut StatementBuilder, rows: usize, width: usize) {
        b.list(",", rows, |b, _| {
            b.add("(");
            b.list(",", width, |b, _| _ = b.add("?"));
            b.add(")");
        });
    }

    /// `WITH gravity_rows(n, c0, …) AS (VALUES (0,?,…),(1,?,…))`. No table of a view can have this name.
    fn rows(&self, b: &mut StatementBuilder, rows: usize) {
        b.add("WITH gravity_rows(n");
        for i in 0..self.cells.len() {
            b.add(",c").number(i);
        }
        b.add(") AS (VALUES ");
        b.list(",", rows, |b, row| {
            b.add("(").number(row);
            for _ in 0..self.cells.len() {
                b.add(",?");
            }
            b.add(")");
        });
        b.add(")");
    }

    fn names(&self, b: &mut StatementBuilder, range: Range<usize>) {
        b.list(", ", range.len(), |b, i| _ = b.name(&self.cells[range.start + i].name));
    }

    fn values(&self, b: &mut StatementBuilder, range: Range<usize>) {
        b.list(", ", range.len(), |b, i| _ = b.add("u.c").number(range.start + i));
    }

    fn found_by_key(&self, b: &mut StatementBuilder) {
        b.list(" AND ", self.layout.old_keys.len(), |b, i| {
            b.add("t.").name(&self.cells[i].name).add(" = u.c").number(i);
        });
    }

    fn not_there(&self, b: &mut StatementBuilder) {
        b.add("NOT EXISTS (SELECT 1 FROM ").table(&self.table).add(" AS t WHERE ");
        self.found_by_key(b);
        b.add(")");
    }

    /// `OR ABORT` overrides a table's own `ON CONFLICT REPLACE`, which would delete other rows in silence.
    fn insert(&self, b: &mut StatementBuilder, rows: usize) {
        let cells = self.bound(Form::Insert);
        // An alias, because a table may itself be called excluded.
        b.add("INSERT OR ABORT INTO ").table(&self.table).add(" AS t (");
        self.names(b, cells.clone());
        b.add(") VALUES ");
        Self::tuples(b, rows, cells.len());
    }

    fn on_conflict(&self, b: &mut StatementBuilder) {
        b.add(" ON CONFLICT (");
        self.names(b, self.layout.keys.clone());
        b.add(") DO ");
    }

    fn update(&self, b: &mut StatementBuilder, rows: usize) {
        let assigned = self.layout.assigned();
        self.rows(b, rows);
        b.add(" UPDATE OR ABORT ").table(&self.table).add(" AS t SET ");
        b.list(", ", assigned.len(), |b, i| {
            let i = assigned.start + i;
            b.name(&self.cells[i].name).add(" = u.c").number(i);
        });
        b.add(" FROM gravity_rows AS u WHERE ");
        self.found_by_key(b);
    }

    fn insert_missing(&self, b: &mut StatementBuilder, rows: usize) {
        let cells = self.bound(Form::Insert);
        self.rows(b, rows);
        b.add(" INSERT OR ABORT INTO ").table(&self.table).add(" (");
        self.names(b, cells.clone());
        b.add(") SELECT ");
        self.values(b, cells);
        b.add(" FROM gravity_rows AS u WHERE ");
        self.not_there(b);
    }

    fn delete(&self, b: &mut StatementBuilder, rows: usize) {
        b.add("DELETE FROM ").table(&self.table).add(" WHERE (");
        self.names(b, self.layout.old_keys.clone());
        b.add(") IN (VALUES ");
        Self::tuples(b, rows, self.layout.old_keys.len());
        b.add(")");
    }

    fn first_difference(&self, b: &mut StatementBuilder, rows: usize) {
        self.rows(b, rows);
        b.add(" SELECT u.n FROM gravity_rows AS u LEFT JOIN ").table(&self.table).add(" AS t ON ");
        self.found_by_key(b);
        b.add(" WHERE t.").name(&self.cells[0].name).add(" IS NULL");
        for i in self.layout.set.start..self.layout.on_create.end {
            // By bytes, whatever collation the column has.
            b.add(" OR t.").name(&self.cells[i].name).add(" IS NOT u.c").number(i).add(" COLLATE BINARY");
        }
        b.add(" ORDER BY u.n LIMIT 1");
    }
}

fn cell(shape: &TableShape, column: u16) -> Result<Cell, Fault> {
    let shape_column = &shape.columns[usize::from(column)];
    Ok(Cell { column, storage: Storage::of(shape_column), name: Name::parse(&shape_column.name)? })
}

/// DELETE of all rows.
pub(super) fn delete_all(table: &TableName) -> Statement {
    let mut b = StatementBuilder::new();
    b.add("DELETE FROM ").table(table);
    b.finish()
}
