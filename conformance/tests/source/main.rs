//! The source port's contract over the memory double and a real Kafka, and what only Kafka has.

mod kafka;
mod memory;
