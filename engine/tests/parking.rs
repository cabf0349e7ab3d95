//! Dead letters of a route through crashes, bounds, refused commits and databases that went back (SEMANTICS 4).

mod support;

use std::time::Duration;

use gravity_connectors::memory::view::{Point, Scripted};
use gravity_engine::Engine;
use gravity_engine::status::RunState;
use gravity_model::{FaultKind, Value};
use support::{Rig, USERS, changed, eventually, in_step, post, route};

const PATCHES: &str = r#"{"rules": [
  {"event": "userPatched", "table": "users", "method": "patch", "mapping": [
     {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"}]},
  {"event": "userPatched", "table": "users", "method": "patch", "mapping": [
     {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "email"}]},
  {"event": "userChanged", "table": "users", "method": "update", "mapping": [
     {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"}]}]}"#;

fn patched(id: i64) -> String {
    format!(r#"{{"event":"userPatched","key":"{id}","payload":{{"id":{id},"name":"p"}}}}"#)
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn change(engine: &Engine, id: i64, name: &str) -> u64 {
    let last = post(engine, &changed(id, name)).await.last.expect("stored");
    in_step(engine, last).await;
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_event_is_not_parked_again_after_two_restarts() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let first = post(&engine, &changed(1, "bad")).await.last.expect("stored");
    in_step(&engine, first).await;
    rig.views.accept_all();
    rig.views.script(Point::Commit, Scripted::Hang);
    let asking = engine.clone();
    let asked = tokio::spawn(async move { asking.retry("db1", None, "op").await });
    pause(500).await;
    // The record of the release is durable, its transaction commits, and the process dies before the lazy end of the dead
    // letter is on disk.
    rig.memory_log().hold();
    rig.views.release();
    pause(200).await;
    rig.memory_log().fail_writes("killed");
    engine.shutdown().await;
    drop(asked);
    drop(engine);
    rig.log.lock().take();
    pause(100).await;
    for round in 1..=2 {
        let engine = rig.start().await;
        let last = post(&engine, &changed(1, &format!("new{round}"))).await.last.expect("stored");
        in_step(&engine, last).await;
        pause(2_500).await;
        let letters = engine.dead_letters(Some("db1")).await.expect("listed");
        assert!(letters.is_empty(), "restart {round}: {letters:?}");
        assert_eq!(rig.rows(), [format!("1 new{round} -")]);
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_balances_when_a_retry_is_redone() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    rig.views.refuse("users", "name", Value::Text("worse".into()));
    let engine = rig.start().await;
    let first = post(&engine, &changed(1, "bad")).await.last.expect("stored");
    in_step(&engine, first).await;
    let second = post(&engine, &changed(1, "worse")).await.last.expect("stored");
    in_step(&engine, second).await;
    rig.views.accept_all();
    rig.views.refuse("users", "name", Value::Text("worse".into()));
    rig.views.script(Point::Commit, Scripted::Fail(FaultKind::Transient));
    engine.retry("db1", Some(vec![first]), "op").await.expect("runs");
    rig.views.accept_all();
    let report = engine.retry("db1", Some(vec![second]), "op").await.expect("runs");
    in_step(&engine, report.record).await;
    assert_eq!(route(&engine.status()).parked, 0);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_of_a_missing_row_counts_the_same_alone_and_in_a_batch() {
    for bad in [false, true] {
        let rig = Rig::new(PATCHES);
        if bad {
            rig.views.refuse("users", "name", Value::Text("bad".into()));
        }
        let engine = rig.start().await;
        let last = post(&engine, &format!("[{},{}]", patched(9), changed(1, "bad"))).await.last.expect("stored");
        in_step(&engine, last).await;
        assert_eq!(route(&engine.status()).filtered, 1, "beside a refused event: {bad}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_at_max_parked_goes_on_after_a_skip() {
    let rig = Rig { max_parked: 2, ..Rig::new(USERS) };
    let engine = rig.start().await;
    let mut sequences = Vec::new();
    for id in 0..4 {
        let body = format!(r#"{{"event":"userChanged","payload":{{"id":{id},"name":7}}}}"#);
        sequences.push(post(&engine, &body).await.first.expect("stored"));
    }
    let stopped = || route(&engine.status()).state == RunState::Stopped;
    eventually(stopped, || format!("{:?}", engine.status())).await;
    let skip = engine.skip("db1", sequences[..2].to_vec(), "op");
    let skipped = tokio::time::timeout(Duration::from_secs(15), skip).await;
    assert!(matches!(skipped, Ok(Ok(_))), "`retry or skip some` is what the route's error asks for: {skipped:?}");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_refused_at_its_commit_is_parked_again_and_the_route_goes_on() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let failed = change(&engine, 1, "bad").await;
    let waits = change(&engine, 1, "later").await;
    rig.views.accept_all();
    // As a deferred constraint does: every statement is taken, the commit is not.
    rig.views.script(Point::Commit, Scripted::Fail(FaultKind::RefusedEvent));
    let report = engine.retry("db1", None, "op").await.expect("runs");
    assert_eq!((report.parked_again, report.released), (vec![failed], vec![]), "what waits behind it goes on waiting");
    in_step(&engine, report.record).await;
    assert!(rig.rows().is_empty());
    change(&engine, 2, "b").await;
    let report = engine.retry("db1", None, "op").await.expect("runs");
    assert_eq!(report.released, [failed, waits]);
    in_step(&engine, report.record).await;
    assert_eq!(rig.rows(), ["1 later -", "2 b -"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_a_database_that_went_back_has_its_dead_letters_again() {
    for restart in [false, true] {
        let rig = Rig::new(USERS);
        rig.views.refuse("users", "name", Value::Text("bad".into()));
        let engine = rig.start().await;
        let failed = change(&engine, 1, "bad").await;
        change(&engine, 2, "b").await;
        let backup = rig.views.backup();
        let waits = change(&engine, 1, "later").await;
        let report = engine.skip("db1", vec![failed], "op").await.expect("runs");
        assert_eq!((report.skipped, report.released), (vec![failed], vec![waits]));
        in_step(&engine, report.record).await;
        change(&engine, 3, "c").await;
        let (status, rows) = (engine.status(), rig.rows());
        // Long enough for what was released to leave live state.
        pause(2_500).await;
        let engine = if restart {
            engine.shutdown().await;
            rig.views.restore(&backup);
            rig.start().await
        } else {
            rig.views.restore(&backup);
            engine
        };
        let last = change(&engine, 4, "d").await;
        in_step(&engine, last).await;
        let (before, after) = (route(&status), engine.status());
        let after = route(&after);
        assert_eq!(
            (after.applied, after.skipped, after.parked),
            (before.applied + 1, before.skipped, before.parked),
            "restart: {restart}"
        );
        assert_eq!(rig.rows(), [&rows[..], &["4 d -".to_owned()]].concat());
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_stops_when_too_many_events_wait_and_goes_on_after_a_retry() {
    let rig = Rig { max_waiting_bytes: 10_000, ..Rig::new(USERS) };
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    change(&engine, 1, "bad").await;
    let body: Vec<String> = (0..100).map(|n| changed(1, &format!("n{n}"))).collect();
    let last = post(&engine, &format!("[{}]", body.join(","))).await.last.expect("stored");
    let stopped = || route(&engine.status()).state == RunState::Stopped;
    eventually(stopped, || format!("{:?}", engine.status())).await;
    let status = engine.status();
    assert!((10..100).contains(&route(&status).waiting), "{status:?}");
    assert!(route(&status).error.as_ref().is_some_and(|e| e.contains("route/max-waiting")), "{status:?}");
    rig.views.accept_all();
    let report = engine.retry("db1", None, "op").await.expect("runs");
    assert_eq!(report.released.len(), 101);
    in_step(&engine, last).await;
    assert_eq!(rig.rows(), ["1 n99 -"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_bound_what_comes_before_is_applied_and_a_decision_survives_a_restart() {
    let rig = Rig { max_parked: 1, ..Rig::new(USERS) };
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let body = [changed(1, "a"), changed(2, "bad"), changed(3, "c"), changed(4, "bad"), changed(5, "e")].join(",");
    let first = post(&engine, &format!("[{body}]")).await.first.expect("stored");
    let stopped = || route(&engine.status()).state == RunState::Stopped;
    eventually(stopped, || format!("{:?}", engine.status())).await;
    assert_eq!(rig.rows(), ["1 a -", "3 c -"]);
    assert_eq!(route(&engine.status()).checkpoint, first + 2);
    rig.views.script(Point::Open, Scripted::Fail(FaultKind::Disconnected));
    let asking = engine.clone();
    let asked = tokio::spawn(async move { asking.skip("db1", vec![first + 1], "op").await });
    pause(30).await;
    engine.shutdown().await;
    asked.abort();
    let engine = rig.start().await;
    in_step(&engine, first + 4).await;
    let status = engine.status();
    assert_eq!((route(&status).skipped, route(&status).failed), (1, 1), "{status:?}");
    assert_eq!(rig.rows(), ["1 a -", "3 c -", "5 e -"]);
    engine.shutdown().await;
}
