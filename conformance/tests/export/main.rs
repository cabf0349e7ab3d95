//! The exporter port's contract over the memory double, real brokers and an HTTP endpoint, and what only one of
//! them has.

mod http;
mod jetstream;
mod kafka;
mod memory;
mod nats;
mod rabbitmq;
mod signing;
mod tls;
