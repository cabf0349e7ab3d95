//! `tests/*.json`: cases beside the rules, as they are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gravity_model::ColumnType;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::exit::Failure;
use super::node::Node;
use crate::config::codes;

/// One file, with its text: an update rewrites parts of it.
pub struct CaseFile {
    pub path: PathBuf,
    pub name: String,
    pub text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases<'t> {
    #[serde(rename = "$schema", default)]
    _schema: Option<String>,
    /// Live tables by database, where the rules do not tell all types.
    #[serde(default)]
    pub tables: BTreeMap<String, BTreeMap<String, TableText>>,
    #[serde(borrow)]
    pub cases: Vec<Case<'t>>,
}

/// A table that a rule passes fields through to, or whose types the rules leave to the database.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableText {
    pub columns: IndexMap<String, ColumnType>,
    pub key: Vec<String>,
    /// Columns beside the key that take no null.
    #[serde(default)]
    pub not_null: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case<'t> {
    pub name: String,
    /// Source whose settings say how messages are read. Without it events are Gravity's envelope.
    #[serde(default)]
    pub source: Option<String>,
    /// Topic, subject or routing key of the messages.
    #[serde(default)]
    pub topic: Option<String>,
    /// In order. With `source`: `{"key", "headers", "value"}`.
    #[serde(borrow)]
    pub events: Vec<&'t RawValue>,
    /// Rows by database and table, in any order. Tables that are not named are empty.
    #[serde(borrow, default)]
    pub rows: Option<&'t RawValue>,
    /// Messages by exporter, in order.
    #[serde(borrow, default)]
    pub messages: Option<&'t RawValue>,
    #[serde(borrow, default)]
    pub dead_letters: Option<&'t RawValue>,
}

/// What a case leaves behind, or is expected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub rows: Groups,
    pub messages: Groups,
    pub dead_letters: Vec<Node>,
}

/// Values under one or two names joined by a dot; groups without values are left out.
pub type Groups = BTreeMap<String, Vec<Node>>;

impl CaseFile {
    /// All files of the folder, by name.
    pub fn all(config: &Path) -> Result<Vec<CaseFile>, Failure> {
        let folder = config.join("tests");
        let none = || {
            Failure::usage(format!("{} holds no cases", folder.display()))
                .hint("write tests/NAME.json; `gravity init` makes one to begin with")
        };
        let entries = std::fs::read_dir(&folder).map_err(|_| none())?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
        paths.sort();
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::usage(format!("cannot read {}", path.display())).because(&error))?;
            let name = path.file_name().map(|name| format!("tests/{}", name.to_string_lossy())).unwrap_or_default();
            Ok(CaseFile { path, name, text })
        };
        let files: Vec<CaseFile> = paths.into_iter().map(read).collect::<Result<_, Failure>>()?;
        if files.is_empty() { Err(none()) } else { Ok(files) }
    }

    pub fn cases(&self) -> Result<Cases<'_>, Failure> {
        let cases: Cases<'_> = serde_json::from_str(&self.text).map_err(|error| {
            Failure::usage(format!("{}:{}:{}: {error}", self.name, error.line(), error.column())).code(codes::BAD_CASE)
        })?;
        for (at, case) in cases.cases.iter().enumerate() {
            if cases.cases[..at].iter().any(|earlier| earlier.name == case.name) {
                return Err(
                    Failure::usage(format!("{}: two cases are named {:?}", self.name, case.name)).code(codes::BAD_CASE)
                );
            }
        }
        Ok(cases)
    }
}

impl Case<'_> {
    /// What is expected. The error is in words.
    pub fn expected(&self) -> Result<Outcome, String> {
        let node = |part: Option<&RawValue>| part.and_then(|raw| Node::read(raw.get()));
        let mut expected = Outcome::default();
        let bad = |what: &str| format!("case {:?}: {what}", self.name);
        match node(self.rows) {
            None => {}
            Some(Node::Object(databases)) => {
                for (database, tables) in databases {
                    let Node::Object(tables) = tables else {
                        return Err(bad("`rows` is {DATABASE: {TABLE: [ROW, …]}}"));
                    };
                    for (table, rows) in tables {
                        let Node::List(rows) = rows else {
                            return Err(bad("`rows` is {DATABASE: {TABLE: [ROW, …]}}"));
                        };
                        insert(&mut expected.rows, format!("{database}.{table}"), rows);
                    }
                }
            }
            Some(_) => return Err(bad("`rows` is {DATABASE: {TABLE: [ROW, …]}}")),
        }
        match node(self.messages) {
            None => {}
            Some(Node::Object(exporters)) => {
                for (exporter, messages) in exporters {
                    let Node::List(messages) = messages else {
                        return Err(bad("`messages` is {EXPORTER: [MESSAGE, …]}"));
                    };
                    insert(&mut expected.messages, exporter, messages);
                }
            }
            Some(_) => return Err(bad("`messages` is {EXPORTER: [MESSAGE, …]}")),
        }
        match node(self.dead_letters) {
            None => {}
            Some(Node::List(letters)) => expected.dead_letters = letters,
            Some(_) => return Err(bad("`dead_letters` is a list")),
        }
        expected.rows.values_mut().for_each(|rows| rows.sort());
        expected.dead_letters.sort();
        Ok(expected)
    }
}

fn insert(groups: &mut Groups, name: String, values: Vec<Node>) {
    if !values.is_empty() {
        groups.insert(name, values);
    }
}
