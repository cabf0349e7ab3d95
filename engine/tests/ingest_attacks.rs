//! Attacks on ingest: faults, hang-ups and crashes at the worst moment must lose nothing and store nothing twice.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use gravity_connectors::memory::source::Published;
use gravity_engine::status::{Outcome, RunState, SourceStatus};
use gravity_engine::{Engine, Envelope, EnvelopeOptions, IntakeError, IntakeRequest, KeyFrom, NameFrom};
use gravity_log::EventLog;
use gravity_model::{Fault, FaultKind};
use support::{Rig, USERS, changed, eventually, in_step, post, route};

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

fn message(payload: impl Into<Vec<u8>>) -> Published {
    Published { key: Some(b"k".to_vec()), payload: Some(payload.into()), ..Published::default() }
}

fn keyed(key: &str, body: String) -> IntakeRequest {
    IntakeRequest {
        headers: vec![("idempotency-key".to_owned(), key.to_owned())],
        body: Bytes::from(body),
        ..IntakeRequest::default()
    }
}

fn gone() -> Fault {
    Fault::new(FaultKind::Disconnected, "gone", "read", "the broker died")
}

fn source(engine: &Engine, name: &str) -> SourceStatus {
    engine.status().sources.iter().find(|s| s.name == name).cloned().expect("the source is there")
}

/// Starts with this envelope on the pull source.
async fn start_with(rig: &Rig, envelope: EnvelopeOptions) -> Engine {
    let mut parts = rig.parts();
    parts.sources[1].envelope = envelope;
    Engine::start(parts).await.expect("the engine starts")
}

fn named(name: &str) -> EnvelopeOptions {
    EnvelopeOptions { event_from: Some(NameFrom::Constant(name.to_owned())), ..EnvelopeOptions::default() }
}

/// Sequences of the open dead letters of ingest, once there are as many.
async fn letters(engine: &Engine, count: usize) -> Vec<u64> {
    for _ in 0..2_000 {
        let open = engine.dead_letters(Some("ingest")).await.expect("listed");
        if open.len() == count {
            return open.iter().map(|l| l.sequence).collect();
        }
        pause(5).await;
    }
    panic!("not {count} dead letters: {:?}", engine.dead_letters(Some("ingest")).await);
}

/// Events that follow from `sequence`.
async fn followers(engine: &Engine, sequence: u64) -> usize {
    let events = engine.events(0, 100_000).await.expect("read");
    events.iter().filter(|e| e.causation == Some(sequence) && e.source != "gravity").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_and_asks_again_does_not_store_twice() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    rig.memory_log().hold();
    let intake = engine.intake("web").expect("there");
    let hung_up = tokio::spawn({
        let intake = intake.clone();
        async move { intake.submit(keyed("k1", changed(1, "a"))).await }
    });
    pause(100).await;
    hung_up.abort();
    pause(50).await;
    let meanwhile = intake.clone();
    let again = tokio::spawn(async move { meanwhile.submit(keyed("k1", changed(1, "a"))).await });
    pause(100).await;
    rig.memory_log().release();
    let again = again.await.expect("answers").expect_err("still running");
    assert!(matches!(again, IntakeError::InProgress { .. }), "{again:?}");
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(route(&engine.status()).read, 2, "{again:?}");
    let first = intake.submit(keyed("k1", changed(1, "a"))).await.expect("answered");
    assert!(first.first.is_some_and(|stored| stored < last), "the answer is that of the request nobody waited for");
    let web = source(&engine, "web");
    assert_eq!((web.received, web.duplicates), (3, 1));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_and_is_not_stored_can_be_asked_again() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    rig.memory_log().hold();
    let intake = engine.intake("web").expect("there");
    let hung_up = tokio::spawn({
        let intake = intake.clone();
        async move { intake.submit(keyed("k1", changed(1, "a"))).await }
    });
    pause(100).await;
    hung_up.abort();
    rig.memory_log().fail_writes("no space left on device");
    pause(100).await;
    rig.memory_log().heal();
    rig.memory_log().release();
    let again = intake.submit(keyed("k1", changed(1, "a"))).await.expect("stored now");
    in_step(&engine, again.last.expect("stored")).await;
    assert_eq!((route(&engine.status()).read, source(&engine, "web").received), (1, 1));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_fault_with_appends_in_flight_stores_nothing_twice() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    rig.memory_log().hold();
    rig.broker.publish(0, message(changed(1, "a")));
    rig.broker.publish(0, message("{"));
    pause(800).await;
    rig.broker.fail_next(gone());
    pause(1_500).await;
    rig.memory_log().release();
    assert_eq!(letters(&engine, 1).await.len(), 1);
    let last = post(&engine, &changed(2, "b")).await.last.expect("stored");
    in_step(&engine, last).await;
    assert_eq!(route(&engine.status()).read, 3);
    assert_eq!(letters(&engine, 1).await.len(), 1, "stored and shown once");
    let bus = source(&engine, "bus");
    assert_eq!((bus.received, bus.duplicates), (2, 0));
    eventually(|| source(&engine, "bus").state == RunState::Running, || format!("{:?}", source(&engine, "bus"))).await;
    rig.broker.publish(0, message(changed(3, "c")));
    eventually(|| rig.rows().len() == 3, || format!("{:?}", engine.status())).await;
    engine.shutdown().await;
}

/// One append waits for the disk, a second one for room. The first fails; the second must not be stored without it.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_room_does_not_overtake_what_failed() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let done = post(&engine, &changed(0, "a")).await.last.expect("stored");
    in_step(&engine, done).await;
    let log = rig.memory_log();
    log.hold();
    log.limit_queue(1);
    rig.broker.publish(0, message(changed(1, "first")));
    pause(300).await;
    rig.broker.publish(0, message(changed(2, "second")));
    pause(300).await;
    log.fail_writes("no space left on device");
    pause(100).await;
    log.limit_queue(1 << 20);
    log.release();
    log.heal();
    eventually(|| rig.rows().len() == 3, || format!("{:?} {:#?}", rig.rows(), engine.status())).await;
    let bus = source(&engine, "bus");
    assert_eq!(bus.received - bus.duplicates, 2);
    eventually(|| rig.broker.acknowledged(0) == 2, || "not acknowledged".to_owned()).await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_never_ends_does_not_hold_up_a_stop() {
    for fault in [false, true] {
        let rig = Rig::new(USERS);
        let engine = rig.start().await;
        let web = engine.intake("web").expect("there");
        let done = post(&engine, &changed(0, "a")).await.last.expect("stored");
        in_step(&engine, done).await;
        pause(1_000).await;
        rig.memory_log().hold();
        rig.broker.publish(0, message(changed(1, "a")));
        let asking = web.clone();
        let asked = tokio::spawn(async move { asking.submit(keyed("k1", changed(2, "b"))).await });
        pause(300).await;
        if fault {
            rig.broker.fail_next(gone());
            pause(700).await;
        }
        let stopped = tokio::time::timeout(Duration::from_secs(15), engine.shutdown()).await;
        assert!(stopped.is_ok(), "the stop hangs; after a fault: {fault}");
        // Closing the log committed what waited; both are told so, or find out when they come back.
        drop(asked.await);
        drop((engine, web));
        rig.log.lock().take();
        let engine = rig.start().await;
        let web = engine.intake("web").expect("there");
        web.submit(keyed("k1", changed(2, "b"))).await.expect("answered as the first time");
        let last = post(&engine, &changed(3, "c")).await.last.expect("stored");
        in_step(&engine, last).await;
        assert_eq!(route(&engine.status()).read, 4, "after a fault: {fault}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_cannot_retry_one_dead_letter_of_ingest_twice() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message("7"));
    let engine = rig.start().await;
    let number = letters(&engine, 1).await[0];
    engine.shutdown().await;
    let engine = start_with(&rig, named("seven")).await;
    rig.memory_log().hold();
    let ask = |engine: &Engine| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.retry("ingest", Some(vec![number, number]), "op").await })
    };
    let (first, second, hung_up) = (ask(&engine), ask(&engine), ask(&engine));
    let skipping = engine.clone();
    let skip = tokio::spawn(async move { skipping.skip("ingest", vec![number], "op").await });
    pause(200).await;
    hung_up.abort();
    pause(100).await;
    let fourth = ask(&engine);
    pause(100).await;
    rig.memory_log().release();
    let mut done = usize::from(skip.await.expect("answers").is_ok());
    let skipped = done;
    for answer in [first.await, second.await, fourth.await] {
        done += usize::from(answer.expect("answers").is_ok_and(|report| !report.released.is_empty()));
    }
    assert!(done <= 1, "{done} decisions about one dead letter");
    letters(&engine, 0).await;
    assert_eq!(followers(&engine, number).await, 1 - skipped);
    assert!(engine.retry("ingest", Some(vec![number]), "op").await.is_err(), "it is no dead letter any more");
    engine.shutdown().await;
    let engine = rig.start().await;
    letters(&engine, 0).await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_hangs_up_does_not_free_the_dead_letter() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message("7"));
    let engine = rig.start().await;
    let number = letters(&engine, 1).await[0];
    engine.shutdown().await;
    let engine = start_with(&rig, named("seven")).await;
    rig.memory_log().hold();
    let asking = engine.clone();
    let hung_up = tokio::spawn(async move { asking.retry("ingest", None, "op").await });
    pause(200).await;
    hung_up.abort();
    pause(100).await;
    let asking = engine.clone();
    let second = tokio::spawn(async move { asking.retry("ingest", None, "op").await });
    pause(100).await;
    rig.memory_log().release();
    second.await.expect("answers").expect("nothing is left to do");
    letters(&engine, 0).await;
    assert_eq!(followers(&engine, number).await, 1);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_not_stored_gives_the_dead_letter_back() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message("7"));
    let engine = rig.start().await;
    let number = letters(&engine, 1).await[0];
    engine.shutdown().await;
    let engine = start_with(&rig, named("seven")).await;
    rig.memory_log().fail_writes("no space left on device");
    assert!(engine.retry("ingest", None, "op").await.is_err());
    assert!(engine.skip("ingest", vec![number], "op").await.is_err());
    assert_eq!(letters(&engine, 1).await, [number]);
    rig.memory_log().heal();
    assert_eq!(engine.retry("ingest", None, "op").await.expect("ran").released, [number]);
    assert_eq!(followers(&engine, number).await, 1);
    engine.shutdown().await;
}

/// S12: of a message beyond the limit only the beginning is kept. It may look like a whole one: it is none.
#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_a_message_never_becomes_an_event() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message(vec![b'1'; (32 << 20) + 1]));
    let engine = start_with(&rig, named("number")).await;
    let number = letters(&engine, 1).await[0];
    let report = engine.retry("ingest", None, "op").await.expect("ran");
    assert_eq!((report.parked_again.clone(), report.released.len()), (vec![number], 0));
    assert_eq!(followers(&engine, number).await, 0);
    let kept = engine.dead_letters(Some("ingest")).await.expect("listed");
    assert_eq!(kept[0].code, "decode/too-large");
    assert_eq!(engine.skip("ingest", vec![number], "op").await.expect("skipped").skipped, [number]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_fails_again_shows_its_newest_error() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message("{}"));
    let engine = rig.start().await;
    let number = letters(&engine, 1).await[0];
    let code = async |engine: &Engine| engine.dead_letters(Some("ingest")).await.expect("listed")[0].code.clone();
    assert_eq!(code(&engine).await, "decode/no-event-name");
    engine.shutdown().await;
    let cloud = EnvelopeOptions { envelope: Envelope::CloudEvents, ..EnvelopeOptions::default() };
    let engine = start_with(&rig, cloud).await;
    let report = engine.retry("ingest", None, "op").await.expect("ran");
    assert_eq!(report.parked_again, [number]);
    assert_eq!(code(&engine).await, "decode/bad-cloudevent");
    let last = engine.status().log.last;
    engine.retry("ingest", None, "op").await.expect("ran");
    assert_eq!(engine.status().log.last, last, "the same error is not written again");
    engine.shutdown().await;
    let engine = rig.start().await;
    assert_eq!((letters(&engine, 1).await, code(&engine).await.as_str()), (vec![number], "decode/bad-cloudevent"));
    engine.shutdown().await;
}

/// S12: a name and a key taken out of a message make the event larger than the message. Intake goes on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_larger_than_its_message_does_not_stop_the_source() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message(format!(r#"{{"op":"{}"}}"#, "x".repeat(30 << 20))));
    rig.broker.publish(
        0,
        Published {
            key: Some(vec![b'k'; 70 << 20]),
            payload: Some(changed(2, "b").into_bytes()),
            ..Published::default()
        },
    );
    rig.broker.publish(0, message(changed(1, "a")));
    let at_op = || "/op".to_owned();
    let envelope = EnvelopeOptions {
        event_from: Some(NameFrom::Field(at_op())),
        key_from: Some(KeyFrom::Field(at_op())),
        ..EnvelopeOptions::default()
    };
    let engine = start_with(&rig, envelope).await;
    eventually(|| rig.rows() == ["1 a -"], || format!("{:?}", source(&engine, "bus"))).await;
    letters(&engine, 2).await;
    let listed = engine.dead_letters(Some("ingest")).await.expect("listed");
    assert!(listed.iter().all(|l| l.code == "decode/too-large"), "{:?}", listed.iter().map(|l| &l.code));
    assert!(listed.iter().all(|l| l.key.as_ref().is_none_or(|key| key.len() < 2_000)), "a key for people");
    engine.shutdown().await;
}

/// What is wrong in a message may be as large as the message; the words about it are not.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_does_not_repeat_the_message() {
    let rig = Rig::new(USERS);
    let long = "é".repeat(100_000);
    let bad = [
        format!(r#"{{"event":"e","payload":1,"id":["{long}"]}}"#),
        format!(r#"{{"event":"e","payload":1,"time":"{long}"}}"#),
        format!(r#"{{"event":"gravity.{long}","payload":1}}"#),
        format!(r#"{{"specversion":"{long}","id":"1","source":"s","type":"t"}}"#),
    ];
    bad.iter().for_each(|payload| rig.broker.publish(0, message(payload.as_str())));
    let engine = rig.start().await;
    letters(&engine, bad.len()).await;
    for letter in engine.dead_letters(Some("ingest")).await.expect("listed") {
        assert!(letter.error.len() < 1_000, "{} bytes about {}", letter.error.len(), letter.code);
    }
    let web = engine.intake("web").expect("there");
    for payload in &bad {
        let request = IntakeRequest { body: Bytes::from(payload.clone()), ..IntakeRequest::default() };
        let error = web.submit(request).await.expect_err("refused").to_string();
        assert!(error.len() < 1_000, "{} bytes", error.len());
    }
    let twice = format!(r#"{{"event":"e","id":"{long}","payload":1}}"#);
    let request = IntakeRequest { body: Bytes::from(format!("[{twice},{twice}]")), ..IntakeRequest::default() };
    assert!(web.submit(request).await.expect_err("refused").to_string().len() < 1_000);
    engine.shutdown().await;
}

/// S14: dead letters are state that the log carries for ever. Their number has a bound, and at it the source waits.
#[tokio::test(flavor = "multi_thread")]
async fn trap24_at_its_bound_of_dead_letters_a_source_waits_for_the_operator() {
    const BOUND: usize = 100_000;
    let rig = Rig::new(USERS);
    for _ in 0..BOUND + 300_000 {
        rig.broker.publish(0, Published { payload: Some(b"{".to_vec()), ..Published::default() });
    }
    rig.broker.publish(0, message(changed(1, "a")));
    let engine = rig.start().await;
    let stopped = || source(&engine, "bus").state == RunState::Stopped;
    eventually(stopped, || format!("{:?}", source(&engine, "bus"))).await;
    let error = source(&engine, "bus").error.expect("a stopped source says why");
    assert!(error.contains("100000 dead letters") && error.contains("retry or skip"), "{error}");
    let open: Vec<u64> =
        engine.dead_letters(Some("ingest")).await.expect("listed").iter().map(|l| l.sequence).collect();
    // What is under way when the bound is reached is stored: 16 appends of 256 KiB.
    assert!((BOUND..BOUND + 200_000).contains(&open.len()), "{}", open.len());
    for _ in 0..8 {
        let open: Vec<u64> =
            engine.dead_letters(Some("ingest")).await.expect("listed").iter().map(|l| l.sequence).collect();
        if !open.is_empty() {
            engine.skip("ingest", open, "op").await.expect("skipped");
        }
        if rig.rows().len() == 1 {
            break;
        }
        pause(1_500).await;
    }
    eventually(|| rig.rows().len() == 1, || format!("{:?}", source(&engine, "bus"))).await;
    assert_eq!(source(&engine, "bus").state, RunState::Running);
    engine.shutdown().await;
}

/// `--stop-at-end` means the end as it was at the start, however busy the source is.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_never_rests_has_an_end() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message(changed(0, "a")));
    let broker = rig.broker.clone();
    let producer = tokio::spawn(async move {
        for id in 1.. {
            broker.publish(0, message(changed(id, "b")));
            pause(50).await;
        }
    });
    let mut parts = rig.parts();
    parts.stop_at_end = true;
    let engine = Engine::start(parts).await.expect("the engine starts");
    let ended = tokio::time::timeout(Duration::from_secs(15), engine.finished()).await;
    producer.abort();
    assert_eq!(ended.ok(), Some(Outcome::InStep));
    engine.shutdown().await;
}

/// As many events as fit into one request, each with its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_of_events_with_ids_is_taken_in_seconds() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let mut body = String::with_capacity(16 << 20);
    for id in 0..300_000 {
        body.push_str(&format!("{{\"event\":\"e\",\"id\":\"{id}\",\"payload\":1}}\n"));
    }
    let request = || IntakeRequest {
        content_type: Some("application/x-ndjson".to_owned()),
        body: Bytes::from(body.clone()),
        ..IntakeRequest::default()
    };
    let web = engine.intake("web").expect("there");
    let began = Instant::now();
    assert_eq!(web.submit(request()).await.expect("taken in").duplicates, 0);
    assert_eq!(web.submit(request()).await.expect("answered").duplicates, 300_000);
    assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_no_request_behind_that_still_writes() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let web = engine.intake("web").expect("there");
    let mut clients = Vec::new();
    for id in 0..200 {
        let web = web.clone();
        clients.push(tokio::spawn(async move { web.submit(keyed(&format!("k{id}"), changed(id, "a"))).await }));
    }
    tokio::task::yield_now().await;
    engine.shutdown().await;
    let last = rig.memory_log().stat().last.get();
    let mut stored = 0;
    for client in clients {
        match client.await.expect("answers") {
            Ok(answer) => stored += u64::from(answer.last.expect("stored") <= last),
            Err(error) => assert_eq!(error.status(), 503, "{error}"),
        }
    }
    assert_eq!(rig.memory_log().stat().last.get(), last);
    drop((engine, web));
    rig.log.lock().take();
    let engine = rig.start().await;
    assert_eq!(source(&engine, "web").received, stored);
    engine.shutdown().await;
}
