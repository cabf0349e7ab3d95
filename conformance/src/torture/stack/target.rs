//! Where exporters deliver: an HTTP endpoint of ours that now and then misbehaves, and a Kafka topic that is read at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::torture::random::Random;

/// Partitions of the run's topics.
pub const PARTITIONS: i32 = 3;

/// One message that an exporter delivered, in order of arrival within its order (key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub id: String,
    /// The script's item, from the payload.
    pub item: u64,
}

/// Reads a CloudEvent, binary (attributes in headers `ce_`/`ce-`) or structured.
fn read(header: impl Fn(&str) -> Option<String>, body: &[u8]) -> Result<Delivered, String> {
    let show = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("{error} in {}", show()))?;
    let binary = header("id");
    let data = if binary.is_some() { &value } else { &value["data"] };
    let id = binary.or_else(|| value["id"].as_str().map(str::to_owned));
    match (id, data["i"].as_u64()) {
        (Some(id), Some(item)) => Ok(Delivered { id, item }),
        _ => Err(format!("no id or no item in {}", show())),
    }
}

/// What the endpoint got.
#[derive(Default)]
pub struct Received {
    pub messages: Vec<Delivered>,
    pub problems: Vec<String>,
}

/// The endpoint: records everything, answers some with an error although it has taken them, some late.
pub struct Hook {
    pub received: Arc<Mutex<Received>>,
    pub url: String,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct HookState {
    received: Arc<Mutex<Received>>,
    random: Arc<Mutex<Random>>,
}

impl Hook {
    pub async fn start(seed: u64) -> Result<Hook, String> {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("the endpoint: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("the endpoint: {error}"))?;
        let received = Arc::new(Mutex::new(Received::default()));
        let state = HookState { received: received.clone(), random: Arc::new(Mutex::new(Random::new(seed))) };
        let router = Router::new().route("/hook", post(take)).with_state(state);
        let server = tokio::spawn(async move {
            // Ends with the run; an endpoint that fails shows as messages that are missing.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Hook { received, url: format!("http://{address}/hook"), server })
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(state): State<HookState>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(format!("ce-{name}")).and_then(|v| v.to_str().ok()).map(str::to_owned);
    match read(header, &body) {
        Ok(message) => state.received.lock().messages.push(message),
        Err(why) => {
            let mut received = state.received.lock();
            if received.problems.len() < 20 {
                received.problems.push(why);
            }
        }
    }
    let mood = state.random.lock().below(500);
    match mood {
        // Taken, but the sender does not learn it: it has to come again under the same id.
        0 => StatusCode::SERVICE_UNAVAILABLE,
        1 => StatusCode::INTERNAL_SERVER_ERROR,
        2 => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            StatusCode::OK
        }
        _ => StatusCode::NO_CONTENT,
    }
}

/// Makes topics of [`PARTITIONS`] partitions.
pub async fn create_topics(hosts: &str, names: &[&str]) -> Result<(), String> {
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

pub async fn delete_topics(hosts: &str, names: &[&str]) {
    let admin: Result<AdminClient<_>, _> = ClientConfig::new().set("bootstrap.servers", hosts).create();
    if let Ok(admin) = admin {
        // Left-overs cost disk only.
        let _ = admin.delete_topics(names, &AdminOptions::new()).await;
    }
}

/// The whole topic, partition after partition. Blocking.
pub fn read_topic(hosts: &str, topic: &str) -> Result<Received, String> {
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
        match read(header, message.payload().unwrap_or_default()) {
            Ok(delivered) => received.messages.push(delivered),
            Err(why) if received.problems.len() < 20 => received.problems.push(why),
            Err(_) => {}
        }
        if left.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
            left.remove(&message.partition());
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_cloud_event_are_read() {
        let expected = Ok(Delivered { id: "x".to_owned(), item: 7 });
        let none = |_: &str| None;
        assert_eq!(read(none, br#"{"specversion":"1.0","id":"x","data":{"i":7}}"#), expected);
        assert_eq!(read(|name| (name == "id").then(|| "x".to_owned()), br#"{"i":7}"#), expected);
        assert!(read(none, br#"{"i":7}"#).is_err());
        assert!(read(none, b"not json").is_err());
    }
}
