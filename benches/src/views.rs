//! What the benches of the view stores share: rows of workload G-1 as batches, and their way through the port.

use std::sync::Arc;
use std::time::Instant;

use gravity_model::ident::BlockMark;
use gravity_model::port::view::{BookkeepingRewrite, ColumnRequest, Described, TableRequest, ViewStore};
use gravity_model::shape::SharedShape;
use gravity_model::{
    ChangeBatch, Checkpoint, ColumnSet, Counters, Epoch, Fault, Fence, LogId, OwnerId, RowGroup, RowOp, Sequence, Step,
    TableChanges, Value,
};

use crate::random::{KeyLaw, Random};
use crate::workload::{Operation, Order, Row, Workload};

/// Rows of one transaction, on both sides.
pub const BATCH: usize = 10_000;
pub const COLUMNS: [&str; 9] =
    ["id", "customer", "status", "note", "amount", "placed_at", "express", "details", "quantity"];

/// Rows a second of some work.
pub async fn rate(rows: usize, work: impl Future<Output = Result<(), String>>) -> Result<f64, String> {
    let started = Instant::now();
    work.await?;
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

/// Batch after batch, each in a transaction of its own with its checkpoint.
pub async fn upsert_all(views: &dyn ViewStore, batches: &[ChangeBatch], at: &mut Checkpoint) -> Result<(), String> {
    let fault = |fault: Fault| fault.to_string();
    for batch in batches {
        let next = Checkpoint { sequence: at.sequence.plus(batch.rows() as u64), ..at.clone() };
        let mut transaction = views.begin(std::slice::from_ref(at)).await.map_err(fault)?;
        transaction.apply(batch).await.map_err(fault)?;
        transaction.commit(std::slice::from_ref(&next)).await.map_err(fault)?;
        *at = next;
    }
    Ok(())
}

/// The table `orders` as the store describes it.
pub async fn shape(views: &dyn ViewStore) -> Result<SharedShape, String> {
    let columns = COLUMNS.iter().map(|name| ColumnRequest { name: (*name).to_owned(), declared: None }).collect();
    described(views, TableRequest { table: "orders".to_owned(), columns, key: Vec::new() }).await
}

pub async fn described(views: &dyn ViewStore, request: TableRequest) -> Result<SharedShape, String> {
    let mut described = views.describe(&[request]).await.map_err(|fault| fault.to_string())?;
    match described.pop() {
        Some(Described::Present(shape)) => Ok(Arc::new(shape)),
        other => Err(format!("the table is not described: {other:?}")),
    }
}

/// Opens the store and attaches its first checkpoint.
pub async fn attach(views: &dyn ViewStore) -> Result<Checkpoint, String> {
    let fault = |fault: Fault| fault.to_string();
    views.open().await.map_err(fault)?;
    let first = first_checkpoint();
    let attach = BookkeepingRewrite { put: vec![first.clone()], ..BookkeepingRewrite::default() };
    views.rewrite(attach).await.map_err(fault)?;
    Ok(first)
}

fn first_checkpoint() -> Checkpoint {
    Checkpoint {
        route: "bench".to_owned(),
        lane: 0,
        log_id: LogId([1; 16]),
        epoch: Epoch(1),
        sequence: Sequence::ZERO,
        fence: Fence(1),
        owner: OwnerId([2; 16]),
        block: BlockMark::default(),
        counters: Counters::default(),
    }
}

/// Full rows under distinct ids, scattered.
pub fn rows(count: usize) -> Vec<(i64, Row)> {
    let mut workload = Workload::new(1, KeyLaw::Uniform, 1);
    let mut ids: Vec<i64> = (1..=count as i64).collect();
    let mut random = Random::new(2);
    for last in (1..ids.len()).rev() {
        ids.swap(last, random.below(last as u64 + 1) as usize);
    }
    let full = |id: i64| match workload.mark(id) {
        Order { operation: Operation::Upsert(row), .. } => (id, row),
        Order { .. } => (id, Row::default()),
    };
    ids.into_iter().map(full).collect()
}

/// As the engine hands it over: sorted by key.
pub fn batch(shape: &SharedShape, rows: &[(i64, Row)]) -> ChangeBatch {
    let mut sorted: Vec<&(i64, Row)> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, |text| Value::Text(text.into()));
    let mut values = Vec::with_capacity(rows.len() * COLUMNS.len());
    for (id, row) in sorted {
        values.extend([
            Value::Int(*id),
            text(&row.customer),
            text(&row.status),
            text(&row.note),
            row.amount.as_deref().map_or(Value::Null, |digits| Value::Decimal(canonical(digits).into())),
            row.placed_at.map_or(Value::Null, Value::TimestampTz),
            row.express.map_or(Value::Null, Value::Bool),
            row.details.as_ref().map_or(Value::Null, |details| Value::Json(details.to_string().into())),
            row.quantity.map_or(Value::Null, |quantity| Value::Int(quantity.into())),
        ]);
    }
    upserts(shape, &COLUMNS, values)
}

/// Rows with these columns, of which the first is the key.
pub fn upserts(shape: &SharedShape, columns: &[&str], values: Vec<Value>) -> ChangeBatch {
    let set = columns[1..].iter().filter_map(|name| shape.column(name)).collect();
    let width = columns.len();
    let columns = Arc::new(ColumnSet { set, ..ColumnSet::default() });
    let group = RowGroup { op: RowOp::Upsert, columns, width, values };
    ChangeBatch { tables: vec![TableChanges { shape: shape.clone(), steps: vec![Step::Rows(group)] }] }
}

fn canonical(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}
