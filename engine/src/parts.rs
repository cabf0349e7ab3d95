//! What the assembly hands to the engine: open ports with their options, and the rules that join them.

use std::sync::Arc;

use gravity_log::EventLog;
use gravity_model::Sequence;
use gravity_model::port::export::Exporter;
use gravity_model::port::source::{Source, Start};
use gravity_model::port::view::ViewStore;
use gravity_rules::diagnose::SourceFile;
use gravity_rules::{Context, RuleSet};

use crate::ingest::envelope::EnvelopeOptions;

/// Everything that `Engine::start` needs.
pub struct EngineParts {
    pub log: Arc<dyn EventLog>,
    pub sources: Vec<SourceSpec>,
    pub databases: Vec<DatabaseSpec>,
    pub exporters: Vec<ExporterSpec>,
    pub rules: RulesInForce,
    /// End by itself once every source is read to its present end and every route and exporter is in step.
    pub stop_at_end: bool,
    /// Views and subscriptions without a position begin after this sequence: not at the log's beginning, and not at the change
    /// of rules that brought them (SEMANTICS 3.4, 5.2: `--from`).
    pub begin_after: Option<Sequence>,
}

/// What a reload brings or changes, by entry.
#[derive(Default)]
pub struct ChangedParts {
    pub sources: Vec<SourceSpec>,
    pub databases: Vec<DatabaseSpec>,
    pub exporters: Vec<ExporterSpec>,
}

/// The rules as they were read, with what they were checked against: recorded in the log when they change.
#[derive(Clone)]
pub struct RulesInForce {
    pub set: Arc<RuleSet>,
    pub files: Vec<SourceFile>,
    pub context: Context,
    /// Who put them there: `start`, `SIGHUP` or the name of an API token.
    pub actor: String,
}

pub struct SourceSpec {
    pub name: String,
    /// The `type` of sources.json, for `status`.
    pub kind: &'static str,
    pub port: SourcePort,
    pub envelope: EnvelopeOptions,
    pub start: Start,
    /// Largest request body or batch in bytes.
    pub max_batch: usize,
}

pub enum SourcePort {
    /// The engine pulls from it.
    Pull(Box<dyn Source>),
    /// Others push into it through [`Engine::intake`](crate::Engine::intake).
    Push,
}

pub struct DatabaseSpec {
    pub name: String,
    pub kind: &'static str,
    pub store: Arc<dyn ViewStore>,
    pub options: DatabaseOptions,
}

#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// `"ddl": "create"`.
    pub create: bool,
    /// `"existing_rows": "adopt"`.
    pub adopt_existing_rows: bool,
    pub lanes: u16,
    /// Failed events that may be parked at the same time; at the bound the route stops.
    pub max_parked: u64,
    /// Memory for the records of events that wait behind failed ones, in bytes; at the bound the route stops.
    pub max_waiting_bytes: u64,
    /// Earlier name of this entry.
    pub was: Option<String>,
}

impl Default for DatabaseOptions {
    fn default() -> DatabaseOptions {
        DatabaseOptions {
            create: false,
            adopt_existing_rows: false,
            lanes: 1,
            max_parked: 100_000,
            max_waiting_bytes: 64 << 20,
            was: None,
        }
    }
}

pub struct ExporterSpec {
    pub name: String,
    pub kind: &'static str,
    pub exporter: Arc<dyn Exporter>,
    pub format: MessageFormat,
    /// `"on_refused": "park"`: a refusal of the caller or place parks the message instead of stopping the subscription.
    pub park_on_refused: bool,
}

/// Body of an exported message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MessageFormat {
    /// CloudEvents 1.0, binary mode: the body is the payload as received, attributes are headers.
    #[default]
    CloudEvents,
    /// The original's object: `{event, collection, payload, meta}`.
    Gravity,
}
