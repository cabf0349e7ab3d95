//! Database entries that change: moved to another place, renamed, laid over rows that were there (SEMANTICS 3.5, 3.6, 6.1).

mod support;

use std::sync::Arc;
use std::time::Duration;

use gravity_connectors::memory::export::{MemoryExporter, MemoryTarget};
use gravity_connectors::memory::source::Published;
use gravity_connectors::memory::view::{MemoryViews, Point, Scripted};
use gravity_engine::ChangedParts;
use gravity_log::EventLog;
use gravity_model::port::view::ViewStore;
use gravity_model::{FaultKind, Value};
use support::{Rig, USERS, changed, eventually, in_step, post, route};

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_the_route_to_where_the_database_is_now() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    let moved = MemoryViews::new();
    moved.restore(&rig.views.backup());
    for _ in 0..1_000 {
        rig.views.script(Point::Begin, Scripted::Fail(FaultKind::Disconnected));
    }
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    let parts = ChangedParts { databases: vec![rig.database_spec(&moved)], ..ChangedParts::default() };
    let report = engine.reload(rig.rules_in_force(USERS), parts).await;
    assert!(!report.expect("accepted").changed, "the rules are the same");
    in_step(&engine, last).await;
    assert_eq!((moved.rows("users").len(), rig.rows().len()), (2, 1));
    assert_eq!(route(&engine.status()).read, 2);
    engine.shutdown().await;
}

/// Each message once, each event once, though both connections change in the middle of everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_source_and_exporter_to_new_connections() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let publish = |id: i64| {
        let payload = Some(changed(id, "x").into_bytes());
        rig.broker.publish(0, Published { key: Some(b"k".to_vec()), payload, ..Published::default() });
    };
    let elsewhere = MemoryTarget::default();
    for id in 0..300 {
        publish(id);
        if id % 100 == 50 {
            let mut parts = rig.parts_without_log();
            parts.sources.retain(|source| source.name == "bus");
            let target = if id == 50 { &elsewhere } else { &rig.target };
            parts.exporters[0].exporter = Arc::new(MemoryExporter::new("out", target.clone()));
            engine.reload(rig.rules_in_force(USERS), parts).await.expect("accepted");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all = || route(&engine.status()).read == 300;
    eventually(all, || format!("{:#?}", engine.status())).await;
    in_step(&engine, route(&engine.status()).checkpoint).await;
    assert_eq!(rig.rows().len(), 300);
    let mut told = rig.told();
    let moved = elsewhere.arrived().len();
    assert!(moved > 0 && !told.is_empty(), "both were told: {moved} and {}", told.len());
    told.extend(elsewhere.arrived().iter().map(|m| m.sequence.get()));
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 300);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_entry_goes_on_with_its_view_its_dead_letters_and_its_messages() {
    let mut rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    post(&engine, &changed(1, "a")).await;
    let failed = post(&engine, &changed(2, "bad")).await.last.expect("stored");
    in_step(&engine, failed).await;
    let waits = post(&engine, &changed(2, "later")).await.last.expect("stored");
    in_step(&engine, waits).await;
    // Not in step when it gets its new name: what it has not seen yet was written under rules that say the old one.
    engine.pause("db1", "op").await.expect("pauses");
    let unseen = post(&engine, &changed(3, "c")).await.last.expect("stored");
    engine.shutdown().await;

    rig.views.accept_all();
    (rig.database, rig.was) = ("main".to_owned(), Some("db1".to_owned()));
    rig.rules = USERS.replace("db1", "main");
    for restart in 1..=2 {
        let engine = rig.start().await;
        if restart == 1 {
            engine.resume("main", false, "op").await.expect("paused under its new name too");
        }
        in_step(&engine, unseen).await;
        let status = engine.status();
        assert_eq!((route(&status).name.as_str(), route(&status).parked), ("main", 2), "start {restart}: {status:?}");
        assert_eq!(rig.rows(), ["1 a -", "3 c -"]);
        assert_eq!(rig.told().len(), 2, "nothing is told again");
        assert!(rig.views.checkpoints("db1").await.expect("readable").is_empty());
        engine.shutdown().await;
    }
    let engine = rig.start().await;
    let report = engine.retry("main", None, "op").await.expect("runs");
    assert_eq!(report.released, [failed, waits]);
    in_step(&engine, report.record).await;
    assert_eq!(rig.rows(), ["1 a -", "2 later -", "3 c -"]);
    assert_eq!(rig.told()[1..], [unseen, failed, waits], "each told once, in order of effect");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adopted_rows_are_on_record() {
    let mut rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    engine.shutdown().await;
    let (filled, other) = (rig.views.clone(), Rig::new(USERS));
    // The same rows with no checkpoint: as a DBA's own table.
    let table = MemoryViews::new();
    table.put_rows_of(&filled, "users");
    rig = Rig { views: table, adopt: true, ..other };
    let engine = rig.start().await;
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(rig.rows(), ["1 a -", "2 b -"]);
    let adopted: Vec<_> = rig.memory_log().state().into_iter().filter(|e| e.name == "gravity.adopted").collect();
    assert_eq!(adopted.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["db1/users"]);
    engine.shutdown().await;
}
