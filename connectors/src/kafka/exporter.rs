//! The Kafka exporter: an idempotent producer, every delivery report awaited, order per key without exception.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use gravity_model::port::export::{Binding, Delivery, Exporter, Message};
use gravity_model::{Fault, FaultKind};
use hashbrown::HashSet;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig};
use tokio::time::Instant;

use super::config::KafkaExporterOptions;
use super::context;
use super::error::{fault_from, fault_of, kind_of, printable};

/// Header with the id that is the same on every retry.
const ID_HEADER: &str = "gravity-id";
/// All messages of one `export` are confirmed within this, or their fate is told as unknown.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// Limit of a question to the broker.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// What Kafka takes where a topic says nothing else (`message.max.bytes`).
const DEFAULT_MAX_BYTES: usize = 1_048_588;
/// What the record format adds to key, headers and value at most, apart from a few bytes per header.
const RECORD_OVERHEAD: usize = 96;

/// Sends to one topic.
pub struct KafkaExporter {
    name: String,
    options: KafkaExporterOptions,
    attempt_limit: Duration,
    producer: Mutex<Option<Arc<Sender>>>,
}

/// A producer and what it knows of its topic.
struct Sender {
    producer: FutureProducer<ExporterContext>,
    max_bytes: usize,
    last_error: LastError,
}

/// The newest error of a client, with the client's sentence: a refused password shows only there.
type LastError = Arc<Mutex<Option<(Code, String)>>>;

struct ExporterContext {
    name: String,
    last_error: LastError,
}

impl ClientContext for ExporterContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        context::log(&self.name, level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = printable(reason);
        tracing::debug!(exporter = %self.name, error = %error, reason, "kafka client error");
        if let Some(code) = error.rdkafka_error_code() {
            context::note_error(&self.last_error, code, reason);
        }
    }
}

impl KafkaExporter {
    pub fn new(name: impl Into<String>, options: KafkaExporterOptions) -> KafkaExporter {
        KafkaExporter { name: name.into(), options, attempt_limit: ATTEMPT_LIMIT, producer: Mutex::new(None) }
    }

    /// Tells the fate of unconfirmed messages as unknown after this time instead of [`ATTEMPT_LIMIT`].
    #[must_use]
    pub fn with_attempt_limit(self, attempt_limit: Duration) -> KafkaExporter {
        KafkaExporter { attempt_limit, ..self }
    }

    async fn sender(&self) -> Result<Arc<Sender>, Fault> {
        if let Some(sender) = self.producer.lock().clone() {
            return Ok(sender);
        }
        let sender = Arc::new(open(&self.name, &self.options).await?);
        *self.producer.lock() = Some(Arc::clone(&sender));
        Ok(sender)
    }

    /// Takes the producer out of service: what it still holds is purged, so nothing of it is sent later.
    async fn discard(&self) {
        let Some(sender) = self.producer.lock().take() else { return };
        sender.producer.purge(PurgeConfig::default().queue().inflight());
        // Dropping the last reference joins the producer's thread.
        if tokio::task::spawn_blocking(move || drop(sender)).await.is_err() {
            tracing::warn!(exporter = %self.name, "the old kafka producer panicked while it was dropped");
        }
    }

    fn doing(&self) -> String {
        format!("send to kafka topic {} of exporter {}", self.options.topic, self.name)
    }

    /// The broker refused a batch as too large, which fails all that was packed into it: sends what is left one by one,
    /// so that only the message to blame is refused.
    async fn find_too_large(&self, messages: &[Message], outcomes: &mut [Delivery]) {
        if !outcomes.iter().any(broker_found_too_large) {
            return;
        }
        let mut held: HashSet<&[u8]> = HashSet::new();
        let mut broken = false;
        for (message, outcome) in messages.iter().zip(outcomes) {
            let refused = match outcome {
                Delivery::Delivered => continue,
                Delivery::Failed { fault, .. } => fault.kind == FaultKind::RefusedEvent && fault.source.is_none(),
            };
            let key = message.key.as_deref();
            if !refused {
                let held = broken || key.is_some_and(|key| held.contains(key));
                *outcome = if held { Delivery::failed(self.held_back()) } else { self.send_alone(message).await };
            }
            if let Delivery::Failed { fault, .. } = outcome {
                held.extend(key);
                broken |= fault.kind != FaultKind::RefusedEvent && fault.code != "held-back";
            }
        }
    }

    async fn send_alone(&self, message: &Message) -> Delivery {
        let outcome = match self.sender().await {
            Ok(sender) => self.send(&sender, std::slice::from_ref(message)).await.pop(),
            Err(fault) => return Delivery::failed(fault),
        };
        let outcome = outcome.unwrap_or_else(|| Delivery::failed(self.held_back()));
        if is_unconfirmed(&outcome) {
            self.discard().await;
        }
        outcome
    }

    fn held_back(&self) -> Fault {
        let detail = "not sent: an earlier message of its key, or of this attempt, was not delivered";
        Fault::new(FaultKind::Transient, "held-back", self.doing(), detail)
    }

    /// Sends what the producer takes, in order; awaits every report.
    async fn send(&self, sender: &Sender, messages: &[Message]) -> Vec<Delivery> {
        let mut round = Round::new(self, sender, messages.len());
        for (index, message) in messages.iter().enumerate() {
            round.enqueue(index, message).await;
        }
        round.finish().await
    }
}

/// One pass over the messages of an `export`.
struct Round<'a> {
    exporter: &'a KafkaExporter,
    sender: &'a Sender,
    outcomes: Vec<Option<Delivery>>,
    /// Keys of which a message failed: nothing later of them may go out.
    held: HashSet<&'a [u8]>,
    waiting: FuturesOrdered<Report>,
    until: Instant,
    /// The limit passed or the producer is no longer usable: nothing more is enqueued.
    over: bool,
}

type Report = std::pin::Pin<Box<dyn Future<Output = (usize, Result<(), KafkaError>)> + Send>>;

impl<'a> Round<'a> {
    fn new(exporter: &'a KafkaExporter, sender: &'a Sender, count: usize) -> Round<'a> {
        Round {
            exporter,
            sender,
            outcomes: (0..count).map(|_| None).collect(),
            held: HashSet::new(),
            waiting: FuturesOrdered::new(),
            until: Instant::now() + exporter.attempt_limit,
            over: false,
        }
    }

    async fn enqueue(&mut self, index: usize, message: &'a Message) {
        if self.over || message.key.as_ref().is_some_and(|key| self.held.contains(&key[..])) {
            self.fail(index, message, self.exporter.held_back());
            return;
        }
        if let Some(fault) = self.too_large(message) {
            self.fail(index, message, fault);
            return;
        }
        loop {
            match self.sender.producer.send_result(record(&self.exporter.options.topic, message)) {
                Ok(report) => {
                    self.waiting.push_back(Box::pin(confirmed(index, report)));
                    return;
                }
                // The queue is bounded on purpose: the oldest report makes room.
                Err((KafkaError::MessageProduction(Code::QueueFull), _)) if !self.waiting.is_empty() => {
                    self.await_one().await;
                }
                Err((error, _)) => {
                    self.over = true;
                    self.fail(index, message, fault_from(error, self.exporter.doing()));
                    return;
                }
            }
            if self.over {
                self.fail(index, message, self.exporter.held_back());
                return;
            }
        }
    }

    fn too_large(&self, message: &Message) -> Option<Fault> {
        let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
        let key = message.key.as_ref().map_or(0, |key| key.len());
        let fixed = ID_HEADER.len() + message.id.len() + message.content_type.len() + RECORD_OVERHEAD;
        let size = message.body.len() + key + headers + fixed;
        (size > self.sender.max_bytes).then(|| {
            let detail = format!(
                "message {} has {size} bytes, topic {} takes {}",
                message.id, self.exporter.options.topic, self.sender.max_bytes
            );
            Fault::new(FaultKind::RefusedEvent, "kafka-MessageSizeTooLarge", self.exporter.doing(), detail)
        })
    }

    fn fail(&mut self, index: usize, message: &'a Message, fault: Fault) {
        if let Some(key) = &message.key {
            self.held.insert(key);
        }
        self.outcomes[index] = Some(Delivery::failed(fault));
    }

    /// Awaits the oldest report; at the limit everything unconfirmed is purged, which answers the rest.
    async fn await_one(&mut self) {
        let next = self.waiting.next();
        let answer = match tokio::time::timeout_at(self.until, next).await {
            Ok(answer) => answer,
            Err(_) => {
                self.over = true;
                self.sender.producer.purge(PurgeConfig::default().queue().inflight());
                self.until = Instant::now() + Duration::from_secs(3600);
                return;
            }
        };
        let Some((index, report)) = answer else { return };
        self.outcomes[index] = Some(match report {
            Ok(()) => Delivery::Delivered,
            Err(error) => {
                self.over = true;
                Delivery::failed(unconfirmed(error, self.exporter.doing()))
            }
        });
    }

    async fn finish(mut self) -> Vec<Delivery> {
        while !self.waiting.is_empty() {
            self.await_one().await;
        }
        let unsent = || Fault::new(FaultKind::Transient, "not-sent", self.exporter.doing(), "not sent");
        let outcomes = std::mem::take(&mut self.outcomes);
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Delivery::failed(unsent()))).collect()
    }
}

async fn confirmed(index: usize, report: DeliveryFuture) -> (usize, Result<(), KafkaError>) {
    match report.await {
        Ok(Ok(_)) => (index, Ok(())),
        Ok(Err((error, _))) => (index, Err(error)),
        // The producer was dropped: the message may have arrived or not.
        Err(_) => (index, Err(KafkaError::Canceled)),
    }
}

/// What a missing confirmation means. A batch that the broker finds too large fails as a whole: which of its messages is to
/// blame is found by sending them alone, so here it is only "not delivered".
fn unconfirmed(error: KafkaError, doing: String) -> Fault {
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            fault_of(Code::UnknownTopicOrPartition, doing, "the topic does not exist").with_source(error)
        }
        Some(code) => {
            let mut fault = fault_of(code, doing, printable(&error.to_string())).with_source(error);
            if matches!(fault.kind, FaultKind::HistoryBroken | FaultKind::NotOurs | FaultKind::Closed) {
                fault.kind = FaultKind::Transient;
            }
            fault
        }
        None => Fault::new(FaultKind::Disconnected, "kafka-unknown-outcome", doing, printable(&error.to_string()))
            .with_source(error),
    }
}

fn record<'a>(topic: &'a str, message: &'a Message) -> FutureRecord<'a, [u8], [u8]> {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 2);
    let mut typed = false;
    for (name, value) in &message.headers {
        typed |= name.eq_ignore_ascii_case("content-type");
        headers = headers.insert(Header { key: name, value: Some(value) });
    }
    if !typed {
        headers = headers.insert(Header { key: "content-type", value: Some(message.content_type) });
    }
    headers = headers.insert(Header { key: ID_HEADER, value: Some(&message.id) });
    let mut record = FutureRecord::to(topic).payload(&message.body[..]).headers(headers);
    record.key = message.key.as_deref();
    record
}

/// Makes a producer and asks how large a message of this topic may be.
async fn open(name: &str, options: &KafkaExporterOptions) -> Result<Sender, Fault> {
    let max_bytes = max_message_bytes(name, options).await?;
    let last_error = LastError::default();
    let context = ExporterContext { name: name.to_owned(), last_error: Arc::clone(&last_error) };
    let doing = || format!("connect exporter {name} to kafka at {}", options.connection.place());
    let producer: FutureProducer<ExporterContext> =
        options.client_config(max_bytes).create_with_context(context).map_err(|error| fault_from(error, doing()))?;
    let sender = Sender { producer, max_bytes, last_error };
    let (sender, found) = {
        let topic = options.topic.clone();
        let place = doing();
        tokio::task::spawn_blocking(move || {
            let found = look_for_topic(&sender, &topic, &place);
            (sender, found)
        })
        .await
        .map_err(|error| {
            Fault::new(FaultKind::Transient, "kafka-task", doing(), error.to_string()).with_source(error)
        })?
    };
    found.map(|()| sender)
}

/// Finds the topic, or says why not.
fn look_for_topic(sender: &Sender, topic: &str, doing: &str) -> Result<(), Fault> {
    let client = sender.producer.client();
    let metadata = match client.fetch_metadata(Some(topic), ASK_LIMIT) {
        Ok(metadata) => metadata,
        Err(error) => {
            let reason = sender.last_error.lock().take().filter(|(code, _)| kind_of(*code) == FaultKind::Misconfigured);
            return Err(match reason {
                Some((code, text)) => fault_of(code, doing, text).with_source(error),
                None => fault_from(error, doing),
            });
        }
    };
    let unknown = || fault_of(Code::UnknownTopicOrPartition, doing, format!("topic {topic} does not exist"));
    let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(unknown)?;
    match found.error().map(Code::from) {
        None => Ok(()),
        Some(Code::UnknownTopicOrPartition) => Err(unknown()),
        Some(code) => Err(fault_of(code, doing, format!("topic {topic}: {code}"))),
    }
}

/// The topic's `max.message.bytes`; Kafka's own default where we may not ask.
async fn max_message_bytes(name: &str, options: &KafkaExporterOptions) -> Result<usize, Fault> {
    let doing = || format!("connect exporter {name} to kafka at {}", options.connection.place());
    let context = ExporterContext { name: name.to_owned(), last_error: LastError::default() };
    let admin: AdminClient<ExporterContext> = options
        .client_config(DEFAULT_MAX_BYTES)
        .create_with_context(context)
        .map_err(|error| fault_from(error, doing()))?;
    let limit = AdminOptions::new().request_timeout(Some(ASK_LIMIT));
    let resource = [ResourceSpecifier::Topic(&options.topic)];
    let described = admin.describe_configs(&resource, &limit).await;
    // Joining the client's thread blocks.
    drop(tokio::task::spawn_blocking(move || drop(admin)));
    let answer = described.ok().and_then(|mut answers| answers.pop()).and_then(Result::ok);
    let value = answer.and_then(|config| config.get("max.message.bytes").and_then(|entry| entry.value.clone()));
    Ok(value.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_MAX_BYTES))
}

#[async_trait]
impl Exporter for KafkaExporter {
    fn binding(&self) -> Binding {
        Binding::Kafka
    }

    async fn probe(&self) -> Result<(), Fault> {
        self.discard().await;
        self.sender().await.map(drop)
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        let sender = match self.sender().await {
            Ok(sender) => sender,
            Err(fault) => return all_failed(messages.len(), &fault),
        };
        let mut outcomes = self.send(&sender, messages).await;
        if sender.producer.client().fatal_error().is_some() || outcomes.iter().any(is_unconfirmed) {
            drop(sender);
            self.discard().await;
            self.find_too_large(messages, &mut outcomes).await;
        }
        outcomes
    }

    async fn close(&self) {
        self.discard().await;
    }
}

/// Something the producer itself failed at, not our own refusal before it was asked.
fn is_unconfirmed(outcome: &Delivery) -> bool {
    matches!(outcome, Delivery::Failed { fault, .. } if fault.source.is_some())
}

/// The broker's refusal, not our own measurement: it carries the client's error.
fn broker_found_too_large(outcome: &Delivery) -> bool {
    matches!(outcome, Delivery::Failed { fault, .. }
        if fault.code == "kafka-MessageSizeTooLarge" && fault.source.is_some())
}

fn all_failed(count: usize, fault: &Fault) -> Vec<Delivery> {
    let copy = || Fault::new(fault.kind, fault.code.clone(), fault.doing.clone(), fault.detail.clone());
    (0..count).map(|_| Delivery::failed(copy())).collect()
}
