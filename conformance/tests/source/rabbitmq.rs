//! The suite over a classic queue with ids and a quorum queue without, and what only RabbitMQ has: acknowledgements up to a tag,
//! exclusive readers, queues that go away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_conformance::rabbitmq_rig::{Client, PrivateRabbitMq, RabbitMqRig, connection, rabbitmq_under_test};
use gravity_conformance::source_suite::{Book, PATIENCE, SourceRig, WIDE, messages, read_to_fault, read_until};
use gravity_connectors::rabbitmq::{RabbitMqConnection, RabbitMqSource, RabbitMqSourceOptions};
use gravity_model::FaultKind;
use gravity_model::port::source::{BatchLimits, Repeat, Source, Start};
use lapin::BasicProperties;
use lapin::options::QueueDeleteOptions;

use super::nats::{positions, refused};

mod classic_with_ids {
    use super::*;

    async fn rig(partitions: u32) -> Option<RabbitMqRig> {
        Some(RabbitMqRig::on(&rabbitmq_under_test()?, "classic", partitions, true).await)
    }

    gravity_conformance::source_suite!(repeats rig);
}

mod quorum_without_ids {
    use super::*;

    async fn rig(partitions: u32) -> Option<RabbitMqRig> {
        Some(RabbitMqRig::on(&rabbitmq_under_test()?, "quorum", partitions, false).await)
    }

    gravity_conformance::source_suite!(repeats rig);
}

async fn connected(rig: &RabbitMqRig, book: &Arc<Book>) -> Box<dyn Source> {
    let mut source = rig.source();
    source.connect(positions(book), Start::Earliest).await.expect("connect");
    source
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_is_what_the_token_covers_in_every_queue() {
    let Some(address) = rabbitmq_under_test() else { return };
    for kind in ["classic", "quorum"] {
        let rig = RabbitMqRig::on(&address, kind, 2, true).await;
        rig.publish(0, messages("a", 30)).await;
        rig.publish(1, messages("b", 30)).await;
        let book = Arc::new(Book::default());
        let mut source = connected(&rig, &book).await;
        let (mut tokens, mut handed) = (Vec::new(), Vec::new());
        let limits = BatchLimits { max_records: 7, ..WIDE };
        while book.len() < 60 {
            let batch = source.next_batch(limits).await.expect("read");
            book.take(&batch);
            let count = |queue: u32| book.taken().iter().filter(|taken| rig.partition_of(&taken.slot) == queue).count();
            tokens.push(batch.token);
            handed.push((count(0) as u64, count(1) as u64));
        }
        let at = tokens.len() / 2;
        source.acknowledge(tokens[at]).await.expect("acknowledge");
        source.close().await;
        rig.wait_for_ready(0, 30 - handed[at].0).await;
        rig.wait_for_ready(1, 30 - handed[at].1).await;
    }
}

/// Two readers of one queue would share its messages, and neither would keep its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_has_one_reader_and_the_second_waits() {
    let Some(address) = rabbitmq_under_test() else { return };
    for kind in ["classic", "quorum"] {
        let rig = RabbitMqRig::on(&address, kind, 1, true).await;
        let book = Arc::new(Book::default());
        let mut first = connected(&rig, &book).await;
        let fault = refused(&mut *rig.source(), &book).await;
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Transient, "rabbitmq-in-use"), "{kind}: {fault}");
        first.close().await;
        let mut second = connected(&rig, &book).await;
        second.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_missing_queue_is_told_and_never_made() {
    let Some(address) = rabbitmq_under_test() else { return };
    let rig = RabbitMqRig::on(&address, "classic", 1, true).await;
    rig.publish(0, messages("a", 3)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(&rig, &book).await;
    read_until(&mut *source, &book, 3, true).await.expect("read");
    rig.client.channel.queue_delete(rig.queue(0).into(), QueueDeleteOptions::default()).await.expect("delete");
    let fault = read_to_fault(&mut *source, &book).await;
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Disconnected, "rabbitmq-consumer-cancelled"), "{fault}");
    for _ in 0..2 {
        let fault = refused(&mut *source, &book).await;
        assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "rabbitmq-404"), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_refused_before_anything_of_it_is_taken() {
    let Some(address) = rabbitmq_under_test() else { return };
    let client = Client::connect(&address).await;
    let queue = format!("s-{}", gravity_conformance::kafka_rig::unique());
    client.declare(&queue, "stream", &[]).await;
    let options = RabbitMqSourceOptions { connection: connection(&address), queues: vec![queue.clone()], prefetch: 10 };
    let mut source = RabbitMqSource::new("orders", options);
    let book = Arc::new(Book::default());
    let fault = match source.connect(positions(&book), Start::Earliest).await {
        Err(fault) => fault,
        Ok(()) => {
            client.publish(&queue, vec![(b"x".to_vec(), BasicProperties::default())]).await;
            read_to_fault(&mut source, &book).await
        }
    };
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
    assert!(book.is_empty());
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_enter_is_told_without_the_password() {
    let Some(address) = rabbitmq_under_test() else { return };
    let cases = [
        (RabbitMqConnection { password: "wrong-canary".to_owned(), ..connection(&address) }, FaultKind::Misconfigured),
        (RabbitMqConnection { virtual_host: "missing".to_owned(), ..connection(&address) }, FaultKind::Misconfigured),
        (RabbitMqConnection::new("127.0.0.1", 1), FaultKind::Disconnected),
        (RabbitMqConnection { secure: true, ..connection(&address) }, FaultKind::Disconnected),
    ];
    for (connection, kind) in cases {
        let options =
            RabbitMqSourceOptions { connection: connection.clone(), queues: vec!["q".to_owned()], prefetch: 10 };
        let before = Instant::now();
        let fault = refused(&mut RabbitMqSource::new("orders", options), &Arc::default()).await;
        // A broker that does not speak TLS ends the connection, or answers something else.
        assert!(fault.kind == kind || connection.secure, "{connection:?}: {fault}");
        assert!(!fault.to_string().contains("wrong-canary"), "{fault}");
        assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    }
}

/// S10: what a reader left is given out again, marked, in its old order and before anything new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_comes_again_first_and_marked() {
    let Some(address) = rabbitmq_under_test() else { return };
    for kind in ["classic", "quorum"] {
        let rig = RabbitMqRig::on(&address, kind, 1, false).await;
        rig.publish(0, messages("a", 500)).await;
        let book = Arc::new(Book::default());
        let mut source = connected(&rig, &book).await;
        read_until(&mut *source, &book, 500, false).await.expect("read");
        source.close().await;
        rig.publish(0, messages("b", 100)).await;
        let mut source = connected(&rig, &book).await;
        let mut marks = Vec::new();
        let until = Instant::now() + PATIENCE;
        while marks.len() < 600 {
            let batch = source.next_batch(WIDE).await.expect("read");
            let records = batch.records.iter();
            marks.extend(records.map(|record| record.repeat == Repeat::ByContent { redelivered: true }));
            book.take(&batch);
            assert!(Instant::now() < until, "{kind}: {} of 600", marks.len());
        }
        source.close().await;
        assert!(marks[..500].iter().all(|again| *again), "{kind}: the old ones first");
        assert!(marks[500..].iter().all(|again| !again), "{kind}: then the new ones");
        let expected: Vec<String> = (0..500).map(|index| format!("a-{index}")).collect();
        assert_eq!(book.payloads()[500..1000], expected, "{kind}: in their old order");
    }
}

/// The broker is killed while it is read: the source says so, comes back, and nothing that was confirmed is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_broker_killed_while_reading_loses_nothing() {
    let Some(broker) = PrivateRabbitMq::start() else { return };
    let rig = RabbitMqRig::on(&broker.address, "classic", 1, true).await;
    let book = Arc::new(Book::default());
    rig.publish(0, messages("a", 3000)).await;
    let mut source = connected(&rig, &book).await;
    read_until(&mut *source, &book, 500, true).await.expect("read");
    let queue = rig.queue(0);
    let killing = broker.kill_and_restart();
    let reading = async {
        let fault = read_to_fault(&mut *source, &book).await;
        assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
        let until = Instant::now() + PATIENCE;
        while let Err(fault) = source.connect(positions(&book), Start::Earliest).await {
            assert!(Instant::now() < until, "{fault}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::join!(killing, reading);
    Client::connect(&broker.address).await.publish(&queue, vec![(b"last".to_vec(), BasicProperties::default())]).await;
    read_until(&mut *source, &book, 3001, true).await.expect("read on");
    source.close().await;
    assert_eq!(book.len(), 3001);
}
