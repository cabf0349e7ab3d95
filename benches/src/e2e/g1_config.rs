//! The config directory with which Gravity does workload G-1. The harness itself knows nothing of it: it is one of the commands
//! that an `e2e --command` template may call.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::table::Place;

#[derive(clap::Args)]
pub struct G1Config {
    /// Made if it is not there
    directory: PathBuf,
    /// HOST:PORT of Kafka
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    topic: String,
    /// postgres://USER[:PASSWORD]@HOST:PORT/DATABASE
    #[arg(long)]
    dsn: String,
    /// Lanes of the route
    #[arg(long, default_value_t = 1)]
    lanes: u16,
}

impl G1Config {
    pub fn run(self) -> Result<(), String> {
        let place = Place::parse(&self.dsn)?;
        std::fs::create_dir_all(&self.directory).map_err(|error| format!("{}: {error}", self.directory.display()))?;
        let mut database = json!({
            "type": "postgres", "host": place.host, "port": place.port, "username": place.user,
            "password": place.password, "dbName": place.database,
        });
        if self.lanes > 1 {
            database["lanes"] = json!(self.lanes);
        }
        // A group of its own: the last run's member is static, and the broker would wait for it until its session ends.
        let group = format!("{}-{}", self.topic, std::process::id());
        let sources = json!({"sources": {"orders": {
            "type": "kafka", "hosts": [self.brokers], "topics": [self.topic], "group": group,
            "envelope": "plain", "event_from": "field:/op",
        }}});
        write(&self.directory.join("sources.json"), &sources)?;
        write(&self.directory.join("databases.json"), &json!({"databases": {"view": database}}))?;
        write(&self.directory.join("rules.json"), &rules())
    }
}

/// A patch is the deck's `update` with few fields: it creates the row that is not there.
fn rules() -> Value {
    let same = |name: &str| json!({"source": name, "target": name});
    let id = || json!({"source": "id", "target": "id", "primary": true});
    let rule = |event: &str, method: &str, fields: &[&str]| {
        let mapping: Vec<Value> = std::iter::once(id()).chain(fields.iter().map(|name| same(name))).collect();
        json!({"event": event, "table": "orders", "method": method, "mapping": mapping})
    };
    let all = ["customer", "status", "note", "amount", "placed_at", "express", "details", "quantity"];
    json!({"rules": [
        rule("upsert", "update", &all),
        rule("patch", "update", &["status", "note", "quantity"]),
        rule("delete", "delete", &[]),
    ]})
}

fn write(path: &Path, value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
