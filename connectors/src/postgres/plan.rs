//! Statement texts for row groups: one text per table, operation and column set, whatever the number of rows.
//!
//! Rows travel as one array per column and are joined back by `UNNEST`, so a statement is prepared once per connection.

use std::ops::Range;

use gravity_model::{ColumnType, Fault, RowOp, TableShape};

use super::codec::Wire;
use super::join::joined;
use crate::sql::name::{Name, TableName};
use crate::sql::rows::RowLayout;
use crate::sql::statement::{Statement, StatementBuilder, TypeWord};

/// Everything about a group that does not depend on its rows.
pub(super) struct Plan {
    /// One per value of a row, in the row's order.
    pub cells: Vec<Cell>,
    pub write: Statement,
    /// [`RowOp::Insert`] only: finds the first row that is not in the table as it was to be written.
    pub differs: Option<Statement>,
}

/// A value of a row: its column and how it travels.
pub(super) struct Cell {
    pub column: u16,
    pub wire: Wire,
    pub column_type: ColumnType,
    pub name: Name,
    /// Cast of the unnested value, where the parameter's type is not the column's.
    cast: Option<TypeWord>,
    /// The column's own type, for comparisons.
    pub own_type: TypeWord,
}

impl Plan {
    pub fn new(shape: &TableShape, op: RowOp, layout: RowLayout) -> Result<Plan, Fault> {
        let table = TableName::parse(&shape.table)?;
        let cells = layout.columns.iter().map(|c| cell(shape, *c)).collect::<Result<Vec<_>, _>>()?;
        let texts = Texts { table: &table, cells: &cells, layout };
        let (write, differs) = match op {
            RowOp::Delete => (texts.delete(), None),
            RowOp::Patch | RowOp::PatchRequired => (texts.patch(), None),
            RowOp::Move | RowOp::UpdateElseInsert => (texts.update_else_insert(), None),
            RowOp::Upsert => (texts.insert(OnConflict::Update), None),
            RowOp::InsertIgnore => (texts.insert(OnConflict::Nothing), None),
            RowOp::Insert => (texts.insert(OnConflict::Nothing), Some(texts.first_difference())),
        };
        Ok(Plan { cells, write, differs })
    }
}

fn cell(shape: &TableShape, column: u16) -> Result<Cell, Fault> {
    let shape_column = &shape.columns[usize::from(column)];
    let wire = Wire::of(shape_column);
    let own_type = TypeWord::parse(&shape_column.database_type)?;
    Ok(Cell {
        column,
        wire,
        column_type: shape_column.column_type.clone(),
        name: Name::parse(&shape_column.name)?,
        cast: (wire == Wire::Literal).then(|| own_type.clone()),
        own_type,
    })
}

enum OnConflict {
    Update,
    Nothing,
}

struct Texts<'a> {
    table: &'a TableName,
    cells: &'a [Cell],
    layout: RowLayout,
}

impl Texts<'_> {
    /// `UNNEST($1::int8[], …)`
    fn unnest(&self, b: &mut StatementBuilder) {
        b.add("UNNEST(");
        b.list(", ", self.cells.len(), |b, i| {
            b.add("$").number(i + 1).add("::").add(self.cells[i].wire.sql()).add("[]");
        });
        b.add(")");
    }

    /// `u(c0, c1, …)`, with the row number as `n` when asked for.
    fn alias(&self, b: &mut StatementBuilder, numbered: bool) {
        if numbered {
            b.add(" WITH ORDINALITY");
        }
        b.add(" AS u(");
        b.list(", ", self.cells.len(), |b, i| {
            b.add("c").number(i);
        });
        if numbered {
            b.add(", n");
        }
        b.add(")");
    }

    /// The value at `i`, of the column's type.
    fn value(&self, b: &mut StatementBuilder, i: usize) {
        b.add("u.c").number(i);
        if let Some(cast) = &self.cells[i].cast {
            b.add("::").type_word(cast);
        }
    }

    fn names(&self, b: &mut StatementBuilder, range: Range<usize>) {
        b.list(", ", range.len(), |b, i| {
            b.name(&self.cells[range.start + i].name);
        });
    }

    fn values(&self, b: &mut StatementBuilder, range: Range<usize>) {
        b.list(", ", range.len(), |b, i| self.value(b, range.start + i));
    }

    /// `t."id" = u.c0 AND …`
    fn found_by_key(&self, b: &mut StatementBuilder) {
        b.list(" AND ", self.layout.old_keys.len(), |b, i| {
            b.add("t.").name(&self.cells[i].name).add(" = ");
            self.value(b, i);
        });
    }

    /// INSERT; on the key, and only the key, of an existing row: change it or leave it. Any other unique index that a row
    /// violates refuses the statement, so that no write can land on another key's row.
    fn insert(&self, on_conflict: OnConflict) -> Statement {
        let mut b = StatementBuilder::new();
        // An alias, because a table may itself be called excluded.
        b.add("INSERT INTO ").table(self.table).add(" AS t (");
        self.names(&mut b, self.layout.inserted());
        b.add(") SELECT ");
        self.values(&mut b, self.layout.inserted());
        b.add(" FROM ");
        self.unnest(&mut b);
        self.alias(&mut b, false);
        b.add(" ON CONFLICT (");
        self.names(&mut b, self.layout.keys.clone());
        b.add(") DO ");
        match on_conflict {
            OnConflict::Update if !self.layout.set.is_empty() => {
                b.add("UPDATE SET ");
                b.list(", ", self.layout.set.len(), |b, i| {
                    let cell = self.layout.set.start + i;
                    let name = &self.cells[cell].name;
                    b.name(name).add(" = ");
                    let given = |b: &mut StatementBuilder| _ = b.add("EXCLUDED.").name(name);
                    joined(b, &self.cells[cell], self.layout.op(cell), &given);
                });
            }
            _ => _ = b.add("NOTHING"),
        }
        b.finish()
    }

    /// The number of the first row that the table does not hold with these values.
    fn first_difference(&self) -> Statement {
        let mut b = StatementBuilder::new();
        b.add("SELECT u.n FROM ");
        self.unnest(&mut b);
        self.alias(&mut b, true);
        b.add(" LEFT JOIN ").table(self.table).add(" AS t ON ");
        self.found_by_key(&mut b);
        b.add(" WHERE t.").name(&self.cells[0].name).add(" IS NULL");
        for i in self.layout.set.start..self.layout.on_create.end {
            let cell = &self.cells[i];
            // json has no equality; jsonb has, and means the same document.
            let json = cell.wire == Wire::Json;
            b.add(" OR t.").name(&cell.name).add(if json { "::jsonb" } else { "" });
            b.add(" IS DISTINCT FROM u.c").number(i).add("::");
            if json {
                b.add("jsonb");
            } else {
                b.type_word(&cell.own_type);
            }
        }
        b.add(" ORDER BY u.n LIMIT 1");
        b.finish()
    }

    fn delete(&self) -> Statement {
        let mut b = StatementBuilder::new();
        b.add("DELETE FROM ").table(self.table).add(" AS t USING ");
        self.unnest(&mut b);
        self.alias(&mut b, false);
        b.add(" WHERE ");
        self.found_by_key(&mut b);
        b.finish()
    }

    /// `UPDATE t SET … FROM <from> WHERE … RETURNING u.n`; where nothing is set, the same answer by a SELECT.
    fn update(&self, b: &mut StatementBuilder, from: impl FnOnce(&mut StatementBuilder)) {
        if !self.layout.assigns() {
            b.add("SELECT u.n FROM ");
            from(b);
            b.add(" JOIN ").table(self.table).add(" AS t ON ");
            self.found_by_key(b);
            return;
        }
        let assigned = self.layout.assigned();
        b.add("UPDATE ").table(self.table).add(" AS t SET ");
        b.list(", ", assigned.len(), |b, i| {
            let i = assigned.start + i;
            b.name(&self.cells[i].name).add(" = ");
            joined(b, &self.cells[i], self.layout.op(i), &|b| self.value(b, i));
        });
        b.add(" FROM ");
        from(b);
        b.add(" WHERE ");
        self.found_by_key(b);
        b.add(" RETURNING u.n");
    }

    /// Answers one row: how many rows were found and, unless all were, which.
    fn patch(&self) -> Statement {
        let mut b = StatementBuilder::new();
        b.add("WITH gravity_done AS (");
        self.update(&mut b, |b| {
            self.unnest(b);
            self.alias(b, true);
        });
        b.add(") SELECT count(*), CASE WHEN count(*) < $").number(self.cells.len() + 1);
        b.add("::int8 THEN array_agg(n) END FROM gravity_done");
        b.finish()
    }

    fn update_else_insert(&self) -> Statement {
        let mut b = StatementBuilder::new();
        // No table of a view can have these names, so none is hidden by them.
        b.add("WITH gravity_rows AS (SELECT * FROM ");
        self.unnest(&mut b);
        self.alias(&mut b, true);
        b.add("), gravity_done AS (");
        self.update(&mut b, |b| _ = b.add("gravity_rows AS u"));
        b.add(") INSERT INTO ").table(self.table).add(" (");
        self.names(&mut b, self.layout.inserted());
        b.add(") SELECT ");
        self.values(&mut b, self.layout.inserted());
        b.add(" FROM gravity_rows AS u WHERE NOT EXISTS (SELECT FROM gravity_done AS d WHERE d.n = u.n)");
        b.finish()
    }
}

/// DELETE of all rows.
pub(super) fn delete_all(table: &TableName) -> Statement {
    let mut b = StatementBuilder::new();
    b.add("DELETE FROM ").table(table);
    b.finish()
}
