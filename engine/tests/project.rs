//! Routes over doubles: order, parking, retry, skip, unknown commits, the identity of P4.

mod support;

use gravity_connectors::memory::view::{Point, Scripted};
use gravity_model::{FaultKind, Value};
use support::{Rig, USERS, changed, eventually, in_step, post, route};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_becomes_a_row_and_then_a_message() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let answer = post(&engine, &changed(1, "Fred")).await;
    let sequence = answer.last.expect("stored");
    in_step(&engine, sequence).await;
    assert_eq!(rig.rows(), ["1 Fred -"]);
    assert_eq!(rig.told(), [sequence]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_update_keeps_other_columns_and_null_is_not_absent() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    post(&engine, r#"{"event":"userChanged","payload":{"id":1,"name":"a","email":"e"}}"#).await;
    post(&engine, r#"{"event":"userChanged","payload":{"id":1,"name":"b"}}"#).await;
    let last = post(&engine, r#"{"event":"userChanged","payload":{"id":2,"name":null,"email":"x"}}"#).await;
    in_step(&engine, last.last.expect("stored")).await;
    assert_eq!(rig.rows(), ["1 b e", "2 - x"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o29_one_refused_row_parks_alone_and_its_key_waits() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let mut lines: Vec<String> = (0..500).map(|i| changed(i, "ok")).collect();
    lines[250] = changed(250, "bad");
    let body = format!("[{}]", lines.join(","));
    let first = post(&engine, &body).await.first.expect("stored");
    in_step(&engine, first + 499).await;
    // In a transaction of its own: within one, "bad" would coalesce away under "later", and count as applied.
    let last = post(&engine, &changed(250, "later")).await.last.expect("stored");
    in_step(&engine, last).await;
    let status = engine.status();
    assert_eq!((route(&status).applied, route(&status).failed, route(&status).waiting), (499, 1, 1));
    assert!(!rig.rows().iter().any(|row| row.starts_with("250 ")));
    let letters = engine.dead_letters(Some("db1")).await.expect("listed");
    assert_eq!(
        letters.iter().map(|l| (l.sequence, l.waiting)).collect::<Vec<_>>(),
        [(first + 250, false), (last, true)]
    );
    assert!(!rig.told().contains(&(first + 250)), "a parked event is not told");

    let report = engine.skip("db1", vec![first + 250], "op").await.expect("skipped");
    assert_eq!((report.skipped, report.released), (vec![first + 250], vec![last]));
    assert!(rig.rows().contains(&"250 later -".to_owned()), "what waited runs");
    in_step(&engine, report.record).await;
    let told = rig.told();
    assert!(told.contains(&last) && !told.contains(&(first + 250)), "skipped: no message, waited: one");
    let status = engine.status();
    assert_eq!((route(&status).parked, route(&status).skipped), (0, 1));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_takes_effect_in_order_and_tells_then() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let first = post(&engine, &changed(1, "bad")).await.first.expect("stored");
    in_step(&engine, first).await;
    let second = post(&engine, &changed(1, "good")).await.first.expect("stored");
    in_step(&engine, second).await;
    let again = engine.retry("db1", None, "op").await.expect("runs");
    assert_eq!((again.parked_again.clone(), again.released.len()), (vec![first], 0), "still refused");
    rig.views.accept_all();
    let report = engine.retry("db1", Some(vec![first]), "op").await.expect("runs");
    assert_eq!(report.released, [first, second]);
    in_step(&engine, report.record).await;
    assert_eq!(rig.rows(), ["1 good -"]);
    assert_eq!(rig.told(), [first, second]);
    let effects: Vec<_> =
        rig.target.arrived().iter().map(|m| m.headers.iter().any(|(n, _)| n.ends_with("effectsequence"))).collect();
    assert_eq!(effects, [true, true]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn park_records_survive_a_restart_and_bind() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let bad =
        post(&engine, r#"{"event":"userChanged","key":"1","payload":{"id":1,"name":7}}"#).await.first.expect("stored");
    let waits = post(&engine, &changed(1, "x")).await.first.expect("stored");
    in_step(&engine, waits).await;
    engine.shutdown().await;
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "y")).await.first.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(rig.rows().len(), 0);
    let letters = engine.dead_letters(None).await.expect("listed");
    assert_eq!(
        letters.iter().map(|l| (l.sequence, l.waiting)).collect::<Vec<_>>(),
        [(bad, false), (waits, true), (last, true)]
    );
    assert_eq!(letters[0].stage, "map");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_trap8_an_unknown_commit_is_resolved_by_reading_the_checkpoint() {
    for done in [false, true] {
        let rig = Rig::new(USERS);
        let engine = rig.start().await;
        let first = post(&engine, &changed(1, "a")).await.first.expect("stored");
        in_step(&engine, first).await;
        let kind = FaultKind::Disconnected;
        rig.views.script(Point::Commit, if done { Scripted::FailAfter(kind) } else { Scripted::Fail(kind) });
        let second = post(&engine, &changed(2, "b")).await.first.expect("stored");
        in_step(&engine, second).await;
        assert_eq!(rig.rows(), ["1 a -", "2 b -"]);
        assert_eq!(route(&engine.status()).applied, 2, "counted once, commit done: {done}");
        assert_eq!(rig.told(), [first, second]);
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_o15_unmatched_and_odd_events_do_not_stop_intake() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    post(&engine, r#"{"event":"nobodyKnows","payload":{}}"#).await;
    for payload in ["7", "[1]", "\"x\"", "{}", r#"{"id":null}"#] {
        post(&engine, &format!(r#"{{"event":"userChanged","payload":{payload}}}"#)).await;
    }
    post(&engine, r#"{"event":"userChanged","payload":null}"#).await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    let status = engine.status();
    let r = route(&status);
    assert_eq!((r.read, r.applied, r.unmatched, r.failed, r.filtered), (8, 1, 1, 5, 1));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_database_holds_back_its_route_only_and_comes_back() {
    let rig = Rig::new(USERS);
    for _ in 0..3 {
        rig.views.script(Point::Begin, Scripted::Fail(FaultKind::Disconnected));
    }
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("intake goes on");
    in_step(&engine, last).await;
    assert_eq!(rig.rows(), ["1 a -"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_route_waits_and_goes_on() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let first = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, first).await;
    engine.pause("db1", "op").await.expect("paused");
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(rig.rows(), ["1 a -"]);
    assert!(route(&engine.status()).lag_events >= 1);
    engine.resume("db1", false, "op").await.expect("resumed");
    in_step(&engine, last).await;
    assert_eq!(rig.rows().len(), 2);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_your_own_writes_names_the_fate() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let good = post(&engine, &changed(1, "a")).await.last.expect("stored");
    let bad = post(&engine, r#"{"event":"userChanged","payload":{"id":"x"}}"#).await.last.expect("stored");
    let wait = std::time::Duration::from_secs(10);
    let position = engine.view_position("db1.users", Some(good), wait).await.expect("known view");
    assert_eq!((position.reached, position.fate), (Some(true), Some(gravity_engine::status::Fate::Applied)));
    let position = engine.view_position("db1.users", Some(bad), wait).await.expect("known view");
    assert_eq!(position.fate, Some(gravity_engine::status::Fate::Parked));
    assert!(engine.view_position("db1.nothing", None, wait).await.is_err());
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap24_max_parked_stops_the_route_instead_of_dropping() {
    let rig = Rig { max_parked: 2, ..Rig::new(USERS) };
    let engine = rig.start().await;
    for id in 0..4 {
        post(&engine, &format!(r#"{{"event":"userChanged","payload":{{"id":{id},"name":7}}}}"#)).await;
    }
    eventually(
        || route(&engine.status()).state == gravity_engine::status::RunState::Stopped,
        || format!("{:?}", engine.status()),
    )
    .await;
    let error = route(&engine.status()).error.clone().unwrap_or_default();
    assert!(error.contains("max_parked"), "{error}");
    engine.shutdown().await;
}
