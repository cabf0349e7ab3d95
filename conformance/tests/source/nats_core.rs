//! Core subjects: what they can promise, which is little, and that it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_conformance::kafka_rig::unique;
use gravity_conformance::nats_rig::{PrivateNats, client, connection, nats_under_test};
use gravity_conformance::source_suite::{Book, PATIENCE, WIDE};
use gravity_connectors::nats::{NatsReading, NatsSource, NatsSourceOptions};
use gravity_model::port::source::{Acceptance, BatchLimits, PositionBook, Source, SourceBatch, Start};
use gravity_model::{FaultKind, Headers, LogId};

fn source(host: &str, subjects: &[String], queue_group: Option<&str>) -> NatsSource {
    let options = NatsSourceOptions {
        connection: connection(host),
        subjects: subjects.to_vec(),
        reading: NatsReading::Core { queue_group: queue_group.map(str::to_owned) },
        log_id: LogId([1; 16]),
        accept: Acceptance::default(),
    };
    NatsSource::new("pings", options)
}

fn book() -> Arc<dyn PositionBook> {
    Arc::new(Book::default())
}

/// Subject and payload of each record, and that none claims a position.
fn texts(batch: &SourceBatch) -> Vec<(String, String)> {
    let text = |record: &gravity_model::port::source::SourceRecord| {
        let slot = &batch.slots[usize::from(record.slot)];
        assert_eq!(slot.position, None, "core subjects have no positions");
        let payload = record.payload.map_or(&b""[..], |span| batch.bytes(span));
        (slot.subject.to_string(), String::from_utf8_lossy(payload).into_owned())
    };
    batch.records.iter().map(text).collect()
}

async fn read(source: &mut NatsSource, count: usize, limits: BatchLimits) -> Vec<(String, String)> {
    let (mut found, until) = (Vec::new(), Instant::now() + PATIENCE);
    while found.len() < count {
        let batch = source.next_batch(limits).await.expect("read");
        assert!(batch.records.len() <= limits.max_records);
        found.extend(texts(&batch));
        source.acknowledge(batch.token).await.expect("acknowledging is no error");
        assert!(Instant::now() < until, "{} of {count}", found.len());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_while_we_listen_arrives() {
    let Some(host) = nats_under_test() else { return };
    let name = unique();
    let publisher = client(&host).await;
    publisher.publish(format!("{name}.before"), "lost".into()).await.expect("publish");
    publisher.flush().await.expect("flush");
    let mut source = source(&host, &[format!("{name}.*"), format!("{name}.deep.>")], None);
    source.connect(book(), Start::Earliest).await.expect("connect");
    for index in 0..200 {
        let subject = if index % 2 == 0 { format!("{name}.a") } else { format!("{name}.deep.x.y") };
        publisher.publish(subject, index.to_string().into()).await.expect("publish");
    }
    let found = read(&mut source, 200, BatchLimits { max_records: 7, ..WIDE }).await;
    let of = |subject: &str| -> Vec<String> {
        found.iter().filter(|(found, _)| *found == format!("{name}.{subject}")).map(|(_, p)| p.clone()).collect()
    };
    assert_eq!(of("a"), (0..200).step_by(2).map(|i: i32| i.to_string()).collect::<Vec<_>>(), "in order per subject");
    assert_eq!(of("deep.x.y"), (1..200).step_by(2).map(|i: i32| i.to_string()).collect::<Vec<_>>());
    assert_eq!(source.lag().await, None, "nobody knows what is left of it");
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_kept() {
    let Some(host) = nats_under_test() else { return };
    let subject = unique();
    let mut source = source(&host, std::slice::from_ref(&subject), None);
    source.connect(book(), Start::Earliest).await.expect("connect");
    let mut headers = async_nats::HeaderMap::new();
    headers.append("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    headers.append("ce-id", "7");
    let publisher = client(&host).await;
    publisher.publish_with_headers(subject, headers, "{}".into()).await.expect("publish");
    let until = Instant::now() + PATIENCE;
    let batch = loop {
        let batch = source.next_batch(WIDE).await.expect("read");
        if !batch.records.is_empty() {
            break batch;
        }
        assert!(Instant::now() < until);
    };
    let stored = Headers::from_encoded(batch.bytes(batch.records[0].headers)).expect("headers");
    assert_eq!(stored.get("ce-id"), Some(&b"7"[..]));
    assert!(stored.get("traceparent").is_some());
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_group_shares_the_messages() {
    let Some(host) = nats_under_test() else { return };
    let subject = unique();
    let mut first = source(&host, std::slice::from_ref(&subject), Some("gravity"));
    let mut second = source(&host, std::slice::from_ref(&subject), Some("gravity"));
    first.connect(book(), Start::Earliest).await.expect("connect");
    second.connect(book(), Start::Earliest).await.expect("connect");
    let publisher = client(&host).await;
    for index in 0..300 {
        publisher.publish(subject.clone(), index.to_string().into()).await.expect("publish");
    }
    let (mut found, mut each, until) = (Vec::new(), [0; 2], Instant::now() + PATIENCE);
    while found.len() < 300 {
        for (index, member) in [&mut first, &mut second].into_iter().enumerate() {
            let batch = texts(&member.next_batch(WIDE).await.expect("read"));
            each[index] += batch.len();
            found.extend(batch);
        }
        assert!(Instant::now() < until, "{} of 300", found.len());
    }
    first.close().await;
    second.close().await;
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 300, "each once");
    assert!(each.iter().all(|count| *count > 0), "both took some: {each:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_what_had_arrived_when_it_was_noted() {
    let Some(host) = nats_under_test() else { return };
    let subject = unique();
    let mut source = source(&host, std::slice::from_ref(&subject), None);
    source.connect(book(), Start::Earliest).await.expect("connect");
    let publisher = client(&host).await;
    for index in 0..50 {
        publisher.publish(subject.clone(), index.to_string().into()).await.expect("publish");
    }
    // The server has handed them on once it has answered the publisher behind them.
    publisher.flush().await.expect("flush");
    tokio::time::sleep(Duration::from_millis(100)).await;
    source.note_end().await.expect("note the end");
    assert!(!source.has_passed_end().await.expect("ask"), "nothing was handed out yet");
    assert_eq!(read(&mut source, 50, WIDE).await.len(), 50);
    assert!(source.has_passed_end().await.expect("ask"));
    source.close().await;
    assert_eq!(source.next_batch(WIDE).await.expect_err("closed").kind, FaultKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_killed_server_is_told_and_listening_goes_on_after_it() {
    let Some(nats) = PrivateNats::start() else { return };
    let subject = unique();
    let mut source = source(&nats.host, std::slice::from_ref(&subject), None);
    source.connect(book(), Start::Earliest).await.expect("connect");
    nats.kill().await;
    let until = Instant::now() + Duration::from_secs(20);
    let fault = loop {
        match source.next_batch(WIDE).await {
            Ok(_) => assert!(Instant::now() < until, "a dead server was not noticed"),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    assert_eq!(source.connect(book(), Start::Earliest).await.expect_err("still dead").kind, FaultKind::Disconnected);
    nats.start_again().await;
    source.connect(book(), Start::Earliest).await.expect("connect again");
    let publisher = client(&nats.host).await;
    publisher.publish(subject, "after".into()).await.expect("publish");
    assert_eq!(read(&mut source, 1, WIDE).await[0].1, "after");
    source.close().await;
}
