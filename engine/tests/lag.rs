//! What `status` calls lag: events that a view or a target lacks, and nothing that Gravity wrote for itself (SEMANTICS 5.5).

mod support;

use gravity_engine::Engine;
use gravity_engine::status::{RunState, Status, SubscriptionStatus};
use support::{Rig, USERS, changed, eventually, in_step, post, route};

fn exporter(status: &Status) -> &SubscriptionStatus {
    &status.exporters[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn control_events_are_no_lag_of_a_route_that_stands_still() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    engine.pause("db1", "op").await.expect("pauses");
    engine.pause("out@db1", "op").await.expect("pauses");
    let status = engine.status();
    assert!(status.log.last > last, "the pauses are on the log: {status:?}");
    assert_eq!((route(&status).lag_events, route(&status).lag_seconds), (0, 0.0), "{status:?}");

    post(&engine, &changed(2, "b")).await;
    engine.resume("out@db1", false, "op").await.expect("goes on");
    engine.pause("out@db1", "op").await.expect("pauses");
    let last = post(&engine, &changed(3, "c")).await.last.expect("stored");
    let status = engine.status();
    assert_eq!(route(&status).lag_events, 2, "{status:?}");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let status = engine.status();
    assert_eq!(route(&status).lag_events, 2, "asking twice counts once: {status:?}");
    assert!(route(&status).lag_seconds >= 0.02, "{status:?}");

    engine.resume("db1", false, "op").await.expect("goes on");
    let both = || route(&engine.status()).lag_events == 0 && exporter(&engine.status()).lag_events == 2;
    eventually(both, || format!("{:?}", engine.status())).await;
    engine.resume("out@db1", false, "op").await.expect("goes on");
    in_step(&engine, last).await;
    eventually(|| exporter(&engine.status()).lag_events == 0, || format!("{:?}", engine.status())).await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_change_what_is_said_of_a_paused_route() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let last = post(&engine, &changed(1, "a")).await.last.expect("stored");
    in_step(&engine, last).await;
    engine.pause("db1", "op").await.expect("pauses");
    post(&engine, &changed(2, "b")).await;
    let says = |engine: &Engine| {
        let status = engine.status();
        let route = route(&status);
        (route.state, route.checkpoint, route.lag_events, route.read, route.applied)
    };
    let before = says(&engine);
    assert_eq!((before.0, before.2, before.3, before.4), (RunState::Paused, 1, 1, 1));
    engine.shutdown().await;
    let engine = rig.start().await;
    eventually(|| says(&engine) == before, || format!("{before:?} before, now {:?}", engine.status())).await;
    engine.shutdown().await;
}
