//! The exporter: every message is published as mandatory and its confirmation awaited, one per key at a time.
//!
//! A message that no queue takes comes back and is confirmed all the same: the return decides. A channel that the broker closes
//! takes the confirmations of everything under way with it, so those messages are sent again under the same ids.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use gravity_model::port::export::{Binding, Delivery, Exporter, Message};
use gravity_model::{Fault, FaultKind};
use hashbrown::HashMap;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, Connection, ExchangeKind};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::RabbitMqExporterOptions;
use super::connect::{ask, connect};
use super::error::{of_channel, of_reply};
use super::properties;
use crate::printable::printable;

/// Messages without a confirmation at the same time, all of different keys.
const IN_FLIGHT: usize = 128;
/// All messages of one `export` are confirmed within this, or their fate is told as unknown.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
const GOODBYE: u16 = 200;
/// Bytes of a frame around its content.
const FRAME: usize = 8;
/// Codes that speak of messages, or of the moment: the connection is none the worse for them.
const BLOCKED: &str = "rabbitmq-blocked";
const NOT_TAKEN: &str = "rabbitmq-nack";
const HELD_BACK: &str = "held-back";

/// Publishes to one exchange.
pub struct RabbitMqExporter {
    name: String,
    options: RabbitMqExporterOptions,
    attempt_limit: Duration,
    link: Mutex<Option<Arc<Link>>>,
    /// Bytes of a body that the broker takes, once it has told.
    largest: AtomicUsize,
}

struct Link {
    connection: Connection,
    channel: Channel,
}

/// An attempt: its connection, its end, and whether more may be sent.
struct Attempt<'a> {
    link: &'a Link,
    until: Instant,
    broken: AtomicBool,
}

impl RabbitMqExporter {
    pub fn new(name: impl Into<String>, options: RabbitMqExporterOptions) -> RabbitMqExporter {
        let largest = AtomicUsize::new(usize::MAX);
        RabbitMqExporter { name: name.into(), options, attempt_limit: ATTEMPT_LIMIT, link: Mutex::new(None), largest }
    }

    /// Tells the fate of unconfirmed messages as unknown after this time instead of [`ATTEMPT_LIMIT`].
    #[must_use]
    pub fn with_attempt_limit(self, attempt_limit: Duration) -> RabbitMqExporter {
        RabbitMqExporter { attempt_limit, ..self }
    }

    async fn link(&self) -> Result<Arc<Link>, Fault> {
        let mut held = self.link.lock().await;
        let lives = |link: &&Arc<Link>| link.connection.status().connected() && link.channel.status().connected();
        if let Some(link) = held.as_ref().filter(lives) {
            return Ok(Arc::clone(link));
        }
        *held = None;
        let connection = connect(&format!("exporter {}", self.name), &self.options.connection).await?;
        let channel = ask(connection.create_channel(), || self.doing()).await?;
        ask(channel.confirm_select(ConfirmSelectOptions::default()), || self.doing()).await?;
        let link = Arc::new(Link { connection, channel });
        *held = Some(Arc::clone(&link));
        Ok(link)
    }

    fn doing(&self) -> String {
        format!("send to rabbitmq exchange {:?} of exporter {}", self.options.exchange, self.name)
    }

    fn fault(&self, kind: FaultKind, code: &'static str, detail: impl Into<String>) -> Fault {
        Fault::new(kind, code, self.doing(), detail)
    }

    /// Sends what `indices` name; the outcomes go to their places.
    async fn attempt(&self, messages: &[Message], indices: &[usize], outcomes: &mut [Option<Delivery>]) {
        let link = match self.link().await {
            Ok(link) => link,
            Err(fault) => {
                indices.iter().for_each(|index| outcomes[*index] = Some(Delivery::failed(copy(&fault))));
                return;
            }
        };
        let mut keys: HashMap<&[u8], Vec<usize>> = HashMap::new();
        let mut chains: Vec<Vec<usize>> = Vec::new();
        for index in indices.iter().copied() {
            match messages[index].key.as_deref() {
                Some(key) => keys.entry(key).or_default().push(index),
                None => chains.push(vec![index]),
            }
        }
        chains.extend(keys.into_values());
        // The oldest first: chance must not decide who is sent before the connection breaks.
        chains.sort_unstable();
        let attempt =
            Attempt { link: &link, until: Instant::now() + self.attempt_limit, broken: AtomicBool::new(false) };
        let sending = futures::stream::iter(chains).map(|chain| self.send_in_order(&attempt, messages, chain));
        let sent: Vec<_> = sending.buffer_unordered(IN_FLIGHT).collect().await;
        for (index, outcome) in sent.into_iter().flatten() {
            outcomes[index] = Some(outcome);
        }
    }

    /// Sends the messages of one key one after the other; the first failure holds the rest back.
    async fn send_in_order(
        &self,
        attempt: &Attempt<'_>,
        messages: &[Message],
        chain: Vec<usize>,
    ) -> Vec<(usize, Delivery)> {
        let mut outcomes = Vec::with_capacity(chain.len());
        let mut failed = false;
        for index in chain {
            if failed || attempt.broken.load(Ordering::Relaxed) {
                let detail = "not sent: an earlier message of its key, or of this attempt, was not delivered";
                outcomes.push((index, Delivery::failed(self.fault(FaultKind::Transient, HELD_BACK, detail))));
                continue;
            }
            let outcome = match self.send(attempt, &messages[index]).await {
                Ok(()) => Delivery::Delivered,
                Err(fault) => {
                    failed = true;
                    if fault.kind != FaultKind::RefusedEvent {
                        attempt.broken.store(true, Ordering::Relaxed);
                    }
                    Delivery::failed(fault)
                }
            };
            outcomes.push((index, outcome));
        }
        outcomes
    }

    async fn send(&self, attempt: &Attempt<'_>, message: &Message) -> Result<(), Fault> {
        let routing_key = self.options.routing_key.as_deref().unwrap_or(&message.event);
        self.check(attempt.link, message, routing_key)?;
        if attempt.link.connection.status().blocked() {
            return Err(self.blocked());
        }
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirmed = async {
            let published = attempt.link.channel.basic_publish(
                self.options.exchange.as_str().into(),
                routing_key.into(),
                mandatory,
                &message.body,
                properties::of_message(message),
            );
            published.await?.await
        };
        match tokio::time::timeout_at(attempt.until, confirmed).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)))) => {
                let text = printable(returned.reply_text.as_str());
                let detail =
                    format!("the broker returned message {} (routing key {routing_key:?}): {text}", message.id);
                let kind = of_reply(returned.reply_code, &text);
                Err(Fault::new(kind, format!("rabbitmq-{}", returned.reply_code), self.doing(), detail))
            }
            Ok(Ok(Confirmation::Nack(None))) => {
                let detail = "the broker did not take the message: a queue is full, or failed to store it";
                Err(self.fault(FaultKind::Transient, NOT_TAKEN, detail))
            }
            Ok(Ok(Confirmation::NotRequested)) => {
                Err(self.fault(FaultKind::Disconnected, "rabbitmq-no-confirms", "the channel lost its confirmations"))
            }
            Ok(Err(error)) => Err(of_channel(error, self.doing())),
            Err(_) if attempt.link.connection.status().blocked() => Err(self.blocked()),
            Err(_) => {
                let detail = "the message was not confirmed in time";
                Err(self.fault(FaultKind::Disconnected, "rabbitmq-no-answer", detail))
            }
        }
    }

    fn blocked(&self) -> Fault {
        let detail = "the broker takes no messages for now: an alarm of memory or disk is on";
        self.fault(FaultKind::Transient, BLOCKED, detail)
    }

    /// Refuses what the broker would end the channel or the connection over, with everything that is under way on it.
    fn check(&self, link: &Link, message: &Message, routing_key: &str) -> Result<(), Fault> {
        let refuse = |code: &'static str, detail: String| Err(self.fault(FaultKind::RefusedEvent, code, detail));
        let long = properties::too_long(message);
        if let Some(what) = long.or((routing_key.len() > properties::LONGEST_SHORT).then_some("routing key")) {
            let detail = format!("the {what} of message {} is longer than 255 bytes", message.id);
            return refuse("rabbitmq-too-long", detail);
        }
        let frame = link.connection.configuration().frame_max() as usize;
        let size = properties::size(message) + FRAME;
        if frame > 0 && size > frame {
            let detail = format!("the headers of message {} have {size} bytes, a frame takes {frame}", message.id);
            return refuse("rabbitmq-headers-too-large", detail);
        }
        let (size, limit) = (message.body.len(), self.largest.load(Ordering::Relaxed));
        if size > limit {
            let detail = format!("message {} has {size} bytes, the broker takes {limit}", message.id);
            return refuse("rabbitmq-too-large", detail);
        }
        Ok(())
    }

    /// The broker tells its limit only when it closes the channel over it. True where it is news.
    fn learn_limit(&self, outcomes: &[Option<Delivery>]) -> bool {
        let limits = outcomes.iter().filter_map(|outcome| match outcome {
            Some(Delivery::Failed { fault, .. }) if fault.code == "rabbitmq-406" => limit_in(&fault.detail),
            _ => None,
        });
        limits.min().is_some_and(|limit| self.largest.fetch_min(limit, Ordering::Relaxed) > limit)
    }
}

/// The limit in `message size 2097152 is larger than configured max size 1048576`.
fn limit_in(detail: &str) -> Option<usize> {
    if !detail.contains("message size") {
        return None;
    }
    let (_, behind) = detail.split_once("max size ")?;
    behind.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[async_trait]
impl Exporter for RabbitMqExporter {
    fn binding(&self) -> Binding {
        Binding::Http
    }

    async fn probe(&self) -> Result<(), Fault> {
        *self.link.lock().await = None;
        let link = self.link().await?;
        if self.options.exchange.is_empty() {
            return Ok(());
        }
        // On a channel of its own: the broker closes it where there is no such exchange.
        let channel = ask(link.connection.create_channel(), || self.doing()).await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let name = self.options.exchange.as_str().into();
        ask(channel.exchange_declare(name, ExchangeKind::Direct, passive, FieldTable::default()), || self.doing())
            .await?;
        ask(channel.close(GOODBYE, "OK".into()), || self.doing()).await
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        let mut outcomes: Vec<Option<Delivery>> = messages.iter().map(|_| None).collect();
        let all: Vec<usize> = (0..messages.len()).collect();
        if all.is_empty() {
            return Vec::new();
        }
        self.attempt(messages, &all, &mut outcomes).await;
        if self.learn_limit(&outcomes) {
            // One message was too large, and the rest went down with its channel.
            *self.link.lock().await = None;
            let is_left = |index: &usize| !matches!(&outcomes[*index], Some(outcome) if is_settled(outcome));
            let left: Vec<usize> = all.iter().copied().filter(is_left).collect();
            self.attempt(messages, &left, &mut outcomes).await;
        }
        let unanswered = || self.fault(FaultKind::Disconnected, "rabbitmq-no-answer", "the message was not sent");
        let outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Delivery::failed(unanswered())));
        let outcomes: Vec<Delivery> = outcomes.collect();
        if outcomes.iter().any(ends_connection) {
            *self.link.lock().await = None;
        }
        outcomes
    }

    async fn close(&self) {
        if let Some(link) = self.link.lock().await.take() {
            let goodbye = link.connection.close(GOODBYE, "OK".into());
            if !matches!(tokio::time::timeout(super::connect::ASK_LIMIT / 5, goodbye).await, Ok(Ok(()))) {
                tracing::debug!(exporter = %self.name, "the connection was not closed in an orderly way");
            }
        }
    }
}

/// Sending it again would change nothing.
fn is_settled(outcome: &Delivery) -> bool {
    match outcome {
        Delivery::Delivered => true,
        Delivery::Failed { fault, .. } => fault.kind == FaultKind::RefusedEvent,
    }
}

fn ends_connection(outcome: &Delivery) -> bool {
    match outcome {
        Delivery::Delivered => false,
        Delivery::Failed { fault, .. } => {
            fault.kind != FaultKind::RefusedEvent && !matches!(&*fault.code, BLOCKED | NOT_TAKEN | HELD_BACK)
        }
    }
}

fn copy(fault: &Fault) -> Fault {
    Fault::new(fault.kind, fault.code.clone(), fault.doing.clone(), fault.detail.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_limit_is_read_from_its_refusal() {
        let text = "PRECONDITION_FAILED - message size 2097152 is larger than configured max size 1048576";
        assert_eq!(limit_in(text), Some(1_048_576));
        assert_eq!(limit_in("PRECONDITION_FAILED - unknown delivery tag 7"), None);
    }
}
