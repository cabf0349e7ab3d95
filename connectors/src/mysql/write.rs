//! Row groups into statements that run: chunks, parameters, and what the answers mean.

use gravity_model::join::JoinRefusal;
use gravity_model::port::view::Applied;
use gravity_model::shape::SharedShape;
use gravity_model::{ChangeBatch, Fault, FaultKind, RowGroup, RowOp, Step, TableShape, Value};
use sqlx::mysql::MySqlArguments;
use sqlx::{Arguments, Row};

use super::client::Session;
use super::codec;
use super::error::{DUPLICATE_KEY, INCORRECT_VALUE, OUT_OF_RANGE, PACKET, TOO_LONG, fault};
use super::plan::{Form, Plan, delete_all};
use super::table_name;
use crate::sql::join;
use crate::sql::rows::{PlanCache, doing, row_exists, row_missing};

/// Bytes of values per statement, so that wide rows do not make huge messages. One row may be larger.
const CHUNK_BYTES: usize = 8 << 20;
/// What a message holds beside values: headers, types, the bitmap of nulls.
const MESSAGE_OVERHEAD: usize = 64 << 10;

/// Writes all steps of all tables.
pub(super) async fn write_batch(
    session: &mut Session,
    plans: &PlanCache<Plan>,
    batch: &ChangeBatch,
) -> Result<Applied, Fault> {
    let mut applied = Applied::default();
    let dialect = session.facts.dialect;
    for (t, table) in batch.tables.iter().enumerate() {
        for (s, step) in table.steps.iter().enumerate() {
            match step {
                Step::DeleteAll => {
                    let statement = delete_all(&table_name(&table.shape.table)?);
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
                    let plan = plans.of(&table.shape, group, |layout| Plan::new(&table.shape, layout, dialect))?;
                    let mut writer = Writer { session, plan: &plan, shape: &table.shape, group };
                    for missed in writer.write().await? {
                        applied.missed.push((t as u32, s as u32, missed as u32));
                    }
                }
            }
        }
    }
    Ok(applied)
}

/// What the rows of a group are to have where values join those that are there; rows that exist are locked from here on.
async fn joined(
    session: &mut Session,
    plans: &PlanCache<Plan>,
    shape: &SharedShape,
    group: &RowGroup,
) -> Result<RowGroup, Fault> {
    let dialect = session.facts.dialect;
    let plan = plans.of(shape, group, |layout| Plan::new(shape, layout, dialect))?;
    let mut writer = Writer { session, plan: &plan, shape, group };
    let present = writer.present().await?;
    let code = |refusal| match refusal {
        JoinRefusal::OutOfRange => OUT_OF_RANGE,
        JoinRefusal::TooLong => TOO_LONG,
        JoinRefusal::NoList | JoinRefusal::OtherType => INCORRECT_VALUE,
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
    /// The whole group; returns the indices of rows that a patch did not find, ascending. No other engine writes rows of this
    /// lane meanwhile: the checkpoint row is locked.
    async fn write(&mut self) -> Result<Vec<usize>, Fault> {
        let all: Vec<usize> = (0..self.group.len()).collect();
        match self.group.op {
            RowOp::Delete => self.run_all(Form::Delete, &all).await?,
            RowOp::Upsert if self.plan.only_key => self.run_all(Form::InsertOrUpdate, &all).await?,
            RowOp::Upsert | RowOp::UpdateElseInsert => {
                // All changes before all new rows: what an update gives up of another unique key, a new row may take.
                let mut missing = Vec::new();
                for rows in self.chunks(Form::Count, &all)? {
                    match self.count(rows).await? {
                        0 => missing.extend_from_slice(rows),
                        _ => missing.extend(self.update(rows).await?),
                    }
                }
                self.run_all(Form::Insert, &missing).await?;
            }
            RowOp::Insert | RowOp::InsertIgnore => {
                for rows in self.chunks(Form::Insert, &all)? {
                    self.insert(rows).await?;
                }
            }
            RowOp::Patch | RowOp::PatchRequired => {
                let missing = self.update(&all).await?;
                return match missing.first() {
                    Some(row) if self.group.op == RowOp::PatchRequired => {
                        Err(row_missing(self.shape, self.group, *row))
                    }
                    _ => Ok(missing),
                };
            }
            RowOp::Move => {
                // Asked before anything moves: afterwards an old key may be there as another row's new one.
                let found = self.numbers(Form::Found, &all).await?;
                for row in &found {
                    self.run(Form::MoveOne, &[*row]).await?;
                }
                self.run_all(Form::Insert, &without(&all, &found)).await?;
            }
        }
        Ok(Vec::new())
    }

    /// UPDATE of the rows that exist; returns those that do not, ascending.
    async fn update(&mut self, rows: &[usize]) -> Result<Vec<usize>, Fault> {
        let mut missing = Vec::new();
        for chunk in self.chunks(Form::Update, rows)? {
            if self.plan.layout.assigns() {
                // Rows matched, not rows changed: the driver asks for that count (CLIENT_FOUND_ROWS).
                let found = self.run(Form::Update, chunk).await?;
                if found == chunk.len() as u64 {
                    continue;
                }
                if found == 0 {
                    missing.extend_from_slice(chunk);
                    continue;
                }
            }
            let found = self.numbers(Form::Found, chunk).await?;
            missing.extend(without(chunk, &found));
        }
        Ok(missing)
    }

    /// INSERT; rows that exist are compared or left alone. The good case is one statement: only after a duplicate key, which
    /// undoes that statement and nothing else, it is asked which rows were there.
    async fn insert(&mut self, rows: &[usize]) -> Result<(), Fault> {
        let duplicate = match self.run(Form::Insert, rows).await {
            Ok(_) => return Ok(()),
            Err(fault) if fault.kind == FaultKind::RefusedEvent && fault.code == DUPLICATE_KEY => fault,
            Err(fault) => return Err(fault),
        };
        let found = self.numbers(Form::Found, rows).await?;
        if found.is_empty() {
            // Another unique key.
            return Err(duplicate);
        }
        if self.group.op == RowOp::Insert
            && !self.plan.compared().is_empty()
            && let Some(row) = self.numbers(Form::Differing, &found).await?.first()
        {
            return Err(row_exists(DUPLICATE_KEY, self.shape, self.group, *row));
        }
        self.run_all(Form::Insert, &without(rows, &found)).await
    }

    async fn run_all(&mut self, form: Form, rows: &[usize]) -> Result<(), Fault> {
        for chunk in self.chunks(form, rows)? {
            self.run(form, chunk).await?;
        }
        Ok(())
    }

    /// Returns how many rows the statement met.
    async fn run(&mut self, form: Form, rows: &[usize]) -> Result<u64, Fault> {
        let doing = doing(self.group.op, rows.len(), &self.shape.table);
        let query = sqlx::query_with(self.plan.text(form, rows.len()).text(), self.bind(form, rows, &doing)?);
        Ok(self.session.execute(query, &doing).await?.rows_affected())
    }

    /// How many rows exist.
    async fn count(&mut self, rows: &[usize]) -> Result<i64, Fault> {
        let doing = doing(self.group.op, rows.len(), &self.shape.table);
        let query =
            sqlx::query_with(self.plan.text(Form::Count, rows.len()).text(), self.bind(Form::Count, rows, &doing)?);
        let row = self.session.fetch_one(query, &doing).await?;
        row.try_get(0).map_err(|e| fault(e, doing))
    }

    /// Runs a form that answers with numbers of rows, and makes indices of the group from them, ascending.
    async fn numbers(&mut self, form: Form, rows: &[usize]) -> Result<Vec<usize>, Fault> {
        let mut indices = Vec::new();
        for chunk in self.chunks(form, rows)? {
            let doing = doing(self.group.op, chunk.len(), &self.shape.table);
            let query = sqlx::query_with(self.plan.text(form, chunk.len()).text(), self.bind(form, chunk, &doing)?);
            for row in self.session.fetch_all(query, &doing).await? {
                let number: i64 = row.try_get(0).map_err(|e| fault(e, doing.as_str()))?;
                indices.extend(usize::try_from(number).ok().and_then(|n| chunk.get(n)));
            }
        }
        indices.sort_unstable();
        Ok(indices)
    }

    /// Reads what the joining columns of the rows that exist hold.
    async fn present(&mut self) -> Result<join::Present, Fault> {
        let all: Vec<usize> = (0..self.group.len()).collect();
        let mut present: join::Present = vec![None; all.len()];
        for chunk in self.chunks(Form::Present, &all)? {
            let doing = doing(self.group.op, chunk.len(), &self.shape.table);
            let arguments = self.bind(Form::Present, chunk, &doing)?;
            let query = sqlx::query_with(self.plan.text(Form::Present, chunk.len()).text(), arguments);
            for row in self.session.fetch_all(query, &doing).await? {
                let number: i64 = row.try_get(0).map_err(|e| fault(e, doing.as_str()))?;
                let mut values = Vec::new();
                for (index, cell) in self.plan.layout.joining().enumerate() {
                    let cell = &self.plan.cells[cell];
                    let column = &self.shape.columns[usize::from(cell.column)];
                    let read =
                        codec::read(&row, 1 + index, column, &cell.wire).map_err(|e| fault(e, doing.as_str()))?;
                    values.push(read.ok_or_else(|| {
                        let detail = format!("column {} holds a value that is no {}", column.name, column.column_type);
                        Fault::new(FaultKind::RefusedEvent, INCORRECT_VALUE, doing.as_str(), detail)
                    })?);
                }
                if let Some(row) = usize::try_from(number).ok().and_then(|number| chunk.get(number)) {
                    present[*row] = Some(values);
                }
            }
        }
        Ok(present)
    }

    fn bind(&self, form: Form, rows: &[usize], doing: &str) -> Result<MySqlArguments, Fault> {
        let mut arguments = MySqlArguments::default();
        arguments.reserve(rows.len() * self.plan.cells.len(), rows.len() * self.plan.cells.len() * 9);
        self.plan.parameters(form, rows.len(), |row, offset| {
            let cell = &self.plan.cells[offset];
            let column = &self.shape.columns[usize::from(cell.column)];
            codec::bind(&mut arguments, column, &cell.wire, &self.group.row(rows[row])[offset], doing)
        })?;
        Ok(arguments)
    }

    /// Rows in chunks of a few fixed lengths, so that few texts are prepared: as many as fit, else powers of two. A row that
    /// no message can carry is a refusal of content.
    fn chunks<'r>(&self, form: Form, rows: &'r [usize]) -> Result<Vec<&'r [usize]>, Fault> {
        let (most, packet) = (self.plan.most(form), self.session.facts.max_packet);
        let budget = CHUNK_BYTES.min(packet.saturating_sub(MESSAGE_OVERHEAD) / 2);
        let mut chunks = Vec::new();
        let mut rest = rows;
        while !rest.is_empty() {
            let (mut take, mut bytes) = (0, 0);
            for row in &rest[..most.min(rest.len())] {
                let weight = self.weight(form, *row);
                if weight + MESSAGE_OVERHEAD > packet {
                    let detail = format!(
                        "a row of {weight} bytes is more than the server takes: max_allowed_packet is {packet}"
                    );
                    let doing = doing(self.group.op, 1, &self.shape.table);
                    return Err(Fault::new(FaultKind::RefusedEvent, PACKET, doing, detail));
                }
                bytes += weight;
                if take > 0 && bytes > budget {
                    break;
                }
                take += 1;
            }
            if take < most {
                take = 1 << take.ilog2();
            }
            let (chunk, left) = rest.split_at(take);
            chunks.push(chunk);
            rest = left;
        }
        Ok(chunks)
    }

    /// Bytes of a row's parameters.
    fn weight(&self, form: Form, row: usize) -> usize {
        let values = self.group.row(row);
        let bytes = |values: &[Value]| values.iter().map(held_bytes).sum::<usize>();
        let keys = bytes(&values[self.plan.layout.old_keys.clone()]);
        let repeats = match form {
            Form::Update => self.plan.layout.assigned().len(),
            _ => 1,
        };
        bytes(values) + keys * repeats
    }
}

fn held_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.len() + 9,
        Value::Binary(bytes) => bytes.len() + 9,
        Value::Array(_) => value.weight(),
        _ => 32,
    }
}

/// `rows` but those of `found`; both ascend.
fn without(rows: &[usize], found: &[usize]) -> Vec<usize> {
    rows.iter().copied().filter(|row| found.binary_search(row).is_err()).collect()
}
