//! Gates on the whole engine: Kafka and HTTP in, PostgreSQL and SQLite out, exporters, and processes killed on the way.

pub mod config;
pub mod engine;
pub mod feed;
pub mod journal;
pub mod oracle;
pub mod script;
pub mod target;
