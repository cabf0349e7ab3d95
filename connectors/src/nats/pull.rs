//! Pull requests to one consumer: one at a time, bounded in messages and bytes, watched by heartbeats.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use futures::{FutureExt, StreamExt};
use gravity_model::{Fault, FaultKind};
use tokio::time::Instant;

use super::connect::Link;
use crate::printable::printable;

/// Messages of one request.
pub(super) const BATCH: usize = 4096;
/// Bytes of one request where no message can be larger.
const BYTES: usize = 4 << 20;
/// A request that was not filled ends after this.
const EXPIRES: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// So many intervals without a message or a heartbeat, while we listen, mean that the consumer is gone.
const MISSED: u32 = 3;
/// What waits in the subscription at most: a request's messages and its heartbeats while nobody listens.
pub(super) const WAITING: usize = 2 * BATCH;

/// The request that is under way.
struct Open {
    number: u64,
    left: usize,
}

/// Pulls from one consumer.
pub(super) struct Puller {
    source: String,
    subscriber: Subscriber,
    /// `$JS.API.CONSUMER.MSG.NEXT.STREAM.CONSUMER`.
    subject: String,
    inbox: String,
    max_bytes: usize,
    requests: u64,
    open: Option<Open>,
    /// The next message is larger than a request may be: it is asked for alone, whatever its size.
    oversized: bool,
    heard: Instant,
    /// When we last stopped listening.
    left: Instant,
}

impl Puller {
    pub(super) async fn new(source: &str, link: &Link, stream: &str, consumer: &str) -> Result<Puller, Fault> {
        let inbox = link.client.new_inbox();
        let subscriber = link.client.subscribe(format!("{inbox}.*")).await.map_err(|error| {
            let doing = format!("subscribe for source {source}");
            Fault::new(FaultKind::Disconnected, "nats-subscribe", doing, super::error::chain(&error)).with_source(error)
        })?;
        Ok(Puller {
            source: source.to_owned(),
            subscriber,
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            inbox,
            max_bytes: BYTES.max(2 * link.info.max_payload),
            requests: 0,
            open: None,
            oversized: false,
            heard: Instant::now(),
            left: Instant::now(),
        })
    }

    /// Waits for a message. Cancel-safe.
    pub(super) async fn next(&mut self, link: &Link) -> Result<Message, Fault> {
        if self.left.elapsed() > HEARTBEAT {
            // Nobody listened for a while: silence counts from now.
            self.heard = Instant::now();
        }
        loop {
            self.left = Instant::now();
            self.request(link).await?;
            let silent = self.heard + MISSED * HEARTBEAT;
            let message = tokio::select! {
                // What has arrived is handed out before a loss is told.
                biased;
                message = self.subscriber.next() => message,
                () = link.events.lost() => None,
                () = tokio::time::sleep_until(silent) => {
                    let detail = format!("neither a message nor a heartbeat for {:?}", self.heard.elapsed());
                    return Err(link.explain(self.fault("nats-silence", detail)));
                }
            };
            let Some(message) = message else { return Err(link.lost_fault(self.doing())) };
            if let Some(message) = self.take(message, link)? {
                return Ok(message);
            }
        }
    }

    /// A message that has arrived already.
    pub(super) fn arrived(&mut self, link: &Link) -> Result<Option<Message>, Fault> {
        // Unconstrained: the runtime's budget would end a batch after a hundred messages.
        while let Some(Some(message)) = tokio::task::unconstrained(self.subscriber.next()).now_or_never() {
            if let Some(message) = self.take(message, link)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    async fn request(&mut self, link: &Link) -> Result<(), Fault> {
        if self.open.is_some() {
            return Ok(());
        }
        let number = self.requests + 1;
        let batch = if self.oversized { 1 } else { BATCH };
        let mut body = serde_json::json!({
            "batch": batch,
            "expires": EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        if !self.oversized {
            body["max_bytes"] = self.max_bytes.into();
        }
        let reply = format!("{}.{number}", self.inbox);
        let sent = link.client.publish_with_reply(self.subject.clone(), reply, body.to_string().into()).await;
        if let Err(error) = sent {
            return Err(self.fault("nats-publish", super::error::chain(&error)).with_source(error));
        }
        self.requests = number;
        self.open = Some(Open { number, left: batch });
        Ok(())
    }

    /// Sorts what came into messages and the server's remarks about a request.
    fn take(&mut self, message: Message, link: &Link) -> Result<Option<Message>, Fault> {
        self.heard = Instant::now();
        let Some(status) = message.status else {
            self.oversized = false;
            if let Some(open) = &mut self.open {
                open.left -= 1;
                if open.left == 0 {
                    self.open = None;
                }
            }
            return Ok(Some(message));
        };
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        let current = self.open.as_ref().is_some_and(|open| Some(open.number) == number);
        let words = message.description.as_deref().unwrap_or_default();
        match status {
            StatusCode::IDLE_HEARTBEAT => {}
            StatusCode::NO_RESPONDERS => return Err(link.explain(self.fault("nats-consumer-gone", "nobody answers"))),
            _ if words.starts_with("Consumer Deleted") => {
                return Err(self.fault("nats-consumer-gone", "the server says that the consumer was deleted"));
            }
            // The request is over: filled up to its bytes, expired, or ended by a change of the server's.
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND | StatusCode::REQUEST_TERMINATED => {
                if current {
                    let untouched = self.open.as_ref().is_some_and(|open| open.left == BATCH);
                    self.oversized = untouched && words.starts_with("Message Size Exceeds MaxBytes");
                    self.open = None;
                }
            }
            other => {
                let detail = format!("the server answers a pull with {other}: {}", printable(words));
                return Err(self.fault("nats-pull", detail));
            }
        }
        Ok(None)
    }

    fn doing(&self) -> String {
        format!("read source {}", self.source)
    }

    fn fault(&self, code: &'static str, detail: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Disconnected, code, self.doing(), detail)
    }
}
