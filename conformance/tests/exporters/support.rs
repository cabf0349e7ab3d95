//! One SQLite view, HTTP endpoints, and events whose number and key their body tells.

use std::sync::Arc;

use gravity_conformance::blackbox::tools::sqlite;
use gravity_conformance::engine_rig::EngineRig;
use gravity_conformance::local_http::{LocalHttp, Request};
use gravity_connectors::http::{HttpExporter, HttpExporterOptions};
use gravity_connectors::sqlite::{SqliteOptions, SqliteViews};
use gravity_model::port::export::Exporter;
use gravity_rules::DatabaseKind;
use serde_json::{Value, json};

/// A view `items` in a file of its own, and who is told of it.
pub struct Scene {
    folder: tempfile::TempDir,
    pub rig: EngineRig,
}

impl Scene {
    pub fn new(exporters: Vec<(&'static str, Arc<dyn Exporter>, bool)>) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteViews::new(SqliteOptions::new(folder.path().join("views.db"))).expect("options");
        let names: Vec<&str> = exporters.iter().map(|(name, ..)| *name).collect();
        let rules = json!({"rules": [
            {"event": "itemSaved", "table": "items", "method": "update", "mapping": [
                {"source": "n", "target": "n", "type": "i64", "primary": true},
                {"source": "key", "target": "key", "type": "text"}]},
            {"event": "itemSaved", "database": "db1", "exporter": names}]});
        let mut rig = EngineRig::new(DatabaseKind::Sqlite, Arc::new(store), rules.to_string());
        rig.exporters = exporters;
        Scene { folder, rig }
    }

    /// How many rows the view has, by its own client.
    pub fn rows(&self) -> String {
        sqlite(self.folder.path().join("views.db"), "SELECT count(*) FROM items")
    }
}

pub fn endpoint(server: &LocalHttp) -> Arc<dyn Exporter> {
    let options = HttpExporterOptions { url: server.url(), ..HttpExporterOptions::default() };
    Arc::new(HttpExporter::new("hook", &options).expect("options"))
}

/// Item `n` under an event key.
pub fn item(n: u64, key: &str) -> String {
    json!({"event": "itemSaved", "key": key, "payload": {"n": n, "key": key}}).to_string()
}

pub fn batch(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

/// The number in a request's body.
pub fn number(request: &Request) -> u64 {
    let body: Value = serde_json::from_slice(&request.body).expect("the payload");
    body["n"].as_u64().expect("a number")
}

/// The numbers of all messages that an endpoint accepted, in order.
pub fn accepted(server: &LocalHttp) -> Vec<u64> {
    server.accepted().iter().filter(|request| request.method == "POST").map(number).collect()
}

/// The numbers of all messages that arrived, taken or not, in order.
pub fn posted(server: &LocalHttp) -> Vec<u64> {
    server.requests().iter().filter(|request| request.method == "POST").map(number).collect()
}
