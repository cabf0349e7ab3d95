//! Gates on the whole engine: every source in, every database and exporter out, and processes killed on the way.

pub mod arms;
mod columns;
pub mod config;
mod documents;
pub mod engine;
pub mod feed;
pub mod fence;
pub mod gate;
mod ground;
pub mod journal;
pub mod judge;
pub mod nemesis;
pub mod oracle;
pub mod poison;
pub mod script;
pub mod single;
pub mod tables;
pub mod target;

/// What the gate itself runs on: little, so that the engine has the machine.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|error| format!("a runtime: {error}"))
}
