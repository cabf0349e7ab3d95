//! The suite over a JetStream stream that keeps its messages, and what only that has: filters, purges, a killed server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use gravity_conformance::nats_rig::{NatsRig, PrivateNats, client, connection, jetstream, nats_under_test, publish};
use gravity_conformance::source_suite::{
    Book, PATIENCE, Published, SourceRig, WIDE, expect_silence, message, messages, read_to_fault, read_until,
};
use gravity_connectors::nats::{NatsReading, NatsSource, NatsSourceOptions};
use gravity_model::port::source::{Acceptance, BatchLimits, PositionBook, Source, Start};
use gravity_model::{FaultKind, LogId};

async fn rig(_partitions: u32) -> Option<NatsRig> {
    NatsRig::fresh().await
}

gravity_conformance::source_suite!(rig);

pub fn positions(book: &Arc<Book>) -> Arc<dyn PositionBook> {
    Arc::clone(book) as Arc<dyn PositionBook>
}

/// Connects and gives the fault that must come of it.
pub async fn refused(source: &mut dyn Source, book: &Arc<Book>) -> gravity_model::Fault {
    let fault = source.connect(positions(book), Start::Earliest).await.expect_err("must be refused");
    source.close().await;
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_names_the_stream_and_its_creation() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("a", 1)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 1, true).await.expect("read");
    source.close().await;
    let created = rig.stream().await.cached_info().created.unix_timestamp_nanos();
    assert_eq!(book.positions()[0].0, format!("{}/{created}", rig.name));
    assert_eq!(rig.consumers().await, BTreeSet::new(), "nothing of ours is left on the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_with_wildcards_is_a_filter() {
    let Some(rig) = rig(1).await else { return };
    let subject = |tail: &str| format!("{}.{tail}", rig.name);
    for tail in ["eu.new", "us.new", "eu.old", "eu.deep.new"] {
        publish(&rig.context, &subject(tail), vec![message("k", tail)]).await;
    }
    let read = async |subjects: &[&str], expected: &[&str]| {
        let options = NatsSourceOptions { subjects: subjects.iter().map(|s| subject(s)).collect(), ..rig.options() };
        let book = Arc::new(Book::default());
        let mut source = NatsSource::new("orders", options);
        source.connect(positions(&book), Start::Earliest).await.expect("connect");
        source.note_end().await.expect("note the end");
        let until = Instant::now() + PATIENCE;
        while !source.has_passed_end().await.expect("ask for the end") {
            book.take(&source.next_batch(WIDE).await.expect("read"));
            assert!(Instant::now() < until, "{:?}", book.payloads());
        }
        source.close().await;
        assert_eq!(book.payloads(), expected, "{subjects:?}");
    };
    read(&["*.new"], &["eu.new", "us.new"]).await;
    read(&["eu.>"], &["eu.new", "eu.old", "eu.deep.new"]).await;
    read(&[">"], &["eu.new", "us.new", "eu.old", "eu.deep.new"]).await;
    if rig.context.client().is_server_compatible(2, 10, 0) {
        read(&["us.*", "eu.old"], &["us.new", "eu.old"]).await;
    } else {
        let options = NatsSourceOptions { subjects: vec![subject("us.*"), subject("eu.old")], ..rig.options() };
        let fault = refused(&mut NatsSource::new("orders", options), &Arc::default()).await;
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-server-version"), "{fault}");
        println!("skipped: several subjects on one consumer need nats-server 2.10; the refusal was checked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_misconfigured_and_nothing_is_created() {
    let Some(rig) = rig(1).await else { return };
    let missing = format!("{}-missing", rig.name);
    let reading = |stream: &str, durable: Option<&str>| NatsReading::Stream {
        stream: stream.to_owned(),
        durable: durable.map(str::to_owned),
    };
    let stray = vec!["stray.>".to_owned()];
    let cases = [
        (NatsSourceOptions { reading: reading(&missing, None), ..rig.options() }, "nats-10059"),
        (NatsSourceOptions { reading: reading(&rig.name, Some("d")), ..rig.options() }, "nats-durable-unused"),
        (NatsSourceOptions { subjects: stray, ..rig.options() }, "nats-subjects"),
    ];
    for (options, code) in cases {
        let fault = refused(&mut NatsSource::new("orders", options), &Arc::default()).await;
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, code), "{fault}");
    }
    assert!(rig.context.get_stream(&missing).await.is_err(), "a missing stream is never made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_stream_deleted_while_reading_is_told() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("a", 3)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 3, true).await.expect("read");
    rig.context.delete_stream(&rig.name).await.expect("delete stream");
    let fault = read_to_fault(&mut *source, &book).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Disconnected, "nats-consumer-gone"), "{fault}");
    let fault = refused(&mut *source, &book).await;
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
}

/// A reader that lags behind a purge must not go on behind it as if nothing had been there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_a_purge_ahead_of_a_reader_halts() {
    let Some(rig) = rig(1).await else { return };
    // More than is fetched ahead.
    let large =
        |index: usize| Published { payload: Some(vec![b'0' + (index % 10) as u8; 100_000]), ..message("k", "") };
    rig.publish(0, (0..200).map(large).collect()).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    let limits = BatchLimits { max_records: 3, ..WIDE };
    while book.len() < 3 {
        book.take(&source.next_batch(limits).await.expect("read"));
    }
    rig.trim(0, 150).await;
    let fault = read_to_fault(&mut *source, &book).await;
    source.close().await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::HistoryBroken, "stream-trimmed"), "{fault}");
    assert!(fault.detail.contains("150"), "{fault}");
    assert!(book.len() < 149, "{} records", book.len());
    assert!(book.taken().iter().all(|taken| taken.offset < 150), "nothing behind the gap was taken");
}

/// Behind a filter the same: gaps are normal there, so the stream is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_a_purge_ahead_of_a_filtered_reader_halts() {
    let Some(rig) = rig(1).await else { return };
    for index in 0..100 {
        let large = Published { payload: Some(vec![b'x'; 100_000]), ..message("k", "") };
        publish(&rig.context, &rig.subject(index % 2), vec![large]).await;
    }
    let options = NatsSourceOptions { subjects: vec![rig.subject(1)], ..rig.options() };
    let book = Arc::new(Book::default());
    let mut source = NatsSource::new("orders", options);
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    while book.is_empty() {
        book.take(&source.next_batch(BatchLimits { max_records: 1, ..WIDE }).await.expect("read"));
    }
    rig.trim(0, 95).await;
    let fault = read_to_fault(&mut source, &book).await;
    source.close().await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::HistoryBroken, "stream-trimmed"), "{fault}");
}

/// Behind a filter the stream goes on without us: what was seen of it is a position too, so that retention is no alarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_subjects_are_passed_and_then_retention_is_no_loss() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(1, messages("ours", 1)).await;
    rig.publish(0, messages("other", 50)).await;
    let options = NatsSourceOptions { subjects: vec![rig.subject(1)], ..rig.options() };
    let book = Arc::new(Book::default());
    let mut source = NatsSource::new("orders", options);
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    assert_eq!(source.passed().await.map(|(_, position)| position.next), Some(1), "nothing was handed out yet");
    read_until(&mut source, &book, 1, true).await.expect("read");
    let (slot, position) = source.passed().await.expect("a position");
    assert_eq!(position.next, 52, "behind everything that is not ours");
    source.close().await;
    rig.trim(0, 40).await;
    // With the record's own position alone nobody could tell whether one of ours was taken.
    let fault = refused(&mut source, &book).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::HistoryBroken, "stream-trimmed"), "{fault}");
    book.set(&slot, position.next);
    source.connect(positions(&book), Start::Earliest).await.expect("connect with what was passed");
    rig.publish(1, messages("new", 1)).await;
    read_until(&mut source, &book, 2, true).await.expect("read on");
    source.close().await;
    assert_eq!(book.payloads(), ["ours-0", "new-0"]);
}

/// A `latest` start is a position before any record came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_latest_start_is_remembered_before_the_first_record() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("old", 10)).await;
    let mut source = rig.source();
    let empty: Arc<dyn PositionBook> = Arc::new(Book::default());
    source.connect(empty, Start::Latest).await.expect("connect");
    let (slot, position) = source.passed().await.expect("a position");
    source.close().await;
    rig.publish(0, messages("between", 3)).await;
    // Another process, with the log that kept it.
    let book = Arc::new(Book::default());
    book.set(&slot, position.next);
    let mut source = rig.source();
    source.connect(positions(&book), Start::Latest).await.expect("connect");
    read_until(&mut *source, &book, 3, true).await.expect("read");
    source.close().await;
    assert_eq!(book.payloads(), ["between-0", "between-1", "between-2"]);
}

/// A stream of last values is read like a compacted topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_value_stream_does_not_halt_when_values_are_replaced() {
    let Some(rig) = rig(1).await else { return };
    let config = Config { max_messages_per_subject: 1, ..rig.config() };
    rig.context.update_stream(config).await.expect("update");
    rig.publish(0, messages("a", 5)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 1, true).await.expect("read the last value");
    source.close().await;
    rig.publish(0, messages("b", 5)).await;
    source.connect(positions(&book), Start::Earliest).await.expect("connect again");
    read_until(&mut *source, &book, 2, true).await.expect("read the newer value");
    expect_silence(&mut *source, &book, Duration::from_millis(300)).await;
    source.close().await;
    assert_eq!(book.payloads(), ["a-4", "b-4"]);
}

/// The publisher's own repeats: the stream knows them by `Nats-Msg-Id`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_under_the_same_message_id_is_one_record() {
    let Some(rig) = rig(1).await else { return };
    let with_id = |id: &str| Published { headers: vec![("Nats-Msg-Id".to_owned(), id.into())], ..message("k", id) };
    rig.publish(0, vec![with_id("one"), with_id("two"), with_id("one")]).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 2, true).await.expect("read");
    expect_silence(&mut *source, &book, Duration::from_millis(300)).await;
    source.close().await;
    let ids: Vec<_> = book.taken().into_iter().map(|taken| taken.message.headers[0].clone()).collect();
    assert_eq!(ids, [("Nats-Msg-Id".to_owned(), b"one".to_vec()), ("Nats-Msg-Id".to_owned(), b"two".to_vec())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_disconnected_and_told_soon() {
    if nats_under_test().is_none() {
        return;
    }
    // A port on which nobody listens; nothing of it depends on the server under test.
    let options = NatsSourceOptions {
        connection: connection("127.0.0.1:1"),
        subjects: vec!["s".to_owned()],
        reading: NatsReading::Stream { stream: "S".to_owned(), durable: None },
        log_id: LogId([1; 16]),
        accept: Acceptance::default(),
    };
    let before = Instant::now();
    let fault = refused(&mut NatsSource::new("orders", options), &Arc::default()).await;
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
}

/// S9, O8: the server is killed under a reader that also restarts without warning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_killed_server_costs_no_record() {
    let Some(nats) = PrivateNats::start() else { return };
    survive_kills(&nats, RetentionPolicy::Limits).await;
}

/// Three rounds: part of it is read and acknowledged, the server dies and comes back, the rest is read, we crash.
pub async fn survive_kills(nats: &PrivateNats, retention: RetentionPolicy) {
    let rig = NatsRig::on(&nats.host, retention).await;
    let mut book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    let (mut all, mut faults) = (Vec::new(), 0);
    for round in 0..3 {
        for partition in 0..3 {
            rig.publish(partition, messages(&format!("r{round}p{partition}"), 400)).await;
        }
        while book.len() < 500 {
            let batch = source.next_batch(BatchLimits { max_records: 100, ..WIDE }).await.expect("read");
            book.take(&batch);
            source.acknowledge(batch.token).await.expect("acknowledge");
        }
        // A batch that was taken in but not acknowledged when the server dies.
        book.take(&source.next_batch(BatchLimits { max_records: 100, ..WIDE }).await.expect("read"));
        let restart = nats.kill_and_restart();
        tokio::pin!(restart);
        let until = Instant::now() + PATIENCE;
        let mut back = false;
        while book.len() < 1200 || !back {
            tokio::select! {
                () = &mut restart, if !back => back = true,
                read = source.next_batch(WIDE) => {
                    let done = match read {
                        Ok(batch) => {
                            book.take(&batch);
                            source.acknowledge(batch.token).await
                        }
                        Err(fault) => Err(fault),
                    };
                    if let Err(fault) = done {
                        assert!(matches!(fault.kind, FaultKind::Disconnected | FaultKind::Transient), "{fault}");
                        faults += 1;
                        while let Err(fault) = source.connect(positions(&book), Start::Earliest).await {
                            assert!(matches!(fault.kind, FaultKind::Disconnected | FaultKind::Transient), "{fault}");
                            assert!(Instant::now() < until, "not connected again: {fault}");
                            tokio::select! {
                                () = &mut restart, if !back => back = true,
                                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                            }
                        }
                    }
                },
            }
            assert!(Instant::now() < until, "round {round}: {} of 1200, {faults} faults", book.len());
        }
        // A killed server may have forgotten acknowledgements, and then delivers again; nothing else may come twice.
        if retention == RetentionPolicy::Limits {
            assert_eq!(book.duplicates(), 0, "round {round}");
        }
        all.extend(book.payloads());
        // Our own crash: no close, no acknowledgement.
        source = rig.source();
        book = Arc::new(book.reopened());
        source.connect(positions(&book), Start::Earliest).await.expect("connect after our crash");
    }
    source.close().await;
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (3600, 3600));
    assert!(faults >= 3, "every kill was noticed: {faults}");
    println!("3 server kills, 3 crashes of ours, 3600 records, 0 lost, 0 duplicated, {faults} faults");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_long_outage_is_told_as_disconnected() {
    let Some(nats) = PrivateNats::start() else { return };
    let mut rig = NatsRig::on(&nats.host, RetentionPolicy::Limits).await;
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 10, true).await.expect("read");
    nats.kill().await;
    let before = Instant::now();
    let fault = read_to_fault(&mut *source, &book).await;
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    nats.start_again().await;
    rig.context = jetstream(&client(&nats.host).await);
    rig.publish(0, messages("b", 10)).await;
    source.connect(positions(&book), Start::Earliest).await.expect("connect again");
    read_until(&mut *source, &book, 20, true).await.expect("read on");
    source.close().await;
    assert_eq!(book.duplicates(), 0);
}

/// Headers that are no text make the client drop the connection, at every try: the message is fetched by its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_headers_that_are_no_text_do_not_stop_the_intake() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("before", 3)).await;
    let headers: &[u8] = b"NATS/1.0\r\nbad: \xff\xfe\r\ngood: 1\r\n\r\n";
    for subject in [rig.subject(0), rig.subject(1)] {
        publish_raw(&rig.host, &subject, headers, b"poison").await;
    }
    let until = Instant::now() + PATIENCE;
    while rig.stream().await.cached_info().state.messages < 5 {
        assert!(Instant::now() < until, "the server did not store them");
    }
    rig.publish(0, messages("behind", 3)).await;
    let book = Arc::new(Book::default());
    let (mut source, mut faults) = (rig.source(), 0);
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    while book.len() < 8 {
        match source.next_batch(WIDE).await {
            Ok(batch) => book.take(&batch),
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
                faults += 1;
                source.connect(positions(&book), Start::Earliest).await.expect("connect again");
            }
        }
        assert!(Instant::now() < until, "{:?} after {faults} faults", book.payloads());
    }
    source.close().await;
    let expected = ["before-0", "before-1", "before-2", "poison", "poison", "behind-0", "behind-1", "behind-2"];
    assert_eq!(book.payloads(), expected);
    assert_eq!(book.duplicates(), 0);
    let poison = &book.taken()[3].message;
    assert_eq!(poison.headers, [("bad".to_owned(), vec![0xff, 0xfe]), ("good".to_owned(), b"1".to_vec())]);
    assert!(faults >= 2, "the client could not read it: {faults}");
}

/// Publishes bytes that no client would send.
async fn publish_raw(host: &str, subject: &str, headers: &[u8], payload: &[u8]) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = BufReader::new(tokio::net::TcpStream::connect(host).await.expect("connect"));
    let (head, total) = (headers.len(), headers.len() + payload.len());
    let mut lines =
        format!("CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB {subject} {head} {total}\r\n").into_bytes();
    lines.extend_from_slice(headers);
    lines.extend_from_slice(payload);
    lines.extend_from_slice(b"\r\nPING\r\n");
    stream.write_all(&lines).await.expect("write");
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        assert!(stream.read_line(&mut line).await.expect("read") > 0, "the server hung up");
        assert!(!line.starts_with("-ERR"), "{line}");
    }
}

/// A message that is larger than a pull may be, since the server's limit was lowered after it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_message_beyond_the_pulls_limit_still_arrives() {
    let Some(nats) = PrivateNats::start_with("max_payload: 8MB\n", None) else { return };
    let rig = NatsRig::on(&nats.host, RetentionPolicy::Limits).await;
    let large = Published { payload: Some(vec![b'x'; 6_000_000]), ..message("k", "") };
    rig.publish(0, vec![message("k", "before"), large, message("k", "behind")]).await;
    nats.configure("max_payload: 1MB\n");
    nats.kill_and_restart().await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 3, true).await.expect("read");
    source.close().await;
    let lengths: Vec<usize> = book.payloads().iter().map(String::len).collect();
    assert_eq!(lengths, [6, 6_000_000, 6]);
}
