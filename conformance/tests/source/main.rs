//! The source port's contract over the memory double, real brokers, and what only one of them has.

mod kafka;
mod kafka_sign_in;
mod memory;
mod nats;
mod nats_core;
mod nats_queue;
mod nats_sign_in;
mod rabbitmq;
