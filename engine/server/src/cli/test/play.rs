//! Plays a case: the whole engine over a log, views and targets in memory, until everything is in step.

use std::collections::BTreeMap;
use std::sync::Arc;

use gravity_connectors::memory::export::{MemoryExporter, MemoryTarget};
use gravity_connectors::memory::source::{MemoryBroker, MemorySource, Published};
use gravity_connectors::memory::view::MemoryViews;
use gravity_engine::status::{EventView, Outcome as Ended};
use gravity_engine::{
    DatabaseOptions, DatabaseSpec, Engine, EngineParts, Envelope, EnvelopeOptions, ExporterSpec, MessageFormat,
    RulesInForce, SourcePort, SourceSpec,
};
use gravity_log::{MemoryDisk, MemoryLog};
use gravity_model::port::source::Start;
use gravity_model::{ColumnShape, ColumnType, TableShape};
use gravity_rules::RuleSet;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::case::{Case, Cases, Outcome};
use super::coverage::Coverage;
use super::node::Node;

/// What all cases of a file share.
pub struct Stage<'s> {
    pub rules: RulesInForce,
    /// Envelope of each configured source, by name.
    pub envelopes: BTreeMap<String, EnvelopeOptions>,
    /// Tables of each database.
    pub tables: BTreeMap<String, Vec<TableShape>>,
    pub set: &'s RuleSet,
}

/// Name of the source of cases that name none.
const OWN: &str = "test";

/// Messages in one case that the engine is asked for at once.
const MOST_EVENTS: usize = 100_000;

impl Stage<'_> {
    /// What the case leaves behind. The error is in words, about the case.
    pub async fn play(&self, case: &Case<'_>, coverage: &mut Coverage) -> Result<Outcome, String> {
        let source = case.source.as_deref().unwrap_or(OWN);
        let envelope = match &case.source {
            None => EnvelopeOptions { envelope: Envelope::Gravity, ..EnvelopeOptions::default() },
            Some(name) => self.envelopes.get(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = self.envelopes.keys().map(String::as_str).collect();
                format!("no source is named {name:?}; sources.json has: {}", known.join(", "))
            })?,
        };
        let broker = MemoryBroker::new(1);
        for event in &case.events {
            broker.publish(0, published(event, case.source.is_some())?);
        }
        let views: BTreeMap<&String, MemoryViews> = self
            .tables
            .iter()
            .map(|(database, tables)| {
                let views = MemoryViews::new();
                tables.iter().for_each(|table| views.put_table(table.clone()));
                (database, views)
            })
            .collect();
        let targets: BTreeMap<&String, MemoryTarget> =
            self.rules.context.exporters.iter().map(|name| (name, MemoryTarget::default())).collect();
        let topic = case.topic.clone().unwrap_or_else(|| source.to_owned());
        let log = MemoryLog::open(&MemoryDisk::default()).map_err(|error| error.to_string())?;
        let parts = EngineParts {
            log,
            sources: vec![SourceSpec {
                name: source.to_owned(),
                kind: "memory",
                port: SourcePort::Pull(Box::new(MemorySource::new(topic, broker))),
                envelope,
                start: Start::Earliest,
                max_batch: 16 << 20,
            }],
            databases: views
                .iter()
                .map(|(name, views)| DatabaseSpec {
                    name: (*name).clone(),
                    kind: "memory",
                    store: Arc::new(views.clone()),
                    options: DatabaseOptions::default(),
                })
                .collect(),
            exporters: targets
                .iter()
                .map(|(name, target)| ExporterSpec {
                    name: (*name).clone(),
                    kind: "memory",
                    exporter: Arc::new(MemoryExporter::new((*name).clone(), target.clone())),
                    format: MessageFormat::CloudEvents,
                    park_on_refused: false,
                })
                .collect(),
            rules: self.rules.clone(),
            stop_at_end: true,
            begin_after: None,
        };
        let engine = Engine::start(parts).await.map_err(|error| error.to_string())?;
        let ended = engine.finished().await;
        let outcome = self.look(&engine, source, &views, &targets, coverage).await;
        engine.shutdown().await;
        if let Ended::Stopped { what } = ended {
            return Err(what);
        }
        outcome
    }

    async fn look(
        &self,
        engine: &Engine,
        source: &str,
        views: &BTreeMap<&String, MemoryViews>,
        targets: &BTreeMap<&String, MemoryTarget>,
        coverage: &mut Coverage,
    ) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        for (database, views) in views {
            for table in &self.tables[*database] {
                let name = |index: usize| table.columns[index].name.clone();
                let row = |values: &Vec<gravity_model::Value>| {
                    let cell = |(index, value): (usize, &gravity_model::Value)| {
                        (name(index), Node::read(&gravity_rules::json_text(value)).unwrap_or(Node::Null))
                    };
                    Node::Object(values.iter().enumerate().map(cell).collect())
                };
                let mut rows: Vec<Node> = views.rows(&table.table).iter().map(row).collect();
                rows.sort();
                if !rows.is_empty() {
                    outcome.rows.insert(format!("{database}.{}", table.table), rows);
                }
            }
        }
        for (exporter, target) in targets {
            let mut messages = target.arrived();
            messages.sort_by_key(|message| message.sequence);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let message = |message: &gravity_model::port::export::Message| {
                Node::object([
                    ("event", Some(Node::Text(message.event.clone()))),
                    ("key", message.key.as_deref().map(|key| Node::Text(text(key)))),
                    ("payload", Some(Node::read(&text(&message.body)).unwrap_or(Node::Null))),
                ])
            };
            if !messages.is_empty() {
                outcome.messages.insert((*exporter).clone(), messages.iter().map(message).collect());
            }
        }
        let events = engine.events(0, MOST_EVENTS).await.map_err(|error| error.to_string())?;
        let own: Vec<&EventView> = events.iter().filter(|event| event.source == source).collect();
        let letters = engine.dead_letters(None).await.map_err(|error| error.to_string())?;
        for letter in letters {
            let place = own.iter().position(|event| event.sequence == letter.sequence);
            let waiting = letter.waiting.then_some(Node::Bool(true));
            let code = (!letter.waiting).then(|| Node::Text(letter.code.clone()));
            outcome.dead_letters.push(Node::object([
                ("route", Some(Node::Text(letter.route))),
                ("event", place.map(|at| Node::Number((at + 1).to_string()))),
                ("code", code),
                ("waiting", waiting),
            ]));
        }
        outcome.dead_letters.sort();
        coverage.look(engine, source, self.set, &self.tables)?;
        Ok(outcome)
    }
}

/// A message of a case that names a source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageText<'t> {
    #[serde(borrow, default)]
    key: Option<&'t RawValue>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    value: &'t RawValue,
}

fn published(event: &RawValue, is_message: bool) -> Result<Published, String> {
    if !is_message {
        return Ok(Published { payload: Some(event.get().as_bytes().to_vec()), ..Published::default() });
    }
    let message: MessageText<'_> = serde_json::from_str(event.get())
        .map_err(|error| format!("a message is {{\"key\", \"headers\", \"value\"}}: {error}"))?;
    // A key of text is its characters, any other its JSON, as producers write them.
    let key = message.key.filter(|key| key.get() != "null");
    let key = key.map(|key| serde_json::from_str::<String>(key.get()).unwrap_or_else(|_| key.get().to_owned()));
    let payload = (message.value.get() != "null").then(|| message.value.get().as_bytes().to_vec());
    let headers = message.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    Ok(Published { key: key.map(String::into_bytes), payload, headers, ..Published::default() })
}

/// The tables that the rules need, by what the cases' file and the rules say about them. A column without a type holds what the
/// event says, as JSON.
pub fn tables(set: &RuleSet, cases: &Cases<'_>) -> Result<BTreeMap<String, Vec<TableShape>>, String> {
    let mut all = BTreeMap::new();
    for database in set.databases() {
        let mut shapes = Vec::new();
        for request in set.requests(database) {
            let given = cases.tables.get(database).and_then(|tables| tables.get(&request.table));
            let (columns, key, not_null): (Vec<(String, ColumnType)>, _, _) = match given {
                Some(given) => (
                    given.columns.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect(),
                    given.key.clone(),
                    given.not_null.clone(),
                ),
                None => (
                    request
                        .columns
                        .iter()
                        .map(|column| (column.name.clone(), column.declared.clone().unwrap_or(ColumnType::Json)))
                        .collect(),
                    request.key.clone(),
                    Vec::new(),
                ),
            };
            let index = |name: &String| columns.iter().position(|(column, _)| column == name).map(|at| at as u16);
            let primary_key: Option<Vec<u16>> = key.iter().map(index).collect();
            let primary_key = primary_key.filter(|key| !key.is_empty()).ok_or_else(|| {
                format!(
                    "the rules do not say what table {database}.{} looks like: add \"tables\": {{\"{database}\": {{\"{}\": \
                     {{\"columns\": {{\"id\": \"i64\"}}, \"key\": [\"id\"]}}}}}}",
                    request.table, request.table
                )
            })?;
            let shape = |(name, column_type): &(String, ColumnType)| ColumnShape {
                name: name.clone(),
                column_type: column_type.clone(),
                database_type: column_type.to_string(),
                not_null: key.contains(name) || not_null.contains(name),
                has_default: false,
                generated: false,
            };
            shapes.push(TableShape {
                table: request.table.clone(),
                columns: columns.iter().map(shape).collect(),
                primary_key,
                unique: Vec::new(),
            });
        }
        all.insert(database.to_owned(), shapes);
    }
    Ok(all)
}
