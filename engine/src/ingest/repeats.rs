//! What came before, of a source whose broker has no positions: known by the producer's id, or, without one, by its content.
//!
//! An id is remembered in the log as long as the dedupe window reaches, in the block that holds its event. Content decides only
//! about what the broker says it has delivered before, and only against events whose acknowledgement it may not have read:
//!
//! ```text
//!            from               old_end
//!   acknowledged | may come again  | of this connection
//! ```
//!
//! A queue gives out again what was not acknowledged before it gives out anything new, so the first new record, or the broker's
//! word that nothing waits, ends what may come again: the queue is *settled*. `from` moves once an acknowledgement behind that
//! was read, and is kept in the log as the position of the queue. Equal contents are told apart by an ordinal.

use std::collections::VecDeque;
use std::sync::Arc;

use gravity_log::{DedupeEntry, DedupeHit, DedupeKey, EventLog, LogError};
use gravity_model::Sequence;
use gravity_model::port::source::{AckToken, Position, Repeat, SourceBatch, SourceRecord};
use hashbrown::HashMap;

use crate::ingest::digest::digest;
use crate::ingest::envelope::{Undecodable, excerpt};

/// Code of a message whose id was used before for another payload.
const REUSED_ID: &str = "decode/reused-id";
/// Ordinals of one content that are looked for at once, at first and at most.
const FIRST_ORDINALS: u32 = 8;
const MOST_ORDINALS: u32 = 4096;

type Digest = [u8; 16];

/// See the module's comment.
pub struct Repeats {
    source: String,
    log: Arc<dyn EventLog>,
    /// Ids of events that are on their way: the log does not answer for them yet.
    ids: HashMap<DedupeKey, Digest>,
    id_order: VecDeque<(Sequence, DedupeKey)>,
    /// Those that records of this connection came from.
    queues: Vec<Queue>,
    /// The broker has said that nothing waits, in any queue.
    was_quiet: bool,
    /// What the log knows of the batch in hand.
    found: HashMap<DedupeKey, DedupeHit>,
    /// What becomes acknowledged with a token: (queue, `from` then).
    tokens: VecDeque<(AckToken, Vec<(usize, u64)>)>,
    /// First sequence of this connection, and the one behind its newest append.
    base: u64,
    next: u64,
}

struct Queue {
    name: Arc<str>,
    from: u64,
    /// `from` as the log has it.
    noted: u64,
    settled: bool,
    known: HashMap<Digest, Vec<Known>>,
}

/// An event without an id whose acknowledgement the broker may not have read.
struct Known {
    ordinal: u32,
    /// `None` until it is appended.
    sequence: Option<u64>,
    /// It came again on this connection.
    taken: bool,
}

/// What a record is remembered by.
#[derive(Clone, Copy, Debug)]
enum Mark {
    None,
    /// `pair`: the id together with the payload, for a payload that is not the id's first.
    Id {
        key: DedupeKey,
        payload: Digest,
        pair: DedupeKey,
    },
    Content {
        queue: usize,
        digest: Digest,
    },
}

/// Marks of a batch's records, in their order.
pub struct Marks(Vec<Mark>);

/// What becomes of a record.
pub enum Verdict {
    New(Option<Memory>),
    Again,
    /// Its id stands for something else: kept raw, with this as its dead letter.
    Reused(Memory, Undecodable),
}

/// What has to become durable with a record, so that it is known when it comes again.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    key: DedupeKey,
    payload: Digest,
    content: Option<(usize, Digest, u32)>,
}

impl Memory {
    /// For the event at `index` of a batch.
    pub fn entry(&self, index: u32) -> DedupeEntry {
        DedupeEntry { key: self.key, body: self.payload, event: index, count: 1 }
    }
}

impl Repeats {
    pub fn of(source: &str, log: Arc<dyn EventLog>) -> Repeats {
        let mut repeats = Repeats {
            source: source.to_owned(),
            log,
            ids: HashMap::new(),
            id_order: VecDeque::new(),
            queues: Vec::new(),
            was_quiet: false,
            found: HashMap::new(),
            tokens: VecDeque::new(),
            base: 0,
            next: 0,
        };
        repeats.reset();
        repeats
    }

    /// Before a connection, with nothing in flight: what the log holds is the truth.
    pub fn reset(&mut self) {
        self.ids.clear();
        self.id_order.clear();
        self.found.clear();
        self.tokens.clear();
        self.base = self.log.durable().borrow().get() + 1;
        self.next = self.base;
        self.queues.clear();
        self.was_quiet = false;
    }

    /// Asks the log about a batch, where it has to be asked. May wait for the disk.
    pub async fn look_up(&mut self, batch: &SourceBatch) -> Result<Marks, LogError> {
        self.forget_durable();
        self.found.clear();
        let marks: Vec<Mark> = batch.records.iter().map(|record| self.mark(batch, record)).collect();
        let ids = marks.iter().filter_map(|mark| match mark {
            Mark::Id { key, .. } if !self.ids.contains_key(key) => Some(*key),
            _ => None,
        });
        self.ask(ids.collect()).await?;
        let pairs = marks.iter().filter_map(|mark| match mark {
            Mark::Id { key, payload, pair } if self.payload_of(key).is_some_and(|known| known != *payload) => {
                Some(*pair)
            }
            _ => None,
        });
        self.ask(pairs.collect()).await?;
        self.load_contents(&marks).await?;
        Ok(Marks(marks))
    }

    /// Judges the record at `index`; records are judged in order, each once.
    pub fn judge(&mut self, batch: &SourceBatch, marks: &Marks, index: usize) -> Verdict {
        match marks.0[index] {
            Mark::None => Verdict::New(None),
            Mark::Id { key, payload, pair } => {
                let memory = |key| Memory { key, payload, content: None };
                match self.payload_of(&key) {
                    None => {
                        self.ids.insert(key, payload);
                        Verdict::New(Some(memory(key)))
                    }
                    Some(known) if known == payload => Verdict::Again,
                    Some(_) if self.payload_of(&pair).is_some() => Verdict::Again,
                    Some(_) => {
                        self.ids.insert(pair, payload);
                        Verdict::Reused(memory(pair), reused(batch, &batch.records[index]))
                    }
                }
            }
            Mark::Content { queue: number, digest } => {
                let redelivered = matches!(batch.records[index].repeat, Repeat::ByContent { redelivered: true });
                let queue = &mut self.queues[number];
                match queue.judge(digest, redelivered, self.base) {
                    None => Verdict::Again,
                    Some(ordinal) => {
                        let key = content_key(&self.source, &queue.name, digest, ordinal);
                        Verdict::New(Some(Memory { key, payload: digest, content: Some((number, digest, ordinal)) }))
                    }
                }
            }
        }
    }

    /// The records of `memories` (index in the append, what is remembered) were appended from `first` to `last`.
    pub fn appended(&mut self, first: Sequence, last: Sequence, memories: &[(u32, Memory)]) {
        self.next = last.get() + 1;
        for (index, memory) in memories {
            let sequence = first.plus(u64::from(*index));
            match memory.content {
                None => self.id_order.push_back((sequence, memory.key)),
                Some((queue, digest, ordinal)) => {
                    let known = self.queues[queue].known.get_mut(&digest);
                    if let Some(known) = known.and_then(|all| all.iter_mut().find(|known| known.ordinal == ordinal)) {
                        known.sequence = Some(sequence.get());
                    }
                }
            }
        }
    }

    /// Everything that was judged so far is acknowledged with `token`.
    pub fn handed_over(&mut self, token: AckToken) {
        let settled = self.queues.iter().enumerate().filter(|(_, queue)| queue.settled);
        let moves: Vec<(usize, u64)> = settled.map(|(number, _)| (number, self.next)).collect();
        if !moves.is_empty() {
            self.tokens.push_back((token, moves));
        }
    }

    /// The broker has read the acknowledgement of `token`.
    pub fn acknowledged(&mut self, token: AckToken) {
        while self.tokens.front().is_some_and(|(oldest, _)| oldest.batch <= token.batch) {
            for (queue, from) in self.tokens.pop_front().map(|(_, moves)| moves).unwrap_or_default() {
                self.queues[queue].move_to(from);
            }
        }
    }

    /// Nothing is in flight, and the broker says that nothing waits: whatever was delivered is acknowledged.
    pub fn quiet(&mut self) {
        self.was_quiet = true;
        for queue in &mut self.queues {
            queue.settled = true;
            queue.move_to(self.next);
        }
    }

    /// Positions that moved since they were noted.
    pub fn moved(&self) -> Vec<(Arc<str>, Position)> {
        let moved = self.queues.iter().filter(|queue| queue.from > queue.noted);
        moved.map(|queue| (queue.name.clone(), Position { next: queue.from, detail: 0 })).collect()
    }

    /// Such a position is on its way into the log.
    pub fn noted(&mut self, name: &str, position: Position) {
        if let Some(queue) = self.queues.iter_mut().find(|queue| &*queue.name == name) {
            queue.noted = position.next;
        }
    }

    fn forget_durable(&mut self) {
        let durable = *self.log.durable().borrow();
        while self.id_order.front().is_some_and(|(sequence, _)| *sequence <= durable) {
            if let Some((_, key)) = self.id_order.pop_front() {
                self.ids.remove(&key);
            }
        }
    }

    fn mark(&mut self, batch: &SourceBatch, record: &SourceRecord) -> Mark {
        let payload = record.payload.map(|span| batch.bytes(span));
        let source = self.source.as_bytes();
        match record.repeat {
            Repeat::ByPosition => Mark::None,
            Repeat::ById(id) => {
                let (id, payload) = (batch.bytes(id), digest(&[payload.unwrap_or_default()]));
                let key = DedupeKey(digest(&[b"message-id", source, id]));
                Mark::Id { key, payload, pair: DedupeKey(digest(&[b"message-id+payload", source, id, &payload])) }
            }
            Repeat::ByContent { .. } => {
                let slot = &batch.slots[usize::from(record.slot)];
                // A slot without a name is a queue of that name: nothing is lost by it.
                let queue = self.queue(slot.queue.as_deref().unwrap_or_default());
                let time = record.time.map(i64::to_be_bytes);
                let digest = digest(&[
                    slot.subject.as_bytes(),
                    time.as_ref().map_or(&[], |time| time),
                    record.key.map_or(&[], |span| batch.bytes(span)),
                    batch.bytes(record.headers),
                    payload.unwrap_or_default(),
                ]);
                Mark::Content { queue, digest }
            }
        }
    }

    fn queue(&mut self, name: &str) -> usize {
        if let Some(number) = self.queues.iter().position(|queue| &*queue.name == name) {
            return number;
        }
        let noted = self.log.positions(&self.source).into_iter().find(|(slot, _)| slot == name);
        let from = noted.map_or(0, |(_, position)| position.next);
        let (name, known) = (name.into(), HashMap::new());
        self.queues.push(Queue { name, from, noted: from, settled: self.was_quiet, known });
        self.queues.len() - 1
    }

    fn payload_of(&self, key: &DedupeKey) -> Option<Digest> {
        self.ids.get(key).copied().or_else(|| self.found.get(key).map(|hit| hit.body))
    }

    /// Loads what is known of contents that are not in memory, a few ordinals at a time.
    async fn load_contents(&mut self, marks: &[Mark]) -> Result<(), LogError> {
        let mut open: Vec<(usize, Digest)> = Vec::new();
        for mark in marks {
            if let Mark::Content { queue, digest } = mark
                && !self.queues[*queue].known.contains_key(digest)
            {
                self.queues[*queue].known.insert(*digest, Vec::new());
                open.push((*queue, *digest));
            }
        }
        let (mut start, mut count) = (0, 1);
        while !open.is_empty() {
            let key =
                |queue: usize, digest, ordinal| content_key(&self.source, &self.queues[queue].name, digest, ordinal);
            let keys = open.iter().flat_map(|(queue, digest)| (start..start + count).map(|n| key(*queue, *digest, n)));
            let keys: Vec<DedupeKey> = keys.collect();
            self.ask(keys).await?;
            let mut further = Vec::new();
            for (number, digest) in open {
                let name = self.queues[number].name.clone();
                let hits = (start..start + count).map_while(|n| {
                    Some((n, self.found.get(&content_key(&self.source, &name, digest, n))?.first.get()))
                });
                let hits: Vec<(u32, u64)> = hits.collect();
                if hits.len() as u32 == count {
                    further.push((number, digest));
                }
                let queue = &mut self.queues[number];
                let known = hits.into_iter().filter(|(_, sequence)| *sequence >= queue.from);
                let known = known.map(|(ordinal, sequence)| Known { ordinal, sequence: Some(sequence), taken: false });
                queue.known.entry(digest).or_default().extend(known);
            }
            open = further;
            start += count;
            count = (count * 8).clamp(FIRST_ORDINALS, MOST_ORDINALS);
        }
        Ok(())
    }

    async fn ask(&mut self, keys: Vec<DedupeKey>) -> Result<(), LogError> {
        if keys.is_empty() {
            return Ok(());
        }
        let log = self.log.clone();
        let asked = tokio::task::spawn_blocking(move || log.dedupe(&keys).map(|hits| (keys, hits))).await;
        let (keys, hits) = asked.map_err(|_| LogError::Closed)??;
        self.found.extend(keys.into_iter().zip(hits).filter_map(|(key, hit)| Some((key, hit?))));
        Ok(())
    }
}

impl Queue {
    /// The ordinal of a record that is new; `None` where it came before.
    fn judge(&mut self, digest: Digest, redelivered: bool, old_end: u64) -> Option<u32> {
        let known = self.known.entry(digest).or_default();
        if redelivered && !self.settled {
            let is_old = |known: &&mut Known| !known.taken && known.sequence.is_some_and(|sequence| sequence < old_end);
            if let Some(again) = known.iter_mut().find(is_old) {
                again.taken = true;
                return None;
            }
        }
        self.settled |= !redelivered;
        // The smallest that is free, so that those in the log have no gap: that is how they are found.
        let mut used: Vec<u32> = known.iter().map(|known| known.ordinal).collect();
        used.sort_unstable();
        let ordinal = used.iter().zip(0..).find(|(used, n)| *used != n).map_or(used.len() as u32, |(_, n)| n);
        known.push(Known { ordinal, sequence: None, taken: false });
        Some(ordinal)
    }

    fn move_to(&mut self, from: u64) {
        if from <= self.from {
            return;
        }
        self.from = from;
        self.known.retain(|_, known| {
            known.retain(|known| known.sequence.is_none_or(|sequence| sequence >= from));
            !known.is_empty()
        });
    }
}

fn content_key(source: &str, queue: &str, content: Digest, ordinal: u32) -> DedupeKey {
    DedupeKey(digest(&[b"content", source.as_bytes(), queue.as_bytes(), &content, &ordinal.to_be_bytes()]))
}

fn reused(batch: &SourceBatch, record: &SourceRecord) -> Undecodable {
    let id = match record.repeat {
        Repeat::ById(span) => String::from_utf8_lossy(batch.bytes(span)),
        _ => Default::default(),
    };
    let detail = format!("the message id {:?} was used before for another payload", excerpt(&id));
    Undecodable { code: REUSED_ID, detail, at: None }
}

#[cfg(test)]
#[path = "repeats_tests.rs"]
mod tests;
