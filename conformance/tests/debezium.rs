//! A topic of Debezium's change events, published by `kcat`, becomes the tables that they came from, as `psql` and `sqlite3` see it.

use std::collections::BTreeMap;

use gravity_conformance::blackbox::broker::create_topic;
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::kafka;
use gravity_conformance::blackbox::server::{Database, unique};
use gravity_conformance::blackbox::tools::{kcat_publish, sqlite};
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

/// The table upstream and what its connector sends, with and without schema by turns.
struct Upstream {
    hosts: String,
    topic: String,
    rows: BTreeMap<u64, Row>,
    sent: u64,
    filtered: u64,
}

impl Upstream {
    fn image(&self, id: u64) -> String {
        let Row { name, price, changed } = &self.rows[&id];
        let price = PRICES[*price].0;
        format!(
            r#"{{"id":{id},"name":"{name}","price":"{price}","changed":{changed},"tags":"{{\"n\": [{id}, 1.10]}}"}}"#
        )
    }

    fn key(id: u64) -> String {
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"type":"int64","optional":false,"field":"id"}}],"optional":false,"name":"shop.Key"}},"payload":{{"id":{id}}}}}"#
        )
    }

    fn send(&mut self, id: u64, header: Option<String>, value: Option<String>) {
        let headers: Vec<&str> = header.as_deref().into_iter().collect();
        kcat_publish(&self.hosts, &self.topic, Some(&Self::key(id)), &headers, value.as_deref().map(str::as_bytes));
        self.sent += 1;
    }

    fn change(&mut self, op: &str, id: u64, header: Option<String>, before: &str, after: &str) {
        let row = |field: &str| {
            format!(r#"{{"type":"struct","fields":[{FIELDS}],"optional":true,"name":"shop.Value","field":"{field}"}}"#)
        };
        let value = format!(
            r#"{{"schema":{{"type":"struct","fields":[{},{}],"optional":false,"name":"shop.Envelope","version":2}},
            "payload":{{"before":{before},"after":{after},"source":{{"version":"3.0.8.Final","connector":"postgresql",
            "name":"shop","ts_ms":1710505845123,"snapshot":"false","db":"shop","schema":"public","table":"products",
            "txId":555,"lsn":24023128,"xmin":null}},"transaction":null,"op":"{op}","ts_ms":1710505845200}}}}"#,
            row("before"),
            row("after")
        );
        self.send(id, header, Some(value));
    }

    fn write(&mut self, op: &str, id: u64, name: &str) {
        let count = self.sent as usize;
        self.rows
            .insert(id, Row { name: name.to_owned(), price: count % PRICES.len(), changed: 1_710_505_845_123_456 });
        self.change(op, id, None, "null", &self.image(id));
    }

    fn delete(&mut self, id: u64, header: Option<String>) {
        self.change(
            "d",
            id,
            header,
            &format!(r#"{{"id":{id},"name":null,"price":null,"changed":null,"tags":null}}"#),
            "null",
        );
        self.send(id, None, None);
        self.filtered += 1;
    }

    fn remove(&mut self, id: u64) {
        self.rows.remove(&id);
        self.delete(id, None);
    }

    fn change_key(&mut self, old: u64, new: u64) {
        let row = self.rows.remove(&old).expect("a row");
        self.rows.insert(new, row);
        self.delete(old, Some(format!("__debezium.newkey={{\"id\":{new}}}")));
        self.filtered += 1;
        self.change("c", new, Some(format!("__debezium.oldkey={{\"id\":{old}}}")), "null", &self.image(new));
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
    let (Some(hosts), Some(database)) = (kafka(), Database::create()) else { return };
    let topic = unique("shop.public.products");
    create_topic(&hosts, &topic, 1, &[]);
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
    folder.write_json(
        "sources.json",
        &json!({"sources": {"shop": {"type": "kafka", "hosts": [hosts], "topics": [topic], "group": topic,
            "envelope": "debezium", "event_name": "products", "tombstone": "delete"}}}),
    );
    let engine = Engine::start(&folder);
    let mut shop = Upstream { hosts, topic, rows: BTreeMap::new(), sent: 0, filtered: 0 };
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
    // After compaction nothing is left of a delete but its tombstone.
    shop.rows.remove(&6);
    shop.send(6, None, None);
    settled(&engine, &shop);
    assert_eq!(database.psql("SELECT own FROM products WHERE id = 51"), "mine");
    // The same after a crash, from the log's own position.
    engine.kill();
    shop.write("u", 51, "moved");
    shop.remove(1);
    let engine = Engine::start(&folder);
    settled(&engine, &shop);
    shop.rows.clear();
    shop.change("t", 0, None, "null", "null");
    settled(&engine, &shop);
    assert_identity(&engine.status());
    engine.stop();
}
