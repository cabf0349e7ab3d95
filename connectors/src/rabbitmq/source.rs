//! The source: consumes queues that are there, hands out what comes, and acknowledges what is durable.
//!
//! Each queue has a channel of its own: delivery tags then grow by one in the order in which we hand out, so one
//! acknowledgement covers everything up to it. There is one consumer: what an earlier connection left unacknowledged is back in its
//! queue before this one gets anything, and no second engine reads the same queue.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, SelectAll};
use futures::{FutureExt, Stream, StreamExt};
use gravity_model::port::source::{
    AckToken, BatchLimits, Position, PositionBook, Repeat, Slot, Source, SourceBatch, SourceRecord, Start,
};
use gravity_model::{Fault, FaultKind, HeaderBuf};
use hashbrown::HashMap;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::Instant;

use super::config::RabbitMqSourceOptions;
use super::connect::{ask, connect};
use super::error::of_channel;
use super::properties;

/// Reply code of an orderly goodbye.
const GOODBYE: u16 = 200;

/// Reads queues of one virtual host.
pub struct RabbitMqSource {
    name: String,
    options: RabbitMqSourceOptions,
    connections: u64,
    reading: Option<Reading>,
}

/// What one connection reads.
struct Reading {
    name: String,
    prefetch: u16,
    connection: Connection,
    queues: Vec<Queue>,
    deliveries: SelectAll<Deliveries>,
    /// Taken from the client, not handed out yet.
    held: VecDeque<(usize, Delivery)>,
    /// A fault behind what is held.
    fault: Option<Fault>,
    batches: u64,
    /// Handed out and not acknowledged: (batch, highest tag per queue).
    outstanding: VecDeque<(u64, Vec<(usize, u64)>)>,
    /// Records that were there at `note_end` and are not handed out yet.
    until_end: Option<u64>,
}

struct Queue {
    name: Arc<str>,
    channel: Channel,
}

type Deliveries = std::pin::Pin<Box<dyn Stream<Item = (usize, Arrival)> + Send + Sync>>;

enum Arrival {
    Delivery(Box<Delivery>),
    Failed(lapin::Error),
    /// The broker ended the consumer: the queue was deleted, or lost its node.
    Cancelled,
}

impl RabbitMqSource {
    pub fn new(name: impl Into<String>, options: RabbitMqSourceOptions) -> RabbitMqSource {
        RabbitMqSource { name: name.into(), options, connections: 0, reading: None }
    }

    fn reading(&mut self) -> Result<&mut Reading, Fault> {
        let closed = || Fault::new(FaultKind::Closed, "closed", format!("read source {}", self.name), "not connected");
        self.reading.as_mut().ok_or_else(closed)
    }
}

#[async_trait]
impl Source for RabbitMqSource {
    async fn connect(&mut self, _book: Arc<dyn PositionBook>, _start: Start) -> Result<(), Fault> {
        self.close().await;
        self.connections += 1;
        let connection = connect(&format!("source {}", self.name), &self.options.connection).await?;
        let mut reading = Reading::new(&self.name, self.options.prefetch, connection);
        for name in &self.options.queues {
            if let Err(fault) = reading.consume(name).await {
                reading.close().await;
                return Err(fault);
            }
        }
        self.reading = Some(reading);
        Ok(())
    }

    async fn next_batch(&mut self, limits: BatchLimits) -> Result<SourceBatch, Fault> {
        let connection = self.connections;
        self.reading()?.next_batch(limits, connection).await
    }

    async fn acknowledge(&mut self, token: AckToken) -> Result<(), Fault> {
        if token.connection != self.connections {
            return Ok(());
        }
        self.reading()?.acknowledge(token.batch).await
    }

    async fn note_end(&mut self) -> Result<(), Fault> {
        let reading = self.reading()?;
        reading.until_end = Some(reading.waiting().await?);
        Ok(())
    }

    async fn has_passed_end(&mut self) -> Result<bool, Fault> {
        let reading = self.reading()?;
        match reading.until_end {
            None => Ok(false),
            Some(0) => Ok(true),
            // What is missing may be none of ours: expired, purged, or dropped by a limit of the queue.
            Some(_) => Ok(reading.waiting().await? == 0),
        }
    }

    async fn lag(&mut self) -> Option<u64> {
        self.reading.as_mut()?.waiting().await.ok()
    }

    async fn close(&mut self) {
        if let Some(reading) = self.reading.take() {
            reading.close().await;
        }
    }
}

impl Reading {
    fn new(name: &str, prefetch: u16, connection: Connection) -> Reading {
        Reading {
            name: name.to_owned(),
            prefetch,
            connection,
            queues: Vec::new(),
            deliveries: SelectAll::new(),
            held: VecDeque::new(),
            fault: None,
            batches: 0,
            outstanding: VecDeque::new(),
            until_end: None,
        }
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} source {}", self.name)
    }

    /// A queue that is not there is an error: it is never made.
    async fn consume(&mut self, name: &str) -> Result<(), Fault> {
        let doing = || format!("consume queue {name} of source {}", self.name);
        let channel = ask(self.connection.create_channel(), doing).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = || channel.queue_declare(name.into(), passive, FieldTable::default());
        let alone = |readers: u32, own: u32| match readers > own {
            true => Err(in_use(doing(), readers - own)),
            false => Ok(()),
        };
        alone(ask(declare(), doing).await?.consumer_count(), 0)?;
        ask(channel.basic_qos(self.prefetch, BasicQosOptions::default()), doing).await?;
        let exclusive = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name.into(), "".into(), exclusive, FieldTable::default());
        let consumer = ask(consumer, doing).await?;
        // A quorum queue does not refuse a second reader, exclusive or not: two that came at once both go, and come again.
        alone(ask(declare(), doing).await?.consumer_count(), 1)?;
        let number = self.queues.len();
        self.queues.push(Queue { name: name.into(), channel });
        let arrivals = consumer.map(move |arrived| match arrived {
            Ok(delivery) => (number, Arrival::Delivery(Box::new(delivery))),
            Err(error) => (number, Arrival::Failed(error)),
        });
        // Without this a consumer that ended would be a queue that is silent for ever.
        let cancelled = futures::stream::once(async move { (number, Arrival::Cancelled) });
        self.deliveries.push(Box::pin(arrivals.chain(cancelled)));
        Ok(())
    }

    /// Cancel-safe: what is taken from the client is held until a batch is returned.
    async fn next_batch(&mut self, limits: BatchLimits, connection: u64) -> Result<SourceBatch, Fault> {
        self.take_arrived();
        if self.held.is_empty() {
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            let until = Instant::now() + limits.max_wait;
            match tokio::time::timeout_at(until, self.deliveries.next()).await {
                Err(_) => return Ok(SourceBatch::default()),
                Ok(arrival) => self.take(arrival),
            }
            self.take_arrived();
        }
        if self.held.is_empty() {
            return self.fault.take().map_or_else(|| Ok(SourceBatch::default()), Err);
        }
        Ok(self.batch(limits, connection))
    }

    /// Holds what is there already.
    fn take_arrived(&mut self) {
        while self.fault.is_none() {
            match self.deliveries.next().now_or_never() {
                None => return,
                Some(arrival) => self.take(arrival),
            }
        }
    }

    fn take(&mut self, arrival: Option<(usize, Arrival)>) {
        let fault = match arrival {
            Some((number, Arrival::Delivery(delivery))) => {
                if !properties::is_of_stream(&delivery.properties) {
                    return self.held.push_back((number, *delivery));
                }
                let detail = format!("{} is a stream; classic and quorum queues are read", self.queues[number].name);
                Fault::new(FaultKind::Misconfigured, "rabbitmq-stream", self.doing("read"), detail)
            }
            Some((number, Arrival::Cancelled)) => {
                let detail = format!("the broker ended the consumer of queue {}", self.queues[number].name);
                Fault::new(FaultKind::Disconnected, "rabbitmq-consumer-cancelled", self.doing("read"), detail)
            }
            Some((_, Arrival::Failed(error))) => of_channel(error, self.doing("read")),
            None => Fault::new(FaultKind::Closed, "closed", self.doing("read"), "no queue is left"),
        };
        self.fault.get_or_insert(fault);
    }

    fn batch(&mut self, limits: BatchLimits, connection: u64) -> SourceBatch {
        let mut builder = Builder::default();
        let mut highest: Vec<(usize, u64)> = Vec::new();
        // A batch counts its slots in 16 bits.
        let most = limits.max_records.clamp(1, usize::from(u16::MAX));
        while builder.batch.records.len() < most
            && let Some((number, delivery)) = self.held.pop_front()
        {
            if !builder.push(&self.queues[number].name, number, &delivery, limits.max_bytes) {
                self.held.push_front((number, delivery));
                break;
            }
            let tag = delivery.delivery_tag;
            match highest.iter_mut().find(|(known, _)| *known == number) {
                Some((_, newest)) => *newest = tag,
                None => highest.push((number, tag)),
            }
        }
        self.batches += 1;
        let mut batch = builder.batch;
        if let Some(left) = &mut self.until_end {
            *left = left.saturating_sub(batch.records.len() as u64);
        }
        batch.token = AckToken { connection, batch: self.batches };
        self.outstanding.push_back((self.batches, highest));
        batch
    }

    /// Acknowledges everything up to this batch. The broker does not answer an acknowledgement; it answers what follows it on the
    /// same channel, and then has read both.
    async fn acknowledge(&mut self, batch: u64) -> Result<(), Fault> {
        let mut highest: HashMap<usize, u64> = HashMap::new();
        while self.outstanding.front().is_some_and(|(oldest, _)| *oldest <= batch) {
            highest.extend(self.outstanding.pop_front().into_iter().flat_map(|(_, tags)| tags));
        }
        let doing = || self.doing("acknowledge to");
        let mut asked: FuturesUnordered<_> = highest
            .into_iter()
            .map(|(number, tag)| {
                let (channel, prefetch) = (&self.queues[number].channel, self.prefetch);
                async move {
                    channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
                    channel.basic_qos(prefetch, BasicQosOptions::default()).await
                }
            })
            .map(|question| ask(question, doing))
            .collect();
        while let Some(answer) = asked.next().await {
            answer?;
        }
        Ok(())
    }

    /// Messages that are in the queues or held here. What a queue has given out may still be on its way through the channel
    /// when the count is answered; the answer to a second question comes behind it.
    async fn waiting(&mut self) -> Result<u64, Fault> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let mut ready = 0;
        for queue in &self.queues {
            let doing = || self.doing("count the messages of");
            let counted = queue.channel.queue_declare((&*queue.name).into(), passive, FieldTable::default());
            ready += u64::from(ask(counted, doing).await?.message_count());
            ask(queue.channel.basic_qos(self.prefetch, BasicQosOptions::default()), doing).await?;
        }
        self.take_arrived();
        Ok(ready + self.held.len() as u64)
    }

    async fn close(self) {
        let goodbye = self.connection.close(GOODBYE, "OK".into());
        if !matches!(tokio::time::timeout(super::connect::ASK_LIMIT / 5, goodbye).await, Ok(Ok(()))) {
            tracing::debug!(source = %self.name, "the connection was not closed in an orderly way");
        }
    }
}

/// Mostly our own earlier connection, which the broker has not given up yet.
fn in_use(doing: String, readers: u32) -> Fault {
    let detail =
        format!("{readers} other consumer(s) read the queue, and only one may: what they hold would come late");
    Fault::new(FaultKind::Transient, "rabbitmq-in-use", doing, detail)
}

/// Copies deliveries into a batch.
#[derive(Default)]
struct Builder {
    batch: SourceBatch,
    slots: HashMap<(usize, String), u16>,
    headers: HeaderBuf,
}

impl Builder {
    /// False where it has no room; the first always has.
    fn push(&mut self, queue: &Arc<str>, number: usize, delivery: &Delivery, max_bytes: usize) -> bool {
        self.headers.clear();
        properties::write_headers(&delivery.properties, &mut self.headers);
        let bytes = self.headers.as_encoded().len() + delivery.data.len();
        if !self.batch.records.is_empty() && self.batch.arena.len() + bytes > max_bytes {
            return false;
        }
        let routing_key = delivery.routing_key.as_str();
        let slot = *self.slots.entry((number, routing_key.to_owned())).or_insert_with(|| {
            self.batch.slots.push(Slot { position: None, subject: routing_key.into(), queue: Some(Arc::clone(queue)) });
            (self.batch.slots.len() - 1) as u16
        });
        let headers = self.batch.store(self.headers.as_encoded());
        let payload = Some(self.batch.store(&delivery.data));
        let repeat = match properties::message_id(&delivery.properties) {
            // The header behind which it stands is a copy; a span of its own is simpler than finding it there.
            Some(id) => Repeat::ById(self.batch.store(id.as_bytes())),
            None => Repeat::ByContent { redelivered: delivery.redelivered },
        };
        let time = properties::time(&delivery.properties);
        let position = Position { next: 0, detail: 0 };
        self.batch.records.push(SourceRecord { payload, key: None, headers, time, slot, position, repeat });
        true
    }
}
