//! The suite over a real Kafka, and what only Kafka has: partitions, size limits of topics, a broker killed mid-publish.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use gravity_conformance::export_suite::{
    Arrived, ExportRig, assert_order_per_key, is_delivered, key_in_body, kind, numbered,
};
use gravity_conformance::kafka_rig::{
    PrivateKafka, alter_topic, connection, create_topic, header, kafka_under_test, read_topic, unique,
};
use gravity_connectors::kafka::{KafkaExporter, KafkaExporterOptions};
use gravity_model::FaultKind;
use gravity_model::port::export::{Exporter, Message};
use rdkafka::message::{Headers, Message as _};

struct KafkaRig {
    hosts: String,
    topic: String,
}

async fn rig() -> Option<KafkaRig> {
    Some(rig_on(&kafka_under_test()?).await)
}

async fn rig_on(hosts: &str) -> KafkaRig {
    let rig = KafkaRig { hosts: hosts.to_owned(), topic: format!("x-{}", unique()) };
    create_topic(hosts, &rig.topic, 12, &[("max.message.bytes", "100000")]).await;
    rig
}

fn exporter(hosts: &str, topic: &str) -> KafkaExporter {
    KafkaExporter::new("out", KafkaExporterOptions { connection: connection(hosts), topic: topic.to_owned() })
}

#[async_trait]
impl ExportRig for KafkaRig {
    fn exporter(&self) -> Box<dyn Exporter> {
        Box::new(exporter(&self.hosts, &self.topic))
    }

    fn refusable(&self, number: u64, key: &str) -> Message {
        Message { body: Bytes::from(vec![b'x'; 150_000]), ..numbered(number, Some(key)) }
    }

    fn misplaced(&self) -> Box<dyn Exporter> {
        Box::new(exporter(&self.hosts, &format!("missing-{}", unique())))
    }

    fn unreachable(&self) -> Box<dyn Exporter> {
        Box::new(exporter("127.0.0.1:1", &self.topic))
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let mut found = read_topic(&self.hosts, &self.topic).await;
        found.sort_by_key(|message| (message.partition(), message.offset()));
        let arrived = |message: &rdkafka::message::OwnedMessage| Arrived {
            id: header(message, "gravity-id").expect("every message names its id"),
            key: message.key().map(<[u8]>::to_vec),
            body: message.payload().unwrap_or_default().to_vec(),
            headers: message
                .headers()
                .map(|headers| headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect())
                .unwrap_or_default(),
        };
        found.iter().map(arrived).collect()
    }
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

gravity_conformance::export_suite!(rig);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o45_a_key_stays_in_its_partition_of_twelve() {
    let Some(rig) = rig().await else { return };
    let exporter = rig.exporter();
    for round in 0..3_u64 {
        let messages: Vec<Message> =
            (0..200).map(|index| numbered(round * 200 + index, Some(&format!("k{}", index % 60)))).collect();
        assert!(exporter.export(&messages).await.iter().all(is_delivered));
    }
    exporter.close().await;
    let mut partitions: BTreeMap<Vec<u8>, BTreeSet<i32>> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for message in read_topic(&rig.hosts, &rig.topic).await {
        used.insert(message.partition());
        partitions.entry(message.key().expect("keyed").to_vec()).or_default().insert(message.partition());
    }
    assert_eq!(partitions.len(), 60);
    assert!(partitions.values().all(|partitions| partitions.len() == 1), "{partitions:?}");
    assert!(used.len() > 6, "keys are spread: {used:?}");
}

/// The topic's limit shrinks under a running exporter: the broker refuses whole batches, and only the message to blame
/// may be told as refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_the_broker_finds_too_large_blames_one_message() {
    let Some(rig) = rig().await else { return };
    let exporter = rig.exporter();
    assert!(exporter.export(&[numbered(0, Some("a"))]).await.iter().all(is_delivered));
    alter_topic(&rig.hosts, &rig.topic, "max.message.bytes", "20000").await;
    let large = Message { body: Bytes::from(vec![b'x'; 50_000]), ..numbered(3, Some("b")) };
    let messages =
        vec![numbered(1, Some("a")), numbered(2, Some("b")), large, numbered(4, Some("a")), numbered(5, Some("b"))];
    let mut left = messages.clone();
    let mut refused = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    while !left.is_empty() {
        let outcomes = exporter.export(&left).await;
        let mut again = Vec::new();
        for (message, outcome) in left.into_iter().zip(&outcomes) {
            if is_delivered(outcome) {
                continue;
            }
            match kind(outcome) {
                FaultKind::RefusedEvent => refused.push(message.id),
                _ => again.push(message),
            }
        }
        left = again;
        assert!(Instant::now() < until, "left {left:?}");
    }
    exporter.close().await;
    assert_eq!(refused, ["id-000003"]);
    let arrived = rig.arrived().await;
    assert_order_per_key(&arrived, key_in_body);
    let ids: BTreeSet<&str> = arrived.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(ids, ["id-000000", "id-000001", "id-000002", "id-000004", "id-000005"].into());
}

/// O43, E2: the broker dies while messages are on their way. Nothing is lost, ids stay, order per key holds for whoever
/// remembers ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o43_a_broker_killed_mid_publish_loses_nothing() {
    let Some(kafka) = PrivateKafka::start() else { return };
    let rig = rig_on(&kafka.hosts).await;
    // Shorter than the broker needs to come back, so that its absence shows as failures and not only as waiting.
    let exporter = exporter(&rig.hosts, &rig.topic).with_attempt_limit(Duration::from_millis(1500));
    let (kills, per_kill) = (3, 6000);
    let mut failures = 0;
    for kill in 0..kills {
        let killing = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            kafka.kill_and_restart().await;
        };
        let publishing = publish_as_the_engine_does(&exporter, kill * per_kill, per_kill);
        failures += tokio::join!(killing, publishing).1;
    }
    let total = kills * per_kill;
    exporter.close().await;
    let arrived = rig.arrived().await;
    let distinct: BTreeSet<&str> = arrived.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(distinct.len() as u64, total, "lost {}", total - distinct.len() as u64);
    assert_order_per_key(&arrived, key_in_body);
    let repeated = arrived.len() - distinct.len();
    println!(
        "{kills} broker kills, {total} messages, 0 lost, {repeated} sent again under the same id, {failures} failures"
    );
    assert!(failures > 0, "no kill met a message on its way");
}

/// Sends numbered messages in batches; what was not confirmed is sent again, in order, under the same id. Gives the number
/// of failed deliveries.
async fn publish_as_the_engine_does(exporter: &KafkaExporter, first: u64, count: u64) -> usize {
    let (mut failures, until) = (0, Instant::now() + Duration::from_secs(90));
    for start in (first..first + count).step_by(100) {
        let mut left: Vec<Message> =
            (start..start + 100).map(|number| numbered(number, Some(&format!("k{}", number % 30)))).collect();
        while !left.is_empty() {
            let outcomes = exporter.export(&left).await;
            assert_eq!(outcomes.len(), left.len());
            failures += outcomes.iter().filter(|outcome| !is_delivered(outcome)).count();
            left = left.into_iter().zip(&outcomes).filter(|(_, o)| !is_delivered(o)).map(|(m, _)| m).collect();
            assert!(Instant::now() < until, "{start} of {first}+{count}, {failures} failures");
        }
    }
    failures
}
