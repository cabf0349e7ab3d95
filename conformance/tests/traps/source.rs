//! Two partitions that count alike, and a capture whose changes all carry one position, through kills (O8, O12, O13).

use gravity_conformance::blackbox::broker::create_topic;
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::server::unique;
use gravity_conformance::blackbox::tools::sqlite;
use gravity_conformance::blackbox::{eventually, kafka};
use gravity_conformance::kafka_rig::{client, send_all};
use gravity_conformance::source_suite::Published;
use serde_json::{Value, json};

use crate::target::ROUTE;

fn publish(hosts: &str, topic: &str, partition: u32, messages: Vec<Published>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let producer = client(hosts).create().expect("a producer");
    runtime.block_on(send_all(&producer, topic, partition, messages));
}

fn message(key: u64, payload: String) -> Published {
    Published {
        key: Some(format!(r#"{{"id":{key}}}"#).into_bytes()),
        payload: Some(payload.into_bytes()),
        ..Published::default()
    }
}

/// `rows(id, n)` in one SQLite file, filled from this topic.
fn config(hosts: &str, topic: &str, more: &Value) -> Folder {
    let mut source = json!({"type": "kafka", "hosts": [hosts], "topics": [topic], "group": topic});
    for (key, value) in more.as_object().expect("keys") {
        source[key] = value.clone();
    }
    let folder = crate::target::config_of(
        &json!({"type": "sqlite", "path": "views.db", "ddl": "create"}),
        &[crate::target::rule("changed", "rows", "update", &[("id", "i64"), ("n", "i64")], 1)],
    );
    folder.write_json("sources.json", &json!({"sources": {"bus": source}}));
    folder
}

/// Reads on through kills until all are there; each is in the log once.
fn taken_through_kills(folder: &Folder, all: u64, kills: u64) {
    for kill in 1..=kills {
        let engine = Engine::start(folder);
        eventually(|| engine.route(ROUTE), |r| r["read"].as_u64() >= Some(all * kill / (kills + 2)));
        engine.kill();
    }
    let engine = Engine::start(folder);
    let route = engine.in_step(ROUTE, all);
    assert_eq!((&route["parked"], &route["applied"]), (&json!(0), &json!(all)), "{route}");
    assert_identity(&engine.status());
    let lines = engine.ask(&["log", "export"]).expect(0).out;
    let of = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["event"].clone();
    assert_eq!(lines.lines().filter(|line| of(line) == "changed").count() as u64, all, "in the log once each");
    engine.stop();
}

#[test]
fn o8_equal_offsets_of_two_partitions_are_two_events() {
    let Some(hosts) = kafka() else { return };
    let topic = unique("offsets");
    create_topic(&hosts, &topic, 2, &[]);
    for partition in 0..2_u32 {
        let one = |n: u64| {
            let id = u64::from(partition) * 1_000 + n;
            message(id, format!(r#"{{"event":"changed","payload":{{"id":{id},"n":{n}}}}}"#))
        };
        publish(&hosts, &topic, partition, (0..300).map(one).collect());
    }
    let folder = config(&hosts, &topic, &json!({}));
    taken_through_kills(&folder, 600, 3);
    assert_eq!(sqlite(folder.path().join("views.db"), "SELECT count(*), sum(n) FROM rows"), "600|89700");
}

/// What one bulk statement changed comes with one position of the captured database: the broker's own tells the changes apart.
#[test]
fn o12_o13_ten_thousand_changes_of_one_source_position() {
    let Some(hosts) = kafka() else { return };
    let topic = unique("bulk");
    create_topic(&hosts, &topic, 1, &[]);
    let one = |n: u64| {
        let id = n % 5_000;
        message(
            id,
            format!(
                r#"{{"before":null,"after":{{"id":{id},"n":{n}}},"source":{{"connector":"postgresql","db":"shop","schema":"public","table":"changed","txId":7,"lsn":24023128,"ts_ms":1500}},"op":"u","ts_ms":1600}}"#
            ),
        )
    };
    publish(&hosts, &topic, 0, (0..10_000).map(one).collect());
    let folder = config(&hosts, &topic, &json!({"envelope": "debezium", "event_name": "changed"}));
    taken_through_kills(&folder, 10_000, 2);
    let found = sqlite(folder.path().join("views.db"), "SELECT count(*), min(n), max(n), min(n - id) FROM rows");
    assert_eq!(found, "5000|5000|9999|5000", "the last change of each row");
}
