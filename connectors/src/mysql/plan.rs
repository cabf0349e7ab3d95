//! Statement texts for row groups: multi-row `VALUES`, and one text per table, operation, column set and row count.
//!
//! INSERT IGNORE is never used: it would turn every refusal into a warning and another value. Rows that exist are changed by
//! key in one UPDATE whose values are picked by `CASE`: no derived table, so no type or length of an intermediate column can
//! come between a value and its column.

use std::ops::Range;

use gravity_model::{Fault, TableShape};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::codec::Wire;
use super::dialect::{Dialect, Flavor};
use super::table_name;
use crate::sql::name::{Name, TableName};
use crate::sql::rows::{RowLayout, shape_fault};
use crate::sql::statement::{Statement, StatementBuilder};

/// Most parameters of a prepared statement.
const PARAMETERS: usize = 65_535;
/// Rows of a multi-row `VALUES`: where more gain nothing (performance notes).
const WIDE: usize = 500;
/// Rows of a statement with `CASE`, whose work grows with the square of them.
const NARROW: usize = 64;

/// Everything about a group that does not depend on its rows, with the texts made so far.
pub(super) struct Plan {
    table: TableName,
    dialect: Dialect,
    pub cells: Vec<Cell>,
    pub layout: RowLayout,
    /// The key is the only unique one, so an INSERT can meet no other row than its own.
    pub only_key: bool,
    texts: Mutex<HashMap<(Form, usize), Statement>>,
}

/// A value of a row: its column and how it travels.
pub(super) struct Cell {
    pub column: u16,
    pub wire: Wire,
    name: Name,
}

/// What a statement does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Delete,
    /// INSERT of rows whose key is known to be free, or must be.
    Insert,
    /// The same, and an UPDATE of the row that has the key; only where there is one unique key.
    InsertOrUpdate,
    /// UPDATE of the rows that exist; its count tells how many do.
    Update,
    /// UPDATE of one row, key included.
    MoveOne,
    /// How many of the rows exist, and their locks.
    Count,
    /// Numbers of the rows that exist, and their locks.
    Found,
    /// The same, with what the columns that join hold.
    Present,
    /// Numbers of the rows that are in the table with other values than they were to be written with.
    Differing,
}

impl Form {
    /// Most rows of one statement.
    pub fn most(self) -> usize {
        match self {
            Form::Delete | Form::Insert | Form::InsertOrUpdate | Form::Count => WIDE,
            Form::Update | Form::Found | Form::Present | Form::Differing => NARROW,
            Form::MoveOne => 1,
        }
    }
}

impl Plan {
    pub fn new(shape: &TableShape, layout: RowLayout, dialect: Dialect) -> Result<Plan, Fault> {
        let cells = layout.columns.iter().map(|c| cell(shape, *c)).collect::<Result<Vec<_>, _>>()?;
        if cells.len() * 2 > PARAMETERS {
            return Err(shape_fault(
                &shape.table,
                "more columns are written at once than a statement takes".to_owned(),
            ));
        }
        let (table, only_key) = (table_name(&shape.table)?, shape.unique.is_empty());
        Ok(Plan { table, dialect, cells, layout, only_key, texts: Mutex::default() })
    }

    /// Rows that one statement of this form may have.
    pub fn most(&self, form: Form) -> usize {
        let keys = self.layout.old_keys.len();
        let per_row = match form {
            // Each assigned column finds its row by the key again.
            Form::Update => self.layout.assigned().len() * (keys + 1) + keys,
            _ => keys * 2 + self.cells.len(),
        };
        form.most().min(PARAMETERS / per_row.max(1)).max(1)
    }

    /// The text for `rows` rows.
    pub fn text(&self, form: Form, rows: usize) -> Statement {
        self.texts.lock().entry((form, rows)).or_insert_with(|| self.write(form, rows)).clone()
    }

    /// Calls `bind` with the places of the parameters, in the order of the text: (index of the row, offset in the row).
    pub fn parameters<E>(
        &self,
        form: Form,
        rows: usize,
        mut bind: impl FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let keys = self.layout.old_keys.clone();
        let mut cells_of =
            |range: Range<usize>| (0..rows).try_for_each(|row| range.clone().try_for_each(|c| bind(row, c)));
        match form {
            Form::Delete | Form::Count => cells_of(keys),
            Form::Insert | Form::InsertOrUpdate => cells_of(self.layout.inserted()),
            Form::Found | Form::Present => {
                cells_of(keys.clone())?;
                cells_of(keys)
            }
            Form::Differing => {
                cells_of(keys.clone())?;
                let compared = self.compared();
                (0..rows).try_for_each(|row| keys.clone().chain(compared.clone()).try_for_each(|c| bind(row, c)))
            }
            Form::Update if rows > 1 => {
                for assigned in self.layout.assigned() {
                    for row in 0..rows {
                        keys.clone().chain(assigned..assigned + 1).try_for_each(|c| bind(row, c))?;
                    }
                }
                (0..rows).try_for_each(|row| keys.clone().try_for_each(|c| bind(row, c)))
            }
            Form::Update | Form::MoveOne => {
                cells_of(self.layout.assigned())?;
                cells_of(keys)
            }
        }
    }

    /// Cells beside the key that an insert compares with the row it met.
    pub fn compared(&self) -> Range<usize> {
        self.layout.set.start..self.layout.on_create.end
    }

    fn write(&self, form: Form, rows: usize) -> Statement {
        let mut b = StatementBuilder::with_backticks();
        match form {
            Form::Delete => {
                b.add("DELETE FROM ").table(&self.table).add(" WHERE ");
                self.any_key(&mut b, rows);
            }
            Form::Insert => self.insert(&mut b, rows),
            Form::InsertOrUpdate => {
                self.insert(&mut b, rows);
                self.on_duplicate_key(&mut b);
            }
            Form::Update => self.update(&mut b, rows),
            Form::MoveOne => {
                let assigned = self.layout.assigned();
                b.add("UPDATE ").table(&self.table).add(" SET ");
                b.list(", ", assigned.len(), |b, i| _ = b.name(&self.cells[assigned.start + i].name).add(" = ?"));
                b.add(" WHERE ");
                self.key(&mut b);
            }
            Form::Count | Form::Found | Form::Present => {
                match form {
                    Form::Count => _ = b.add("SELECT COUNT(*)"),
                    _ => self.number(&mut b, rows),
                }
                for cell in self.layout.joining().filter(|_| form == Form::Present) {
                    let Cell { name, wire, .. } = &self.cells[cell];
                    b.add(", ");
                    wire.readable(&mut b, name);
                }
                b.add(" FROM ").table(&self.table).add(" WHERE ");
                self.any_key(&mut b, rows);
                // Also what another session has just committed, and nobody takes it away before we write.
                b.add(" FOR UPDATE");
            }
            Form::Differing => {
                self.number(&mut b, rows);
                b.add(" FROM ").table(&self.table).add(" WHERE ");
                b.list(" OR ", rows, |b, _| {
                    b.add("(");
                    self.key(b);
                    b.add(" AND NOT (");
                    let compared = self.compared();
                    b.list(" AND ", compared.len(), |b, i| self.same(b, compared.start + i));
                    b.add("))");
                });
            }
        }
        b.finish()
    }

    fn names(&self, b: &mut StatementBuilder, range: Range<usize>) {
        b.list(", ", range.len(), |b, i| _ = b.name(&self.cells[range.start + i].name));
    }

    /// `k1 = ? AND k2 = ?`
    fn key(&self, b: &mut StatementBuilder) {
        b.list(" AND ", self.layout.old_keys.len(), |b, i| {
            b.name(&self.cells[i].name).add(" = ");
            self.cells[i].wire.typed(b);
        });
    }

    /// `k IN (?,?)`, or `(k1 = ? AND k2 = ?) OR (…)`: ranges of the key's index in either form.
    fn any_key(&self, b: &mut StatementBuilder, rows: usize) {
        if let [Cell { name, wire, .. }] = &self.cells[self.layout.old_keys.clone()] {
            b.name(name).add(" IN (");
            b.list(",", rows, |b, _| wire.typed(b));
            b.add(")");
            return;
        }
        b.list(" OR ", rows, |b, _| {
            b.add("(");
            self.key(b);
            b.add(")");
        });
    }

    /// `SELECT CAST(CASE WHEN k = ? THEN 0 … END AS SIGNED)`: which of our rows a row of the table is.
    fn number(&self, b: &mut StatementBuilder, rows: usize) {
        b.add("SELECT CAST(CASE");
        for row in 0..rows {
            b.add(" WHEN ");
            self.key(b);
            b.add(" THEN ").number(row);
        }
        b.add(" END AS SIGNED)");
    }

    /// The column holds the parameter's value: texts by their bytes, whatever the collation.
    fn same(&self, b: &mut StatementBuilder, cell: usize) {
        let Cell { name, wire, .. } = &self.cells[cell];
        if wire.is_text() {
            b.add("CAST(CONVERT(").name(name).add(" USING utf8mb4) AS BINARY) <=> CAST(? AS BINARY)");
        } else {
            b.name(name).add(" <=> ");
            wire.typed(b);
        }
    }

    fn insert(&self, b: &mut StatementBuilder, rows: usize) {
        let cells = self.layout.inserted();
        b.add("INSERT INTO ").table(&self.table).add(" (");
        self.names(b, cells.clone());
        b.add(") VALUES ");
        b.list(",", rows, |b, _| {
            b.add("(");
            b.list(",", cells.len(), |b, _| _ = b.add("?"));
            b.add(")");
        });
    }

    /// The row that has the key changes. Should a unique key have come up since the table was looked at, and the row met be
    /// another one, its key would be set to NULL: an error (1048) instead of a change of a stranger's row.
    fn on_duplicate_key(&self, b: &mut StatementBuilder) {
        let mysql = self.dialect.flavor == Flavor::MySql;
        // No table of a view can have this name, so none is hidden by it.
        b.add(if mysql { " AS gravity_new ON DUPLICATE KEY UPDATE " } else { " ON DUPLICATE KEY UPDATE " });
        let given = |b: &mut StatementBuilder, name: &Name| {
            if mysql {
                b.add("gravity_new.").name(name)
            } else {
                b.add("VALUES(").name(name).add(")")
            };
        };
        let present = |b: &mut StatementBuilder, name: &Name| {
            if mysql {
                b.table(&self.table).add(".");
            }
            b.name(name);
        };
        b.list(", ", self.layout.keys.len(), |b, i| {
            let name = &self.cells[self.layout.keys.start + i].name;
            b.name(name).add(" = IF(");
            present(b, name);
            b.add(" <=> ");
            given(b, name);
            b.add(", ");
            present(b, name);
            b.add(", NULL)");
        });
        for i in self.layout.set.clone() {
            let name = &self.cells[i].name;
            b.add(", ").name(name).add(" = ");
            given(b, name);
        }
    }

    /// `UPDATE t SET a = CASE WHEN k = ? THEN ? … ELSE a END, … WHERE k IN (…)`. The key is never assigned here: an assignment
    /// sees those to its left.
    fn update(&self, b: &mut StatementBuilder, rows: usize) {
        b.add("UPDATE ").table(&self.table).add(" SET ");
        let set = self.layout.set.clone();
        b.list(", ", set.len(), |b, i| {
            let name = &self.cells[set.start + i].name;
            b.name(name).add(" = ");
            if rows == 1 {
                b.add("?");
                return;
            }
            b.add("CASE");
            for _ in 0..rows {
                b.add(" WHEN ");
                self.key(b);
                b.add(" THEN ?");
            }
            b.add(" ELSE ").name(name).add(" END");
        });
        b.add(" WHERE ");
        self.any_key(b, rows);
    }
}

fn cell(shape: &TableShape, column: u16) -> Result<Cell, Fault> {
    let shape_column = &shape.columns[usize::from(column)];
    Ok(Cell { column, wire: Wire::of(shape_column), name: Name::parse(&shape_column.name)? })
}

/// DELETE of all rows: TRUNCATE would commit what is open.
pub(super) fn delete_all(table: &TableName) -> Statement {
    let mut b = StatementBuilder::with_backticks();
    b.add("DELETE FROM ").table(table);
    b.finish()
}
