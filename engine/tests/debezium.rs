//! Captured changes from a broker to rows: what a connector would send for a table comes out as that table.

mod support;

use std::collections::BTreeMap;

use gravity_connectors::memory::source::Published;
use gravity_engine::{Engine, Envelope, EnvelopeOptions, KeyFrom, NameFrom, Tombstone};
use support::{Rig, in_step, route};

const RULES: &str = r#"{"rules": [{"event": "users", "table": "users", "method": "upsert", "mapping": [
    {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"},
    {"source": "email", "target": "email"}]}]}"#;

const SOURCE: &str = r#""source":{"connector":"postgresql","schema":"public","table":"users","ts_ms":1500}"#;

async fn start(rig: &Rig, options: &EnvelopeOptions) -> Engine {
    let mut parts = rig.parts();
    parts.sources.iter_mut().filter(|s| s.name == "bus").for_each(|s| s.envelope = options.clone());
    Engine::start(parts).await.expect("the engine starts")
}

/// A table upstream, and what its connector sends.
struct Upstream<'r> {
    rig: &'r Rig,
    rows: BTreeMap<u64, (String, String)>,
    sent: u64,
    filtered: u64,
    unmatched: u64,
    state: u64,
    /// Transaction metadata goes to the same topic.
    has_transactions: bool,
    /// The protocol has neither keys nor null values: a header and an empty value stand for them.
    has_plain_messages: bool,
}

/// Header that carries the key where the protocol has none.
const KEY_HEADER: &str = "row-key";

impl Upstream<'_> {
    fn pick(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn send(&mut self, id: u64, headers: &[(&str, String)], payload: Option<String>) {
        let mut headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into_bytes())).collect();
        let (mut key, mut payload) = (Some(key(id).into_bytes()), payload.map(String::into_bytes));
        if self.has_plain_messages {
            headers.extend(key.take().map(|key| (KEY_HEADER.to_owned(), key)));
            payload.get_or_insert_default();
        }
        self.rig.broker.publish(0, Published { key, payload, headers, ..Published::default() });
        self.sent += 1;
    }

    fn change(&mut self, op: &str, id: u64, headers: &[(&str, String)], before: &str, after: &str) {
        let payload = format!(r#"{{"before":{before},"after":{after},{SOURCE},"op":"{op}","ts_ms":1600}}"#);
        self.send(id, headers, Some(payload));
    }

    fn row(&self, id: u64) -> String {
        let (name, email) = &self.rows[&id];
        format!(r#"{{"id":{id},"name":"{name}","email":"{email}"}}"#)
    }

    fn delete(&mut self, id: u64, headers: &[(&str, String)]) {
        self.change("d", id, headers, &key(id), "null");
        self.send(id, &[], None);
        self.filtered += 1;
    }

    fn step(&mut self, step: u64) {
        let id = self.pick(12);
        let fresh = (format!("n{step}"), format!("e{step}"));
        match (self.pick(20), self.rows.contains_key(&id)) {
            (0, _) => {
                self.rows.clear();
                self.change("t", id, &[], "null", "null");
            }
            (1, _) if self.has_transactions => {
                self.send(id, &[], Some(r#"{"status":"BEGIN","id":"5:7","data_collections":null}"#.to_owned()));
                self.unmatched += 1;
            }
            (2..=5, true) => {
                self.rows.remove(&id);
                self.delete(id, &[]);
            }
            (6..=9, true) => {
                let new = 100 + self.pick(12);
                if self.rows.contains_key(&new) {
                    return;
                }
                let row = self.rows.remove(&id).expect("it is there");
                self.rows.insert(new, (fresh.0, row.1));
                self.delete(id, &[("__debezium.newkey", key(new))]);
                self.filtered += 1;
                self.change("c", new, &[("__debezium.oldkey", key(id))], "null", &self.row(new));
            }
            (10..=12, true) => {
                // A large column that did not change does not travel.
                self.rows.get_mut(&id).expect("it is there").0 = fresh.0;
                let after = self.row(id).replace(&self.rows[&id].1, "__debezium_unavailable_value");
                self.change("u", id, &[], "null", &after);
            }
            (roll, there) => {
                self.rows.insert(id, fresh);
                let op = if there {
                    "u"
                } else if roll % 2 == 0 {
                    "r"
                } else {
                    "c"
                };
                self.change(op, id, &[], "null", &self.row(id));
            }
        }
    }

    fn table(&self) -> Vec<String> {
        self.rows.iter().map(|(id, (name, email))| format!("{id} {name} {email}")).collect()
    }
}

fn key(id: u64) -> String {
    format!(r#"{{"id":{id}}}"#)
}

/// Waits until everything that was sent is in the log and in the view; answers the last sequence.
async fn caught_up(engine: &Engine, sent: u64) {
    support::eventually(
        || engine.status().sources.iter().any(|s| s.name == "bus" && s.received >= sent),
        || format!("{:#?}", engine.status().sources),
    )
    .await;
    let last = engine.status().log.last;
    in_step(engine, last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_changes_becomes_the_table_it_came_from() {
    for (seed, envelope, tombstone, has_plain_messages) in [
        (1, Envelope::Debezium, Tombstone::Ignore, false),
        (2, Envelope::Debezium, Tombstone::Delete, false),
        (3, Envelope::Auto, Tombstone::Delete, false),
        (4, Envelope::Debezium, Tombstone::Ignore, true),
        (5, Envelope::Debezium, Tombstone::Delete, true),
    ] {
        let rig = Rig::new(RULES);
        let event_from = Some(NameFrom::Constant("users".to_owned()));
        let key_from = has_plain_messages.then(|| KeyFrom::Header(KEY_HEADER.to_owned()));
        let options = EnvelopeOptions { envelope, event_from, key_from, tombstone };
        let mut upstream = Upstream {
            rig: &rig,
            rows: BTreeMap::new(),
            sent: 0,
            filtered: 0,
            unmatched: 0,
            state: seed,
            has_transactions: envelope == Envelope::Debezium,
            has_plain_messages,
        };
        for half in 0..2 {
            let engine = start(&rig, &options).await;
            for step in 0..400 {
                upstream.step(half * 1_000 + step);
            }
            caught_up(&engine, upstream.sent).await;
            assert_eq!(rig.rows(), upstream.table(), "seed {seed}, half {half}");
            let status = engine.status();
            let route = route(&status);
            assert_eq!(route.parked, 0, "{route:#?}");
            assert_eq!(route.read, upstream.sent, "every message is an event");
            assert_eq!((route.filtered, route.unmatched), (upstream.filtered, upstream.unmatched));
            engine.shutdown().await;
        }
        assert!(upstream.filtered > 100, "deletes and key changes took part: {}", upstream.filtered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_trap10_tombstones_of_unknown_keys_and_deletes_of_missing_rows_count_as_applied() {
    let rig = Rig::new(RULES);
    let options = EnvelopeOptions {
        envelope: Envelope::Debezium,
        event_from: Some(NameFrom::Constant("users".to_owned())),
        tombstone: Tombstone::Delete,
        ..EnvelopeOptions::default()
    };
    let engine = start(&rig, &options).await;
    let mut upstream = Upstream {
        rig: &rig,
        rows: BTreeMap::new(),
        sent: 0,
        filtered: 0,
        unmatched: 0,
        state: 1,
        has_transactions: false,
        has_plain_messages: false,
    };
    upstream.send(1, &[], None);
    upstream.change("d", 2, &[], &key(2), "null");
    // The delete was compacted away, only its tombstone is left.
    upstream.rows.insert(3, ("n".to_owned(), "e".to_owned()));
    upstream.change("c", 3, &[], "null", &upstream.row(3));
    upstream.send(3, &[], None);
    // A producer's own header is not believed.
    let forged = [("gravity-change", "create".to_owned()), ("gravity-change", "truncate, method follows".to_owned())];
    upstream.change("c", 4, &forged, "null", r#"{"id":4,"name":"n","email":"e"}"#);
    caught_up(&engine, upstream.sent).await;
    assert_eq!(rig.rows(), ["4 n e"]);
    let status = engine.status();
    assert_eq!((route(&status).applied, route(&status).parked), (5, 0));
    let events = engine.events(0, 100).await.expect("listed");
    let stored = events.iter().rfind(|event| event.event == "users").expect("the last event");
    let marks: Vec<&str> =
        stored.headers.iter().filter(|(name, _)| name == "gravity-change").map(|(_, value)| value.as_str()).collect();
    assert_eq!(marks, ["create, method follows"]);
    engine.shutdown().await;
}
