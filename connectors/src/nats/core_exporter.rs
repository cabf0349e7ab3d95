//! The exporter to a core subject: whoever listens gets it. What the server has read is all that it can confirm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use gravity_model::port::export::{Binding, Delivery, Exporter, Message};
use gravity_model::{Fault, FaultKind};
use hashbrown::HashSet;
use tokio::sync::Mutex;

use super::config::NatsExporterOptions;
use super::connect::{Link, connect};
use super::error::chain;
use super::exporting::{all_failed, copy, headers, refused, round_trip, too_large};

/// What may wait in a subscription of ours: one echo.
const WAITING: usize = 16;

/// Sends to one subject.
pub struct NatsExporter {
    name: String,
    options: NatsExporterOptions,
    link: Mutex<Option<Arc<Confirmed>>>,
}

/// A connection, and whether anything of it was confirmed yet.
struct Confirmed {
    link: Link,
    proven: AtomicBool,
}

impl NatsExporter {
    pub fn new(name: impl Into<String>, options: NatsExporterOptions) -> NatsExporter {
        NatsExporter { name: name.into(), options, link: Mutex::new(None) }
    }

    async fn link(&self) -> Result<Arc<Confirmed>, Fault> {
        let mut held = self.link.lock().await;
        if let Some(link) = held.as_ref().filter(|held| !held.link.events.is_lost()) {
            return Ok(Arc::clone(link));
        }
        *held = None;
        let link = connect(&format!("exporter {}", self.name), &self.options.connection, WAITING).await?;
        let link = Arc::new(Confirmed { link, proven: AtomicBool::new(false) });
        *held = Some(Arc::clone(&link));
        Ok(link)
    }

    fn doing(&self) -> String {
        format!("send to nats subject {} of exporter {}", self.options.subject, self.name)
    }

    /// Sends and has the server confirm that it read everything.
    async fn send(&self, confirmed: &Confirmed, messages: &[Message]) -> Vec<Delivery> {
        let link = &confirmed.link;
        let mut held: HashSet<&[u8]> = HashSet::new();
        let mut outcomes = Vec::with_capacity(messages.len());
        let mut broken = None;
        for message in messages {
            let fault = if let Some(fault) = &broken {
                copy(fault)
            } else if message.key.as_deref().is_some_and(|key| held.contains(key)) {
                let detail = "not sent: an earlier message of its key was not delivered";
                Fault::new(FaultKind::Transient, "held-back", self.doing(), detail)
            } else if let Some(fault) = too_large(message, link.info.max_payload, || self.doing()) {
                fault
            } else {
                let sent = link.client.publish_with_headers(
                    self.options.subject.clone(),
                    headers(message),
                    message.body.clone(),
                );
                match sent.await {
                    Ok(()) => {
                        outcomes.push(Delivery::Delivered);
                        continue;
                    }
                    Err(error) => {
                        let fault = Fault::new(FaultKind::Disconnected, "nats-publish", self.doing(), chain(&error));
                        broken = Some(copy(&fault));
                        fault.with_source(error)
                    }
                }
            };
            held.extend(message.key.as_deref());
            outcomes.push(Delivery::failed(fault));
        }
        if let Err(fault) = self.confirm(confirmed).await {
            for outcome in &mut outcomes {
                if matches!(outcome, Delivery::Delivered) {
                    *outcome = Delivery::failed(copy(&fault));
                }
            }
        }
        outcomes
    }

    async fn confirm(&self, confirmed: &Confirmed) -> Result<(), Fault> {
        round_trip(&confirmed.link, self.doing()).await?;
        // What may be published does not change while a connection lasts: it is waited for once.
        if !confirmed.proven.load(Ordering::Relaxed) {
            refused(&confirmed.link, self.doing()).await?;
            confirmed.proven.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[async_trait]
impl Exporter for NatsExporter {
    fn binding(&self) -> Binding {
        Binding::Http
    }

    async fn probe(&self) -> Result<(), Fault> {
        *self.link.lock().await = None;
        let confirmed = self.link().await?;
        round_trip(&confirmed.link, self.doing()).await
    }

    async fn export(&self, messages: &[Message]) -> Vec<Delivery> {
        if messages.is_empty() {
            return Vec::new();
        }
        let confirmed = match self.link().await {
            Ok(confirmed) => confirmed,
            Err(fault) => return all_failed(messages.len(), &fault),
        };
        let outcomes = self.send(&confirmed, messages).await;
        if outcomes.iter().any(unconfirmed) {
            *self.link.lock().await = None;
        }
        outcomes
    }

    async fn close(&self) {
        *self.link.lock().await = None;
    }
}

/// What is wrong is the connection, not a message.
fn unconfirmed(outcome: &Delivery) -> bool {
    matches!(outcome, Delivery::Failed { fault, .. }
        if matches!(fault.kind, FaultKind::Disconnected | FaultKind::Misconfigured))
}
