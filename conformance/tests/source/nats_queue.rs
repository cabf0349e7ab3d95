//! The suite over streams that forget what was acknowledged, and what only they have: redelivery, consumers of others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::RetentionPolicy;
use gravity_conformance::nats_rig::{NatsRig, PrivateNats, nats_under_test};
use gravity_conformance::source_suite::{Book, PATIENCE, SourceRig, WIDE, expect_silence, messages, read_until};
use gravity_connectors::nats::{NatsReading, NatsSource, NatsSourceOptions, log_mark};
use gravity_model::port::source::{BatchLimits, PositionBook, Source, Start};
use gravity_model::{FaultKind, LogId};

use super::nats::{positions, refused, survive_kills};

mod work_queue {
    use super::*;

    async fn rig(_partitions: u32) -> Option<NatsRig> {
        Some(NatsRig::on(&nats_under_test()?, RetentionPolicy::WorkQueue).await)
    }

    gravity_conformance::source_suite!(queue rig);
    gravity_conformance::source_suite!(anew rig);
}

mod interest {
    use super::*;

    async fn rig(_partitions: u32) -> Option<NatsRig> {
        Some(NatsRig::on(&nats_under_test()?, RetentionPolicy::Interest).await)
    }

    gravity_conformance::source_suite!(queue rig);
}

async fn rig(retention: RetentionPolicy) -> Option<NatsRig> {
    Some(NatsRig::on(&nats_under_test()?, retention).await)
}

async fn read_unacknowledged(rig: &NatsRig, count: usize) -> (Box<dyn Source>, Arc<Book>) {
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, count, false).await.expect("read");
    (source, book)
}

/// S1, L3: killed before the acknowledgement, with newer messages published since. What the log holds is stored once, what
/// it lost comes again, and nothing newer passes it: the log knows one position per stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_what_was_not_acknowledged_is_stored_once_and_in_order() {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let Some(rig) = rig(retention).await else { return };
        rig.publish(0, messages("a", 500)).await;
        let (source, book) = read_unacknowledged(&rig, 500).await;
        drop(source);
        rig.publish(0, messages("b", 200)).await;
        // The newest part of the log did not survive either.
        let older = Arc::new(book.reopened());
        let slot = book.positions()[0].0.clone();
        older.set(&slot, 301);
        let mut source = rig.source();
        source.connect(positions(&older), Start::Earliest).await.expect("connect after the crash");
        read_until(&mut *source, &older, 400, true).await.expect("read again and on");
        expect_silence(&mut *source, &older, Duration::from_millis(500)).await;
        source.close().await;
        let expected: Vec<String> =
            (300..500).map(|i| format!("a-{i}")).chain((0..200).map(|i| format!("b-{i}"))).collect();
        assert_eq!(older.payloads(), expected, "{retention:?}");
        assert_eq!(older.duplicates(), 0, "what the log holds was acknowledged, not handed out");
        let info = rig.consumer().await;
        assert_eq!((info.num_ack_pending, info.num_pending), (0, 0), "{retention:?}");
        assert_eq!(info.config.ack_wait, Duration::from_secs(60), "settling leaves the consumer as it was");
        assert_eq!(rig.stream().await.cached_info().state.messages, 0, "{retention:?}: all is acknowledged");
    }
}

/// Ten crashes in a row, each in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_crashes_in_a_row_lose_and_double_nothing() {
    let Some(rig) = rig(RetentionPolicy::WorkQueue).await else { return };
    let mut book = Arc::new(Book::default());
    let mut all = Vec::new();
    for round in 0..10 {
        rig.publish(0, messages(&format!("r{round}"), 100)).await;
        let mut source = rig.source();
        source.connect(positions(&book), Start::Earliest).await.expect("connect");
        // Of each round some are acknowledged, some only durable, some only taken by the client.
        let limits = BatchLimits { max_records: 30, ..WIDE };
        for part in 0..3 {
            let batch = source.next_batch(limits).await.expect("read");
            book.take(&batch);
            if part == 0 {
                source.acknowledge(batch.token).await.expect("acknowledge");
            }
        }
        drop(source);
        // What comes twice, where the server was slow to settle, is dropped by its position: the list is exact.
        all.extend(book.payloads());
        book = Arc::new(book.reopened());
    }
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 1000 - all.len(), true).await.expect("read the rest");
    source.close().await;
    all.extend(book.payloads());
    let expected: Vec<String> = (0..10).flat_map(|r| (0..100).map(move |i| format!("r{r}-{i}"))).collect();
    assert_eq!(all, expected);
    println!("10 crashes of ours, 1000 records, 0 lost, 0 duplicated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_killed_server_costs_a_work_queue_no_record() {
    let Some(nats) = PrivateNats::start() else { return };
    survive_kills(&nats, RetentionPolicy::WorkQueue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o2_a_deleted_consumer_of_a_work_queue_is_made_again() {
    let Some(rig) = rig(RetentionPolicy::WorkQueue).await else { return };
    rig.publish(0, messages("a", 100)).await;
    let (mut source, book) = read_unacknowledged(&rig, 100).await;
    rig.delete_consumer().await;
    rig.publish(0, messages("b", 50)).await;
    source.close().await;
    source.connect(positions(&book), Start::Earliest).await.expect("connect again");
    read_until(&mut *source, &book, 150, true).await.expect("read on");
    // What the log holds already comes once more, from a consumer that remembers nothing, and is acknowledged then.
    let until = Instant::now() + PATIENCE;
    while rig.stream().await.cached_info().state.messages > 0 {
        let batch = source.next_batch(WIDE).await.expect("read");
        book.take(&batch);
        source.acknowledge(batch.token).await.expect("acknowledge");
        assert!(Instant::now() < until, "not all acknowledged");
    }
    source.close().await;
    assert_eq!(book.len(), 150);
}

/// A stream kept by interest forgets what nobody waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_deleted_consumer_of_an_interest_stream_halts() {
    let Some(rig) = rig(RetentionPolicy::Interest).await else { return };
    rig.publish(0, messages("a", 10)).await;
    let (mut source, book) = read_unacknowledged(&rig, 10).await;
    source.close().await;
    rig.delete_consumer().await;
    // Nothing was published since: nothing can be missing.
    source.connect(positions(&book), Start::Earliest).await.expect("connect with nothing missed");
    source.close().await;
    rig.delete_consumer().await;
    rig.publish(0, messages("missed", 1)).await;
    let fault = refused(&mut *source, &book).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::HistoryBroken, "consumer-deleted"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_another_log_is_refused_by_name() {
    let Some(rig) = rig(RetentionPolicy::WorkQueue).await else { return };
    let other = LogId([0xab; 16]);
    let ours = pull::Config { ack_policy: AckPolicy::Explicit, ..pull::Config::default() };
    rig.foreign_consumer(pull::Config { description: Some(log_mark(other)), ..ours.clone() }).await;
    let fault = refused(&mut *rig.source(), &Arc::default()).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::NotOurs, "consumer-of-other-log"), "{fault}");
    assert!(fault.detail.contains(&other.to_string()), "{fault}");
    rig.delete_consumer().await;
    // Somebody else's words name no log.
    rig.foreign_consumer(pull::Config { description: Some("made by hand".to_owned()), ..ours }).await;
    rig.publish(0, messages("a", 3)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 3, true).await.expect("read");
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_would_lose_messages_is_refused() {
    let Some(rig) = rig(RetentionPolicy::WorkQueue).await else { return };
    rig.foreign_consumer(pull::Config { max_deliver: 3, ..pull::Config::default() }).await;
    let fault = refused(&mut *rig.source(), &Arc::default()).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-consumer"), "{fault}");
    assert!(fault.detail.contains("max_deliver"), "{fault}");
    rig.delete_consumer().await;
    let filter = format!("{}.0", rig.name);
    rig.foreign_consumer(pull::Config { filter_subject: filter, ..pull::Config::default() }).await;
    let fault = refused(&mut *rig.source(), &Arc::default()).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-filter"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_queue_needs_a_durable_and_has_no_latest() {
    let Some(rig) = rig(RetentionPolicy::WorkQueue).await else { return };
    let reading = NatsReading::Stream { stream: rig.name.clone(), durable: None };
    let mut source = NatsSource::new("orders", NatsSourceOptions { reading, ..rig.options() });
    let fault = refused(&mut source, &Arc::default()).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-durable-missing"), "{fault}");
    let book: Arc<dyn PositionBook> = Arc::new(Book::default());
    let fault = rig.source().connect(book, Start::Latest).await.expect_err("no latest");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-start"), "{fault}");
}

/// The word of the server on each acknowledgement is awaited: when `acknowledge` returns, the messages are gone over there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_is_with_the_server_when_it_returns() {
    let Some(rig) = rig(RetentionPolicy::WorkQueue).await else { return };
    rig.publish(0, messages("a", 5000)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    let mut last = None;
    while book.len() < 5000 {
        let batch = source.next_batch(WIDE).await.expect("read");
        last = Some(batch.token).filter(|_| !batch.records.is_empty()).or(last);
        book.take(&batch);
    }
    assert_eq!(rig.stream().await.cached_info().state.messages, 5000);
    source.acknowledge(last.expect("a batch")).await.expect("acknowledge");
    assert_eq!(rig.stream().await.cached_info().state.messages, 0);
    source.close().await;
}
