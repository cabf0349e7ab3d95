//! Gates on the whole engine: Kafka and HTTP in, PostgreSQL and SQLite out, exporters, and processes killed on the way.

pub mod config;
pub mod engine;
pub mod feed;
pub mod gate;
mod ground;
pub mod journal;
pub mod judge;
pub mod oracle;
pub mod script;
pub mod single;
pub mod tables;
pub mod target;
