//! The source port's contract over the memory double, a real Kafka and a real NATS, and what only one of them has.

mod kafka;
mod memory;
mod nats;
mod nats_core;
mod nats_queue;
mod nats_sign_in;
