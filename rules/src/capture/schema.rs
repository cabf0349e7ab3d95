//! The schema that Kafka Connect's JSON converter sends with a value: which fields of a row mean more than they say.

use std::sync::Arc;

use hashbrown::HashMap;
use serde::Deserialize;

use super::meaning::Meaning;

/// Meanings by field; fields whose JSON says all are left out.
#[derive(Debug, Default)]
pub(crate) struct RowSchema {
    meanings: HashMap<Box<str>, Meaning>,
}

impl RowSchema {
    pub fn is_empty(&self) -> bool {
        self.meanings.is_empty()
    }

    pub fn meaning(&self, field: &str) -> Option<Meaning> {
        self.meanings.get(field).copied()
    }

    fn of(fields: &[Node]) -> RowSchema {
        let meaning =
            |node: &Node| Some((node.field.as_deref()?.into(), Meaning::of(node.name.as_deref()?, node.scale())?));
        RowSchema { meanings: fields.iter().filter_map(meaning).collect() }
    }
}

#[derive(Debug, Deserialize, Default)]
struct Node {
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    fields: Vec<Node>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Deserialize, Default)]
struct Parameters {
    #[serde(default)]
    scale: Option<String>,
}

impl Node {
    fn scale(&self) -> Option<i32> {
        self.parameters.scale.as_ref()?.parse().ok()
    }
}

/// Schemas that were read before: each message repeats its own, which is longer than the row.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    known: HashMap<Box<[u8]>, Arc<RowSchema>>,
}

/// A table has one schema at a time; more than this, and all are read anew.
const MOST: usize = 512;

impl Schemas {
    /// The row's schema in the schema of a change event.
    pub fn of_change(&mut self, schema: &[u8]) -> Arc<RowSchema> {
        self.read(schema, |node| {
            let rows = || node.fields.iter().filter(|field| matches!(field.field.as_deref(), Some("after" | "before")));
            let row = rows().find(|field| field.field.as_deref() == Some("after")).or_else(|| rows().next());
            row.map(|row| RowSchema::of(&row.fields)).unwrap_or_default()
        })
    }

    /// The schema of a key.
    pub fn of_row(&mut self, schema: &[u8]) -> Arc<RowSchema> {
        self.read(schema, |node| RowSchema::of(&node.fields))
    }

    fn read(&mut self, schema: &[u8], rows: impl FnOnce(&Node) -> RowSchema) -> Arc<RowSchema> {
        if let Some(known) = self.known.get(schema) {
            return known.clone();
        }
        // A schema that is none explains nothing: the row's values then speak for themselves.
        let read = Arc::new(serde_json::from_slice(schema).map(|node| rows(&node)).unwrap_or_default());
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(schema.into(), read.clone());
        read
    }
}
