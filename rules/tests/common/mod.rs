//! The package's API as tests use it, in one place.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;

use bytes::Bytes;
use gravity_model::shape::SharedShape;
use gravity_model::{ColumnOp, ColumnShape, Event, Recorded, Sequence, TableShape, Value};
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{
    Change, ChangeOp, Context, DatabaseContext, DatabaseKind, Ddl, Evaluation, RouteProgram, Verdict, load,
};

/// PostgreSQL databases without DDL, and exporters.
pub fn context(databases: &[&str], exporters: &[&str]) -> Context {
    let database = DatabaseContext { kind: DatabaseKind::Postgres, ddl: Ddl::None, unknown_fields: None };
    Context {
        databases: databases.iter().map(|name| ((*name).to_owned(), database)).collect(),
        exporters: exporters.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// A live table.
pub struct Table(TableShape);

impl Table {
    pub fn new(name: &str) -> Table {
        Table(TableShape { table: name.to_owned(), columns: Vec::new(), primary_key: Vec::new(), unique: Vec::new() })
    }

    pub fn column(mut self, name: &str, column_type: &str) -> Table {
        self.0.columns.push(ColumnShape {
            name: name.to_owned(),
            column_type: column_type.parse().expect("a type word"),
            database_type: column_type.to_owned(),
            not_null: false,
            has_default: false,
            generated: false,
        });
        self
    }

    pub fn key(mut self, name: &str, column_type: &str) -> Table {
        self.0.primary_key.push(self.0.columns.len() as u16);
        self = self.column(name, column_type);
        self.last().not_null = true;
        self
    }

    pub fn not_null(mut self) -> Table {
        self.last().not_null = true;
        self
    }

    pub fn has_default(mut self) -> Table {
        self.last().has_default = true;
        self
    }

    pub fn generated(mut self) -> Table {
        self.last().generated = true;
        self
    }

    pub fn database_type(mut self, word: &str) -> Table {
        word.clone_into(&mut self.last().database_type);
        self
    }

    pub fn shape(self) -> SharedShape {
        Arc::new(self.0)
    }

    fn last(&mut self) -> &mut ColumnShape {
        self.0.columns.last_mut().expect("a column first")
    }
}

/// Evaluates one event into fresh buffers.
pub fn evaluate_one(program: &RouteProgram, name: &str, payload: &str) -> (Verdict, Evaluation) {
    evaluate_bytes(program, name, payload.as_bytes())
}

pub fn evaluate_bytes(program: &RouteProgram, name: &str, payload: &[u8]) -> (Verdict, Evaluation) {
    let records = Arc::new(Bytes::copy_from_slice(payload));
    let mut out = Evaluation::new();
    let recorded = Recorded { sequence: Sequence(1), event: Event::data(name, "web", &records) };
    let verdict = program.evaluate(&recorded, &records, &mut out);
    (verdict, out)
}

/// Rules of a file that must be valid, compiled for database `d`, the only one.
pub fn route(rules: &str, tables: &[SharedShape]) -> RouteProgram {
    let set =
        load(&[SourceFile::new("rules.json", rules)], &context(&["d"], &["x", "y"])).unwrap_or_else(|f| panic!("{f}"));
    set.compile("d", None, tables).unwrap_or_else(|f| panic!("{f}"))
}

/// The changes of an event, one line each: `upsert t(id=1) a='x' ?b=5`, where `?` marks what only a new row gets; or, for a
/// verdict other than matched, its name, with the code of a refusal and then the keys.
pub fn outcome(program: &RouteProgram, name: &str, payload: &str) -> Vec<String> {
    let (verdict, out) = evaluate_one(program, name, payload);
    lines(program, &verdict, &out)
}

pub fn lines(program: &RouteProgram, verdict: &Verdict, out: &Evaluation) -> Vec<String> {
    let mut lines: Vec<String> = match verdict {
        Verdict::Matched => Vec::new(),
        Verdict::Refused(refusal) => vec![format!("refused {} {}", refusal.code, refusal.rule)],
        other => vec![format!("{other:?}").to_lowercase()],
    };
    let refused = matches!(verdict, Verdict::Refused(_));
    lines.extend(
        out.changes
            .iter()
            .map(|change| if refused { blocked(program, out, change) } else { line(program, out, change) }),
    );
    lines
}

fn blocked(program: &RouteProgram, out: &Evaluation, change: &Change) -> String {
    assert!(out.row(change).is_empty(), "a refused event has no values");
    format!("blocks {} {}", program.tables()[change.table as usize].table, hex(out.key(change)))
}

fn line(program: &RouteProgram, out: &Evaluation, change: &Change) -> String {
    let shape = &program.tables()[change.table as usize];
    let op = format!("{:?}", change.op).to_lowercase();
    if change.op == ChangeOp::DeleteAll {
        assert!(out.key(change).is_empty() && out.row(change).is_empty());
        return format!("{op} {}", shape.table);
    }
    let set = program.column_set(change.columns);
    let keys = shape.primary_key.len();
    let row = out.row(change);
    let moved = change.op == ChangeOp::Move;
    assert_eq!(
        row.len(),
        keys * (1 + usize::from(moved)) + set.set.len() + set.on_create.len(),
        "the row has its layout"
    );
    let (former, row) = row.split_at(if moved { keys } else { 0 });
    let (key, rest) = row.split_at(keys);
    let canonical = |values: &[Value]| {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.write_canonical(&mut bytes));
        bytes
    };
    assert_eq!(out.key(change), canonical(key), "key bytes are those of the key's values");
    assert_eq!(out.old_key(change).map(<[u8]>::to_vec), moved.then(|| canonical(former)));
    let named = |columns: &[u16], values: &[Value], mark: &str| {
        let cell =
            |(column, value): (&u16, &Value)| format!("{mark}{}={}", shape.columns[*column as usize].name, show(value));
        columns.iter().zip(values).map(cell).collect::<Vec<_>>().join(" ")
    };
    let tuple = |values: &[Value]| named(&shape.primary_key, values, "").replace(' ', ",");
    let from = if moved { format!(" from {}", tuple(former)) } else { String::new() };
    let (set_values, create_values) = rest.split_at(set.set.len());
    let mut text = format!("{op} {}({}{from})", shape.table, tuple(key));
    let joined = |(index, (column, value)): (usize, (&u16, &Value))| {
        let op = match set.op(index) {
            ColumnOp::Set => "",
            op => &format!(" {}", op.word()),
        };
        format!("{}{op}={}", shape.columns[*column as usize].name, show(value))
    };
    let written: Vec<String> = set.set.iter().zip(set_values).enumerate().map(joined).collect();
    for part in [written.join(" "), named(&set.on_create, create_values, "?")] {
        if !part.is_empty() {
            text.push(' ');
            text.push_str(&part);
        }
    }
    if change.park_if_missing {
        text.push_str(" or park");
    }
    text
}

pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Decimal(digits) => digits.to_string(),
        Value::Text(text) => format!("'{text}'"),
        Value::Json(text) => format!("json{text}"),
        other => format!("{other:?}"),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
