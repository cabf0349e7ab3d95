//! Subscriptions under attack: nothing lost, nothing told before its time or twice without need, order per key kept through
//! refusals, retries, faults of target and log, pauses, restarts and crashes.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use async_trait::async_trait;
use gravity_connectors::memory::export::{Answer, MemoryExporter};
use gravity_engine::Engine;
use gravity_engine::status::{Blocked, Outcome, RunState};
use gravity_log::EventLog;
use gravity_model::port::export::{Binding, Delivery, Exporter, Message};
use gravity_model::{Fault, Value};
use support::{Rig, USERS, changed, eventually, in_step, post, route};

fn with_patches() -> String {
    USERS.replace(
        r#"{"rules": ["#,
        r#"{"rules": [ {"event": "userPatched", "table": "users", "method": "patch", "mapping": [
             {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"}]},
             {"event": "userPatched", "database": "db1", "exporter": ["out"]},
             {"event": "allGone", "table": "users", "method": "truncate"},
             {"event": "allGone", "database": "db1", "exporter": ["out"]},
             {"event": "ping", "database": "db1", "exporter": ["out"]},"#,
    )
}

fn patched(id: i64) -> String {
    format!(r#"{{"event":"userPatched","key":"{id}","payload":{{"id":{id},"name":"p"}}}}"#)
}

/// A change of user `id` under an event key of its own choice.
fn keyed(key: &str, id: i64, name: &str) -> String {
    format!(r#"{{"event":"userChanged","key":"{key}","payload":{{"id":{id},"name":"{name}"}}}}"#)
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn tell(engine: &Engine, body: &str) -> u64 {
    let last = post(engine, body).await.last.expect("stored");
    in_step(engine, last).await;
    last
}

async fn many(engine: &Engine, bodies: &[String]) -> Vec<u64> {
    let first = post(engine, &format!("[{}]", bodies.join(","))).await.first.expect("stored");
    (0..bodies.len() as u64).map(|n| first + n).collect()
}

fn exporter(engine: &Engine) -> gravity_engine::status::SubscriptionStatus {
    engine.status().exporters[0].clone()
}

async fn becomes(engine: &Engine, state: RunState) {
    eventually(|| exporter(engine).state == state, || format!("{:#?}", engine.status())).await;
}

async fn letters(engine: &Engine) -> Vec<(u64, bool)> {
    let letters = engine.dead_letters(Some("out@db1")).await.expect("listed");
    letters.iter().map(|l| (l.sequence, l.waiting)).collect()
}

fn message_id(engine: &Engine, sequence: u64) -> String {
    let log_id = engine.log().identity().log_id;
    gravity_engine::control::message_id(log_id, "out", "db1", gravity_model::Sequence(sequence)).to_string()
}

/// The process dies: nothing that is not on disk gets there.
async fn crash(rig: &Rig, engine: Engine) {
    rig.memory_log().fail_writes("killed");
    engine.shutdown().await;
    drop(engine);
    rig.log.lock().take();
    pause(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_message_is_not_lost_when_the_target_is_busy() {
    let rig = Rig::new(USERS);
    rig.target.script([Answer::Refuse]);
    let engine = rig.start().await;
    let first = tell(&engine, &changed(1, "a")).await;
    rig.target.script([Answer::Later(None), Answer::Disconnect]);
    let report = engine.retry("out@db1", None, "op").await.expect("runs");
    assert_eq!(report.released, [first]);
    assert_eq!(rig.told(), [first], "released, so it was sent");
    assert!(letters(&engine).await.is_empty());
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_a_stop_interrupts_is_carried_out_when_the_target_is_back() {
    let rig = Rig::new(USERS);
    rig.target.script([Answer::Refuse, Answer::Refuse]);
    let engine = rig.start().await;
    let first = tell(&engine, &changed(1, "a")).await;
    let second = tell(&engine, &changed(2, "b")).await;
    rig.target.script([Answer::Take, Answer::Misconfigured]);
    let report = engine.retry("out@db1", None, "op").await.expect("runs");
    assert_eq!(report.released, [first, second]);
    assert_eq!(rig.told(), [first, second], "what was confirmed before the stop is not sent again");
    assert_eq!(exporter(&engine).delivered, 2);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_whose_outcome_the_log_refuses_is_not_forgotten_and_sends_once() {
    let rig = Rig::new(USERS);
    rig.target.script([Answer::Refuse]);
    let engine = rig.start().await;
    let first = tell(&engine, &changed(1, "a")).await;
    rig.target.set_down(true);
    let asking = engine.clone();
    let asked = tokio::spawn(async move { asking.retry("out@db1", None, "op").await });
    becomes(&engine, RunState::Degraded).await;
    rig.memory_log().hold();
    rig.target.set_down(false);
    eventually(|| rig.told() == [first], || format!("{:?}", rig.told())).await;
    rig.memory_log().fail_writes("disk full");
    pause(200).await;
    rig.memory_log().release();
    rig.memory_log().heal();
    let report = asked.await.expect("answers").expect("runs");
    assert_eq!(report.released, [first]);
    assert_eq!(rig.told(), [first]);
    in_step(&engine, report.record).await;
    engine.shutdown().await;
    let engine = rig.start().await;
    let last = tell(&engine, &changed(1, "b")).await;
    assert!(letters(&engine).await.is_empty());
    assert_eq!(rig.told(), [first, last]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_event_is_not_told_after_a_restart_or_a_crash() {
    for crashes in [false, true] {
        let rig = Rig::new(&with_patches());
        let engine = rig.start().await;
        tell(&engine, &patched(9)).await;
        assert!(rig.told().is_empty());
        pause(4_500).await;
        if crashes {
            crash(&rig, engine).await;
        } else {
            engine.shutdown().await;
        }
        let engine = rig.start().await;
        let last = tell(&engine, &changed(1, "a")).await;
        assert_eq!(rig.told(), [last], "crash: {crashes}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_its_route_skipped_is_not_told_after_a_crash() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let bad = tell(&engine, &changed(1, "bad")).await;
    let report = engine.skip("db1", vec![bad], "op").await.expect("runs");
    in_step(&engine, report.record).await;
    pause(4_500).await;
    crash(&rig, engine).await;
    let engine = rig.start().await;
    let last = tell(&engine, &changed(2, "b")).await;
    assert_eq!(rig.told(), [last]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_moves_durably_without_deliveries_and_an_idle_engine_writes_nothing() {
    let rig = Rig::new(&with_patches());
    let engine = rig.start().await;
    let missed = tell(&engine, &patched(9)).await;
    let log = engine.log().clone();
    let noted = || log.state().iter().any(|e| e.name == "gravity.cursor");
    eventually(noted, || "no cursor was noted".to_owned()).await;
    let kept = || log.state().iter().any(|e| e.name == "gravity.missed");
    eventually(|| !kept(), || "what was missed is kept for ever".to_owned()).await;
    let cursor = log.state().into_iter().find(|e| e.name == "gravity.cursor").expect("noted");
    let cursor: serde_json::Value = serde_json::from_slice(&cursor.payload).expect("JSON");
    assert!(cursor["through"].as_u64().is_some_and(|through| through >= missed), "{cursor}");
    pause(2_000).await;
    let last = log.stat().last;
    pause(3_000).await;
    assert_eq!(log.stat().last, last, "nothing happened, so nothing was written");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_message_stays_skipped_after_a_restart_or_a_crash() {
    for crashes in [false, true] {
        let rig = Rig::new(USERS);
        rig.target.script([Answer::Refuse]);
        let engine = rig.start().await;
        let first = tell(&engine, &changed(1, "a")).await;
        let report = engine.skip("out@db1", vec![first], "op").await.expect("runs");
        // The cursor behind the decision is as durable as its outcome.
        let state = rig.memory_log().state();
        let cursor = state.iter().find(|e| e.name == "gravity.cursor").expect("noted");
        let cursor: serde_json::Value = serde_json::from_slice(&cursor.payload).expect("JSON");
        assert_eq!(cursor["through"].as_u64(), Some(report.record), "{cursor}");
        if crashes {
            crash(&rig, engine).await;
        } else {
            pause(2_500).await;
            engine.shutdown().await;
        }
        let engine = rig.start().await;
        let last = tell(&engine, &changed(2, "b")).await;
        assert_eq!(rig.told(), [last], "crash: {crashes}");
        assert!(letters(&engine).await.is_empty(), "crash: {crashes}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap21_what_was_confirmed_before_a_stop_is_not_sent_again() {
    let rig = Rig::new(USERS);
    rig.target.script([Answer::Take, Answer::Misconfigured, Answer::Take, Answer::Misconfigured]);
    let engine = rig.start().await;
    let sequences = many(&engine, &[changed(1, "a"), changed(2, "b")]).await;
    in_step(&engine, sequences[1]).await;
    assert_eq!(rig.told(), sequences);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_behind_a_gap_is_not_sent_again_after_a_restart() {
    let rig = Rig::new(USERS);
    // The first of three keys is not taken, the others are.
    rig.target.script([Answer::Misconfigured]);
    let engine = rig.start().await;
    engine.pause("out@db1", "op").await.expect("pauses");
    let sequences = many(&engine, &[changed(1, "a"), changed(2, "b"), changed(3, "c")]).await;
    eventually(|| route(&engine.status()).checkpoint >= sequences[2], || format!("{:?}", engine.status())).await;
    engine.resume("out@db1", false, "op").await.expect("goes on");
    eventually(|| rig.told() == sequences[1..], || format!("{:?}", rig.told())).await;
    rig.target.set_down(true);
    engine.shutdown().await;
    rig.target.set_down(false);
    let engine = rig.start().await;
    in_step(&engine, sequences[2]).await;
    assert_eq!(rig.told(), [sequences[1], sequences[2], sequences[0]]);
    assert_eq!(exporter(&engine).delivered, 3);
    engine.shutdown().await;
}

/// Refuses its place for as long as its probe says so.
struct Probed {
    inner: MemoryExporter,
    closed: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
}

fn refused() -> Fault {
    Fault::new(gravity_model::FaultKind::Misconfigured, "403", "send", "this place is closed")
}

#[async_trait]
impl Exporter for Probed {
    fn binding(&self) -> Binding {
        Binding::Http
    }

    async fn probe(&self) -> Result<(), Fault> {
        self.probes.fetch_add(1, SeqCst);
        if self.closed.load(SeqCst) { Err(refused()) } else { Ok(()) }
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        self.sent.fetch_add(1, SeqCst);
        if self.closed.load(SeqCst) {
            return messages.iter().map(|_| Delivery::failed(refused())).collect();
        }
        self.inner.export(messages).await
    }

    async fn close(&self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_probe_fails_nothing_is_sent_and_when_it_passes_the_subscription_goes_on() {
    let rig = Rig::new(USERS);
    let (closed, sent, probes) = (Arc::default(), Arc::default(), Arc::default());
    let probed = Probed {
        inner: MemoryExporter::new("out", rig.target.clone()),
        closed: Arc::clone(&closed),
        sent: Arc::clone(&sent),
        probes: Arc::clone(&probes),
    };
    closed.store(true, SeqCst);
    let mut parts = rig.parts();
    parts.exporters[0].exporter = Arc::new(probed);
    let engine = Engine::start(parts).await.expect("starts");
    let first = post(&engine, &changed(1, "a")).await.last.expect("stored");
    becomes(&engine, RunState::Stopped).await;
    eventually(|| probes.load(SeqCst) >= 4, || "it is not probed".to_owned()).await;
    assert_eq!(sent.load(SeqCst), 1, "no message while the probe fails");
    assert_eq!(exporter(&engine).state, RunState::Stopped);
    closed.store(false, SeqCst);
    in_step(&engine, first).await;
    assert_eq!(rig.told(), [first]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_payload_is_told_where_it_changed_something_or_is_only_routed() {
    let rig = Rig::new(&with_patches());
    let engine = rig.start().await;
    let ping = tell(&engine, r#"{"event":"ping","payload":null}"#).await;
    assert_eq!(route(&engine.status()).applied, 1);
    tell(&engine, r#"{"event":"userChanged","key":"1","payload":null}"#).await;
    assert_eq!(route(&engine.status()).filtered, 1);
    let gone = tell(&engine, r#"{"event":"allGone","payload":null}"#).await;
    assert_eq!(route(&engine.status()).applied, 2);
    assert_eq!(rig.told(), [ping, gone], "told if applied, and only then");
    assert!(rig.target.arrived().iter().all(|message| &message.body[..] == b"null"));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_whose_target_is_down_pauses_promptly_and_loses_nothing() {
    for answer in [Answer::Disconnect, Answer::Misconfigured, Answer::Later(Some(Duration::from_secs(600)))] {
        let rig = Rig::new(USERS);
        rig.target.script([Answer::Take, answer]);
        let engine = rig.start().await;
        let sequences = many(&engine, &[changed(1, "a"), changed(2, "b"), changed(2, "c")]).await;
        eventually(|| exporter(&engine).error.is_some(), || format!("{:?}", engine.status())).await;
        rig.target.set_down(true);
        let pausing = tokio::time::timeout(Duration::from_secs(2), engine.pause("out@db1", "op")).await;
        assert!(matches!(pausing, Ok(Ok(()))), "{answer:?}: {pausing:?}");
        assert_eq!(exporter(&engine).cursor, sequences[0], "what was confirmed is behind the cursor, nothing else");
        rig.target.set_down(false);
        pause(200).await;
        assert_eq!(rig.told(), sequences[..1], "paused is paused");
        engine.resume("out@db1", false, "op").await.expect("goes on");
        in_step(&engine, sequences[2]).await;
        assert_eq!(rig.told(), sequences, "{answer:?}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_target_is_paused_and_stopped_between_few_messages() {
    let rig = Rig::new(USERS);
    rig.target.script(vec![Answer::Slow(Duration::from_millis(100)); 300]);
    let engine = rig.start().await;
    let bodies: Vec<String> = (0..300).map(|n| changed(1, &format!("n{n}"))).collect();
    let sequences = many(&engine, &bodies).await;
    eventually(|| !rig.told().is_empty(), || format!("{:?}", engine.status())).await;
    let pausing = tokio::time::timeout(Duration::from_secs(5), engine.pause("out@db1", "op")).await;
    assert!(matches!(pausing, Ok(Ok(()))), "{pausing:?}");
    let told = rig.told();
    assert!(told.len() < 60 && sequences.starts_with(&told), "{}", told.len());
    crash(&rig, engine).await;
    let engine = rig.start().await;
    engine.resume("out@db1", false, "op").await.expect("goes on");
    eventually(|| rig.told().len() > told.len(), || format!("{:?}", engine.status())).await;
    assert!(sequences.starts_with(&rig.told()), "what was told before the pause is not told again");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_released_events_are_told_once_and_in_order_through_faults_and_a_restart() {
    const EVENTS: i64 = 1_300;
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "email", Value::Text("bad".into()));
    let engine = rig.start().await;
    // Two changes of each user: one failed, the other waits behind it.
    let bad = |n: i64| format!(r#"{{"event":"userChanged","key":"{n}","payload":{{"id":{n},"email":"bad"}}}}"#);
    let bodies: Vec<String> = (0..EVENTS).map(|n| bad(n % (EVENTS / 2))).collect();
    let sequences = many(&engine, &bodies).await;
    let parked = || route(&engine.status()).parked == EVENTS as u64;
    for _ in 0..60 {
        if parked() {
            break;
        }
        pause(500).await;
    }
    assert!(parked(), "{:?}", engine.status());
    let mut script = vec![Answer::Take; 700];
    script.extend([Answer::Misconfigured]);
    script.extend(vec![Answer::Take; 200]);
    rig.target.script(script);
    rig.views.accept_all();
    let report = engine.retry("db1", None, "op").await.expect("runs");
    assert_eq!(report.released, sequences);
    eventually(|| rig.told().len() >= 700, || format!("{}", rig.told().len())).await;
    engine.shutdown().await;
    let engine = rig.start().await;
    in_step(&engine, report.record).await;
    let told = rig.told();
    let mut once = told.clone();
    once.sort_unstable();
    assert_eq!(once, sequences, "each once");
    let mut of_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    told.iter().for_each(|s| of_key.entry((s - sequences[0]) % (EVENTS as u64 / 2)).or_default().push(*s));
    assert!(of_key.values().all(|sequences| sequences.is_sorted()), "in order per key");
    assert_eq!(exporter(&engine).delivered, EVENTS as u64);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_event_does_not_overtake_a_parked_message_that_took_effect_before_it() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let bad = tell(&engine, &keyed("k", 1, "bad")).await;
    rig.target.script([Answer::Refuse]);
    let refused = tell(&engine, &keyed("k", 2, "b")).await;
    rig.views.accept_all();
    let report = engine.retry("db1", None, "op").await.expect("runs");
    in_step(&engine, report.record).await;
    assert!(rig.told().is_empty(), "it waits behind what the view showed first");
    assert_eq!(letters(&engine).await, [(bad, true), (refused, false)]);
    // The order survives a restart, and so does where the event took effect.
    pause(3_000).await;
    engine.shutdown().await;
    let engine = rig.start().await;
    rig.target.script([Answer::Refuse]);
    let again = engine.retry("out@db1", None, "op").await.expect("runs");
    assert_eq!((again.released, again.parked_again), (vec![], vec![refused]));
    let sent = engine.retry("out@db1", None, "op").await.expect("runs");
    assert_eq!(sent.released, [refused, bad]);
    assert_eq!(rig.told(), [refused, bad]);
    let effects: Vec<Option<String>> = rig
        .target
        .arrived()
        .iter()
        .map(|m| m.headers.iter().find(|(name, _)| name == "ce-effectsequence").map(|(_, value)| value.clone()))
        .collect();
    assert_eq!(effects, [None, Some(report.record.to_string())]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_runs_nothing_says_what_blocks() {
    let rig = Rig::new(USERS);
    rig.views.refuse("users", "name", Value::Text("bad".into()));
    let engine = rig.start().await;
    let bad = tell(&engine, &changed(1, "bad")).await;
    let waits = tell(&engine, &changed(1, "good")).await;
    let report = engine.retry("db1", Some(vec![waits]), "op").await.expect("runs");
    assert!(report.released.is_empty() && report.parked_again.is_empty());
    assert_eq!(report.blocked, [Blocked { sequence: waits, behind: bad }]);

    rig.target.script([Answer::Refuse]);
    let refused = tell(&engine, &changed(2, "a")).await;
    let behind = tell(&engine, &changed(2, "b")).await;
    let report = engine.retry("out@db1", Some(vec![behind]), "op").await.expect("runs");
    assert!(report.released.is_empty());
    assert_eq!(report.blocked, [Blocked { sequence: behind, behind: refused }]);
    let report = engine.retry("out@db1", Some(vec![refused]), "op").await.expect("runs");
    assert_eq!((report.released, report.blocked), (vec![refused, behind], vec![]));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_was_away_tells_of_what_comes_after_its_return_only() {
    let without = USERS.replace(r#", "exporter": ["out"]"#, "");
    // Whether the rules of before are forgotten by the time it returns makes no difference.
    for away_for in [0, 3_500] {
        let mut rig = Rig::new(USERS);
        let engine = rig.start().await;
        let first = tell(&engine, &changed(1, "a")).await;
        rig.target.set_down(true);
        let owed = post(&engine, &changed(1, "b")).await.last.expect("stored");
        eventually(|| route(&engine.status()).checkpoint >= owed, || format!("{:?}", engine.status())).await;
        engine.shutdown().await;
        rig.target.set_down(false);
        rig.rules = without.clone();
        let engine = rig.start().await;
        let away = post(&engine, &changed(1, "c")).await.last.expect("stored");
        eventually(|| route(&engine.status()).checkpoint >= away, || format!("{:?}", engine.status())).await;
        pause(away_for).await;
        engine.shutdown().await;
        rig.rules = USERS.to_owned();
        let engine = rig.start().await;
        let last = tell(&engine, &changed(1, "d")).await;
        assert_eq!(rig.told(), [first, last], "away for {away_for} ms");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_dead_letter_is_told_from_an_old_one_that_left() {
    for of_route in [false, true] {
        let rig = Rig::new(USERS);
        let name = if of_route { "db1" } else { "out@db1" };
        let bad = |id: i64| match of_route {
            true => format!(r#"{{"event":"userChanged","key":"{id}","payload":{{"id":{id},"name":7}}}}"#),
            false => changed(id, "a"),
        };
        if !of_route {
            rig.target.script([Answer::Refuse, Answer::Refuse]);
        }
        let engine = rig.start().await;
        let first = tell(&engine, &bad(1)).await;
        engine.shutdown().await;
        let mut parts = rig.parts();
        parts.stop_at_end = true;
        let engine = Engine::start(parts).await.expect("starts");
        in_step(&engine, first).await;
        engine.skip(name, vec![first], "op").await.expect("runs");
        let second = tell(&engine, &bad(2)).await;
        let letters = engine.dead_letters(Some(name)).await.expect("listed");
        assert_eq!(letters.iter().map(|l| l.sequence).collect::<Vec<_>>(), [second]);
        let parked = |status: gravity_engine::status::Status| status.routes[0].parked + status.exporters[0].parked;
        assert_eq!(parked(engine.status()), 1);
        let outcome = tokio::time::timeout(Duration::from_secs(10), engine.finished()).await;
        assert_eq!(outcome.expect("ends"), Outcome::InStepWithNewDeadLetters, "of the route: {of_route}");
        engine.shutdown().await;
        let mut parts = rig.parts();
        parts.stop_at_end = true;
        let engine = Engine::start(parts).await.expect("starts");
        let outcome = tokio::time::timeout(Duration::from_secs(10), engine.finished()).await;
        assert_eq!(outcome.expect("ends"), Outcome::InStep, "an old one is not new again; of the route: {of_route}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_parked_only_once_the_log_has_it() {
    let rig = Rig::new(USERS);
    rig.target.set_down(true);
    let engine = rig.start().await;
    let first = post(&engine, &changed(1, "a")).await.last.expect("stored");
    becomes(&engine, RunState::Degraded).await;
    rig.target.always(message_id(&engine, first), Answer::Refuse);
    rig.memory_log().hold();
    rig.target.set_down(false);
    pause(400).await;
    assert!(letters(&engine).await.is_empty(), "its record is not durable yet");
    rig.memory_log().fail_writes("disk full");
    pause(200).await;
    rig.memory_log().release();
    rig.memory_log().heal();
    in_step(&engine, first).await;
    assert_eq!(letters(&engine).await, [(first, false)]);
    crash(&rig, engine).await;
    let engine = rig.start().await;
    let last = tell(&engine, &changed(2, "b")).await;
    assert_eq!((letters(&engine).await, rig.told()), (vec![(first, false)], vec![last]));
    engine.shutdown().await;
}

/// Says nothing of the last message of each call, and sends nothing of it.
struct Forgetful(MemoryExporter);

#[async_trait]
impl Exporter for Forgetful {
    fn binding(&self) -> Binding {
        self.0.binding()
    }

    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        let count = if messages.len() > 1 { messages.len() - 1 } else { 1 };
        self.0.export(&messages[..count]).await
    }

    async fn close(&self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_exporter_says_nothing_of_is_sent_again() {
    let rig = Rig::new(USERS);
    let mut parts = rig.parts();
    parts.exporters[0].exporter = Arc::new(Forgetful(MemoryExporter::new("out", rig.target.clone())));
    let engine = Engine::start(parts).await.expect("starts");
    engine.pause("out@db1", "op").await.expect("pauses");
    let sequences = many(&engine, &[changed(1, "a"), changed(2, "b"), changed(3, "c")]).await;
    eventually(|| route(&engine.status()).checkpoint >= sequences[2], || format!("{:?}", engine.status())).await;
    engine.resume("out@db1", false, "op").await.expect("goes on");
    in_step(&engine, sequences[2]).await;
    assert_eq!(rig.told(), sequences);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_with_too_many_parked_messages_stops_and_goes_on_after_a_skip() {
    let rig = Rig { max_parked: 1, ..Rig::new(USERS) };
    rig.target.script([Answer::Refuse]);
    let engine = rig.start().await;
    let first = tell(&engine, &changed(1, "a")).await;
    // Whatever sequence the next event gets.
    for sequence in first..first + 100 {
        rig.target.always(message_id(&engine, sequence), Answer::Refuse);
    }
    let second = post(&engine, &changed(2, "b")).await.last.expect("stored");
    becomes(&engine, RunState::Stopped).await;
    assert!(exporter(&engine).error.is_some_and(|e| e.contains("route/max-parked")), "{:?}", engine.status());
    assert_eq!(letters(&engine).await, [(first, false)]);
    let skip = tokio::time::timeout(Duration::from_secs(15), engine.skip("out@db1", vec![first], "op")).await;
    assert_eq!(skip.expect("in time").expect("runs").skipped, [first]);
    in_step(&engine, second).await;
    assert_eq!(letters(&engine).await, [(second, false)]);
    engine.shutdown().await;
}
