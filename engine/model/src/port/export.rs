//! The exporter port (Protocol D): sends what a view already shows, and says what became of each message.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::fault::Fault;
use crate::ident::Sequence;

/// A notification, the same on every retry (P7).
#[derive(Clone, Debug)]
pub struct Message {
    /// UUIDv5 over (log id, exporter, route, sequence).
    pub id: String,
    pub sequence: Sequence,
    /// Event name: the CloudEvents type.
    pub event: String,
    /// Order is kept per key; `None` orders with nothing.
    pub key: Option<Bytes>,
    pub content_type: &'static str,
    /// Protocol headers, names in the form of the binding (`ce_id`, `ce-id`, `traceparent`).
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What became of one message.
#[derive(Debug)]
pub enum Delivery {
    /// The target confirmed that it has it.
    Delivered,
    /// Not delivered. Kind `RefusedEvent`: this message will never pass (400, 413, 422, too large). `Misconfigured`: the
    /// caller or the place is refused (401, 403, 404, 405, 410, TLS, unknown topic). Otherwise it may have arrived or not:
    /// send it again with the same id, not before `retry_after`.
    Failed { fault: Fault, retry_after: Option<Duration> },
}

impl Delivery {
    pub fn failed(fault: Fault) -> Delivery {
        Delivery::Failed { fault, retry_after: None }
    }
}

/// One target. One task per subscription calls it, one method at a time.
#[async_trait]
pub trait Exporter: Send + Sync {
    /// Which CloudEvents binding fills [`Message::headers`].
    fn binding(&self) -> Binding;

    /// Checks reachability and rights without sending; ends a stop.
    async fn probe(&self) -> Result<(), Fault>;

    /// Sends the messages, in order per key, and awaits every confirmation. One outcome per message, same order; after a
    /// failed message no later one of the same key may have been sent.
    async fn export(&self, messages: &[Message]) -> Vec<Delivery>;

    async fn close(&self);
}

/// Spelling of CloudEvents attributes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `ce_id`, `content-type`.
    Kafka,
    /// `ce-id`, `Content-Type`.
    Http,
}
