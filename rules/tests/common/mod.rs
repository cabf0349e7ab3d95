//! The package's API as tests use it, in one place.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;

use bytes::Bytes;
use gravity_model::shape::SharedShape;
use gravity_model::{ColumnShape, Event, Recorded, Sequence, TableShape};
use gravity_rules::{Context, DatabaseContext, DatabaseKind, Ddl, Evaluation, RouteProgram, Verdict};

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
    let records = Bytes::copy_from_slice(payload);
    let mut out = Evaluation::new();
    let recorded = Recorded { sequence: Sequence(1), event: Event::data(name, "web", &records) };
    let verdict = program.evaluate(&recorded, &records, &mut out);
    (verdict, out)
}
