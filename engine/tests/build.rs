//! Views added later: built from the log's beginning beside the route, joined at equal sequence, disturbing nothing.

mod support;

use gravity_connectors::memory::view::{Point, Scripted};
use gravity_engine::ChangedParts;
use gravity_model::port::view::{ViewState, ViewStore};
use gravity_model::{ColumnType, FaultKind, Sequence};
use support::{Rig, USERS, changed, eventually, in_step, post, route, table};

fn with_names() -> String {
    USERS.replace(
        r#"{"rules": ["#,
        r#"{"rules": [ {"event": "userChanged", "table": "names", "method": "update", "database": "db1", "mapping": [
             {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"}]},"#,
    )
}

async fn is_attached(rig: &Rig, table: &str) -> bool {
    let views = rig.views.views().await.expect("readable");
    views.iter().any(|v| v.table == table && v.state == ViewState::Attached && v.route == "db1")
}

async fn joined(rig: &Rig) {
    for _ in 0..2_000 {
        if is_attached(rig, "names").await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the view did not join: {:?}", rig.views.views().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_added_at_a_restart_is_back_filled() {
    let mut rig = Rig::new(USERS);
    rig.views.put_table(table("names", &[("id", ColumnType::I64, true), ("name", ColumnType::Text, false)]));
    let engine = rig.start().await;
    for id in 0..50 {
        post(&engine, &changed(id, "old")).await;
    }
    let last = post(&engine, &changed(50, "old")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert!(rig.views.rows("names").is_empty());
    engine.shutdown().await;

    rig.rules = with_names();
    let engine = rig.start().await;
    joined(&rig).await;
    assert_eq!(rig.views.rows("names").len(), 51);
    let last = post(&engine, &changed(51, "new")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!((rig.views.rows("names").len(), rig.rows().len()), (52, 52));
    assert_eq!(route(&engine.status()).read, 52, "the route counts each event once");
    assert_eq!(rig.told().len(), 52, "a build tells nobody");
    let rows = rig.views.checkpoints("db1").await.expect("readable");
    assert_eq!(rows[0].epoch.0, 2, "joining raises the epoch");
    assert!(rig.views.checkpoints("db1/names").await.expect("readable").is_empty());
    engine.shutdown().await;
}

/// A rig with 50 users, whose next rules keep their names as well; and the sequence of user 30.
async fn names_wanted() -> (Rig, u64) {
    let mut rig = Rig::new(USERS);
    rig.views.put_table(table("names", &[("id", ColumnType::I64, true), ("name", ColumnType::Text, false)]));
    let engine = rig.start().await;
    let (mut thirtieth, mut last) = (0, 0);
    for id in 0..50 {
        last = post(&engine, &changed(id, "old")).await.last.expect("stored");
        thirtieth = if id == 30 { last } else { thirtieth };
    }
    in_step(&engine, last).await;
    engine.shutdown().await;
    rig.rules = with_names();
    (rig, thirtieth)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_view_begins_where_it_was_told_to() {
    let (mut rig, thirtieth) = names_wanted().await;
    rig.begin_after = Some(Sequence(thirtieth - 1));
    let engine = rig.start().await;
    joined(&rig).await;
    assert_eq!(rig.views.rows("names").len(), 20, "users 30 to 49");
    assert_eq!(rig.rows().len(), 50, "a view that has a position goes on from it");
    let views = rig.views.views().await.expect("readable");
    let names = views.iter().find(|view| view.table == "names").expect("kept");
    assert!(names.history.starts_with(&format!("[[{thirtieth},")), "{}", names.history);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_begins_ahead_of_its_route_waits_for_it() {
    let (mut rig, _) = names_wanted().await;
    let wanted = std::mem::replace(&mut rig.rules, USERS.to_owned());
    let engine = rig.start().await;
    engine.pause("db1", "op").await.expect("paused");
    let mut last = 0;
    for id in 50..60 {
        last = post(&engine, &changed(id, "new")).await.last.expect("stored");
    }
    engine.shutdown().await;
    rig.rules = wanted;
    rig.begin_after = Some(Sequence(last - 1));
    let engine = rig.start().await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!is_attached(&rig, "names").await, "the route has not come so far");
    engine.resume("db1", false, "op").await.expect("resumed");
    joined(&rig).await;
    in_step(&engine, last).await;
    assert_eq!((rig.views.rows("names").len(), rig.rows().len()), (1, 60));
    let last = post(&engine, &changed(60, "new")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!((rig.views.rows("names").len(), rig.rows().len()), (2, 61));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_begins_where_it_was_told_to_and_goes_on_from_there() {
    let (mut rig, thirtieth) = names_wanted().await;
    rig.views = gravity_connectors::memory::view::MemoryViews::new();
    rig.views.put_table(support::users());
    rig.rules = USERS.replace("\"db1\"", "\"db2\"");
    rig.database = "db2".to_owned();
    rig.begin_after = Some(Sequence(thirtieth - 1));
    let engine = rig.start().await;
    let last = post(&engine, &changed(50, "new")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!((rig.rows().len(), route(&engine.status()).read), (21, 21), "users 30 to 50");
    engine.shutdown().await;
    rig.begin_after = None;
    let engine = rig.start().await;
    let last = post(&engine, &changed(51, "new")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(
        (rig.rows().len(), route(&engine.status()).read),
        (22, 22),
        "its checkpoint is proved at the next start"
    );
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_beyond_the_log() {
    let (mut rig, _) = names_wanted().await;
    rig.begin_after = Some(Sequence(1_000));
    let refused = gravity_engine::Engine::start(rig.parts()).await.err().expect("refused").to_string();
    assert!(refused.contains("1001") && refused.contains("ends at"), "{refused}");
    assert!(!is_attached(&rig, "names").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_added_by_a_reload_joins_under_load() {
    let rig = Rig::new(USERS);
    rig.views.put_table(table("names", &[("id", ColumnType::I64, true), ("name", ColumnType::Text, false)]));
    let engine = rig.start().await;
    for id in 0..200 {
        post(&engine, &changed(id, "a")).await;
    }
    let report = engine.reload(rig.rules_in_force(&with_names()), ChangedParts::default()).await.expect("accepted");
    assert!(report.changed);
    let mut id = 200;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_attached(&rig, "names").await {
        post(&engine, &changed(id, "b")).await;
        id += 1;
        assert!(std::time::Instant::now() < until, "the view did not join: {:#?}", engine.status());
    }
    let last = post(&engine, &changed(id, "c")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(rig.views.rows("names").len(), rig.rows().len());
    assert_eq!(rig.rows().len() as i64, id + 1);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_dead_letters_waits_for_a_decision() {
    let mut rig = Rig::new(USERS);
    rig.views.put_table(table("names", &[("id", ColumnType::I64, true), ("name", ColumnType::Varchar(3), false)]));
    let engine = rig.start().await;
    let long = post(&engine, &changed(1, "too long")).await.last.expect("stored");
    in_step(&engine, long).await;
    engine.shutdown().await;
    rig.rules = with_names();
    let engine = rig.start().await;
    let letters = || {
        let status = engine.status();
        status.routes.iter().any(|r| r.name == "db1/names" && r.failed == 1)
    };
    eventually(letters, || format!("{:#?}", engine.status())).await;
    assert!(!is_attached(&rig, "names").await);
    let last = post(&engine, &changed(2, "abc")).await.last.expect("stored");
    eventually(|| rig.rows().len() == 2, || "the route is not held back".to_owned()).await;
    engine.skip("db1/names", vec![long], "op").await.expect("skipped");
    joined(&rig).await;
    in_step(&engine, last).await;
    assert_eq!(rig.views.rows("names").len(), 1);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_acts_forward_only() {
    let mut rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, r#"{"event":"userChanged","payload":{"id":1,"name":"a","email":"x"}}"#)
        .await
        .last
        .expect("stored");
    in_step(&engine, last).await;
    engine.pause("db1", "op").await.expect("paused");
    post(&engine, r#"{"event":"userChanged","payload":{"id":2,"name":"a","email":"x"}}"#).await;
    rig.rules = USERS.replace(r#"{"source": "email", "target": "email"}"#, r#"{"value": "hidden", "target": "email"}"#);
    let report = engine.reload(rig.rules_in_force(&rig.rules), ChangedParts::default()).await.expect("accepted");
    let last = post(&engine, r#"{"event":"userChanged","payload":{"id":3,"name":"a","email":"x"}}"#)
        .await
        .last
        .expect("stored");
    assert!(report.from <= last);
    engine.resume("db1", false, "op").await.expect("resumed");
    in_step(&engine, last).await;
    assert_eq!(rig.rows(), ["1 a x", "2 a x", "3 a hidden"], "the rules in force at each sequence");
    engine.shutdown().await;
    let engine = rig.start().await;
    let last = post(&engine, r#"{"event":"userChanged","payload":{"id":4,"name":"a","email":"x"}}"#)
        .await
        .last
        .expect("stored");
    in_step(&engine, last).await;
    assert_eq!(rig.rows().last().map(String::as_str), Some("4 a hidden"));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_route_may_take_the_active_rules_from_its_checkpoint() {
    let mut rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    engine.pause("db1", "op").await.expect("paused");
    post(&engine, &changed(2, "b")).await;
    // A DBA drops the column that the rules in force for event 2 write; the new rules do without it.
    rig.views.drop_table("users");
    rig.views.put_table(table("users", &[("id", ColumnType::I64, true), ("name", ColumnType::Text, false)]));
    rig.rules = USERS.replace(r#", {"source": "email", "target": "email"}"#, "");
    engine.reload(rig.rules_in_force(&rig.rules), ChangedParts::default()).await.expect("accepted");
    let last = post(&engine, &changed(3, "c")).await.last.expect("stored");
    engine.resume("db1", false, "op").await.expect("resumed");
    let stopped = || route(&engine.status()).state == gravity_engine::status::RunState::Stopped;
    eventually(stopped, || format!("{:#?}", engine.status())).await;
    engine.resume("db1", true, "op").await.expect("accepted");
    in_step(&engine, last).await;
    assert_eq!(rig.rows(), ["2 b", "3 c"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_joined_without_knowing_it_stays_joined() {
    let rig = Rig::new(USERS);
    rig.views.put_table(table("names", &[("id", ColumnType::I64, true), ("name", ColumnType::Text, false)]));
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    // The route takes the new rules, the build takes its table, and the answer to its joining is lost.
    for what in [Scripted::Hang, Scripted::Hang, Scripted::FailAfter(FaultKind::Disconnected)] {
        rig.views.script(Point::Rewrite, what);
    }
    engine.reload(rig.rules_in_force(&with_names()), ChangedParts::default()).await.expect("accepted");
    rig.views.release();
    let begun = || engine.status().routes.iter().any(|r| r.name == "db1/names");
    eventually(begun, || format!("{:?}", engine.status())).await;
    rig.views.release();
    joined(&rig).await;
    let alone = || engine.status().routes.len() == 1;
    eventually(alone, || format!("{:?}", engine.status())).await;
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!((rig.views.rows("names").len(), rig.rows().len()), (2, 2));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_a_database_that_went_back_is_folded_under_the_rules_of_that_time() {
    let mut rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    let backup = rig.views.backup();
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    in_step(&engine, last).await;
    rig.rules = USERS.replace(r#""source": "name""#, r#""source": "email""#);
    engine.reload(rig.rules_in_force(&rig.rules), ChangedParts::default()).await.expect("accepted");
    let last = post(&engine, &changed(3, "c")).await.last.expect("stored");
    in_step(&engine, last).await;
    let rows = rig.rows();
    assert_eq!(rows[..2], ["1 a -", "2 b -"]);
    // Long enough for the older rules to be forgotten.
    tokio::time::sleep(std::time::Duration::from_millis(3_500)).await;
    for restart in [false, true] {
        let engine = if restart { rig.start().await } else { engine.clone() };
        rig.views.restore(&backup);
        let last = post(&engine, &changed(4, "d")).await.last.expect("stored");
        in_step(&engine, last).await;
        assert_eq!(rig.rows()[..3], rows[..3], "restart: {restart}");
        engine.shutdown().await;
    }
}
