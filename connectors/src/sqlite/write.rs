//! Row groups into statements that run.

use std::ops::Range;

use gravity_model::join::JoinRefusal;
use gravity_model::port::view::Applied;
use gravity_model::shape::SharedShape;
use gravity_model::{ChangeBatch, Fault, FaultKind, RowGroup, RowOp, Step, TableShape};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Row};

use super::client::Session;
use super::codec;
use super::error::fault;
use super::plan::{Form, Plan, delete_all};
use crate::sql::join;
use crate::sql::name::TableName;
use crate::sql::rows::{PlanCache, doing, row_exists, row_missing};

/// Writes all steps of all tables.
pub(super) async fn write_batch(
    session: &mut Session,
    plans: &PlanCache<Plan>,
    batch: &ChangeBatch,
) -> Result<Applied, Fault> {
    let mut applied = Applied::default();
    for (t, table) in batch.tables.iter().enumerate() {
        for (s, step) in table.steps.iter().enumerate() {
            match step {
                Step::DeleteAll => {
                    let statement = delete_all(&TableName::parse(&table.shape.table)?);
                    let doing = format!("delete all rows of {}", table.shape.table);
                    session.execute(sqlx::query(statement.text()), &doing).await?;
                }
                Step::Rows(group) if group.is_empty() => {}
                Step::Rows(group) => {
                    let plain = match group.columns.joins() {
                        true => Some(joined(session, plans, &table.shape, group).await?),
                        false => None,
                    };
                    let group = plain.as_ref().unwrap_or(group);
                    let plan = plans.of(&table.shape, group, |layout| Plan::new(&table.shape, layout))?;
                    let mut writer = Writer { session, plan: &plan, shape: &table.shape, group };
                    for rows in plan.chunks(0..group.len()) {
                        for missed in writer.write(rows).await? {
                            applied.missed.push((t as u32, s as u32, missed as u32));
                        }
                    }
                }
            }
        }
    }
    Ok(applied)
}

/// What the rows of a group are to have where values join those that are there. Nobody else writes in between.
async fn joined(
    session: &mut Session,
    plans: &PlanCache<Plan>,
    shape: &SharedShape,
    group: &RowGroup,
) -> Result<RowGroup, Fault> {
    let plan = plans.of(shape, group, |layout| Plan::new(shape, layout))?;
    let mut writer = Writer { session, plan: &plan, shape, group };
    let mut present: join::Present = vec![None; group.len()];
    for rows in plan.chunks(0..group.len()) {
        writer.present(rows, &mut present).await?;
    }
    let code = |refusal| match refusal {
        JoinRefusal::TooLong => "SQLITE_TOOBIG",
        JoinRefusal::OutOfRange | JoinRefusal::NoList | JoinRefusal::OtherType => "SQLITE_MISMATCH",
    };
    let doing = doing(group.op, group.len(), &shape.table);
    join::joined(shape, group, plan.layout.set.start, present, code, &doing)
}

struct Writer<'a> {
    session: &'a mut Session,
    plan: &'a Plan,
    shape: &'a TableShape,
    group: &'a RowGroup,
}

impl Writer<'_> {
    /// One chunk; returns the indices of rows that a patch did not find. Between two statements nobody else writes: the
    /// transaction holds SQLite's only write lock from its beginning.
    async fn write(&mut self, rows: Range<usize>) -> Result<Vec<usize>, Fault> {
        let all = rows.len() as u64;
        match self.group.op {
            RowOp::Delete => _ = self.run(Form::Delete, rows).await?,
            RowOp::Upsert => _ = self.run(Form::InsertOrUpdate, rows).await?,
            RowOp::InsertIgnore => _ = self.run(Form::InsertOrNothing, rows).await?,
            RowOp::Insert => {
                if self.run(Form::InsertOrNothing, rows.clone()).await? < all
                    && let Some(row) = self.numbers(Form::FirstDifference, rows).await?.first()
                {
                    return Err(row_exists("SQLITE_CONSTRAINT_PRIMARYKEY", self.shape, self.group, *row));
                }
            }
            RowOp::Patch | RowOp::PatchRequired => {
                let found = if self.plan.layout.assigns() { self.run(Form::Update, rows.clone()).await? } else { 0 };
                if found < all {
                    let missing = self.numbers(Form::Missing, rows).await?;
                    return match missing.first() {
                        Some(row) if self.group.op == RowOp::PatchRequired => {
                            Err(row_missing(self.shape, self.group, *row))
                        }
                        _ => Ok(missing),
                    };
                }
            }
            RowOp::UpdateElseInsert => {
                let found = if self.plan.layout.assigns() { self.run(Form::Update, rows.clone()).await? } else { 0 };
                if found < all {
                    self.run(Form::InsertMissing, rows).await?;
                }
            }
            RowOp::Move => {
                // Asked before the update: afterwards no old key is there.
                let missing = self.numbers(Form::Missing, rows.clone()).await?;
                if (missing.len() as u64) < all {
                    self.run(Form::Update, rows).await?;
                }
                for row in missing {
                    self.run(Form::Insert, row..row + 1).await?;
                }
            }
        }
        Ok(Vec::new())
    }

    /// Returns how many rows the statement changed.
    async fn run(&mut self, form: Form, rows: Range<usize>) -> Result<u64, Fault> {
        let doing = doing(self.group.op, rows.len(), &self.shape.table);
        let query = sqlx::query_with(self.plan.text(form, rows.len()).text(), self.bind(form, rows, &doing)?);
        Ok(self.session.execute(query, &doing).await?.rows_affected())
    }

    /// Runs a form that answers with numbers of rows, and makes indices of the group from them, ascending.
    async fn numbers(&mut self, form: Form, rows: Range<usize>) -> Result<Vec<usize>, Fault> {
        let doing = doing(self.group.op, rows.len(), &self.shape.table);
        let query = sqlx::query_with(self.plan.text(form, rows.len()).text(), self.bind(form, rows.clone(), &doing)?);
        let mut indices = Vec::new();
        for row in self.session.fetch_all(query, &doing).await? {
            let number: i64 = row.try_get(0).map_err(|e| fault(e, doing.as_str()))?;
            indices.push(rows.start + usize::try_from(number).unwrap_or_default());
        }
        indices.sort_unstable();
        Ok(indices)
    }

    /// Reads what the joining columns of the rows that exist hold.
    async fn present(&mut self, rows: Range<usize>, into: &mut join::Present) -> Result<(), Fault> {
        let doing = doing(self.group.op, rows.len(), &self.shape.table);
        let arguments = self.bind(Form::Present, rows.clone(), &doing)?;
        let query = sqlx::query_with(self.plan.text(Form::Present, rows.len()).text(), arguments);
        for row in self.session.fetch_all(query, &doing).await? {
            let number: i64 = row.try_get(0).map_err(|e| fault(e, doing.as_str()))?;
            let mut values = Vec::new();
            for (index, cell) in self.plan.layout.joining().enumerate() {
                let column = &self.shape.columns[usize::from(self.plan.cells[cell].column)];
                let read = codec::read(&row, 1 + 2 * index, column).map_err(|e| fault(e, doing.as_str()))?;
                values.push(read.ok_or_else(|| {
                    let detail = format!("column {} holds a value that is no {}", column.name, column.column_type);
                    Fault::new(FaultKind::RefusedEvent, "SQLITE_MISMATCH", doing.as_str(), detail)
                })?);
            }
            let slot = usize::try_from(number).ok().and_then(|number| into.get_mut(rows.start + number));
            slot.into_iter().for_each(|slot| *slot = Some(std::mem::take(&mut values)));
        }
        Ok(())
    }

    fn bind(&self, form: Form, rows: Range<usize>, doing: &str) -> Result<SqliteArguments, Fault> {
        let cells = self.plan.bound(form);
        let mut arguments = SqliteArguments::default();
        arguments.reserve(rows.len() * cells.len(), 0);
        for row in rows {
            let values = self.group.row(row);
            for offset in cells.clone() {
                let cell = &self.plan.cells[offset];
                let column = &self.shape.columns[usize::from(cell.column)];
                codec::bind(&mut arguments, column, cell.storage, &values[offset], doing)?;
            }
        }
        Ok(arguments)
    }
}
