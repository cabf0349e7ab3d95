//! The suite over a real Kafka, and what only Kafka has: transactions, groups, an outage, another log's commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_conformance::kafka_rig::{KafkaRig, PrivateKafka, connection, kafka_under_test, unique};
use gravity_conformance::source_suite::{
    Book, PATIENCE, Published, SourceRig, WIDE, expect_silence, message, messages, read_to_fault, read_until,
};
use gravity_connectors::kafka::{KafkaSource, commit_metadata};
use gravity_model::port::source::{Acceptance, PositionBook, Source, Start};
use gravity_model::{FaultKind, LogId};

use KafkaRig as Rig;

async fn rig(partitions: u32) -> Option<Rig> {
    Rig::fresh(partitions).await
}

gravity_conformance::source_suite!(rig);

pub fn positions(book: &Arc<Book>) -> Arc<dyn PositionBook> {
    Arc::clone(book) as Arc<dyn PositionBook>
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_aborted_transactions_are_never_delivered() {
    let Some(rig) = rig(1).await else { return };
    let mut expected = Vec::new();
    for round in 0..4 {
        let commit = round % 2 == 0;
        rig.transaction(0, messages(&format!("t{round}"), 50), commit).await;
        if commit {
            expected.extend((0..50).map(|index| format!("t{round}-{index}")));
        }
    }
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, expected.len(), true).await.expect("read");
    expect_silence(&mut *source, &book, Duration::from_secs(1)).await;
    source.close().await;
    assert_eq!(book.payloads(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_names_cluster_topic_partition_and_topic_id() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("a", 1)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 1, true).await.expect("read");
    source.close().await;
    let slot = book.positions()[0].0.clone();
    let parts: Vec<&str> = slot.splitn(4, '/').collect();
    assert_eq!(parts.len(), 4, "{slot}");
    assert_eq!((parts[1], parts[2]), (rig.topic.as_str(), "0"));
    assert!(parts[0].len() >= 16 && parts[3].len() >= 16, "cluster id and topic id: {slot}");
}

/// S3: records of a revoked partition that were not handed over are dropped; the next owner reads them from the book.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_two_members_share_the_partitions_and_lose_nothing() {
    let Some(rig) = rig(6).await else { return };
    let per_partition = 3000;
    for partition in 0..6 {
        rig.publish(partition, messages(&format!("p{partition}"), per_partition)).await;
    }
    // One log, two members: the book is the log's.
    let book = Arc::new(Book::default());
    let mut first = KafkaSource::new("first", rig.options());
    let mut second = KafkaSource::new("second", rig.options());
    first.connect(positions(&book), Start::Earliest).await.expect("connect");
    // The first holds a chunk back when the second comes.
    let batch = first.next_batch(WIDE).await.expect("read");
    book.take(&batch);
    second.connect(positions(&book), Start::Earliest).await.expect("connect");
    let total = per_partition * 6;
    let until = Instant::now() + PATIENCE;
    let mut taken_by: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut round = 0;
    while book.len() < total || taken_by.len() < 2 {
        round += 1;
        for (name, source) in [("first", &mut first), ("second", &mut second)] {
            let batch = source.next_batch(WIDE).await.expect("read");
            for record in &batch.records {
                let slot = batch.slots[usize::from(record.slot)].position.clone().expect("slot");
                taken_by.entry(name).or_default().insert(rig.partition_of(&slot));
            }
            book.take(&batch);
            if !batch.records.is_empty() {
                source.acknowledge(batch.token).await.expect("acknowledge");
            }
        }
        if book.len() >= total && round % 5 == 0 {
            // Until both have shown that they own some.
            for partition in 0..6 {
                rig.publish(partition, vec![message("more", "more")]).await;
            }
        }
        assert!(Instant::now() < until, "{} of {total}, members {taken_by:?}", book.len());
    }
    // The first leaves: everything goes to the second.
    first.close().await;
    for partition in 0..6 {
        rig.publish(partition, messages(&format!("q{partition}"), 10)).await;
    }
    let until = Instant::now() + PATIENCE;
    let arrived = |prefix: &str| book.payloads().iter().filter(|payload| payload.starts_with(prefix)).count();
    while arrived("q") < 60 {
        book.take(&second.next_batch(WIDE).await.expect("read"));
        assert!(Instant::now() < until, "{} of 60 after the first member left", arrived("q"));
    }
    second.close().await;
    let mut by_slot: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (taken, payload) in book.taken().iter().zip(book.payloads()) {
        if payload.starts_with('p') {
            by_slot.entry(taken.slot.clone()).or_default().push(payload);
        }
    }
    for (slot, payloads) in by_slot {
        let partition = rig.partition_of(&slot);
        let expected: Vec<String> = (0..per_partition).map(|index| format!("p{partition}-{index}")).collect();
        assert_eq!(payloads, expected, "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_another_log_is_refused_by_name() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("a", 3)).await;
    let other = LogId([0xab; 16]);
    rig.commit_as(0, 1, &commit_metadata(other)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    let fault = source.connect(positions(&book), Start::Earliest).await.expect_err("another log's group");
    source.close().await;
    assert_eq!(fault.kind, FaultKind::NotOurs, "{fault}");
    assert!(fault.detail.contains(&other.to_string()) && fault.detail.contains(&rig.group), "{fault}");
    // Somebody else's metadata is no log.
    rig.commit_as(0, 1, "a tool of somebody else").await;
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 3, true).await.expect("from the book, not from the commit");
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_data_directory_fences_the_first() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("a", 3)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 3, true).await.expect("read");
    let copied = Arc::new(book.reopened());
    let mut copy = rig.source();
    copy.connect(positions(&copied), Start::Earliest).await.expect("connect the copy");
    let fault = read_to_fault(&mut *source, &book).await;
    assert_eq!(fault.kind, FaultKind::NotOurs, "{fault}");
    source.close().await;
    copy.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_topic_is_misconfigured_and_never_created() {
    let Some(hosts) = kafka_under_test() else { return };
    let rig = Rig::on(&hosts, 1).await;
    let mut options = rig.options();
    options.topics.push(format!("missing-{}", unique()));
    let missing = options.topics[1].clone();
    let mut source = KafkaSource::new("orders", options);
    for _ in 0..2 {
        let book = Arc::new(Book::default());
        let fault = source.connect(positions(&book), Start::Earliest).await.expect_err("no such topic");
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
        assert!(fault.detail.contains(&missing), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_topic_deleted_while_reading_is_told() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("a", 3)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 3, true).await.expect("read");
    gravity_conformance::kafka_rig::delete_topic(&rig.hosts, &rig.topic).await;
    let fault = read_to_fault(&mut *source, &book).await;
    source.close().await;
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_disconnected_and_told_soon() {
    if kafka_under_test().is_none() {
        return;
    }
    // A port on which nobody listens; nothing of it depends on the broker under test.
    let rig_options = gravity_connectors::kafka::KafkaSourceOptions {
        connection: connection("127.0.0.1:1"),
        topics: vec!["t".to_owned()],
        group: "g".to_owned(),
        log_id: LogId([1; 16]),
        accept: Acceptance::default(),
        extra: BTreeMap::new(),
    };
    let mut source = KafkaSource::new("orders", rig_options);
    let before = Instant::now();
    let fault = source.connect(positions(&Arc::default()), Start::Earliest).await.expect_err("nobody there");
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
}

/// S9, O8: the broker is killed under a reader that also restarts without warning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_killed_broker_costs_no_record() {
    let Some(kafka) = PrivateKafka::start() else { return };
    let rig = Rig::on(&kafka.hosts, 3).await;
    let mut book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    let mut all = Vec::new();
    let mut faults = 0;
    for round in 0..3 {
        for partition in 0..3 {
            rig.publish(partition, messages(&format!("r{round}p{partition}"), 400)).await;
        }
        // Part of the round is read and acknowledged, then the broker dies.
        while book.len() < 500 {
            let batch = source.next_batch(WIDE).await.expect("read");
            book.take(&batch);
            if !batch.records.is_empty() {
                source.acknowledge(batch.token).await.expect("acknowledge");
            }
        }
        let restart = kafka.kill_and_restart();
        tokio::pin!(restart);
        let until = Instant::now() + PATIENCE;
        let mut back = false;
        while book.len() < 1200 || !back {
            tokio::select! {
                () = &mut restart, if !back => back = true,
                read = source.next_batch(WIDE) => match read {
                    Ok(batch) => {
                        book.take(&batch);
                        if !batch.records.is_empty() {
                            source.acknowledge(batch.token).await.expect("acknowledge");
                        }
                    }
                    Err(fault) => {
                        assert!(matches!(fault.kind, FaultKind::Disconnected | FaultKind::Transient), "{fault}");
                        faults += 1;
                        while let Err(fault) = source.connect(positions(&book), Start::Earliest).await {
                            assert!(matches!(fault.kind, FaultKind::Disconnected | FaultKind::Transient), "{fault}");
                            assert!(Instant::now() < until, "not connected again: {fault}");
                        }
                    }
                },
            }
            assert!(Instant::now() < until, "round {round}: {} of 1200, {faults} faults", book.len());
        }
        assert_eq!(book.duplicates(), 0, "round {round}");
        all.extend(book.payloads());
        // Our own crash: no close, no acknowledgement.
        source = rig.source();
        book = Arc::new(book.reopened());
        source.connect(positions(&book), Start::Earliest).await.expect("connect after our crash");
    }
    source.close().await;
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (3600, 3600));
    println!("3 broker kills, 3 crashes of ours, 3600 records, 0 lost, 0 duplicated, {faults} faults");
}

/// An outage longer than our patience becomes a fault; afterwards nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_long_outage_is_told_as_disconnected() {
    let Some(kafka) = PrivateKafka::start() else { return };
    let rig = Rig::on(&kafka.hosts, 1).await;
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 10, true).await.expect("read");
    kafka.kill();
    let before = Instant::now();
    let fault = read_to_fault(&mut *source, &book).await;
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    kafka.start_again().await;
    rig.publish(0, messages("b", 10)).await;
    source.connect(positions(&book), Start::Earliest).await.expect("connect again");
    read_until(&mut *source, &book, 20, true).await.expect("read on");
    source.close().await;
    assert_eq!(book.duplicates(), 0);
}

/// Acknowledgements reach the broker while reading, not only at the end, and at most once a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap15_commits_follow_what_is_durable() {
    let Some(rig) = rig(1).await else { return };
    rig.publish(0, messages("a", 100)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 100, false).await.expect("read");
    expect_silence(&mut *source, &book, Duration::from_millis(1500)).await;
    assert_eq!(rig.committed(0).await.0, 0, "nothing is durable, so nothing is committed");
    rig.publish(0, messages("b", 1)).await;
    read_until(&mut *source, &book, 101, true).await.expect("read");
    let until = Instant::now() + PATIENCE;
    while rig.committed(0).await.0 < 101 {
        expect_silence(&mut *source, &book, Duration::from_millis(100)).await;
        assert!(Instant::now() < until, "committed {:?}", rig.committed(0).await);
    }
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_messages_and_many_headers_pass() {
    let Some(hosts) = kafka_under_test() else { return };
    let rig = Rig::on(&hosts, 1).await;
    gravity_conformance::kafka_rig::delete_topic(&hosts, &rig.topic).await;
    gravity_conformance::kafka_rig::create_topic(&hosts, &rig.topic, 1, &[("max.message.bytes", "12000000")]).await;
    let big = Published {
        payload: Some(vec![7; 10_000_000]),
        headers: (0..300).map(|index| (format!("h{index}"), vec![b'v'; 20])).collect(),
        ..Published::default()
    };
    rig.publish(0, vec![big.clone(), message("k", "after")]).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 2, true).await.expect("read");
    source.close().await;
    let taken = book.taken();
    assert_eq!(taken[0].message.payload, big.payload);
    assert_eq!(taken[0].message.headers, big.headers);
    assert_eq!(book.payloads()[1], "after");
}
