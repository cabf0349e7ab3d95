//! The durable consumer of a work-queue or interest stream: acknowledged after the events are durable, and settled at every
//! connect, so that the log always holds a prefix of what the consumer delivers.
//!
//! Why settling: the server gives new messages out at once, but what an earlier connection took and did not acknowledge only
//! after `ack_wait`. Taken as they come, a redelivered message would stand behind newer ones, and the log, which knows one
//! position per stream, would take it for a duplicate. So before anything new is taken the outstanding ones are made to come
//! again (few may be outstanding, and they wait briefly), all of them, and are handed out in the stream's order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::RetentionPolicy;
use async_nats::{Message, Subject, Subscriber};
use futures::StreamExt;
use gravity_model::port::source::Start;
use gravity_model::{Fault, FaultKind, LogId};
use tokio::time::Instant;

use super::config::{log_id_in, log_mark};
use super::connect::{ASK_LIMIT, Link};
use super::delivery::{self, Delivery};
use super::error::{chain, of_consumer, of_consumer_info};
use super::pull::Puller;
use super::stream::{Found, check_filters, pull_config, set_filters};
use crate::printable::printable;

/// After this the server gives a message that was not acknowledged to us again: far beyond the worst sync of a disk.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// While settling: what is outstanding comes again after this.
const SETTLE_WAIT: Duration = Duration::from_secs(1);
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Messages that may be unacknowledged.
const OUTSTANDING: i64 = 10_000;
/// Acknowledgements that are on their way at the same time.
const ACKS_UNDER_WAY: usize = 2_000;

/// A message with its numbers.
pub(super) struct Taken {
    pub message: Message,
    pub delivery: Delivery,
}

impl Taken {
    /// `None` for a message that no consumer delivered.
    pub(super) fn new(message: Message) -> Option<Taken> {
        let delivery = delivery::parse(message.reply.as_deref()?)?;
        Some(Taken { message, delivery })
    }
}

/// A durable consumer that is ready to be read on.
pub(super) struct Opened {
    pub consumer: Consumer<pull::Config>,
    pub puller: Puller,
    /// Outstanding messages of earlier connections that the log does not hold, in the stream's order.
    pub settled: VecDeque<Taken>,
    /// The newest delivery's number.
    pub delivered: u64,
    pub acks: Acks,
}

/// Finds or makes the consumer and settles it.
pub(super) async fn open(
    link: &Link,
    source: &str,
    name: &str,
    found: &Found,
    log_id: LogId,
    start: Start,
) -> Result<Opened, Fault> {
    let stream = found.stream.cached_info().config.name.clone();
    let doing = || format!("open consumer {name} of stream {stream} for source {source}");
    let wanted = wanted(name, found, log_id, start);
    let consumer = match find(link, name, found, doing).await? {
        Some(consumer) => {
            check(&consumer, log_id, doing)?;
            check_filters(&consumer, &found.filters, doing)?;
            consumer
        }
        None => {
            check_absence(found, start, doing)?;
            let made = found.stream.create_consumer(wanted.clone()).await;
            let made = made.map_err(|error| link.explain(of_consumer(error, doing())))?;
            check_filters(&made, &found.filters, doing)?;
            made
        }
    };
    let mut puller = Puller::new(source, link, &stream, name).await?;
    let mut acks = Acks::new(source, link).await?;
    let mut settling = Settling { link, source, found, consumer: &consumer, doing: doing() };
    let (outstanding, delivered) = settling.run(&mut puller).await?;
    // What is in the log is only acknowledged; what is not is handed out.
    let (durable, settled): (Vec<Taken>, Vec<Taken>) =
        outstanding.into_values().partition(|taken| found.begin.known && taken.delivery.stream < found.begin.next);
    acks.send(link, durable.into_iter().filter_map(|taken| taken.message.reply)).await?;
    Ok(Opened { consumer, puller, settled: settled.into(), delivered, acks })
}

fn wanted(name: &str, found: &Found, log_id: LogId, start: Start) -> pull::Config {
    let interest = found.retention == RetentionPolicy::Interest;
    let mut config = pull::Config {
        durable_name: Some(name.to_owned()),
        description: Some(log_mark(log_id)),
        deliver_policy: match start {
            Start::Latest if interest && !found.begin.known => DeliverPolicy::New,
            _ => DeliverPolicy::All,
        },
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: OUTSTANDING,
        ..pull::Config::default()
    };
    set_filters(&mut config, &found.filters);
    config
}

async fn find(
    link: &Link,
    name: &str,
    found: &Found,
    doing: impl Fn() -> String,
) -> Result<Option<Consumer<pull::Config>>, Fault> {
    match found.stream.consumer_info(name).await {
        Ok(_) => {}
        Err(error) => {
            return match error.kind() {
                ConsumerInfoErrorKind::NotFound => Ok(None),
                ConsumerInfoErrorKind::JetStream(refusal) if refusal.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                    Ok(None)
                }
                _ => Err(link.explain(of_consumer_info(error, doing()))),
            };
        }
    }
    let consumer = found.stream.get_consumer::<pull::Config>(name).await.map_err(|error| {
        let detail =
            format!("consumer {name} is not one that messages are pulled from: {}", printable(&error.to_string()));
        Fault::new(FaultKind::Misconfigured, "nats-consumer", doing(), detail)
    })?;
    Ok(Some(consumer))
}

/// A consumer that somebody else made, or that feeds another log.
fn check(consumer: &Consumer<pull::Config>, log_id: LogId, doing: impl Fn() -> String) -> Result<(), Fault> {
    let config = pull_config(consumer);
    let ours = log_id.to_string();
    if let Some(other) = config.description.as_deref().and_then(log_id_in).filter(|other| *other != ours) {
        let detail = format!(
            "the consumer feeds another log: {}, this is log {ours}; use a consumer of its own for each log",
            printable(other)
        );
        return Err(Fault::new(FaultKind::NotOurs, "consumer-of-other-log", doing(), detail));
    }
    let wrong = if config.ack_policy != AckPolicy::Explicit {
        "does not ask for an acknowledgement of each message"
    } else if config.max_deliver > 0 {
        "gives up on a message after some deliveries (max_deliver)"
    } else if config.headers_only {
        "delivers headers without payloads"
    } else {
        return Ok(());
    };
    let detail = format!("the consumer that is there {wrong}: delete it, Gravity makes its own");
    Err(Fault::new(FaultKind::Misconfigured, "nats-consumer", doing(), detail))
}

/// No consumer is there: may one be made?
fn check_absence(found: &Found, start: Start, doing: impl Fn() -> String) -> Result<(), Fault> {
    let interest = found.retention == RetentionPolicy::Interest;
    if interest && found.begin.known && found.begin.next <= found.last {
        let detail = format!(
            "the consumer was deleted: the log stands at sequence {}, the stream at {}, and a stream kept by interest forgets \
             what nobody waits for",
            found.begin.next, found.last
        );
        return Err(Fault::new(FaultKind::HistoryBroken, "consumer-deleted", doing(), detail));
    }
    if !interest && !found.begin.known && start == Start::Latest {
        let detail = "a work queue has no \"latest\": what is in it waits for somebody to take it";
        return Err(Fault::new(FaultKind::Misconfigured, "nats-start", doing(), detail));
    }
    Ok(())
}

/// Makes every outstanding message come again before anything new does.
struct Settling<'a> {
    link: &'a Link,
    source: &'a str,
    found: &'a Found,
    consumer: &'a Consumer<pull::Config>,
    doing: String,
}

impl Settling<'_> {
    /// All outstanding messages by stream sequence, and the number of the newest delivery.
    async fn run(&mut self, puller: &mut Puller) -> Result<(BTreeMap<u64, Taken>, u64), Fault> {
        let mut taken = BTreeMap::new();
        let (mut outstanding, mut delivered) = self.outstanding().await?;
        if outstanding > 0 {
            tracing::info!(
                source = self.source,
                outstanding,
                "unacknowledged messages of an earlier connection come again"
            );
            self.reconfigure(SETTLE_WAIT, i64::try_from(outstanding).unwrap_or(OUTSTANDING)).await?;
        }
        let until = Instant::now() + SETTLE_LIMIT;
        while taken.len() < outstanding {
            match tokio::time::timeout(SETTLE_WAIT, puller.next(self.link)).await {
                Ok(message) => {
                    let Some(message) = Taken::new(message?) else { continue };
                    delivered = message.delivery.consumer;
                    taken.insert(message.delivery.stream, message);
                }
                // Some may have gone from the stream since, and nobody will deliver them.
                Err(_) => outstanding = self.outstanding().await?.0,
            }
            if Instant::now() >= until {
                let detail =
                    format!("{} of {outstanding} unacknowledged messages came again in {SETTLE_LIMIT:?}", taken.len());
                return Err(Fault::new(FaultKind::Transient, "nats-not-settled", self.doing.clone(), detail));
            }
        }
        let config = pull_config(self.consumer);
        if outstanding > 0 || config.ack_wait != ACK_WAIT || config.max_ack_pending != OUTSTANDING {
            self.reconfigure(ACK_WAIT, OUTSTANDING).await?;
        }
        Ok((taken, delivered))
    }

    /// Unacknowledged deliveries, and the number of the newest one.
    async fn outstanding(&self) -> Result<(usize, u64), Fault> {
        let info = self.consumer.get_info().await;
        let info = info.map_err(|error| self.link.explain(of_consumer_info(error, self.doing.clone())))?;
        Ok((info.num_ack_pending, info.delivered.consumer_sequence))
    }

    async fn reconfigure(&self, ack_wait: Duration, max_ack_pending: i64) -> Result<(), Fault> {
        let config = pull::Config { ack_wait, max_ack_pending, ..pull_config(self.consumer) };
        let updated = self.found.stream.update_consumer(config).await;
        updated.map(drop).map_err(|error| {
            let fault = Fault::new(FaultKind::Transient, "nats-consumer-update", self.doing.clone(), chain(&error));
            self.link.explain(fault.with_source(error))
        })
    }
}

/// Acknowledgements that are awaited: the server's answer says that it has them.
pub(super) struct Acks {
    doing: String,
    inbox: Subject,
    answers: Subscriber,
    /// Reply subjects of each batch that is not durable yet, oldest first.
    waiting: VecDeque<(u64, Vec<Subject>)>,
}

impl Acks {
    async fn new(source: &str, link: &Link) -> Result<Acks, Fault> {
        let doing = format!("acknowledge messages of source {source}");
        let inbox = Subject::from(link.client.new_inbox());
        let answers = link.client.subscribe(inbox.clone()).await.map_err(|error| {
            Fault::new(FaultKind::Disconnected, "nats-subscribe", doing.clone(), chain(&error)).with_source(error)
        })?;
        Ok(Acks { doing, inbox, answers, waiting: VecDeque::new() })
    }

    /// Remembers what a batch's token stands for.
    pub(super) fn wait(&mut self, batch: u64, replies: Vec<Subject>) {
        self.waiting.push_back((batch, replies));
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.iter().map(|(_, replies)| replies.len()).sum()
    }

    /// Acknowledges every batch up to `last`, and awaits the server's word on each message.
    pub(super) async fn durable(&mut self, link: &Link, last: u64) -> Result<(), Fault> {
        let mut replies = Vec::new();
        while self.waiting.front().is_some_and(|(batch, _)| *batch <= last) {
            replies.extend(self.waiting.pop_front().map(|(_, replies)| replies).unwrap_or_default());
        }
        self.send(link, replies.into_iter()).await
    }

    async fn send(&mut self, link: &Link, mut replies: impl Iterator<Item = Subject>) -> Result<(), Fault> {
        loop {
            let mut sent = 0;
            for reply in replies.by_ref().take(ACKS_UNDER_WAY) {
                let ack = link.client.publish_with_reply(reply, self.inbox.clone(), "+ACK".into()).await;
                ack.map_err(|error| {
                    Fault::new(FaultKind::Disconnected, "nats-publish", self.doing.clone(), chain(&error))
                        .with_source(error)
                })?;
                sent += 1;
            }
            if sent == 0 {
                return Ok(());
            }
            let until = Instant::now() + ASK_LIMIT;
            for left in (1..=sent).rev() {
                tokio::select! {
                    biased;
                    answer = self.answers.next() => if answer.is_none_or(|answer| answer.status.is_some()) {
                        return Err(link.lost_fault(self.doing.clone()));
                    },
                    () = link.events.lost() => return Err(link.lost_fault(self.doing.clone())),
                    () = tokio::time::sleep_until(until) => {
                        let detail = format!("{left} acknowledgements were not answered within {ASK_LIMIT:?}");
                        let fault = Fault::new(FaultKind::Disconnected, "nats-ack", self.doing.clone(), detail);
                        return Err(link.explain(fault));
                    }
                }
            }
        }
    }
}
