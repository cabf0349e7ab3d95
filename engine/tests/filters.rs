//! Filters through the whole engine: rows, counters and messages agree (SEMANTICS 2.1, 4.4, 5.1).

mod support;

use gravity_engine::Engine;
use support::{Rig, eventually, in_step, post, route};

/// Rows of adults only, messages of the old ones only; `ping` is only routed.
const RULES: &str = r#"{"rules": [
  {"event": "userChanged", "table": "users", "method": "update", "filter": "age >= 18", "mapping": [
     {"source": "id", "target": "id", "primary": true}, {"expression": "first + ' ' + last", "target": "name"},
     {"source": "email", "target": "email"}]},
  {"event": "userChanged", "database": "db1", "filter": "country != 'none'"},
  {"event": "userChanged", "database": "db1", "exporter": ["out"], "filter": "age >= 65"},
  {"event": "ping", "database": "db1", "exporter": ["out"], "filter": "loud"}]}"#;

fn user(id: i64, age: &str, country: &str) -> String {
    format!(
        r#"{{"event":"userChanged","key":"{id}","payload":{{"id":{id},"age":{age},"country":"{country}","first":"a","last":"b"}}}}"#
    )
}

async fn tell(engine: &Engine, body: &str) -> u64 {
    let last = post(engine, body).await.last.expect("stored");
    in_step(engine, last).await;
    last
}

fn counts(engine: &Engine) -> [u64; 4] {
    let status = engine.status();
    let route = route(&status);
    assert_eq!(route.read, route.applied + route.filtered + route.unmatched + route.parked + route.skipped);
    [route.applied, route.filtered, route.unmatched, route.parked]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_leaves_out_is_counted_filtered_and_not_told() {
    let rig = Rig::new(RULES);
    let engine = rig.start().await;
    tell(&engine, &user(1, "17", "tw")).await;
    assert_eq!(counts(&engine), [0, 1, 0, 0], "the projection's filter");
    tell(&engine, &user(2, "30", "tw")).await;
    assert_eq!(counts(&engine), [1, 1, 0, 0], "a row, and no message");
    let told = tell(&engine, &user(3, "70", "tw")).await;
    assert_eq!(counts(&engine), [2, 1, 0, 0]);
    let also = tell(&engine, &user(4, "80", "none")).await;
    assert_eq!(counts(&engine), [3, 1, 0, 0], "one routing holds, so the row goes");
    tell(&engine, &user(5, "30", "none")).await;
    assert_eq!(counts(&engine), [3, 2, 0, 0], "no routing holds, though the projection's own filter does");
    tell(&engine, r#"{"event":"ping","payload":{}}"#).await;
    assert_eq!(counts(&engine), [3, 3, 0, 0], "only routed, and its filter does not hold");
    let ping = tell(&engine, r#"{"event":"ping","payload":{"loud":true}}"#).await;
    assert_eq!(counts(&engine), [4, 3, 0, 0]);
    tell(&engine, r#"{"event":"other","payload":{}}"#).await;
    assert_eq!(counts(&engine), [4, 3, 1, 0]);
    assert_eq!(rig.told(), [told, also, ping]);
    assert_eq!(rig.rows(), ["2 a b -", "3 a b -", "4 a b -"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_type_parks_the_event_and_its_key_and_tells_nobody() {
    let rig = Rig::new(RULES);
    let engine = rig.start().await;
    let bad = post(&engine, &user(1, r#""old""#, "tw")).await.last.expect("stored");
    let waits = post(&engine, &user(1, "70", "tw")).await.last.expect("stored");
    let other = tell(&engine, &user(2, "70", "tw")).await;
    assert_eq!(counts(&engine), [1, 0, 0, 2], "{bad} failed, {waits} waits for its key");
    assert_eq!(rig.told(), [other]);
    engine.skip("db1", vec![bad], "op").await.expect("skipped");
    eventually(|| rig.told() == [other, waits], || format!("{:?}", rig.told())).await;
    assert_eq!(counts(&engine), [2, 0, 0, 0], "released, applied and told");
    let status = engine.status();
    assert_eq!(route(&status).skipped, 1);
    assert_eq!(rig.rows(), ["1 a b -", "2 a b -"]);
    engine.shutdown().await;
}
