//! Sources over doubles: exactly once into the log, dead letters of ingest, idempotency, back-pressure.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use gravity_connectors::memory::source::Published;
use gravity_engine::{Engine, IntakeAnswer, IntakeError, IntakeRequest, SourcePort};
use gravity_log::EventLog;
use gravity_model::Fault;
use gravity_model::port::source::{
    Acceptance, AckToken, BatchLimits, Position, PositionBook, Repeat, Slot, Source, SourceBatch, SourceRecord, Span,
    Start,
};
use support::{Rig, USERS, changed, eventually, in_step, post, route};

fn message(key: &str, payload: &str) -> Published {
    Published { key: Some(key.into()), payload: Some(payload.into()), ..Published::default() }
}

fn request(body: &str, headers: &[(&str, &str)]) -> IntakeRequest {
    IntakeRequest {
        content_type: None,
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_s1_redelivered_records_are_dropped_and_counted() {
    let rig = Rig::new(USERS);
    for i in 0..10 {
        rig.broker.publish(0, message("k", &changed(i, "a")));
    }
    let engine = rig.start().await;
    eventually(|| rig.rows().len() == 10, || format!("{:?}", engine.status())).await;
    rig.broker.redeliver(0, 4);
    rig.broker.publish(0, message("k", &changed(10, "a")));
    eventually(|| rig.rows().len() == 11, || format!("{:?}", engine.status())).await;
    let source = engine.status().sources.iter().find(|s| s.name == "bus").cloned().expect("there");
    assert_eq!(source.received, 11 + source.duplicates);
    assert!(source.duplicates >= 6, "{source:?}");
    assert_eq!(route(&engine.status()).read, 11);
    engine.shutdown().await;
    let engine = rig.start().await;
    rig.broker.publish(0, message("k", &changed(11, "a")));
    eventually(|| rig.rows().len() == 12, || format!("{:?}", engine.status())).await;
    assert_eq!(route(&engine.status()).read, 12, "the log's position rules after a restart");
    let again = engine.status().sources.iter().find(|s| s.name == "bus").cloned().expect("there");
    assert_eq!(again.received - again.duplicates, 12, "received survives restarts");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_an_accepted_break_is_on_the_log_before_what_follows_it() {
    let mut rig = Rig::new(USERS);
    for i in 0..10 {
        rig.broker.publish(0, message("k", &changed(i, "a")));
    }
    let engine = rig.start().await;
    eventually(|| rig.rows().len() == 10, || format!("{:?}", engine.status())).await;
    engine.shutdown().await;
    for i in 10..30 {
        rig.broker.publish(0, message("k", &changed(i, "a")));
    }
    rig.broker.trim(0, 20);
    let engine = rig.start().await;
    let stopped = |engine: &Engine| {
        engine.status().sources.iter().find(|s| s.name == "bus").and_then(|s| s.error.clone()).unwrap_or_default()
    };
    eventually(|| stopped(&engine).contains("offset 10"), || format!("{:?}", engine.status())).await;
    assert_eq!(rig.rows().len(), 10, "without a word from the operator nothing is skipped");
    engine.shutdown().await;
    rig.accept = Acceptance { gap: true, recreated: true };
    let engine = rig.start().await;
    eventually(|| rig.rows().len() == 20, || format!("{:?}", engine.status())).await;
    rig.broker.recreate();
    rig.broker.publish(0, message("k", &changed(30, "a")));
    eventually(|| rig.rows().len() == 21, || format!("{:?}", engine.status())).await;
    engine.shutdown().await;
    let engine = rig.start().await;
    rig.broker.publish(0, message("k", &changed(31, "a")));
    eventually(|| rig.rows().len() == 22, || format!("{:?}", engine.status())).await;
    let events = engine.events(0, 10_000).await.expect("read");
    let of_bus = |name: &str| events.iter().filter(|e| e.event == name).map(|e| e.sequence).collect::<Vec<_>>();
    let (changes, breaks) = (of_bus("userChanged"), of_bus("gravity.source_break"));
    assert_eq!((changes.len(), breaks.len()), (22, 2), "told once each, also over a restart");
    assert!(changes[9] < breaks[0] && breaks[0] < changes[10] && changes[19] < breaks[1] && breaks[1] < changes[20]);
    let told: Vec<serde_json::Value> = events
        .iter()
        .filter(|e| e.event == "gravity.source_break")
        .filter_map(|e| serde_json::from_str(e.payload.as_ref()?.get()).ok())
        .collect();
    assert_eq!((&told[0]["from"], &told[0]["to"]), (&10.into(), &20.into()), "{told:?}");
    assert_eq!(told[1]["former"], serde_json::json!(["memory/bus/0/0", 30]), "{told:?}");
    let counted = engine.status().sources.iter().find(|s| s.name == "bus").map(|s| s.received - s.duplicates);
    assert_eq!(counted, Some(22), "a break is no message");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_undecodable_input_is_kept_raw_and_parked_on_ingest() {
    let rig = Rig::new(USERS);
    for payload in ["{", "", "7", r#"{"event":1,"payload":{}}"#, r#"{"event":"gravity.opened","payload":{}}"#] {
        rig.broker.publish(0, message("k", payload));
    }
    rig.broker.publish(0, message("k", &changed(1, "a")));
    let engine = rig.start().await;
    eventually(|| rig.rows().len() == 1, || format!("{:?}", engine.status())).await;
    let letters = engine.dead_letters(Some("ingest")).await.expect("listed");
    let codes: Vec<_> = letters.iter().map(|l| l.code.as_str()).collect();
    assert_eq!(
        codes,
        ["decode/not-json", "decode/not-json", "decode/no-event-name", "decode/bad-event-name", "decode/reserved-name"]
    );
    assert!(letters.iter().all(|l| l.key.as_deref() == Some("k")));
    eventually(|| route(&engine.status()).read == 6, || format!("{:?}", engine.status())).await;
    assert_eq!(route(&engine.status()).unmatched, 5, "elsewhere they match nothing");
    let shown = engine.dead_letter("ingest", letters[0].sequence).await.expect("listed").expect("there");
    assert_eq!(shown.record.and_then(|r| r.raw), Some("ew==".to_owned()), "the bytes as received");
    engine.shutdown().await;
    let engine = rig.start().await;
    assert_eq!(engine.dead_letters(Some("ingest")).await.expect("listed").len(), 5, "they survive a restart");
    let report = engine.skip("ingest", vec![letters[0].sequence], "op").await.expect("skipped");
    assert_eq!(report.skipped, [letters[0].sequence]);
    assert_eq!(engine.retry("ingest", None, "op").await.expect("ran").parked_again.len(), 4);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_idempotency_keys_make_a_repeat_harmless() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let web = engine.intake("web").expect("there");
    let body =
        r#"[{"event":"userChanged","id":"a","payload":{"id":1}},{"event":"userChanged","id":"b","payload":{"id":2}}]"#;
    let first = web.submit(request(body, &[("idempotency-key", "k1")])).await.expect("stored");
    assert_eq!(first.duplicates, 0);
    let again = web.submit(request(body, &[("idempotency-key", "k1")])).await.expect("answered");
    assert!(!first.is_repeat);
    let repeated = IntakeAnswer { is_repeat: true, ..first };
    assert_eq!(again, repeated, "a repeated key gets the first answer, marked as such");
    let other = web.submit(request(&changed(3, "x"), &[("idempotency-key", "k1")])).await.expect_err("refused");
    assert!(matches!(other, IntakeError::Conflict { .. }) && other.status() == 422);
    let by_id = web.submit(request(body, &[])).await.expect("answered");
    assert_eq!((by_id.first, by_id.duplicates), (None, 2), "ids dedupe as well");
    let changed_body = r#"{"event":"userChanged","id":"a","payload":{"id":9}}"#;
    assert_eq!(web.submit(request(changed_body, &[])).await.expect_err("refused").status(), 422);
    let twice = r#"[{"event":"e","id":"z","payload":1},{"event":"e","id":"z","payload":1}]"#;
    assert_eq!(web.submit(request(twice, &[])).await.expect_err("refused").status(), 400);
    engine.shutdown().await;
    let engine = rig.start().await;
    let web = engine.intake("web").expect("there");
    assert_eq!(web.submit(request(body, &[("idempotency-key", "k1")])).await.expect("answered"), repeated);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o9_o10_events_without_id_are_never_duplicates() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    post(&engine, &changed(1, "same")).await;
    let second = post(&engine, &changed(1, "same")).await;
    in_step(&engine, second.last.expect("stored")).await;
    assert_eq!(route(&engine.status()).read, 2);
    engine.shutdown().await;
    let engine = rig.start().await;
    let third = post(&engine, &changed(1, "same")).await;
    in_step(&engine, third.last.expect("stored")).await;
    assert_eq!(route(&engine.status()).read, 3);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_taken_whole_or_refused_whole_with_its_line() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    // The route records its types when it starts: nothing else is written once it is in step.
    let done = post(&engine, &changed(0, "a")).await.last.expect("stored");
    in_step(&engine, done).await;
    let web = engine.intake("web").expect("there");
    let body = format!("{}\n{}\n{{\"event\":\"e\"}}\n", changed(1, "a"), changed(2, "b"));
    let request = IntakeRequest { content_type: Some("application/x-ndjson".to_owned()), ..request(&body, &[]) };
    match web.submit(request).await.expect_err("refused") {
        IntakeError::Malformed { line, code, .. } => assert_eq!((line, code), (3, "decode/no-payload")),
        other => panic!("{other}"),
    }
    let received = engine.events(0, 1_000).await.expect("read").iter().filter(|e| e.source == "web").count();
    assert_eq!(received, 1, "nothing of it is stored");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_trap24_a_full_disk_loses_nothing_and_intake_resumes() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let done = post(&engine, &changed(0, "a")).await.last.expect("stored");
    in_step(&engine, done).await;
    let disk = rig.memory_log();
    disk.fail_writes("no space left on device");
    for i in 1..=5 {
        rig.broker.publish(0, message("k", &changed(i, "a")));
    }
    let web = engine.intake("web").expect("there");
    let refused = web.submit(request(&changed(9, "x"), &[])).await.expect_err("not stored");
    assert_eq!(refused.status(), 503);
    assert_eq!(rig.broker.acknowledged(0), 0, "nothing is acknowledged");
    disk.heal();
    eventually(|| rig.rows().len() == 6, || format!("{:#?}", engine.status())).await;
    let source = engine.status().sources.iter().find(|s| s.name == "bus").cloned().expect("there");
    assert_eq!(source.received - source.duplicates, 5);
    eventually(|| rig.broker.acknowledged(0) == 5, || "acknowledged late".to_owned()).await;
    engine.shutdown().await;
}

/// Delivers one batch whose two subjects share one position, the furthest record under the first of them.
struct TwoSubjects {
    given: bool,
    /// Where the stream has gone on to by messages that are none of ours.
    passed: Option<u64>,
}

#[async_trait::async_trait]
impl Source for TwoSubjects {
    async fn connect(&mut self, _book: Arc<dyn PositionBook>, _start: Start) -> Result<(), Fault> {
        Ok(())
    }

    async fn next_batch(&mut self, limits: BatchLimits) -> Result<SourceBatch, Fault> {
        if std::mem::replace(&mut self.given, true) {
            tokio::time::sleep(limits.max_wait).await;
            return Ok(SourceBatch::default());
        }
        let mut batch = SourceBatch::default();
        for subject in ["users.eu", "users.us"] {
            batch.slots.push(Slot { position: Some("STREAM/1".into()), subject: subject.into(), queue: None });
        }
        for (slot, next) in [(0, 2), (1, 3), (0, 4)] {
            let payload = Some(batch.store(changed(next as i64, "a").as_bytes()));
            let position = Position { next, detail: 0 };
            let (key, headers, time) = (None, Span::default(), None);
            batch.records.push(SourceRecord {
                payload,
                key,
                headers,
                time,
                slot,
                position,
                repeat: Repeat::ByPosition,
            });
        }
        Ok(batch)
    }

    async fn acknowledge(&mut self, _token: AckToken) -> Result<(), Fault> {
        Ok(())
    }

    async fn note_end(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    async fn has_passed_end(&mut self) -> Result<bool, Fault> {
        Ok(self.given)
    }

    async fn passed(&mut self) -> Option<(Arc<str>, Position)> {
        let next = self.passed.filter(|_| self.given)?;
        Some(("STREAM/1".into(), Position { next, detail: 0 }))
    }

    async fn close(&mut self) {}
}

/// Next position in the log once three records of two subjects were stored, and after the drain of a shutdown.
async fn stored_position(passed: Option<u64>) -> (u64, u64) {
    let rig = Rig::new(USERS);
    let mut parts = rig.parts();
    parts.sources.retain(|source| source.name == "bus");
    parts.sources[0].port = SourcePort::Pull(Box::new(TwoSubjects { given: false, passed }));
    let engine = Engine::start(parts).await.expect("starts");
    eventually(|| rig.rows().len() == 3, || format!("{:?}", engine.status())).await;
    let next = || {
        let positions = rig.memory_log().positions("bus");
        assert_eq!(positions.len(), 1, "{positions:?}");
        positions[0].1.next
    };
    let stored = next();
    engine.shutdown().await;
    (stored, next())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_several_subjects_share_never_goes_back() {
    assert_eq!(stored_position(None).await, (4, 4), "not 3, where the second subject stood");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_passed_without_a_record_is_kept_in_the_log() {
    assert_eq!(stored_position(Some(9)).await.1, 9);
    assert_eq!(stored_position(Some(2)).await.1, 4, "never back");
}
