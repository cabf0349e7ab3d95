//! Counters of sources over crashes: what `status` shows is what the log holds, and finding out does not cost the whole log.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gravity_connectors::memory::source::Published;
use gravity_engine::ingest::gauge::{SourceGauge, restore_counters};
use gravity_engine::status::SourceStatus;
use gravity_engine::{Engine, EnvelopeOptions, NameFrom};
use gravity_log::{
    Batch, Block, DedupeHit, DedupeKey, EventLog, Health, Identity, LogError, LogStat, MemoryLog, ReadLimits,
    SequenceRange, StateEntry, Ticket, Verified,
};
use gravity_model::Sequence;
use gravity_model::ident::BlockMark;
use gravity_model::port::source::Position;
use support::{Rig, USERS, changed, eventually, in_step, post};
use tokio::sync::watch;

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

fn message(payload: &str) -> Published {
    Published { key: Some(b"k".to_vec()), payload: Some(payload.into()), ..Published::default() }
}

fn with_id(id: &str) -> String {
    format!(r#"{{"event":"userChanged","id":"{id}","payload":{{"id":1,"name":"a"}}}}"#)
}

fn source(engine: &Engine, name: &str) -> SourceStatus {
    engine.status().sources.iter().find(|s| s.name == name).cloned().expect("the source is there")
}

/// Events that came in through `name`, by the log itself.
async fn held(engine: &Engine, name: &str) -> u64 {
    let events = engine.events(0, 100_000).await.expect("read");
    events.iter().filter(|e| e.source == name && e.causation.is_none()).count() as u64
}

/// Waits until the log notes that this many came in: there is nearly a second until the next time.
async fn noted(rig: &Rig, source: &str, received: u64) {
    let note = || rig.memory_log().state().into_iter().find(|e| e.name == "gravity.source" && e.key == source);
    let says = || {
        note().is_some_and(|e| {
            let counters: serde_json::Value = serde_json::from_slice(&e.payload).expect("JSON");
            counters["received"] == received
        })
    };
    eventually(says, || format!("{:?}", note())).await;
}

/// Ends the engine as a kill does: nothing that waits is written.
async fn kill(rig: &Rig, engine: Engine) {
    rig.memory_log().fail_writes("killed");
    engine.shutdown().await;
    drop(engine);
    rig.log.lock().take();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_append_and_note_loses_no_count() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message("7"));
    let engine = rig.start().await;
    eventually(|| source(&engine, "bus").received == 1, || format!("{:?}", engine.status())).await;
    post(&engine, &with_id("a")).await;
    post(&engine, &with_id("a")).await;
    post(&engine, &format!("[{},{}]", with_id("a"), with_id("b"))).await;
    let web = source(&engine, "web");
    assert_eq!((web.received, web.duplicates), (4, 2));
    noted(&rig, "web", 4).await;
    // Durable, and counted by nobody when the kill comes.
    let last = post(&engine, &with_id("c")).await.last.expect("stored");
    rig.broker.publish(0, message(&changed(2, "b")));
    rig.broker.publish(0, message("{"));
    eventually(|| source(&engine, "bus").received == 3, || format!("{:?}", engine.status())).await;
    in_step(&engine, last).await;
    kill(&rig, engine).await;
    let engine = rig.start().await;
    let (web, bus) = (source(&engine, "web"), source(&engine, "bus"));
    assert_eq!((web.received, web.duplicates), (5, 2));
    assert_eq!((bus.received, bus.duplicates), (3, 0));
    assert_eq!((held(&engine, "web").await, held(&engine, "bus").await), (3, 3));
    engine.shutdown().await;
}

/// What an operator's retry appends did not come in a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_retried_dead_letter_is_not_received_again() {
    let rig = Rig::new(USERS);
    rig.broker.publish(0, message("7"));
    let engine = rig.start().await;
    eventually(|| source(&engine, "bus").received == 1, || format!("{:?}", engine.status())).await;
    engine.shutdown().await;
    drop(engine);
    let mut parts = rig.parts();
    parts.sources[1].envelope =
        EnvelopeOptions { event_from: Some(NameFrom::Constant("seven".to_owned())), ..EnvelopeOptions::default() };
    let engine = Engine::start(parts).await.expect("the engine starts");
    assert_eq!(engine.retry("ingest", None, "op").await.expect("ran").released.len(), 1);
    assert_eq!(source(&engine, "bus").received, 1);
    kill(&rig, engine).await;
    let engine = rig.start().await;
    assert_eq!(source(&engine, "bus").received, 1);
    engine.shutdown().await;
}

/// A request that is refused as a whole was not received in part.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_stored_is_not_counted_at_all() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    post(&engine, &with_id("a")).await;
    rig.memory_log().hold();
    let web = engine.intake("web").expect("there");
    let request = gravity_engine::IntakeRequest {
        body: format!("[{},{}]", with_id("a"), with_id("b")).into(),
        ..Default::default()
    };
    let asked = tokio::spawn(async move { web.submit(request).await });
    pause(100).await;
    rig.memory_log().fail_writes("no space left on device");
    asked.await.expect("answers").expect_err("not stored");
    let web = source(&engine, "web");
    assert_eq!((web.received, web.duplicates), (1, 0));
    engine.shutdown().await;
}

/// The disk was full when counters were noted. They are noted again although they have not changed since.
#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_failed_is_made_again() {
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    post(&engine, &with_id("a")).await;
    noted(&rig, "web", 1).await;
    rig.memory_log().hold();
    post_duplicate(&engine).await;
    // The note of the duplicate waits for the disk, and fails.
    pause(1_500).await;
    rig.memory_log().fail_writes("no space left on device");
    rig.memory_log().release();
    rig.memory_log().heal();
    pause(2_500).await;
    kill(&rig, engine).await;
    let engine = rig.start().await;
    let web = source(&engine, "web");
    assert_eq!((web.received, web.duplicates), (2, 1));
    engine.shutdown().await;
}

async fn post_duplicate(engine: &Engine) {
    let answer = post(engine, &with_id("a")).await;
    assert_eq!((answer.first, answer.duplicates), (None, 1));
}

/// A log that remembers the earliest place it was read from.
struct Watched {
    log: Arc<MemoryLog>,
    earliest: AtomicU64,
}

impl Watched {
    fn over(log: Arc<MemoryLog>) -> Arc<Watched> {
        Arc::new(Watched { log, earliest: AtomicU64::new(u64::MAX) })
    }
}

#[async_trait]
impl EventLog for Watched {
    fn identity(&self) -> &Identity {
        self.log.identity()
    }

    fn append(&self, batch: &mut Batch) -> Result<Ticket, LogError> {
        self.log.append(batch)
    }

    fn append_lazy(&self, batch: Batch) -> Result<SequenceRange, LogError> {
        self.log.append_lazy(batch)
    }

    async fn room(&self) -> Result<(), LogError> {
        self.log.room().await
    }

    fn durable(&self) -> watch::Receiver<Sequence> {
        self.log.durable()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.log.health()
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Block>, LogError> {
        self.earliest.fetch_min(after.get(), Ordering::SeqCst);
        self.log.read(after, limits)
    }

    fn read_recent(&self, _: Sequence, _: ReadLimits) -> Option<Vec<Block>> {
        None
    }

    fn block_mark(&self, sequence: Sequence) -> Result<BlockMark, LogError> {
        self.log.block_mark(sequence)
    }

    fn positions(&self, source: &str) -> Vec<(String, Position)> {
        self.log.positions(source)
    }

    fn state(&self) -> Vec<StateEntry> {
        self.log.state()
    }

    fn dedupe(&self, keys: &[DedupeKey]) -> Result<Vec<Option<DedupeHit>>, LogError> {
        self.log.dedupe(keys)
    }

    fn stat(&self) -> LogStat {
        self.log.stat()
    }

    fn verify(&self, range: Option<SequenceRange>, progress: &mut dyn FnMut(u64)) -> Result<Verified, LogError> {
        self.log.verify(range, progress)
    }

    fn close(&self) {
        self.log.close();
    }
}

/// Counts of these sources as a start finds them, and the place from which it read the log for them. Only this is looked
/// at: routes and subscriptions read from where they stand.
async fn restored(rig: &Rig, names: [&str; 2]) -> (Vec<u64>, u64) {
    let parts = rig.parts();
    let watched = Watched::over(rig.memory_log());
    let gauges: Vec<_> = names.iter().map(|name| Arc::new(SourceGauge::new(name, "test"))).collect();
    let (log, found) = (watched.clone(), gauges.clone());
    let done = tokio::task::spawn_blocking(move || restore_counters(&*log, &found)).await;
    done.expect("ends").expect("the log is readable");
    watched.close();
    drop(parts);
    let earliest = watched.earliest.load(Ordering::SeqCst);
    drop(watched);
    rig.log.lock().take();
    (gauges.iter().map(|gauge| gauge.counters().received).collect(), earliest)
}

/// A source that was never used, and one that was used long ago, must not make a start read the log from its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_reads_the_end_of_the_log_only() {
    const EVENTS: u64 = 200_000;
    let rig = Rig::new(USERS);
    let engine = rig.start().await;
    let web = engine.intake("web").expect("there");
    let body = "{\"event\":\"e\",\"payload\":1}\n".repeat(5_000);
    let mut last = 0;
    for _ in 0..EVENTS / 5_000 {
        let request = gravity_engine::IntakeRequest {
            content_type: Some("application/x-ndjson".to_owned()),
            body: body.clone().into(),
            ..Default::default()
        };
        last = web.submit(request).await.expect("stored").last.expect("stored");
    }
    in_step(&engine, last).await;
    pause(2_500).await;
    drop(web);
    kill(&rig, engine).await;
    let (received, from) = restored(&rig, ["web", "bus"]).await;
    assert_eq!(received, [EVENTS, 0]);
    assert!(from >= last - 70_000, "read from {from} of {last}");
    // A source that the configuration names now for the first time costs no more.
    let (received, from) = restored(&rig, ["web", "new"]).await;
    assert_eq!(received, [EVENTS, 0]);
    assert!(from >= last - 70_000, "read from {from} of {last}");
}
