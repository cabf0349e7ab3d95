//! The key of a message whose event has none: the first projection's view key, readable (SEMANTICS 5.3).

use bytes::Bytes;
use gravity_log::Block;
use gravity_model::{Recorded, Value};
use gravity_rules::{Evaluation, RouteProgram};

use crate::project::evaluate::judge_one;

/// One key column gives its value as text; several give a JSON array of texts, so that no two keys collide.
pub fn of_first_projection(program: &RouteProgram, recorded: &Recorded<'_>, block: &Block) -> Option<Bytes> {
    let mut evaluation = Evaluation::new();
    judge_one(program, recorded, block, &mut evaluation);
    let change = evaluation.changes.iter().find(|c| !c.values.is_empty())?;
    let shape = &program.tables()[usize::from(change.table)];
    let row = evaluation.row(change);
    let width = shape.primary_key.len();
    // A move carries the old key first.
    let skipped = if change.old_key.is_some() { width } else { 0 };
    let texts: Vec<String> = row[skipped..skipped + width].iter().map(text).collect();
    Some(Bytes::from(match texts.as_slice() {
        [one] => one.clone(),
        many => serde_json::to_string(many).unwrap_or_default(),
    }))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Decimal(t) | Value::Text(t) | Value::Json(t) => t.as_str().to_owned(),
        Value::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).to_string(),
        Value::Date(days) => chrono::DateTime::from_timestamp(i64::from(*days) * 86_400, 0)
            .map_or_else(|| days.to_string(), |t| t.date_naive().to_string()),
        Value::Time(micros) => micros.to_string(),
        Value::Timestamp(micros) | Value::TimestampTz(micros) => crate::clock::rfc3339(*micros),
        Value::Binary(bytes) => crate::ingest::letters::readable(bytes),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            serde_json::to_string(&items).unwrap_or_default()
        }
    }
}
