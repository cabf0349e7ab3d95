//! Topics of a run on Kafka, and all messages of one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{Received, read};
use crate::torture::stack::arms::{Peers, Server};

/// Partitions of the run's topics.
pub const PARTITIONS: i32 = 3;

/// Makes topics of [`PARTITIONS`] partitions.
pub async fn create(peers: &Peers, names: &[&str]) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let hosts = peers.at(Server::Kafka)?;
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", hosts)
        .create()
        .map_err(|error| format!("a Kafka admin client: {error}"))?;
    let topics: Vec<NewTopic<'_>> =
        names.iter().map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))).collect();
    let results = admin
        .create_topics(&topics, &AdminOptions::new().operation_timeout(Some(Duration::from_secs(20))))
        .await
        .map_err(|error| format!("creating topics: {error}"))?;
    for result in results {
        result.map_err(|(name, code)| format!("creating topic {name}: {code}"))?;
    }
    Ok(())
}

/// Left-overs cost disk only.
pub async fn delete(peers: &Peers, names: &[&str]) {
    let Ok(hosts) = peers.at(Server::Kafka) else { return };
    let admin: Result<AdminClient<_>, _> = ClientConfig::new().set("bootstrap.servers", hosts).create();
    if let Ok(admin) = admin {
        let _ = admin.delete_topics(names, &AdminOptions::new()).await;
    }
}

/// The whole topic, partition after partition. Blocking.
pub fn read_all(hosts: &str, topic: &str) -> Result<Received, String> {
    let wrong = |error: KafkaError| format!("reading topic {topic}: {error}");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", hosts)
        .set("group.id", format!("{topic}-reader"))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()
        .map_err(wrong)?;
    let mut assignment = TopicPartitionList::new();
    let mut left: HashMap<i32, i64> = HashMap::new();
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).map_err(wrong)?;
        if high > low {
            left.insert(partition, high);
        }
        assignment.add_partition_offset(topic, partition, Offset::Beginning).map_err(wrong)?;
    }
    consumer.assign(&assignment).map_err(wrong)?;
    let mut received = Received::default();
    let patience = Instant::now() + Duration::from_secs(120);
    while !left.is_empty() {
        if Instant::now() > patience {
            return Err(format!("reading topic {topic}: no end after 120 s, missing {left:?}"));
        }
        let Some(message) = consumer.poll(Duration::from_millis(500)) else { continue };
        let message = message.map_err(wrong)?;
        let header = |name: &str| {
            let name = format!("ce_{name}");
            let header = message.headers()?.iter().find(|header| header.key.eq_ignore_ascii_case(&name))?;
            header.value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        received.take(read(header, message.payload().unwrap_or_default()));
        if left.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
            left.remove(&message.partition());
        }
    }
    Ok(received)
}
