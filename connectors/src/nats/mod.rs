//! NATS: a source over JetStream streams or core subjects, and two exporters, core and JetStream.
//!
//! A stream with limits retention is read from the log's own position; the server keeps nothing for us. Work-queue and interest
//! streams forget what was acknowledged, so there a durable consumer is acknowledged only after the events are durable.

mod batch;
mod config;
mod connect;
mod core;
mod core_exporter;
mod delivery;
mod durable;
mod error;
mod exporting;
mod jetstream_exporter;
mod positions;
mod pull;
mod rescue;
mod source;
mod stream;
mod subject;

pub use config::{
    JetStreamExporterOptions, NatsConnection, NatsExporterOptions, NatsReading, NatsSourceOptions, SignIn, log_mark,
};
pub use core_exporter::NatsExporter;
pub use jetstream_exporter::JetStreamExporter;
pub use source::NatsSource;
pub use subject::{check_literal, check_pattern};
