//! The loops between the ports: ingest, project, export, supervise.
//!
//! ```text
//! Source ──> ingest ──> EVENT LOG ──> route: judge, fold, park, commit ──> view + checkpoint
//! Intake ──>               │                        │ checkpoint
//!                          └────────────────> subscription: write, send, confirm ──> target
//! ```
//!
//! Knows ports, the log and rules; no broker, no database, no socket.

mod append;
mod beyond;
pub mod clock;
pub mod control;
mod engine;
mod export;
mod housekeeping;
pub mod ingest;
pub mod ledger;
mod operate;
pub mod parts;
mod project;
mod rename;
mod rulebook;
pub mod status;
mod supervise;
mod view_of_event;

pub use engine::{Engine, StartError};
pub use ingest::envelope::{Envelope, EnvelopeOptions, KeyFrom, NameFrom, Tombstone};
pub use ingest::intake::Intake;
pub use ingest::request::{IntakeAnswer, IntakeError, IntakeRequest};
pub use operate::{ApiError, ReloadReport};
pub use parts::{
    ChangedParts, DatabaseOptions, DatabaseSpec, EngineParts, ExporterSpec, MessageFormat, RulesInForce, SourcePort,
    SourceSpec,
};
pub use rulebook::RuleBookError;
