//! RabbitMQ (AMQP 0-9-1): a source over classic and quorum queues, and an exporter to an exchange.
//!
//! The broker has no positions: it forgets what is acknowledged and delivers the rest again. So a source acknowledges after the
//! events are durable, and says of each record how a repeat of it is known; what to do about repeats is the engine's.

mod config;
mod connect;
mod error;
mod exporter;
mod properties;
mod source;

pub use config::{PREFETCH, RabbitMqConnection, RabbitMqExporterOptions, RabbitMqSourceOptions};
pub use exporter::RabbitMqExporter;
pub use source::RabbitMqSource;
