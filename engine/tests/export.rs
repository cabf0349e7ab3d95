//! Subscriptions over doubles: after the row, once confirmed, in order per key, with the same id for ever.

mod support;

use std::collections::HashSet;

use gravity_connectors::memory::export::Answer;
use support::{Rig, USERS, changed, eventually, in_step, post};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_parks_and_its_key_waits() {
    let rig = Rig::new(USERS);
    rig.target.script([Answer::Refuse]);
    let engine = rig.start().await;
    let first = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, first).await;
    let second = post(&engine, &changed(1, "b")).await.last.expect("stored");
    let other = post(&engine, &changed(2, "c")).await.last.expect("stored");
    in_step(&engine, other).await;
    assert_eq!(rig.told(), [other], "the refused one parks, the next of its key waits, other keys go on");
    assert_eq!(rig.rows(), ["1 b -", "2 c -"], "the view is not held back");
    let letters = engine.dead_letters(Some("out@db1")).await.expect("listed");
    assert_eq!(letters.iter().map(|l| (l.sequence, l.waiting)).collect::<Vec<_>>(), [(first, false), (second, true)]);
    let report = engine.retry("out@db1", None, "op").await.expect("runs");
    assert_eq!(report.released, [first, second]);
    assert_eq!(rig.told(), [other, first, second]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o43_an_unconfirmed_message_is_sent_again_with_the_same_id() {
    let rig = Rig::new(USERS);
    rig.target.script([Answer::TakeSilently, Answer::Disconnect]);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    let arrived = rig.target.arrived();
    let ids: HashSet<_> = arrived.iter().map(|m| m.id.clone()).collect();
    assert_eq!((arrived.len(), ids.len()), (2, 1));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_tell_again_what_was_noted() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    engine.shutdown().await;
    let engine = rig.start().await;
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(rig.told().len(), 2);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_holds_back_neither_view_nor_intake() {
    let rig = Rig::new(USERS);
    rig.target.set_down(true);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    eventually(|| rig.rows() == ["1 a -"], || format!("{:?}", rig.rows())).await;
    assert!(rig.told().is_empty());
    rig.target.set_down(false);
    in_step(&engine, last).await;
    assert_eq!(rig.told(), [last]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o46_events_without_subscription_move_the_cursor() {
    let rules = USERS.replace(
        r#"{"event": "userDeleted", "database": "db1", "exporter": ["out"]}"#,
        r#"{"event": "userDeleted", "database": "db1"}"#,
    );
    let rig = Rig::new(&rules);
    let engine = rig.start().await;
    let last = post(&engine, r#"{"event":"userDeleted","payload":{"id":1}}"#).await.last.expect("stored");
    in_step(&engine, last).await;
    assert!(rig.told().is_empty());
    engine.shutdown().await;
}
