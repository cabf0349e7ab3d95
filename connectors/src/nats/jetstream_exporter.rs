//! The exporter to a JetStream stream: every message's acknowledgement is awaited, a repeat is known by its id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{HeaderMap, Request};
use async_trait::async_trait;
use futures::StreamExt;
use gravity_model::port::export::{Binding, Delivery, Exporter, Message};
use gravity_model::{Fault, FaultKind};
use hashbrown::HashMap;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::JetStreamExporterOptions;
use super::connect::{ASK_LIMIT, Link, connect};
use super::error::{chain, code_name};
use super::exporting::{all_failed, copy, headers, too_large};
use crate::printable::printable;

const WAITING: usize = 1024;
/// Messages without an acknowledgement at the same time, all of different keys.
const IN_FLIGHT: usize = 128;
/// All messages of one `export` are acknowledged within this, or their fate is told as unknown.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// Sends to one subject that a stream takes in.
pub struct JetStreamExporter {
    name: String,
    options: JetStreamExporterOptions,
    attempt_limit: Duration,
    link: Mutex<Option<Arc<Link>>>,
}

/// The server's answer to a message.
#[derive(Debug, Deserialize)]
struct Answer {
    stream: Option<String>,
    #[serde(default)]
    duplicate: bool,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl JetStreamExporter {
    pub fn new(name: impl Into<String>, options: JetStreamExporterOptions) -> JetStreamExporter {
        JetStreamExporter { name: name.into(), options, attempt_limit: ATTEMPT_LIMIT, link: Mutex::new(None) }
    }

    /// Tells the fate of unacknowledged messages as unknown after this time instead of [`ATTEMPT_LIMIT`].
    #[must_use]
    pub fn with_attempt_limit(self, attempt_limit: Duration) -> JetStreamExporter {
        JetStreamExporter { attempt_limit, ..self }
    }

    async fn link(&self) -> Result<Arc<Link>, Fault> {
        let mut held = self.link.lock().await;
        if let Some(link) = held.as_ref().filter(|held| !held.events.is_lost()) {
            return Ok(Arc::clone(link));
        }
        *held = None;
        let link = connect(&format!("exporter {}", self.name), &self.options.connection, WAITING).await?;
        let link = Arc::new(link);
        *held = Some(Arc::clone(&link));
        Ok(link)
    }

    fn doing(&self) -> String {
        format!("send to jetstream subject {} of exporter {}", self.options.subject, self.name)
    }

    /// Looks for the stream, and tells how long it recognises a repeat.
    async fn find_stream(&self, link: &Link) -> Result<(), Fault> {
        let refuse =
            |code: &'static str, detail: String| Fault::new(FaultKind::Misconfigured, code, self.doing(), detail);
        if !link.info.jetstream {
            return Err(refuse("nats-no-jetstream", "the server runs without JetStream".to_owned()));
        }
        let context = ContextBuilder::new().timeout(ASK_LIMIT).build(link.client.clone());
        let found = context.stream_by_subject(self.options.subject.clone()).await;
        let name = match (found, &self.options.stream) {
            (Ok(name), Some(expected)) if name != *expected => {
                let detail =
                    format!("subject {} is taken by stream {}, not {expected}", self.options.subject, printable(&name));
                return Err(refuse("nats-wrong-stream", detail));
            }
            (Ok(name), _) => name,
            (Err(error), _) => {
                use async_nats::jetstream::context::GetStreamByNameErrorKind as Kind;
                return Err(match error.kind() {
                    Kind::NotFound => {
                        refuse("nats-no-stream", format!("no stream takes subject {}", self.options.subject))
                    }
                    Kind::InvalidSubject => refuse("nats-subject", chain(&error)),
                    _ => link.explain(
                        Fault::new(FaultKind::Disconnected, "nats-no-answer", self.doing(), chain(&error))
                            .with_source(error),
                    ),
                });
            }
        };
        // The right to read a stream's settings is not needed to publish.
        if let Ok(stream) = context.get_stream(&name).await {
            let window = stream.cached_info().config.duplicate_window;
            tracing::info!(exporter = %self.name, stream = %printable(&name), ?window, "a repeat within the window is recognised");
        }
        Ok(())
    }

    /// Sends the messages of one key one after the other; the first failure holds the rest back.
    async fn send_in_order(
        &self,
        link: &Link,
        messages: &[Message],
        indices: Vec<usize>,
        (broken, until): (&AtomicBool, Instant),
    ) -> Vec<(usize, Delivery)> {
        let mut outcomes = Vec::with_capacity(indices.len());
        let mut failed = false;
        for index in indices {
            if failed || broken.load(Ordering::Relaxed) {
                let detail = "not sent: an earlier message of its key, or of this attempt, was not delivered";
                let fault = Fault::new(FaultKind::Transient, "held-back", self.doing(), detail);
                outcomes.push((index, Delivery::failed(fault)));
                continue;
            }
            let outcome = match self.send(link, &messages[index], until).await {
                Ok(()) => Delivery::Delivered,
                Err(fault) => {
                    failed = true;
                    if fault.kind != FaultKind::RefusedEvent {
                        broken.store(true, Ordering::Relaxed);
                    }
                    Delivery::failed(fault)
                }
            };
            outcomes.push((index, outcome));
        }
        outcomes
    }

    async fn send(&self, link: &Link, message: &Message, until: Instant) -> Result<(), Fault> {
        if let Some(fault) = too_large(message, link.info.max_payload, || self.doing()) {
            return Err(fault);
        }
        let mut headers: HeaderMap = headers(message);
        if let Some(stream) = &self.options.stream {
            headers.insert(EXPECTED_STREAM, stream.as_str());
        }
        let request = Request::new().headers(headers).payload(message.body.clone()).timeout(None);
        let asked = link.client.send_request(self.options.subject.clone(), request);
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            () = link.events.lost() => return Err(link.lost_fault(self.doing())),
            () = tokio::time::sleep_until(until) => {
                let detail = "the message was not acknowledged in time";
                let fault = Fault::new(FaultKind::Disconnected, "nats-no-answer", self.doing(), detail);
                return Err(link.explain(fault));
            }
        };
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                let detail = format!("no stream takes subject {}", self.options.subject);
                Fault::new(FaultKind::Misconfigured, "nats-no-stream", self.doing(), detail).with_source(error)
            }
            RequestErrorKind::InvalidSubject => {
                Fault::new(FaultKind::Misconfigured, "nats-subject", self.doing(), chain(&error)).with_source(error)
            }
            _ => {
                let fault = Fault::new(FaultKind::Disconnected, "nats-no-answer", self.doing(), chain(&error));
                link.explain(fault.with_source(error))
            }
        })?;
        self.understand(&answer.payload, message)
    }

    fn understand(&self, payload: &[u8], message: &Message) -> Result<(), Fault> {
        let answer: Answer = serde_json::from_slice(payload).map_err(|_| self.no_stream())?;
        match answer {
            Answer { error: Some(refusal), .. } => Err(self.refused(&refusal)),
            Answer { stream: Some(_), duplicate, .. } => {
                if duplicate {
                    tracing::debug!(exporter = %self.name, id = %message.id, "the stream had it already");
                }
                Ok(())
            }
            Answer { .. } => Err(self.no_stream()),
        }
    }

    fn no_stream(&self) -> Fault {
        let detail = format!("subject {} is answered by something that is no stream", self.options.subject);
        Fault::new(FaultKind::Misconfigured, "nats-no-stream", self.doing(), detail)
    }

    fn refused(&self, refusal: &Refusal) -> Fault {
        let kind = match refusal.err_code {
            // Larger than the stream takes.
            10054 => FaultKind::RefusedEvent,
            // Another stream than expected, a sealed one, a mirror.
            10060 | 10109 | 10034 => FaultKind::Misconfigured,
            _ if refusal.code == 400 || refusal.code == 403 || refusal.code == 404 => FaultKind::Misconfigured,
            // Full, or in an election: the same message may pass later.
            _ => FaultKind::Transient,
        };
        Fault::new(kind, code_name(refusal.err_code), self.doing(), printable(&refusal.description))
    }
}

#[async_trait]
impl Exporter for JetStreamExporter {
    fn binding(&self) -> Binding {
        Binding::Http
    }

    async fn probe(&self) -> Result<(), Fault> {
        *self.link.lock().await = None;
        let link = self.link().await?;
        self.find_stream(&link).await
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        if messages.is_empty() {
            return Vec::new();
        }
        let link = match self.link().await {
            Ok(link) => link,
            Err(fault) => return all_failed(messages.len(), &fault),
        };
        let (broken, until) = (AtomicBool::new(false), Instant::now() + self.attempt_limit);
        let chains = chains(messages);
        let sending = chains.into_iter().map(|indices| self.send_in_order(&link, messages, indices, (&broken, until)));
        let sent: Vec<_> = futures::stream::iter(sending).buffer_unordered(IN_FLIGHT).concat().await;
        let mut outcomes: Vec<Option<Delivery>> = messages.iter().map(|_| None).collect();
        for (index, outcome) in sent {
            outcomes[index] = Some(outcome);
        }
        if broken.load(Ordering::Relaxed) {
            *self.link.lock().await = None;
        }
        let unsent = Fault::new(FaultKind::Transient, "not-sent", self.doing(), "not sent");
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Delivery::failed(copy(&unsent)))).collect()
    }

    async fn close(&self) {
        *self.link.lock().await = None;
    }
}

/// Indices of the messages of each key, in order; a message without key is alone.
fn chains(messages: &[Message]) -> Vec<Vec<usize>> {
    let mut chains: Vec<Vec<usize>> = Vec::new();
    let mut of_key: HashMap<&[u8], usize> = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        let known = message.key.as_deref().map(|key| *of_key.entry(key).or_insert(chains.len()));
        match known {
            Some(chain) if chain < chains.len() => chains[chain].push(index),
            _ => chains.push(vec![index]),
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gravity_model::Sequence;

    use super::*;

    fn message(key: Option<&'static str>) -> Message {
        Message {
            id: "i".to_owned(),
            sequence: Sequence(1),
            event: "e".to_owned(),
            key: key.map(|key| Bytes::from_static(key.as_bytes())),
            content_type: "application/json",
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn messages_of_one_key_form_a_chain() {
        let messages = [Some("a"), None, Some("b"), Some("a"), None, Some("b"), Some("a")].map(message);
        assert_eq!(chains(&messages), [vec![0, 3, 6], vec![1], vec![2, 5], vec![4]]);
    }

    #[test]
    fn answers_are_understood() {
        let options = JetStreamExporterOptions {
            connection: super::super::config::NatsConnection::default(),
            subject: "s".to_owned(),
            stream: None,
        };
        let exporter = JetStreamExporter::new("e", options);
        let kind = |payload: &str| exporter.understand(payload.as_bytes(), &message(None)).map_err(|fault| fault.kind);
        assert_eq!(kind(r#"{"stream":"S","seq":4}"#), Ok(()));
        assert_eq!(kind(r#"{"stream":"S","seq":4,"duplicate":true}"#), Ok(()));
        let refused = |code: u16, err_code: u64| {
            kind(&format!(
                r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"x"}},"stream":"S","seq":0}}"#
            ))
        };
        assert_eq!(refused(400, 10054), Err(FaultKind::RefusedEvent));
        assert_eq!(refused(400, 10060), Err(FaultKind::Misconfigured));
        assert_eq!(refused(503, 10077), Err(FaultKind::Transient));
        assert_eq!(kind("thanks"), Err(FaultKind::Misconfigured), "a service answered");
        assert_eq!(kind("{}"), Err(FaultKind::Misconfigured));
    }
}
