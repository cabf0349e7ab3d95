//! The source port: a connector speaks its protocol; the engine owns loop, limits, back-off, dedupe, positions, shutdown.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::event::Micros;
use crate::fault::Fault;

/// Where reading continues in one slot (a Kafka partition, a stream). Opaque to the engine but for the order of `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The first coordinate that is *not* in the log yet. A record at a smaller one is a duplicate.
    pub next: u64,
    /// The connector's own, kept beside `next` (Kafka: leader epoch + 1, 0 where unknown).
    pub detail: u64,
}

/// Read access to the positions that the log holds (durable and in flight), for seeks inside rebalance callbacks.
/// Called from the connector's threads; never blocks.
pub trait PositionBook: Send + Sync {
    fn position(&self, slot: &str) -> Option<Position>;

    /// Every slot of this source with its position.
    fn positions(&self) -> Vec<(String, Position)>;
}

/// Bounds of one [`Source::next_batch`].
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub max_records: usize,
    /// Bytes of keys, headers and payloads; one record may exceed it alone.
    pub max_bytes: usize,
    /// How long to wait for the first record; an empty batch after that.
    pub max_wait: Duration,
}

/// A stretch of bytes in [`SourceBatch::arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

/// One message as the protocol delivered it, undecoded.
#[derive(Clone, Copy, Debug)]
pub struct SourceRecord {
    pub payload: Option<Span>,
    pub key: Option<Span>,
    /// Encoded as [`HeaderBuf`](crate::event::HeaderBuf) does.
    pub headers: Span,
    /// The broker's time for the message.
    pub time: Option<Micros>,
    /// Index into [`SourceBatch::slots`].
    pub slot: u16,
    /// Position after this record.
    pub position: Position,
    pub repeat: Repeat,
}

/// How the engine tells that a record came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Repeat {
    /// By its position, or not at all where its slot has none.
    #[default]
    ByPosition,
    /// By the id that its producer gave it, one that is not empty: whenever that comes again, with the same payload.
    ById(Span),
    /// By nothing but its content, so that only what the broker says it has delivered before can be a repeat: two equal
    /// orders of one customer are two events. Needs [`Slot::queue`].
    ByContent { redelivered: bool },
}

/// Where a batch's records came from.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Stable name of the slot in the log: for Kafka `CLUSTER/TOPIC/PARTITION`. `None` where the protocol has no positions.
    pub position: Option<Arc<str>>,
    /// Topic, subject or routing key: `event_from: "topic"` and dead letters show it.
    pub subject: Arc<str>,
    /// Stable name of the queue, where the protocol has no positions and delivers again, before anything new, what was not
    /// acknowledged. Only one connection at a time reads it.
    pub queue: Option<Arc<str>>,
}

/// What an operator accepts of a slot's history, by name, where reading would halt instead (reliability 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// `accept_recreated`: the slot was deleted and made anew. The new one is read from its beginning.
    pub recreated: bool,
    /// `accept_gap`: retention took what was not read yet. Reading goes on behind it.
    pub gap: bool,
}

/// A place where a slot does not go on from where the log stands, accepted by the operator. The engine puts it on the log
/// before the records of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// Index into [`SourceBatch::slots`].
    pub slot: u16,
    pub kind: BreakKind,
    /// Where reading goes on.
    pub position: Position,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakKind {
    /// What the broker no longer has of `from..to`.
    Gap { from: u64, to: u64 },
    /// The slot that was read before, and where the log stands in it.
    Recreated { former: Arc<str>, next: u64 },
}

/// What [`Source::next_batch`] returns: records in delivery order over one arena, so that a message costs no allocation.
#[derive(Debug, Default)]
pub struct SourceBatch {
    pub arena: Vec<u8>,
    pub records: Vec<SourceRecord>,
    pub slots: Vec<Slot>,
    /// Accepted breaks before the first record.
    pub breaks: Vec<Break>,
    /// Handed back to [`Source::acknowledge`] once every record of this batch is durable.
    pub token: AckToken,
}

impl SourceBatch {
    /// True when there is nothing to put on the log.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.breaks.is_empty()
    }

    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.start as usize..(span.start + span.len) as usize]
    }

    /// Copies `bytes` into the arena.
    pub fn store(&mut self, bytes: &[u8]) -> Span {
        let span = Span { start: self.arena.len() as u32, len: bytes.len() as u32 };
        self.arena.extend_from_slice(bytes);
        span
    }
}

/// Names a batch of one connection. A token of an earlier connection is ignored by `acknowledge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AckToken {
    pub connection: u64,
    pub batch: u64,
}

/// A protocol that delivers messages. One task calls it, one method at a time, in this order: `connect`, then `next_batch`
/// and `acknowledge` mixed, then `close`; after a fault `connect` again. It never sleeps, counts retries or compares positions.
#[async_trait]
pub trait Source: Send {
    /// Connects and starts reading at `book`'s positions, in new slots at `start`. Must not skip: what the broker no
    /// longer has, or a slot that was re-created, is [`FaultKind::HistoryBroken`](crate::FaultKind), or a [`Break`] of the next batch
    /// where the source was told to accept it.
    async fn connect(&mut self, book: Arc<dyn PositionBook>, start: Start) -> Result<(), Fault>;

    /// Waits for records within `limits`. Dropping the future loses nothing.
    async fn next_batch(&mut self, limits: BatchLimits) -> Result<SourceBatch, Fault>;

    /// Everything up to and including the batch of `token` is durable (P1). Tokens come in order; some may be left out.
    /// Where the broker forgets what is acknowledged, returns once it has read the acknowledgement.
    async fn acknowledge(&mut self, token: AckToken) -> Result<(), Fault>;

    /// Notes the source's present end; [`Source::has_passed_end`] then says whether everything before it was delivered.
    /// For `--stop-at-end`.
    async fn note_end(&mut self) -> Result<(), Fault>;

    /// True once every record that existed at the last `note_end` was returned by `next_batch`.
    async fn has_passed_end(&mut self) -> Result<bool, Fault>;

    /// Records between our position and the source's end, where the protocol knows it. With [`Slot::queue`]s, 0 is the
    /// broker's word that nothing waits, neither there nor here.
    async fn lag(&mut self) -> Option<u64> {
        None
    }

    /// A slot and a position in it that is passed although no record led there: what lies before it is none of ours, or was
    /// there before a `latest` start. Asked now and then while nothing comes; the engine keeps it in the log.
    async fn passed(&mut self) -> Option<(Arc<str>, Position)> {
        None
    }

    /// Leaves the group or channel in an orderly way. Idempotent.
    async fn close(&mut self);
}

/// Where to begin in a slot that the log holds no position for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    Earliest,
    Latest,
}
