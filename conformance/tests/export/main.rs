//! The exporter port's contract over the memory double, a real Kafka and an HTTP endpoint, and what only one of them has.

mod http;
mod kafka;
mod memory;
mod tls;
