//! SEMANTICS 5.4 from end to end: real HTTP statuses, what becomes of the message, of its key, and of the subscription.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gravity_conformance::engine_rig::Running;
use gravity_conformance::local_http::{LocalHttp, Reply};
use gravity_engine::status::{RunState, Status};
use parking_lot::Mutex;

use crate::support::{Scene, accepted, batch, endpoint, item, number, posted};

/// (sequence, code, waiting) of what is parked on the subscription.
async fn letters(engine: &Running) -> Vec<(u64, String, bool)> {
    let letters = engine.0.dead_letters(Some("hook@db1")).await.expect("listed");
    letters.into_iter().map(|letter| (letter.sequence, letter.code, letter.waiting)).collect()
}

fn exporter_is(state: RunState) -> impl Fn(&Status) -> bool {
    move |status| status.exporters[0].state == state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_message_parks_it_and_later_ones_of_its_key() {
    for status in [400, 413, 422] {
        let server = LocalHttp::start(|_| Reply::Status(204)).await;
        server.behave(move |request| Reply::Status(if number(request) == 2 { status } else { 204 }));
        let scene = Scene::new(vec![("hook", endpoint(&server), false)]);
        let engine = scene.rig.start().await;
        let first = engine.post(&batch([item(1, "a"), item(2, "a"), item(3, "b"), item(4, "a")])).await - 3;
        engine.told("hook", first + 3).await;
        // One that comes later waits as well, and other keys go on.
        let last = engine.post(&batch([item(5, "a"), item(6, "b")])).await;
        engine.told("hook", last).await;
        let mut taken = accepted(&server);
        taken.sort_unstable();
        assert_eq!(taken, [1, 3, 6], "{status}");
        assert_eq!(posted(&server).iter().filter(|n| **n == 2).count(), 1, "{status}: tried once, not again and again");
        let code = status.to_string();
        let parked = [(first + 1, code, false), (first + 3, String::new(), true), (last - 1, String::new(), true)];
        assert_eq!(letters(&engine).await, parked, "{status}");
        assert_eq!((scene.rows().as_str(), engine.exporter("hook").state), ("6", RunState::Running), "{status}");
        server.behave(|_| Reply::Status(204));
        engine.0.retry("hook@db1", None, "test").await.expect("runs");
        assert_eq!(accepted(&server)[3..], [2, 4, 5], "{status}: in the order of their key");
        assert!(letters(&engine).await.is_empty());
        engine.0.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_place_stops_and_probes_until_the_place_is_in_order() {
    for status in [301, 302, 303, 307, 308, 401, 403, 404, 405, 410] {
        let server = LocalHttp::start(|_| Reply::Status(204)).await;
        let elsewhere = server.url();
        server.behave(move |_| Reply::Full(status, vec![("Location".to_owned(), elsewhere.clone())], Vec::new()));
        let scene = Scene::new(vec![("hook", endpoint(&server), false)]);
        let engine = scene.rig.start().await;
        let last = engine.post(&batch([item(1, "a"), item(2, "b"), item(3, "a")])).await;
        engine.in_view(last).await;
        engine.eventually(exporter_is(RunState::Stopped)).await;
        let stopped = engine.exporter("hook");
        assert!(stopped.error.as_deref().is_some_and(|error| error.contains(&status.to_string())), "{stopped:?}");
        assert_eq!((stopped.delivered, stopped.parked, scene.rows().as_str()), (0, 0, "3"), "{status}: {stopped:?}");
        let probed = |server: &LocalHttp| server.requests().iter().any(|request| request.method == "HEAD");
        engine.eventually(|_| probed(&server)).await;
        server.behave(|_| Reply::Status(204));
        engine.told("hook", last).await;
        let mut taken = accepted(&server);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3], "{status}: each once, nothing lost");
        engine.eventually(exporter_is(RunState::Running)).await;
        assert!(letters(&engine).await.is_empty(), "{status}");
        engine.0.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_refused_park_parks_where_the_place_refuses() {
    for status in [307, 401, 404, 410] {
        let server = LocalHttp::start(|_| Reply::Status(204)).await;
        server.behave(move |request| Reply::Status(if number(request) == 1 { status } else { 204 }));
        let scene = Scene::new(vec![("hook", endpoint(&server), true)]);
        let engine = scene.rig.start().await;
        let first = engine.post(&item(1, "a")).await;
        engine.told("hook", first).await;
        let last = engine.post(&batch([item(2, "a"), item(3, "b")])).await;
        engine.told("hook", last).await;
        assert_eq!(accepted(&server), [3], "{status}");
        let parked = [(first, status.to_string(), false), (last - 1, String::new(), true)];
        assert_eq!(letters(&engine).await, parked, "{status}");
        assert_eq!(engine.exporter("hook").state, RunState::Running, "{status}");
        engine.0.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap21_everything_else_backs_off_and_is_sent_again_with_the_same_id() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let tries = Arc::new(Mutex::new(0));
        let count = Arc::clone(&tries);
        let server = LocalHttp::start(move |_| {
            *count.lock() += 1;
            Reply::Status(if *count.lock() < 4 { status } else { 204 })
        })
        .await;
        let scene = Scene::new(vec![("hook", endpoint(&server), false)]);
        let engine = scene.rig.start().await;
        let last = engine.post(&item(1, "a")).await;
        engine.told("hook", last).await;
        let ids: Vec<String> = server
            .requests()
            .iter()
            .filter(|request| request.method == "POST")
            .map(|request| request.header("idempotency-key").expect("an id").to_owned())
            .collect();
        assert_eq!(ids, vec![ids[0].clone(); 4], "{status}");
        assert!(letters(&engine).await.is_empty(), "{status}");
        engine.0.shutdown().await;
    }
}

/// An endpoint that says once when it wants to be asked again, and remembers when it was asked.
async fn asks_for_a_pause(status: u16, wait: impl Fn() -> String + Send + Sync + 'static) -> Duration {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let server = LocalHttp::start(move |_| {
        times.lock().push(Instant::now());
        match times.lock().len() {
            1 => Reply::Full(status, vec![("Retry-After".to_owned(), wait())], Vec::new()),
            _ => Reply::Status(204),
        }
    })
    .await;
    let scene = Scene::new(vec![("hook", endpoint(&server), false)]);
    let engine = scene.rig.start().await;
    let last = engine.post(&item(1, "a")).await;
    engine.told("hook", last).await;
    engine.0.shutdown().await;
    let asked = asked.lock().clone();
    assert_eq!(asked.len(), 2, "not asked before it was time");
    asked[1] - asked[0]
}

/// Without the header the second attempt follows within 50 ms.
#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    for status in [429, 503] {
        assert!(asks_for_a_pause(status, || "2".to_owned()).await >= Duration::from_secs(2), "{status}");
    }
    let in_three_seconds = || {
        let at: chrono::DateTime<chrono::Utc> = (SystemTime::now() + Duration::from_secs(3)).into();
        at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    // The date has no fraction: two seconds are sure.
    assert!(asks_for_a_pause(503, in_three_seconds).await >= Duration::from_secs(2));
}
