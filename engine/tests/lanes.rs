//! Lanes: keys apart run beside each other, events over several lanes are barriers, counts stay exact, faults in one lane
//! leave the others right.

mod support;

use gravity_connectors::memory::view::{Point, Scripted};
use gravity_model::port::view::ViewStore;
use gravity_model::{ColumnType, FaultKind, Value};
use support::{Rig, USERS, changed, in_step, post, route, table};

/// `pairChanged` writes two users: usually of two lanes.
fn pairs() -> String {
    USERS.replace(
        r#"{"rules": ["#,
        r#"{"rules": [
          {"event": "pairChanged", "table": "users", "method": "update", "database": "db1", "mapping": [
             {"source": "a", "target": "id", "primary": true}, {"source": "name", "target": "name"}]},
          {"event": "pairChanged", "table": "users", "method": "update", "database": "db1", "mapping": [
             {"source": "b", "target": "id", "primary": true}, {"source": "name", "target": "name"}]},
          {"event": "allGone", "table": "users", "method": "truncate", "database": "db1"},"#,
    )
}

fn rig(lanes: u16) -> Rig {
    Rig { lanes, ..Rig::new(&pairs()) }
}

fn pair(a: i64, b: i64, name: &str) -> String {
    format!(r#"{{"event":"pairChanged","payload":{{"a":{a},"b":{b},"name":"{name}"}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_and_one_lane_give_the_same_view() {
    let mut results = Vec::new();
    for lanes in [1, 4] {
        let rig = rig(lanes);
        let engine = rig.start().await;
        let mut events = Vec::new();
        for i in 0..400_i64 {
            events.push(changed(i % 37, &format!("n{i}")));
            match i % 50 {
                7 => events.push(pair(i % 37, (i + 11) % 37, &format!("p{i}"))),
                13 => events.push(format!(r#"{{"event":"userDeleted","payload":{{"id":{}}}}}"#, i % 37)),
                29 => events.push(r#"{"event":"nobody","payload":{}}"#.to_owned()),
                31 if i > 200 => events.push(r#"{"event":"allGone","payload":{}}"#.to_owned()),
                _ => {}
            }
        }
        let last = post(&engine, &format!("[{}]", events.join(","))).await.last.expect("stored");
        in_step(&engine, last).await;
        let rows = rig.views.checkpoints("db1").await.expect("readable");
        assert_eq!(rows.len(), usize::from(lanes));
        assert!(rows.iter().all(|row| row.sequence == rows[0].sequence), "all lanes move for every batch");
        let status = engine.status();
        results.push((rig.rows(), route(&status).read, route(&status).applied, route(&status).unmatched));
        engine.shutdown().await;
    }
    assert_eq!(results[0], results[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_one_lane_leaves_it_behind_and_is_made_up_for() {
    let rig = rig(3);
    let engine = rig.start().await;
    let first = post(&engine, &changed(0, "a")).await.last.expect("stored");
    in_step(&engine, first).await;
    rig.views.script(Point::Commit, Scripted::FailAfter(FaultKind::Disconnected));
    rig.views.script(Point::Commit, Scripted::Fail(FaultKind::Disconnected));
    let events: Vec<String> = (0..300).map(|i| changed(i % 60, &format!("v{i}"))).collect();
    let last = post(&engine, &format!("[{}]", events.join(","))).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(rig.rows().len(), 60);
    assert!(rig.rows().contains(&"59 v299 -".to_owned()));
    assert_eq!(route(&engine.status()).applied, 301, "nothing is counted twice");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_lanes_changes_where_all_stand_together() {
    let mut rig = rig(1);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let bad = post(&engine, &changed(1, "bad")).await.last.expect("stored");
    in_step(&engine, bad).await;
    engine.shutdown().await;
    for lanes in [4, 2, 3, 1] {
        rig.lanes = lanes;
        let engine = rig.start().await;
        let last = post(&engine, &pair(1, 2, "waits")).await.last.expect("stored");
        in_step(&engine, last).await;
        assert_eq!(rig.views.checkpoints("db1").await.expect("readable").len(), usize::from(lanes));
        engine.shutdown().await;
    }
    rig.lanes = 4;
    rig.views.accept_all();
    let engine = rig.start().await;
    let report = engine.retry("db1", None, "op").await.expect("runs");
    assert_eq!((report.released.len(), report.parked_again.len()), (5, 0));
    in_step(&engine, report.record).await;
    assert_eq!(rig.rows(), ["1 waits -", "2 waits -"]);
    assert_eq!((route(&engine.status()).parked, route(&engine.status()).applied), (0, 5));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_joins_a_route_with_lanes() {
    let mut rig = rig(3);
    rig.views.put_table(table("names", &[("id", ColumnType::I64, true), ("name", ColumnType::Text, false)]));
    let engine = rig.start().await;
    let events: Vec<String> = (0..100).map(|i| changed(i, "a")).collect();
    let last = post(&engine, &format!("[{}]", events.join(","))).await.last.expect("stored");
    in_step(&engine, last).await;
    engine.shutdown().await;
    rig.rules = pairs().replace(
        r#"{"rules": ["#,
        r#"{"rules": [ {"event": "userChanged", "table": "names", "method": "update", "database": "db1", "mapping": [
             {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"}]},"#,
    );
    let engine = rig.start().await;
    for _ in 0..2_000 {
        if rig.views.checkpoints("db1/names").await.expect("readable").is_empty()
            && rig.views.rows("names").len() == 100
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let rows = rig.views.checkpoints("db1").await.expect("readable");
    assert_eq!(rows.iter().map(|r| r.epoch.0).collect::<Vec<_>>(), [2, 2, 2]);
    let last = post(&engine, &changed(200, "b")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(rig.views.rows("names").len(), 101);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o26_nothing_of_another_event_in_a_row_or_a_message_over_eight_lanes() {
    const EVENTS: i64 = 16_000;
    let rig = rig(8);
    let engine = rig.start().await;
    let event = |id: i64| match id % 2 {
        0 => format!(r#"{{"event":"userChanged","payload":{{"id":{id},"name":"n","email":"{id}@x"}}}}"#),
        _ => changed(id, "n"),
    };
    let mut last = 0;
    for first in (0..EVENTS).step_by(4_000) {
        let events: Vec<String> = (first..first + 4_000).map(event).collect();
        last = post(&engine, &format!("[{}]", events.join(","))).await.last.expect("stored");
    }
    in_step(&engine, last).await;
    let rows = rig.rows();
    assert_eq!(rows.len() as i64, EVENTS);
    for row in &rows {
        let id = row.split(' ').next().expect("an id");
        let even = id.ends_with(['0', '2', '4', '6', '8']);
        assert_eq!(*row, if even { format!("{id} n {id}@x") } else { format!("{id} n -") });
    }
    let told = rig.target.arrived();
    assert_eq!(told.len() as i64, EVENTS);
    for message in &told {
        let body = String::from_utf8_lossy(&message.body);
        let id = body.split(r#""id":"#).last().and_then(|rest| rest.split([',', '}']).next()).expect("an id");
        let want = if id.ends_with(['0', '2', '4', '6', '8']) { 1 } else { 0 };
        assert_eq!(body.matches("email").count(), want, "{body}");
        assert_eq!(body.matches(&format!("{id}@x")).count(), want, "{body}");
    }
    engine.shutdown().await;
}
