//! An engine over doubles: memory log, memory views, memory broker and target, with rules given as text.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gravity_connectors::memory::export::{MemoryExporter, MemoryTarget};
use gravity_connectors::memory::source::{MemoryBroker, MemorySource};
use gravity_connectors::memory::view::MemoryViews;
use gravity_engine::status::{RouteStatus, Status};
use gravity_engine::{
    ChangedParts, DatabaseOptions, DatabaseSpec, Engine, EngineParts, EnvelopeOptions, ExporterSpec, IntakeAnswer,
    IntakeRequest, MessageFormat, RulesInForce, SourcePort, SourceSpec,
};
use gravity_log::{MemoryDisk, MemoryLog};
use gravity_model::port::source::{Acceptance, Start};
use gravity_model::{ColumnShape, ColumnType, Sequence, TableShape, Value};
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{Context, DatabaseContext, DatabaseKind, Ddl};
use parking_lot::Mutex;

pub struct Rig {
    pub disk: MemoryDisk,
    pub log: Mutex<Option<Arc<MemoryLog>>>,
    pub views: MemoryViews,
    pub target: MemoryTarget,
    pub broker: MemoryBroker,
    pub rules: String,
    /// Name of the database entry.
    pub database: String,
    pub was: Option<String>,
    pub adopt: bool,
    pub max_parked: u64,
    pub max_waiting_bytes: u64,
    pub lanes: u16,
    /// What the source goes on from.
    pub accept: Acceptance,
    /// `--from`.
    pub begin_after: Option<Sequence>,
}

/// `(name, type, not null)`; the first column is the key.
pub fn table(name: &str, columns: &[(&str, ColumnType, bool)]) -> TableShape {
    TableShape {
        table: name.to_owned(),
        columns: columns
            .iter()
            .map(|(name, column_type, not_null)| ColumnShape {
                name: (*name).to_owned(),
                column_type: column_type.clone(),
                database_type: column_type.to_string(),
                not_null: *not_null,
                has_default: false,
                generated: false,
            })
            .collect(),
        primary_key: vec![0],
        unique: Vec::new(),
    }
}

pub fn users() -> TableShape {
    table(
        "users",
        &[("id", ColumnType::I64, true), ("name", ColumnType::Text, false), ("email", ColumnType::Text, false)],
    )
}

/// Writes users on `userChanged`, deletes on `userDeleted`, tells `out` of both.
pub const USERS: &str = r#"{"rules": [
  {"event": "userChanged", "table": "users", "method": "update", "mapping": [
     {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"}, {"source": "email", "target": "email"}]},
  {"event": "userDeleted", "table": "users", "method": "delete", "mapping": [{"source": "id", "target": "id", "primary": true}]},
  {"event": "userChanged", "database": "db1", "exporter": ["out"]},
  {"event": "userDeleted", "database": "db1", "exporter": ["out"]}]}"#;

impl Rig {
    pub fn new(rules: &str) -> Rig {
        let views = MemoryViews::new();
        views.put_table(users());
        Rig {
            disk: MemoryDisk::default(),
            log: Mutex::new(None),
            views,
            target: MemoryTarget::default(),
            broker: MemoryBroker::new(1),
            rules: rules.to_owned(),
            database: "db1".to_owned(),
            was: None,
            adopt: false,
            max_parked: 100_000,
            max_waiting_bytes: 1 << 20,
            lanes: 1,
            accept: Acceptance::default(),
            begin_after: None,
        }
    }

    pub fn context(&self) -> Context {
        let database = DatabaseContext { kind: DatabaseKind::Postgres, ddl: Ddl::None, unknown_fields: None };
        Context {
            databases: [(self.database.clone(), database)].into_iter().collect(),
            exporters: vec!["out".to_owned()],
        }
    }

    pub fn rules_in_force(&self, text: &str) -> RulesInForce {
        let files = vec![SourceFile::new("rules.json", text)];
        let set = gravity_rules::load(&files, &self.context()).expect("the test's rules are good");
        RulesInForce { set: Arc::new(set), files, context: self.context(), actor: "test".to_owned() }
    }

    pub fn parts(&self) -> EngineParts {
        let ChangedParts { sources, databases, exporters } = self.parts_without_log();
        EngineParts {
            log: self.open_log(),
            sources,
            databases,
            exporters,
            rules: self.rules_in_force(&self.rules),
            stop_at_end: false,
            begin_after: self.begin_after,
        }
    }

    /// New connections for every entry.
    pub fn parts_without_log(&self) -> ChangedParts {
        let source = |name: &str, kind, port| SourceSpec {
            name: name.to_owned(),
            kind,
            port,
            envelope: EnvelopeOptions::default(),
            start: Start::Earliest,
            max_batch: 16 << 20,
        };
        ChangedParts {
            sources: vec![
                source("web", "http", SourcePort::Push),
                source(
                    "bus",
                    "memory",
                    SourcePort::Pull(Box::new(MemorySource::new("bus", self.broker.clone()).accepting(self.accept))),
                ),
            ],
            databases: vec![self.database_spec(&self.views)],
            exporters: vec![ExporterSpec {
                name: "out".to_owned(),
                kind: "memory",
                exporter: Arc::new(MemoryExporter::new("out", self.target.clone())),
                format: MessageFormat::CloudEvents,
                park_on_refused: false,
            }],
        }
    }

    pub fn database_spec(&self, views: &MemoryViews) -> DatabaseSpec {
        DatabaseSpec {
            name: self.database.clone(),
            kind: "memory",
            store: Arc::new(views.clone()),
            options: DatabaseOptions {
                max_parked: self.max_parked,
                max_waiting_bytes: self.max_waiting_bytes,
                lanes: self.lanes,
                adopt_existing_rows: self.adopt,
                was: self.was.clone(),
                ..DatabaseOptions::default()
            },
        }
    }

    fn open_log(&self) -> Arc<MemoryLog> {
        let log = MemoryLog::open(&self.disk).expect("no other engine has the log");
        *self.log.lock() = Some(log.clone());
        log
    }

    /// The log of the running engine, with its faults.
    pub fn memory_log(&self) -> Arc<MemoryLog> {
        self.log.lock().clone().expect("an engine was started")
    }

    pub async fn start(&self) -> Engine {
        Engine::start(self.parts()).await.expect("the engine starts")
    }

    /// Ids of the messages that arrived, in order, with the sequence each speaks of.
    pub fn told(&self) -> Vec<u64> {
        self.target.arrived().iter().map(|m| m.sequence.get()).collect()
    }

    /// Rows as `id name email`, nulls as `-`.
    pub fn rows(&self) -> Vec<String> {
        let cell = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::Int(i) => i.to_string(),
            Value::Text(t) => t.to_string(),
            other => format!("{other:?}"),
        };
        self.views.rows("users").iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
    }
}

pub async fn post(engine: &Engine, body: &str) -> IntakeAnswer {
    let request = IntakeRequest { body: Bytes::copy_from_slice(body.as_bytes()), ..IntakeRequest::default() };
    engine.intake("web").expect("the source is there").submit(request).await.expect("taken in")
}

pub fn changed(id: i64, name: &str) -> String {
    format!(r#"{{"event":"userChanged","key":"{id}","payload":{{"id":{id},"name":"{name}"}}}}"#)
}

pub fn route(status: &Status) -> &RouteStatus {
    &status.routes[0]
}

/// Waits until `holds`, or fails after 10 s with what `shows` says.
pub async fn eventually(mut holds: impl FnMut() -> bool, shows: impl Fn() -> String) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not come true within 10 s: {}", shows());
}

/// Waits until the route has done everything up to `sequence` and its subscription has told of it.
pub async fn in_step(engine: &Engine, sequence: u64) {
    let reached = || {
        let status = engine.status();
        route(&status).checkpoint >= sequence && status.exporters.iter().all(|e| e.cursor >= sequence)
    };
    eventually(reached, || format!("{:#?}", engine.status())).await;
    let status = engine.status();
    let r = route(&status);
    assert_eq!(r.read, r.applied + r.filtered + r.unmatched + r.parked + r.skipped, "P4: {r:#?}");
}
