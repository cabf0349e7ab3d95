//! The exporter port's contract over the memory double, a real Kafka, a real NATS and an HTTP endpoint, and what only one of
//! them has.

mod http;
mod jetstream;
mod kafka;
mod memory;
mod nats;
mod tls;
