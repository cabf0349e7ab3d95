//! Kafka: a topic of four partitions, read by the source, and by a bare consumer that polls.

use std::collections::BTreeMap;
use std::time::Duration;

use gravity_connectors::kafka::{KafkaConnection, KafkaSource, KafkaSourceOptions};
use gravity_model::port::source::Acceptance;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::intake::Intake;
use super::{PATIENCE, Pace, Round, message};
use crate::topic::{self, Feed, PARTITIONS};

pub async fn round(brokers: &str, name: &str, messages: u64) -> Result<Round, String> {
    topic::create(brokers, name).await?;
    let measured = measure(brokers, name, messages).await;
    topic::delete(brokers, name).await;
    measured
}

async fn measure(brokers: &str, name: &str, messages: u64) -> Result<Round, String> {
    let feed = Feed::new(brokers, name, "none", Duration::from_millis(50))?;
    for index in 0..messages {
        feed.send_bytes(&index.to_string(), &message(index), None)?;
    }
    feed.flush()?;
    let no_ack = tokio::task::block_in_place(|| poll_all(brokers, name, messages))?;
    let intake = Intake::new()?;
    let options = KafkaSourceOptions {
        connection: KafkaConnection { hosts: vec![brokers.to_owned()], ..KafkaConnection::default() },
        topics: vec![name.to_owned()],
        group: name.to_owned(),
        log_id: intake.log_id(),
        accept: Acceptance::default(),
        extra: BTreeMap::new(),
    };
    let into_log = intake.rate("kafka", Box::new(KafkaSource::new("bench", options)), messages).await?;
    Ok(Round { into_log, ack_each: None, no_ack })
}

/// A consumer without group, at its defaults but for the pause when its queue is full, which would halve it.
fn poll_all(brokers: &str, name: &str, messages: u64) -> Result<f64, String> {
    let wrong = |error: rdkafka::error::KafkaError| error.to_string();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", format!("{name}-bare")).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.set("fetch.queue.backoff.ms", "1").create().map_err(wrong)?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(name, partition, Offset::Beginning).map_err(wrong)?;
    }
    consumer.assign(&assignment).map_err(wrong)?;
    let mut pace = Pace::new(messages);
    for count in 1.. {
        consumer.poll(PATIENCE).ok_or("no message")?.map_err(wrong)?;
        if let Some(rate) = pace.at(count) {
            return Ok(rate);
        }
    }
    Err("no message".to_owned())
}
