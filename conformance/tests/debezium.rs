//! Debezium's change events, through every kind of source, become the tables that they came from, as `psql` and `sqlite3` see it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gravity_conformance::blackbox::door::Door;
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::server::Database;
use gravity_conformance::blackbox::tools::sqlite;
use serde_json::json;

/// Connect's schema of a row, as the JSON converter sends it.
const FIELDS: &str = r#"{"type":"int64","optional":false,"field":"id"},{"type":"string","optional":true,"field":"name"},
 {"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,
  "parameters":{"scale":"2","connect.decimal.precision":"20"},"field":"price"},
 {"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1,"field":"changed"},
 {"type":"string","optional":true,"name":"io.debezium.data.Json","version":1,"field":"tags"}"#;

/// `(bytes in base64, digits)` of prices with two digits behind the point.
const PRICES: [(&str, &str); 4] =
    [("MDk=", "123.45"), ("+w==", "-0.05"), ("fwAAAAAAAAA=", "91513144428168478.72"), ("AA==", "0.00")];

struct Row {
    name: String,
    price: usize,
    changed: i64,
}

/// How a row's key travels, without which nothing can say that a row is gone but the delete itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// As Kafka's message key; behind a delete comes a null value.
    OfMessages,
    /// In a header; behind a delete comes an empty message.
    InHeader,
    /// Not at all, and null values are dropped, as Debezium's own server does to NATS and HTTP.
    Dropped,
}

/// The table upstream and what its connector sends: rows that begin with their schema, what happens to them later without.
struct Upstream {
    door: Door,
    keys: Keys,
    /// Address of the engine, for the way in that is its own.
    engine: String,
    rows: BTreeMap<u64, Row>,
    sent: u64,
    filtered: u64,
}

impl Upstream {
    /// A row whose values a schema explains.
    fn image(&self, id: u64) -> String {
        let Row { name, price, changed } = &self.rows[&id];
        let price = PRICES[*price].0;
        format!(
            r#"{{"id":{id},"name":"{name}","price":"{price}","changed":{changed},"tags":"{{\"n\": [{id}, 1.10]}}"}}"#
        )
    }

    /// The same in words that need none, as `decimal.handling.mode` and `time.precision.mode` ask for. What did not change and
    /// is large does not travel.
    fn image_in_words(&self, id: u64) -> String {
        let Row { name, price, .. } = &self.rows[&id];
        let price = PRICES[*price].1;
        format!(
            r#"{{"id":{id},"name":"{name}","price":"{price}","changed":"2024-03-15T12:30:45.123456","tags":"__debezium_unavailable_value"}}"#
        )
    }

    fn key(id: u64) -> String {
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"type":"int64","optional":false,"field":"id"}}],"optional":false,"name":"shop.Key"}},"payload":{{"id":{id}}}}}"#
        )
    }

    fn send(&mut self, id: u64, header: Option<(&str, String)>, value: Option<String>) {
        let key = Self::key(id);
        let mut headers: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let key = match self.keys {
            Keys::OfMessages => Some(key.as_str()),
            Keys::InHeader => {
                headers.push(("row-key", key.as_str()));
                None
            }
            Keys::Dropped if value.is_none() => return,
            Keys::Dropped => None,
        };
        // To a URL Debezium's own server sends headers like this.
        let prefixed: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| (format!("X-DEBEZIUM-{}", name.to_uppercase()), BASE64.encode(value)))
            .collect();
        if !self.door.keeps() {
            headers = prefixed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        }
        self.door.publish(&self.engine, key, &headers, value.as_deref());
        self.sent += 1;
    }

    fn change(&mut self, op: &str, id: u64, header: Option<(&str, String)>, before: &str, after: &str) {
        let row = |field: &str| {
            format!(r#"{{"type":"struct","fields":[{FIELDS}],"optional":true,"name":"shop.Value","field":"{field}"}}"#)
        };
        let payload = format!(
            r#"{{"before":{before},"after":{after},"source":{{"version":"3.0.8.Final","connector":"postgresql",
            "name":"shop","ts_ms":1710505845123,"snapshot":"false","db":"shop","schema":"public","table":"products",
            "txId":555,"lsn":24023128,"xmin":null}},"transaction":null,"op":"{op}","ts_ms":1710505845200}}"#
        );
        let (before, after) = (row("before"), row("after"));
        let value = match op {
            "c" | "r" => format!(
                r#"{{"schema":{{"type":"struct","fields":[{before},{after}],"optional":false,"name":"shop.Envelope",
                "version":2}},"payload":{payload}}}"#
            ),
            _ => payload,
        };
        self.send(id, header, Some(value));
    }

    fn write(&mut self, op: &str, id: u64, name: &str) {
        let count = self.sent as usize;
        self.rows
            .insert(id, Row { name: name.to_owned(), price: count % PRICES.len(), changed: 1_710_505_845_123_456 });
        let after = if op == "u" { self.image_in_words(id) } else { self.image(id) };
        self.change(op, id, None, "null", &after);
    }

    fn delete(&mut self, id: u64, header: Option<(&str, String)>) {
        self.change(
            "d",
            id,
            header,
            &format!(r#"{{"id":{id},"name":null,"price":null,"changed":null,"tags":null}}"#),
            "null",
        );
        self.tombstone(id);
        self.filtered += u64::from(self.keys != Keys::Dropped);
    }

    /// What stands behind a delete, and what a compacted topic has left of it.
    fn tombstone(&mut self, id: u64) {
        self.send(id, None, None);
    }

    fn remove(&mut self, id: u64) {
        self.rows.remove(&id);
        self.delete(id, None);
    }

    fn change_key(&mut self, old: u64, new: u64) {
        let row = self.rows.remove(&old).expect("a row");
        self.rows.insert(new, row);
        self.delete(old, Some(("__debezium.newkey", format!("{{\"id\":{new}}}"))));
        self.filtered += 1;
        self.change("c", new, Some(("__debezium.oldkey", format!("{{\"id\":{old}}}"))), "null", &self.image(new));
    }

    /// Rows as both tools print them.
    fn table(&self) -> String {
        let row = |(id, row): (&u64, &Row)| {
            format!("{id}|{}|{}|2024-03-15 12:30:45.123456|{id}", row.name, PRICES[row.price].1)
        };
        self.rows.iter().map(row).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn a_topic_of_changes_becomes_the_tables_they_came_from() {
    become_the_tables_they_came_from(Door::kafka(), Keys::OfMessages);
}

#[test]
fn a_stream_of_changes_without_keys_becomes_the_tables_they_came_from() {
    become_the_tables_they_came_from(Door::nats(), Keys::Dropped);
}

#[test]
fn a_queue_of_changes_with_keys_in_headers_becomes_the_tables_they_came_from() {
    become_the_tables_they_came_from(Door::rabbitmq(), Keys::InHeader);
}

#[test]
fn changes_over_http_become_the_tables_they_came_from() {
    become_the_tables_they_came_from(Door::http(), Keys::Dropped);
}

fn become_the_tables_they_came_from(door: Option<Door>, keys: Keys) {
    let (Some(door), Some(database)) = (door, Database::create()) else { return };
    database.psql(
        "CREATE TABLE products (id bigint PRIMARY KEY, name text, price numeric(20,2), changed timestamp, tags jsonb, own text DEFAULT 'kept')",
    );
    let folder = Folder::new(&[]);
    let mapping = json!([
        {"source": "id", "target": "id", "type": "i64", "primary": true},
        {"source": "name", "target": "name", "type": "text"},
        {"source": "price", "target": "price", "type": "decimal(20,2)"},
        {"source": "changed", "target": "changed", "type": "timestamp"},
        {"source": "tags", "target": "tags", "type": "json"}
    ]);
    let rule = |database: &str| json!({"event": "products", "table": "products", "method": "upsert", "database": database, "mapping": mapping});
    folder.write_json("rules.json", &json!({"rules": [rule("pg"), rule("lite")]}));
    folder.write_json(
        "databases.json",
        &json!({"databases": {
            "pg": database.entry(),
            "lite": {"type": "sqlite", "path": "views.db", "ddl": "create"}}}),
    );
    let mut source = door.source();
    (source["envelope"], source["event_name"]) = (json!("debezium"), json!("products"));
    match keys {
        Keys::OfMessages => source["tombstone"] = json!("delete"),
        Keys::InHeader => {
            (source["key_from"], source["tombstone"]) = (json!("header:row-key"), json!("delete"));
        }
        Keys::Dropped => source["key_from"] = json!("field:/id"),
    }
    folder.write_json("sources.json", &json!({"sources": {"shop": source}}));
    let engine = Engine::start(&folder);
    let mut shop = Upstream { door, keys, engine: engine.url.clone(), rows: BTreeMap::new(), sent: 0, filtered: 0 };
    for id in 1..=6 {
        shop.write(if id % 2 == 0 { "r" } else { "c" }, id, &format!("n{id}"));
    }
    shop.write("u", 2, "two");
    shop.remove(3);
    shop.remove(4);
    shop.write("c", 4, "again");
    // A column that only the view has survives the change of the key.
    let settled = |engine: &Engine, shop: &Upstream| {
        for route in ["pg", "lite"] {
            let route = engine.in_step(route, shop.sent);
            assert_eq!((&route["parked"], &route["filtered"]), (&json!(0), &json!(shop.filtered)), "{route}");
        }
        let timestamp = "to_char(changed, 'YYYY-MM-DD HH24:MI:SS.US')";
        let columns = format!("SELECT id, name, price, {timestamp}, tags->'n'->>0 FROM products ORDER BY id");
        assert_eq!(database.psql(&columns), shop.table());
        // SQLite keeps decimals as text in their shortest form.
        let columns = "SELECT id, name, printf('%s', price), replace(changed, 'T', ' '), json_extract(tags, '$.n[0]') FROM products ORDER BY id";
        let short = |line: &str| {
            let mut cells: Vec<String> = line.split('|').map(str::to_owned).collect();
            if cells[2].contains('.') {
                cells[2] = cells[2].trim_end_matches('0').trim_end_matches('.').to_owned();
            }
            cells.join("|")
        };
        let lines = |text: &str| text.lines().map(short).collect::<Vec<_>>();
        assert_eq!(lines(&sqlite(folder.at("views.db"), columns)), lines(&shop.table()));
    };
    settled(&engine, &shop);
    database.psql("UPDATE products SET own = 'mine' WHERE id = 5");
    shop.change_key(5, 50);
    shop.change_key(50, 51);
    if keys == Keys::Dropped {
        // An empty message names no row: it is counted, and nothing is gone.
        let Upstream { door, engine, .. } = &shop;
        door.publish(engine, None, &[], None);
        shop.sent += 1;
        shop.filtered += 1;
    } else {
        // After compaction nothing is left of a delete but its tombstone.
        shop.rows.remove(&6);
        shop.tombstone(6);
    }
    settled(&engine, &shop);
    assert_eq!(database.psql("SELECT own FROM products WHERE id = 51"), "mine");
    // The same after a crash, from the log's own position.
    engine.kill();
    let away = shop.door.keeps();
    if away {
        shop.write("u", 51, "moved");
        shop.remove(1);
    }
    let engine = Engine::start(&folder);
    shop.engine.clone_from(&engine.url);
    if !away {
        shop.write("u", 51, "moved");
        shop.remove(1);
    }
    settled(&engine, &shop);
    shop.rows.clear();
    shop.change("t", 0, None, "null", "null");
    settled(&engine, &shop);
    assert_identity(&engine.status());
    engine.stop();
}
