//! Config directories of these scenarios.

use gravity_conformance::blackbox::folder::Folder;
use serde_json::{Value, json};

/// `userSaved` with `id` and `name` into table `users` of each of these databases, made on demand.
pub fn users_in(databases: &[(&str, Value)]) -> Folder {
    let folder = Folder::new(&[]);
    let entries: serde_json::Map<String, Value> = databases
        .iter()
        .map(|(name, entry)| {
            let mut entry = entry.clone();
            entry["ddl"] = json!("create");
            ((*name).to_owned(), entry)
        })
        .collect();
    folder.write_json("databases.json", &json!({"databases": entries}));
    let mut rules = vec![projection("userSaved", "users")];
    rules.extend(databases.iter().map(|(name, _)| json!({"event": "userSaved", "database": name})));
    folder.write_json("rules.json", &json!({"rules": rules}));
    folder
}

pub fn projection(event: &str, table: &str) -> Value {
    json!({"event": event, "table": table, "method": "update", "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true},
        {"source": "name", "target": "name", "type": "text"},
    ]})
}

/// One SQLite file beside the config.
pub fn sqlite_entry(name: &str) -> Value {
    json!({"type": "sqlite", "path": format!("{name}.db")})
}

/// One SQLite database `db1`.
pub fn plain() -> Folder {
    users_in(&[("db1", sqlite_entry("db1"))])
}

pub fn saved(id: u64) -> String {
    format!(r#"{{"event": "userSaved", "payload": {{"id": {id}, "name": "n{id}"}}}}"#)
}

/// A batch of these ids.
pub fn batch(ids: std::ops::Range<u64>) -> String {
    format!("[{}]", ids.map(saved).collect::<Vec<_>>().join(","))
}
