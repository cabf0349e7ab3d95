//! `bench rules`: raw payload bytes to changes, against `serde_json::Value` and seven `pointer()` look-ups made into the same.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gravity_model::{ColumnShape, ColumnType, Event, Recorded, Sequence, TableShape, Value};
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{Context, DatabaseContext, DatabaseKind, Ddl, Evaluation, RouteProgram, Verdict, load};
use serde_json::json;

use crate::figures::Samples;

const FIELDS: [(&str, &str, &str); 7] = [
    ("id", "id", "i64"),
    ("customer.name", "name", "text"),
    ("customer.address.city", "city", "text"),
    ("amount", "amount", "decimal(12,2)"),
    ("express", "express", "bool"),
    ("currency", "currency", "text"),
    ("lines[1].sku", "second_sku", "text"),
];
const POINTERS: [&str; 7] =
    ["/id", "/customer/name", "/customer/address/city", "/amount", "/express", "/currency", "/lines/1/sku"];

#[derive(clap::Args)]
pub struct RulesBench {
    /// Events per round
    #[arg(long, default_value_t = 400_000)]
    events: usize,
    #[arg(long, default_value_t = 7)]
    rounds: u32,
}

impl RulesBench {
    pub fn run(self) -> Result<(), String> {
        let (records, events) = payloads(1_000);
        let program = program(None)?;
        let bytes = records.len() / events.len();
        println!("workload: {} events of {bytes} B, 7 fields at 3 depths, one thread", self.events);
        let repeats = self.events.div_ceil(events.len());
        let count = (repeats * events.len()) as f64;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        same_changes(&program, &records, &events[0])?;
        for _ in 0..self.rounds {
            let started = Instant::now();
            let mut out = Evaluation::new();
            for _ in 0..repeats {
                out.clear();
                for event in &events {
                    evaluate(&program, &records, event, &mut out)?;
                }
                black_box(&out);
            }
            let one = started.elapsed().as_nanos() as f64 / count;
            let started = Instant::now();
            let mut rows: Vec<Value> = Vec::new();
            for _ in 0..repeats {
                rows.clear();
                for event in &events {
                    map(&records[event.clone()], &mut rows)?;
                }
                black_box(&rows);
            }
            let other = started.elapsed().as_nanos() as f64 / count;
            ours.push(one);
            theirs.push(other);
            ratios.push(other / one);
        }
        let ratio = Samples::of(ratios);
        println!("rules: {} ns per event", Samples::of(ours).show(0));
        println!("serde_json::Value and 7 x pointer(): {} ns per event", Samples::of(theirs).show(0));
        println!("ratio, round by round: {} (goal 3)", ratio.show(2));
        println!("{}", json!({"bench": "rules", "ratio": ratio.median()}));
        Ok(())
    }
}

/// Where an event's payload stands among those of a run.
pub type Span = std::ops::Range<usize>;

/// Payloads one behind the other, of about 440 bytes each.
pub fn payloads(count: usize) -> (Arc<Bytes>, Vec<Span>) {
    let mut all = Vec::new();
    let mut spans = Vec::new();
    for i in 0..count {
        let start = all.len();
        let payload = format!(
            r#"{{"id":{},"kind":"order","customer":{{"id":"c-{i:05}","name":"Fred Chien","address":{{"city":"Taipei","zip":"10617","street":"Roosevelt Road Sec. 4"}}}},"amount":{}.{:02},"currency":"TWD","placed":"2024-05-06T07:08:09.123456Z","note":"please ring the bell twice and leave the parcel at the door","tags":["a","b","c"],"lines":[{{"sku":"A-1","qty":2,"price":10.5}},{{"sku":"B-{i:04}","qty":1,"price":99.99}}],"express":false,"channel":"mobile-store"}}"#,
            100_000 + i,
            1_000 + i,
            i % 100
        );
        all.extend_from_slice(payload.as_bytes());
        spans.push(start..all.len());
    }
    (Arc::new(Bytes::from(all)), spans)
}

/// Seven fields of an order into one row, behind a filter if there is one.
pub fn program(filter: Option<&str>) -> Result<RouteProgram, String> {
    let mapping: Vec<_> = FIELDS
        .iter()
        .map(|(source, target, _)| match *target {
            "id" => json!({"source": source, "target": target, "primary": true}),
            _ => json!({"source": source, "target": target}),
        })
        .collect();
    let mut rule = json!({"event": "order", "table": "orders", "method": "update", "mapping": mapping});
    if let Some(filter) = filter {
        rule["filter"] = json!(filter);
    }
    // What no mapping says the type of.
    let fields = json!({"amount": "decimal", "channel": "text", "s": "text", "l": "text[]"});
    let rules = json!({"events": {"order": {"fields": fields}}, "rules": [rule]});
    let mut context = Context::default();
    let database = DatabaseContext { kind: DatabaseKind::Postgres, ddl: Ddl::None, unknown_fields: None };
    context.databases.insert("view".to_owned(), database);
    let columns = FIELDS.iter().map(|(_, name, word)| {
        let column_type: ColumnType = word.parse().map_err(|error| format!("{name}: {error}"))?;
        let column = ColumnShape {
            name: (*name).to_owned(),
            database_type: column_type.to_string(),
            column_type,
            not_null: *name == "id",
            has_default: false,
            generated: false,
        };
        Ok(column)
    });
    let shape = TableShape {
        table: "orders".to_owned(),
        columns: columns.collect::<Result<_, String>>()?,
        primary_key: vec![0],
        unique: Vec::new(),
    };
    let set = load(&[SourceFile::new("rules.json", rules.to_string())], &context);
    let set = set.map_err(|findings| format!("the rules: {findings:?}"))?;
    set.compile("view", None, &[Arc::new(shape)]).map_err(|findings| format!("the rules: {findings:?}"))
}

fn evaluate(program: &RouteProgram, records: &Arc<Bytes>, event: &Span, out: &mut Evaluation) -> Result<(), String> {
    let event = Event::data("order", "bench", &records[event.clone()]);
    match program.evaluate(&Recorded { sequence: Sequence(1), event }, records, out) {
        Verdict::Matched => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// The obvious way: parse everything, look seven values up, and make the same typed row and canonical key of them.
fn map(payload: &[u8], rows: &mut Vec<Value>) -> Result<Vec<u8>, String> {
    let document: serde_json::Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let first = rows.len();
    for (pointer, (_, _, word)) in POINTERS.iter().zip(FIELDS) {
        let found = document.pointer(pointer).ok_or("a field is missing")?;
        rows.push(match word {
            "i64" => Value::Int(found.as_i64().ok_or("no integer")?),
            "bool" => Value::Bool(found.as_bool().ok_or("no boolean")?),
            "text" => Value::Text(found.as_str().ok_or("no text")?.into()),
            _ => Value::Decimal(trimmed(found.to_string()).into()),
        });
    }
    let mut key = Vec::new();
    rows[first].write_canonical(&mut key);
    Ok(key)
}

/// Canonical digits: no zeros at the end of the fraction.
fn trimmed(digits: String) -> String {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() } else { digits }
}

/// Both ways must give the same row, else their times say nothing.
fn same_changes(program: &RouteProgram, records: &Arc<Bytes>, event: &Span) -> Result<(), String> {
    let mut out = Evaluation::new();
    evaluate(program, records, event, &mut out)?;
    let mut row = Vec::new();
    let key = map(&records[event.clone()], &mut row)?;
    let change = out.changes.first().ok_or("no change")?;
    if out.row(change) != row.as_slice() || out.key(change) != key.as_slice() {
        return Err(format!("the two ways differ: {:?} and {row:?}", out.row(change)));
    }
    Ok(())
}
