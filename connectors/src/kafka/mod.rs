//! Apache Kafka: a source that reads as one consumer group for one log, and an exporter with an idempotent producer.
//!
//! The log is the authority on positions: every assignment begins where [`PositionBook`] stands, whatever was committed.
//!
//! [`PositionBook`]: gravity_model::port::source::PositionBook

mod assign;
mod chunk;
mod config;
mod context;
mod error;
mod exporter;
mod identity;
mod native;
mod open;
mod progress;
mod reader;
mod slots;
mod source;
mod tail;

pub use config::{
    KafkaConnection, KafkaExporterOptions, KafkaSourceOptions, check_setting, commit_metadata, forbidden_setting,
};
pub use exporter::KafkaExporter;
pub use source::KafkaSource;
