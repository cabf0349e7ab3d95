//! Row groups into statements that run: chunks, parameters, and what the answers mean.

use std::ops::Range;

use gravity_model::port::view::Applied;
use gravity_model::{ChangeBatch, Fault, RowGroup, RowOp, Step, TableShape, Value};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, Row};

use super::client::Session;
use super::codec::{Cells, refused};
use super::error::fault;
use super::plan::{Plan, delete_all};
use crate::sql::name::TableName;
use crate::sql::rows::{PlanCache, doing, row_exists, row_missing};
use crate::sql::statement::Statement;

/// Rows per statement; more gain nothing (performance notes: 10,000 is where the curve flattens).
const CHUNK_ROWS: usize = 10_000;
/// Bytes of values per statement, so that wide rows do not make huge messages. One row may be larger.
const CHUNK_BYTES: usize = 32 << 20;
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
                    let plan = plans.of(&table.shape, group, |layout| Plan::new(&table.shape, group.op, layout))?;
                    let mut writer = Writer { session, plan: &plan, shape: &table.shape, group };
                    for rows in chunks(group) {
                        for missed in writer.write(rows).await? {
                            applied.missed.push((t as u32, s as u32, missed));
                        }
                    }
                }
            }
        }
    }
    Ok(applied)
}

/// Row ranges that stay within the limits of one statement.
fn chunks(group: &RowGroup) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for row in 0..group.len() {
        let weight: usize = group.row(row).iter().map(held_bytes).sum();
        if row > start && (row - start >= CHUNK_ROWS || bytes + weight > CHUNK_BYTES) {
            chunks.push(start..row);
            (start, bytes) = (row, 0);
        }
        bytes += weight;
    }
    chunks.push(start..group.len());
    chunks
}

fn held_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.len(),
        Value::Binary(bytes) => bytes.len(),
        Value::Array(_) => value.weight(),
        _ => 8,
    }
}

struct Writer<'a> {
    session: &'a mut Session,
    plan: &'a Plan,
    shape: &'a TableShape,
    group: &'a RowGroup,
}

impl Writer<'_> {
    /// One chunk; returns the indices of rows that a patch did not find.
    async fn write(&mut self, rows: Range<usize>) -> Result<Vec<u32>, Fault> {
        let doing = doing(self.group.op, rows.len(), &self.shape.table);
        match self.group.op {
            RowOp::Patch | RowOp::PatchRequired => {
                let mut arguments = self.bind(rows.clone(), &doing)?;
                arguments.add(rows.len() as i64).map_err(|e| refused(e, &doing))?;
                let query = sqlx::query_with(self.plan.write.text(), arguments);
                let answer = self.session.fetch_one(query, &doing).await?;
                let missed = missed(&answer, &rows).map_err(|e| fault(e, doing))?;
                match missed.first() {
                    Some(row) if self.group.op == RowOp::PatchRequired => {
                        Err(row_missing(self.shape, self.group, *row as usize))
                    }
                    _ => Ok(missed),
                }
            }
            RowOp::Insert => {
                let written = self.run(&self.plan.write, rows.clone(), &doing).await?;
                if written < rows.len() as u64
                    && let Some(differs) = &self.plan.differs
                {
                    let query = sqlx::query_with(differs.text(), self.bind(rows.clone(), &doing)?);
                    if let Some(row) = self.session.fetch_all(query, &doing).await?.first() {
                        let number: i64 = row.try_get(0).map_err(|e| fault(e, doing))?;
                        let index = rows.start + usize::try_from(number - 1).unwrap_or_default();
                        return Err(row_exists("23505", self.shape, self.group, index));
                    }
                }
                Ok(Vec::new())
            }
            _ => self.run(&self.plan.write, rows, &doing).await.map(|_| Vec::new()),
        }
    }

    /// Returns how many rows the statement wrote.
    async fn run(&mut self, statement: &Statement, rows: Range<usize>, doing: &str) -> Result<u64, Fault> {
        let query = sqlx::query_with(statement.text(), self.bind(rows, doing)?);
        Ok(self.session.execute(query, doing).await?.rows_affected())
    }

    fn bind(&self, rows: Range<usize>, doing: &str) -> Result<PgArguments, Fault> {
        let mut arguments = PgArguments::default();
        arguments.reserve(self.plan.cells.len() + 1, rows.len() * self.plan.cells.len() * 12);
        for (offset, cell) in self.plan.cells.iter().enumerate() {
            let column = &self.shape.columns[usize::from(cell.column)];
            let cells = Cells { group: self.group, rows: rows.clone(), offset, wire: cell.wire, column };
            arguments.add(cells).map_err(|e| refused(e, doing))?;
        }
        Ok(arguments)
    }
}

/// Reads the answer of a patch: the count of rows found and, where it is short, their numbers.
fn missed(answer: &PgRow, rows: &Range<usize>) -> Result<Vec<u32>, sqlx::Error> {
    let count: i64 = answer.try_get(0)?;
    if count == rows.len() as i64 {
        return Ok(Vec::new());
    }
    let found: Option<Vec<i64>> = answer.try_get(1)?;
    let mut seen = vec![false; rows.len()];
    for number in found.unwrap_or_default() {
        if let Some(seen) = usize::try_from(number - 1).ok().and_then(|i| seen.get_mut(i)) {
            *seen = true;
        }
    }
    Ok(rows.clone().zip(seen).filter(|(_, seen)| !seen).map(|(row, _)| row as u32).collect())
}
