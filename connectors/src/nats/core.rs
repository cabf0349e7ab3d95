//! Core subjects: at most once. What is published while nobody listens is gone, and what comes faster than it is taken is
//! dropped and counted; both are told, neither can be helped.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures::stream::SelectAll;
use futures::{FutureExt, StreamExt};
use gravity_model::port::source::{BatchLimits, SourceBatch};
use gravity_model::{Fault, FaultKind};
use tokio::time::Instant;

use super::batch::BatchBuilder;
use super::config::NatsSourceOptions;
use super::connect::{Link, connect};
use super::error::chain;
use super::exporting::{refused, round_trip};

/// Messages that may wait to be taken, per subject pattern; later ones are dropped.
const WAITING: usize = 4096;

/// A connection that listens.
pub(super) struct CoreReading {
    link: Link,
    source: String,
    messages: SelectAll<Subscriber>,
    /// Did not fit the last batch.
    held: Option<Message>,
    /// Set by `note_end`: everything that the server had sent us by then has arrived.
    end_noted: bool,
}

impl CoreReading {
    pub(super) async fn open(
        source: &str,
        options: &NatsSourceOptions,
        queue_group: Option<&str>,
    ) -> Result<CoreReading, Fault> {
        let link = connect(&format!("source {source}"), &options.connection, WAITING).await?;
        let doing = || format!("subscribe for source {source}");
        let mut messages = SelectAll::new();
        for subject in &options.subjects {
            let subscribed = match queue_group {
                Some(group) => link.client.queue_subscribe(subject.clone(), group.to_owned()).await,
                None => link.client.subscribe(subject.clone()).await,
            };
            messages.push(subscribed.map_err(|error| {
                Fault::new(FaultKind::Misconfigured, "nats-subscribe", doing(), chain(&error)).with_source(error)
            })?);
        }
        // Only a server that has answered after our subscriptions has them.
        round_trip(&link, doing()).await?;
        refused(&link, doing()).await?;
        tracing::warn!(
            source,
            "core NATS delivers at most once (accept_at_most_once): what is published while Gravity is away is gone"
        );
        Ok(CoreReading { link, source: source.to_owned(), messages, held: None, end_noted: false })
    }

    /// Cancel-safe: nothing is taken without being kept.
    pub(super) async fn next_batch(&mut self, limits: BatchLimits) -> Result<SourceBatch, Fault> {
        if let Some(refusal) = self.link.events.refusal() {
            let doing = format!("read source {}", self.source);
            return Err(Fault::new(FaultKind::Misconfigured, "nats-permission", doing, refusal));
        }
        let overruns = self.link.events.take_overruns();
        if overruns > 0 {
            tracing::warn!(source = %self.source, dropped = overruns, "messages came faster than they were taken in");
        }
        let until = Instant::now() + limits.max_wait;
        if self.held.is_none() {
            tokio::select! {
                biased;
                message = self.messages.next() => match message {
                    Some(message) => self.held = Some(message),
                    None => return Err(self.lost()),
                },
                () = self.link.events.lost() => return Err(self.lost()),
                () = tokio::time::sleep_until(until) => {}
            }
        }
        let mut builder = BatchBuilder::new(limits, None);
        while let Some(message) = self.held.take() {
            if !builder.has_room_for(&message) {
                self.held = Some(message);
                break;
            }
            builder.push(&message, 0, None);
            self.held = tokio::task::unconstrained(self.messages.next()).now_or_never().flatten();
        }
        Ok(builder.finish())
    }

    /// The end of what the server had for us when it was asked.
    pub(super) async fn note_end(&mut self) -> Result<(), Fault> {
        round_trip(&self.link, format!("read the end of source {}", self.source)).await?;
        self.end_noted = true;
        Ok(())
    }

    /// Called after an empty batch: then nothing of it is left.
    pub(super) fn has_passed_end(&mut self) -> bool {
        if self.held.is_none() {
            self.held = tokio::task::unconstrained(self.messages.next()).now_or_never().flatten();
        }
        self.end_noted && self.held.is_none()
    }

    fn lost(&self) -> Fault {
        self.link.lost_fault(format!("read source {}", self.source))
    }

    pub(super) async fn close(self) {
        drop(self.messages);
        // Unsubscribing is only queued by the drop; a moment lets it out.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.link.client.flush()).await;
    }
}
