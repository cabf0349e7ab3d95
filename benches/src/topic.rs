//! The topic of a round: made fresh with four partitions, filled, and written to at a fixed rate.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

pub const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>, String> {
    let admin = ClientConfig::new().set("bootstrap.servers", brokers).create();
    admin.map_err(|error| format!("a Kafka admin client: {error}"))
}

pub async fn create(brokers: &str, topic: &str) -> Result<(), String> {
    let fresh = [NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1))];
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let results = admin(brokers)?.create_topics(&fresh, &options).await.map_err(|error| error.to_string())?;
    results.into_iter().try_for_each(|r| r.map_err(|(name, code)| format!("creating topic {name}: {code}")).map(drop))
}

/// A topic that stays costs disk only.
pub async fn delete(brokers: &str, topic: &str) {
    if let Ok(admin) = admin(brokers) {
        let _ = admin.delete_topics(&[topic], &AdminOptions::new()).await;
    }
}

/// One producer for a round, so that one partitioner places every event of a key.
pub struct Feed {
    producer: BaseProducer,
    topic: String,
    buffer: Vec<u8>,
}

impl Feed {
    /// `linger`: how long a message may wait for company.
    pub fn new(brokers: &str, topic: &str, compression: &str, linger: Duration) -> Result<Feed, String> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("partitioner", "murmur2_random")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", compression)
            .set("linger.ms", linger.as_millis().to_string())
            .set("batch.size", "262144")
            .set("queue.buffering.max.messages", "200000")
            .create()
            .map_err(|error| format!("a Kafka producer: {error}"))?;
        Ok(Feed { producer, topic: topic.to_owned(), buffer: Vec::new() })
    }

    /// Queues one order under its id, or in a given partition; answers its size in bytes.
    pub fn send(&mut self, order: &crate::workload::Order, partition: Option<i32>) -> Result<usize, String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        order.write_json(&mut buffer).map_err(|error| error.to_string())?;
        self.send_bytes(&order.id.to_string(), &buffer, partition)?;
        self.buffer = buffer;
        Ok(self.buffer.len())
    }

    /// Queues one message. Waits while the queue is full.
    pub fn send_bytes(&self, key: &str, payload: &[u8], partition: Option<i32>) -> Result<(), String> {
        loop {
            let mut record = BaseRecord::to(&self.topic).key(key).payload(payload);
            record.partition = partition;
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(format!("producing to {}: {error}", self.topic)),
            }
        }
    }

    pub fn flush(&self) -> Result<(), String> {
        self.producer.flush(PATIENCE).map_err(|error| format!("producing to {}: {error}", self.topic))
    }

    /// Sleeps until `due` and takes the delivery reports of the meantime. The client's own poll counts in milliseconds: with
    /// less than one left it would spin and take a core away from the system under test.
    pub fn wait_until(&self, due: Instant) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        self.producer.poll(Duration::ZERO);
    }
}
