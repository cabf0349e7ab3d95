//! A whole engine in this process over real stores and exporters: rules given as text, events over the intake, the log in
//! memory. For what needs parts that no config file can bring, such as an endpoint that never answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gravity_engine::status::{RouteStatus, Status, SubscriptionStatus};
use gravity_engine::{
    DatabaseOptions, DatabaseSpec, Engine, EngineParts, EnvelopeOptions, ExporterSpec, IntakeRequest, MessageFormat,
    RulesInForce, SourcePort, SourceSpec,
};
use gravity_log::{MemoryDisk, MemoryLog};
use gravity_model::port::export::Exporter;
use gravity_model::port::source::Start;
use gravity_model::port::view::ViewStore;
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{Context, DatabaseContext, DatabaseKind, Ddl};

/// What runs: one database `db1`, exporters by name, rules.
pub struct EngineRig {
    pub kind: DatabaseKind,
    pub store: Arc<dyn ViewStore>,
    /// `"ddl": "create"`.
    pub create: bool,
    /// Name, exporter, `"on_refused": "park"`.
    pub exporters: Vec<(&'static str, Arc<dyn Exporter>, bool)>,
    pub rules: String,
}

impl EngineRig {
    pub fn new(kind: DatabaseKind, store: Arc<dyn ViewStore>, rules: impl Into<String>) -> EngineRig {
        EngineRig { kind, store, create: true, exporters: Vec::new(), rules: rules.into() }
    }

    /// Starts on a new log.
    pub async fn start(&self) -> Running {
        let ddl = if self.create { Ddl::Create } else { Ddl::None };
        let database = DatabaseContext { kind: self.kind, ddl, unknown_fields: None };
        let context = Context {
            databases: [("db1".to_owned(), database)].into_iter().collect(),
            exporters: self.exporters.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        };
        let files = vec![SourceFile::new("rules.json", self.rules.as_str())];
        let set = gravity_rules::load(&files, &context).unwrap_or_else(|findings| panic!("{findings}"));
        let exporter = |(name, exporter, park): &(&str, Arc<dyn Exporter>, bool)| ExporterSpec {
            name: (*name).to_owned(),
            kind: "test",
            exporter: exporter.clone(),
            format: MessageFormat::CloudEvents,
            park_on_refused: *park,
        };
        let parts = EngineParts {
            log: MemoryLog::open(&MemoryDisk::default()).expect("a new log"),
            sources: vec![SourceSpec {
                name: "web".to_owned(),
                kind: "http",
                port: SourcePort::Push,
                envelope: EnvelopeOptions::default(),
                start: Start::Earliest,
                max_batch: 64 << 20,
            }],
            databases: vec![DatabaseSpec {
                name: "db1".to_owned(),
                kind: "test",
                store: self.store.clone(),
                options: DatabaseOptions { create: self.create, ..DatabaseOptions::default() },
            }],
            exporters: self.exporters.iter().map(exporter).collect(),
            rules: RulesInForce { set: Arc::new(set), files, context, actor: "test".to_owned() },
            stop_at_end: false,
            begin_after: None,
        };
        Running(Engine::start(parts).await.expect("the engine starts"))
    }
}

/// An engine at work.
pub struct Running(pub Engine);

impl Running {
    /// Posts one event or an array of them; the sequence of the last.
    pub async fn post(&self, body: &str) -> u64 {
        let request = IntakeRequest { body: Bytes::copy_from_slice(body.as_bytes()), ..IntakeRequest::default() };
        let intake = self.0.intake("web").expect("the source is there");
        intake.submit(request).await.expect("taken in").last.expect("stored")
    }

    pub fn route(&self) -> RouteStatus {
        self.0.status().routes.remove(0)
    }

    pub fn exporter(&self, name: &str) -> SubscriptionStatus {
        let found = self.0.status().exporters.into_iter().find(|exporter| exporter.name == name);
        found.unwrap_or_else(|| panic!("no exporter {name}"))
    }

    /// Waits until `holds`; fails after 60 s with the engine's status.
    #[track_caller]
    pub fn eventually(&self, holds: impl Fn(&Status) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            for _ in 0..6_000 {
                if holds(&self.0.status()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("did not come true within 60 s, {caller}: {:#?}", self.0.status());
        }
    }

    /// Waits until the view has done everything up to `sequence`.
    pub async fn in_view(&self, sequence: u64) {
        self.eventually(|status| status.routes[0].checkpoint >= sequence).await;
        let route = self.route();
        let sum = route.applied + route.filtered + route.unmatched + route.parked + route.skipped;
        assert_eq!(route.read, sum, "P4: {route:#?}");
    }

    /// Waits until this exporter has told of everything up to `sequence`.
    pub async fn told(&self, exporter: &str, sequence: u64) {
        let reached = |status: &Status| status.exporters.iter().any(|e| e.name == exporter && e.cursor >= sequence);
        self.eventually(reached).await;
    }
}
