//! The NATS source: the port, and what becomes of a stream's deliveries on their way into a batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::stream::{Info, Stream};
use async_trait::async_trait;
use gravity_model::port::source::{
    Acceptance, AckToken, BatchLimits, Break, BreakKind, Position, PositionBook, Slot, Source, SourceBatch, Start,
};
use gravity_model::{Fault, FaultKind};
use tokio::time::Instant;

use super::batch::BatchBuilder;
use super::config::{NatsReading, NatsSourceOptions};
use super::connect::{CONNECTION_LOST, Link, connect};
use super::core::CoreReading;
use super::durable::{self, Acks, Taken};
use super::error::of_consumer_info;
use super::positions::{Losses, trimmed};
use super::pull::{Puller, WAITING};
use super::rescue::{self, RawMessage, Stuck};
use super::stream::{self, Found};

/// How long after a look at the stream's beginning a further one waits, where gaps come often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long after the last look it is looked again whether anything is left before a noted end.
const END_AGAIN: Duration = Duration::from_millis(500);
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// One stream, or some core subjects.
///
/// A stream that keeps its messages: "Exactly once in stream order, as long as the stream itself keeps it." A work queue, or a
/// stream kept by interest: "Exactly once, in the order of delivery."
pub struct NatsSource {
    name: String,
    options: NatsSourceOptions,
    /// Names the connection in ack tokens.
    connections: u64,
    /// Slot and first sequence of a start of which the log has no record yet.
    begun: Option<(Arc<str>, u64)>,
    stuck: Stuck,
    reading: Option<Reading>,
}

enum Reading {
    Stream(Box<StreamReading>),
    Core(Box<CoreReading>),
}

/// A stream that is being read.
struct StreamReading {
    source: String,
    link: Link,
    stream: Stream<Info>,
    consumer: Consumer<pull::Config>,
    puller: Puller,
    slot: Arc<str>,
    /// Ephemeral consumers end with the connection.
    ephemeral: bool,
    /// No filter: every gap in the sequences is one of the stream.
    complete: bool,
    losses: Losses,
    accept: Acceptance,
    /// Accepted breaks that were not told yet, and where reading goes on behind each.
    breaks: Vec<(BreakKind, u64)>,
    /// The sequence behind the newest one that was handed out.
    next: u64,
    /// Number of the consumer's delivery that came last.
    delivered: u64,
    /// What the consumer had left behind the newest message that was handed out.
    pending: u64,
    /// Taken from the consumer and not handed out yet.
    held: VecDeque<Taken>,
    /// A message before all that the consumer delivers, which the client could not read.
    rescued: Option<RawMessage>,
    /// Told once what came before it was handed out.
    fault: Option<Fault>,
    /// The lowest sequence behind which something may have been lost unseen, and when the stream was last asked.
    doubt: Option<u64>,
    looked: Option<Instant>,
    batches: u64,
    acks: Option<Acks>,
    end: Option<End>,
}

/// The stream's end at the last `note_end`.
struct End {
    last: u64,
    looked: Option<Instant>,
}

impl NatsSource {
    pub fn new(name: impl Into<String>, options: NatsSourceOptions) -> NatsSource {
        NatsSource { name: name.into(), options, connections: 0, begun: None, stuck: Stuck::default(), reading: None }
    }

    fn reading(&mut self) -> Result<&mut Reading, Fault> {
        let name = &self.name;
        self.reading.as_mut().ok_or_else(|| {
            Fault::new(FaultKind::Closed, "not-connected", format!("read source {name}"), "not connected")
        })
    }

    async fn open_stream(
        &mut self,
        (stream, durable): (&str, Option<&str>),
        book: &dyn PositionBook,
        start: Start,
    ) -> Result<StreamReading, Fault> {
        let (source, options) = (&self.name, &self.options);
        let link = connect(&format!("source {source}"), &options.connection, WAITING).await?;
        let begun = self.begun.as_ref().map(|(slot, next)| (&**slot, *next));
        let mut found = stream::find(&link, source, options, (stream, durable), (book, start), begun).await?;
        let mut reading = match durable {
            None => {
                let mut rescued = None;
                if self.stuck.is_at(found.begin.next) {
                    rescued = rescue::fetch(&link, source, &found).await?;
                    found.begin.next = rescued.as_ref().map_or(found.begin.next, |message| message.sequence + 1);
                }
                let consumer = stream::ephemeral(&link, source, &found).await?;
                let puller = Puller::new(source, &link, stream, &consumer.cached_info().name).await?;
                StreamReading { rescued, ..StreamReading::new(source, link, found, consumer, puller) }
            }
            Some(name) => {
                let opened = durable::open(&link, source, name, &found, options.log_id, start).await?;
                let mut reading = StreamReading::new(source, link, found, opened.consumer, opened.puller);
                reading.ephemeral = false;
                reading.pending += opened.settled.len() as u64;
                reading.held = opened.settled;
                reading.delivered = opened.delivered;
                reading.acks = Some(opened.acks);
                reading
            }
        };
        if reading.acks.is_none() && reading.rescued.is_none() {
            self.begun = Some((Arc::clone(&reading.slot), reading.next));
        }
        reading.accept = options.accept;
        tracing::info!(source = %self.name, slot = %reading.slot, next = reading.next, "stream is read");
        Ok(reading)
    }
}

#[async_trait]
impl Source for NatsSource {
    async fn connect(&mut self, book: Arc<dyn PositionBook>, start: Start) -> Result<(), Fault> {
        self.close().await;
        self.connections += 1;
        self.reading = Some(match self.options.reading.clone() {
            NatsReading::Stream { stream, durable } => {
                let reading = self.open_stream((&stream, durable.as_deref()), &*book, start).await?;
                Reading::Stream(Box::new(reading))
            }
            NatsReading::Core { queue_group } => {
                let reading = CoreReading::open(&self.name, &self.options, queue_group.as_deref()).await?;
                Reading::Core(Box::new(reading))
            }
        });
        Ok(())
    }

    async fn next_batch(&mut self, limits: BatchLimits) -> Result<SourceBatch, Fault> {
        let connection = self.connections;
        match self.reading()? {
            Reading::Core(reading) => reading.next_batch(limits).await,
            Reading::Stream(reading) => {
                let before = reading.next;
                let batch = reading.next_batch(limits, connection).await;
                match &batch {
                    Ok(batch) if !batch.records.is_empty() => self.stuck.moved(),
                    Err(fault) if fault.code == CONNECTION_LOST => self.stuck.lost_at(before),
                    _ => {}
                }
                batch
            }
        }
    }

    async fn acknowledge(&mut self, token: AckToken) -> Result<(), Fault> {
        let connection = self.connections;
        match self.reading()? {
            Reading::Stream(reading) if token.connection == connection => match &mut reading.acks {
                Some(acks) => acks.durable(&reading.link, token.batch).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn note_end(&mut self) -> Result<(), Fault> {
        match self.reading()? {
            Reading::Core(reading) => reading.note_end().await,
            Reading::Stream(reading) => reading.note_end().await,
        }
    }

    async fn has_passed_end(&mut self) -> Result<bool, Fault> {
        match self.reading()? {
            Reading::Core(reading) => Ok(reading.has_passed_end()),
            Reading::Stream(reading) => reading.has_passed_end().await,
        }
    }

    async fn lag(&mut self) -> Option<u64> {
        match self.reading.as_ref()? {
            Reading::Core(_) => None,
            Reading::Stream(reading) => Some(reading.pending),
        }
    }

    async fn passed(&mut self) -> Option<(Arc<str>, Position)> {
        match self.reading.as_mut()? {
            Reading::Core(_) => None,
            Reading::Stream(reading) => reading.passed().await,
        }
    }

    async fn close(&mut self) {
        match self.reading.take() {
            None => {}
            Some(Reading::Core(reading)) => reading.close().await,
            Some(Reading::Stream(reading)) => reading.close().await,
        }
    }
}

impl StreamReading {
    fn new(source: &str, link: Link, found: Found, consumer: Consumer<pull::Config>, puller: Puller) -> StreamReading {
        StreamReading {
            source: source.to_owned(),
            link,
            puller,
            slot: found.slot,
            ephemeral: true,
            complete: found.filters.is_empty(),
            losses: found.losses,
            accept: Acceptance::default(),
            breaks: found.begin.broken.into_iter().collect(),
            next: found.begin.next,
            delivered: 0,
            pending: consumer.cached_info().num_pending,
            held: VecDeque::new(),
            rescued: None,
            fault: None,
            doubt: None,
            looked: None,
            batches: 0,
            acks: None,
            end: None,
            stream: found.stream,
            consumer,
        }
    }

    fn doing(&self) -> String {
        format!("read source {}", self.source)
    }

    /// Cancel-safe: what is taken from the consumer is held until a batch is returned.
    async fn next_batch(&mut self, limits: BatchLimits, connection: u64) -> Result<SourceBatch, Fault> {
        if !self.breaks.is_empty() {
            return Ok(self.told(connection));
        }
        let until = Instant::now() + limits.max_wait;
        if let Some(raw) = self.rescued.take() {
            let mut builder = BatchBuilder::new(limits, Some(Arc::clone(&self.slot)));
            builder.push_raw(&raw);
            return Ok(self.numbered_batch(builder, Vec::new(), connection));
        }
        if self.held.is_empty() {
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            match tokio::time::timeout_at(until, self.puller.next(&self.link)).await {
                Err(_) => {
                    self.settle_doubt().await?;
                    return Ok(SourceBatch::default());
                }
                Ok(message) => {
                    let taken = self.numbered(message?)?;
                    self.held.push_back(taken);
                }
            }
        }
        self.settle_doubt().await?;
        let mut builder = BatchBuilder::new(limits, Some(Arc::clone(&self.slot)));
        let mut replies = Vec::new();
        while let Some(taken) = self.held.front() {
            if !builder.has_room_for(&taken.message) {
                break;
            }
            if self.doubts(taken.delivery.stream) {
                if !builder.is_empty() {
                    break;
                }
                self.settle_doubt().await?;
            }
            let Some(taken) = self.held.pop_front() else { break };
            let number = taken.delivery.stream;
            builder.push(&taken.message, number + 1, Some(taken.delivery.nanos / 1000));
            self.next = self.next.max(number + 1);
            self.pending = taken.delivery.pending;
            if self.acks.is_some() {
                replies.extend(taken.message.reply);
            }
            if self.held.is_empty() {
                self.take_arrived();
            }
        }
        Ok(self.numbered_batch(builder, replies, connection))
    }

    /// A batch of breaks alone: what follows is read behind them.
    fn told(&mut self, connection: u64) -> SourceBatch {
        let subject = Arc::from(self.stream.cached_info().config.name.as_str());
        let slot = Slot { position: Some(Arc::clone(&self.slot)), subject, queue: None };
        let tell = |(kind, next)| Break { slot: 0, kind, position: Position { next, detail: 0 } };
        let breaks = self.breaks.drain(..).map(tell).collect();
        self.batches += 1;
        let token = AckToken { connection, batch: self.batches };
        SourceBatch { slots: vec![slot], breaks, token, ..SourceBatch::default() }
    }

    fn numbered_batch(&mut self, builder: BatchBuilder, replies: Vec<Subject>, connection: u64) -> SourceBatch {
        let mut batch = builder.finish();
        self.batches += 1;
        batch.token = AckToken { connection, batch: self.batches };
        if let Some(acks) = &mut self.acks {
            acks.wait(self.batches, replies);
        }
        batch
    }

    /// Holds one more message if one is there. A fault waits until what came before it was handed out.
    fn take_arrived(&mut self) {
        if self.fault.is_some() {
            return;
        }
        let taken = match self.puller.arrived(&self.link) {
            Ok(None) => return,
            Ok(Some(message)) => self.numbered(message),
            Err(fault) => Err(fault),
        };
        match taken {
            Ok(taken) => self.held.push_back(taken),
            Err(fault) => self.fault = Some(fault),
        }
    }

    /// Reads a delivery's numbers. Deliveries are counted: one that did not reach us would be skipped by going on.
    fn numbered(&mut self, message: async_nats::Message) -> Result<Taken, Fault> {
        let Some(taken) = Taken::new(message) else {
            let detail = "a message came that the consumer did not deliver";
            return Err(Fault::new(FaultKind::Disconnected, "nats-delivery", self.doing(), detail));
        };
        let (expected, found) = (self.delivered + 1, taken.delivery.consumer);
        if found != expected {
            let detail =
                format!("delivery {found} of the consumer came where {expected} was due: some were lost on their way");
            return Err(Fault::new(FaultKind::Disconnected, "nats-delivery-gap", self.doing(), detail));
        }
        self.delivered = found;
        Ok(taken)
    }

    /// Must it be looked into before `number` is handed out? Gaps are normal where somebody deletes single messages, and behind
    /// a filter every message of another subject is one; a gap that retention or a purge made halts. Where gaps come often they
    /// are looked into together, a little later.
    fn doubts(&mut self, number: u64) -> bool {
        if number <= self.next || self.losses != Losses::Halt {
            return false;
        }
        self.doubt.get_or_insert(self.next);
        self.complete && self.may_look()
    }

    fn may_look(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN)
    }

    async fn settle_doubt(&mut self) -> Result<(), Fault> {
        match self.doubt {
            Some(from) if self.may_look() => self.look_for_losses(from).await,
            _ => Ok(()),
        }
    }

    async fn look_for_losses(&mut self, from: u64) -> Result<(), Fault> {
        let (first, _) = stream::ends(&self.link, &self.stream, self.doing()).await?;
        self.looked = Some(Instant::now());
        self.doubt = None;
        if first > from && self.accept.gap {
            // Some of them may have come before they went: the position moves with what comes.
            self.breaks.push((BreakKind::Gap { from, to: first }, from));
            return Ok(());
        }
        if first > from {
            let detail = trimmed(&self.stream.cached_info().config.name, from, first);
            return Err(Fault::new(FaultKind::HistoryBroken, "stream-trimmed", self.doing(), detail));
        }
        Ok(())
    }

    async fn note_end(&mut self) -> Result<(), Fault> {
        let doing = format!("read the end of source {}", self.source);
        let (_, last) = stream::ends(&self.link, &self.stream, doing).await?;
        self.end = Some(End { last, looked: None });
        Ok(())
    }

    async fn has_passed_end(&mut self) -> Result<bool, Fault> {
        let Some(end) = &mut self.end else { return Ok(false) };
        if self.rescued.is_some() {
            return Ok(false);
        }
        if self.next > end.last {
            return Ok(true);
        }
        if !self.held.is_empty() || end.looked.is_some_and(|looked| looked.elapsed() < END_AGAIN) {
            return Ok(false);
        }
        // What is left before the end may be no message at all: deleted, acknowledged, or of a subject that we do not read.
        end.looked = Some(Instant::now());
        let doing = format!("read the end of source {}", self.source);
        let info = self.consumer.get_info().await;
        let info = info.map_err(|error| self.link.explain(of_consumer_info(error, doing)))?;
        let unacknowledged = self.acks.as_ref().map_or(0, Acks::waiting);
        Ok(info.num_pending == 0
            && info.delivered.consumer_sequence == self.delivered
            && (self.acks.is_none() || info.num_ack_pending <= unacknowledged))
    }

    /// Where a stream that keeps its messages has been seen to: behind a filter its numbers go on without us, and retention with
    /// them. A work queue's consumer remembers by itself.
    async fn passed(&mut self) -> Option<(Arc<str>, Position)> {
        let waiting = self.fault.is_some() || self.rescued.is_some() || !self.held.is_empty();
        if self.acks.is_some() || waiting || self.link.events.is_lost() {
            return None;
        }
        // The end first: what the consumer has nothing left of then includes everything up to it.
        let (_, last) = stream::ends(&self.link, &self.stream, self.doing()).await.ok()?;
        let info = self.consumer.get_info().await.ok()?;
        if info.num_pending == 0 && info.delivered.consumer_sequence == self.delivered {
            self.next = self.next.max(last + 1);
        }
        Some((Arc::clone(&self.slot), Position { next: self.next, detail: 0 }))
    }

    async fn close(self) {
        if self.ephemeral && !self.link.events.is_lost() {
            let name = &self.consumer.cached_info().name;
            // The server forgets it by itself, only later.
            let deleted = tokio::time::timeout(CLOSE_LIMIT, self.stream.delete_consumer(name)).await;
            if !matches!(deleted, Ok(Ok(_))) {
                tracing::debug!(source = %self.source, consumer = %name, "the consumer was not deleted");
            }
        }
    }
}
