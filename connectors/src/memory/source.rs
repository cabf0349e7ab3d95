//! A broker in memory and its source: slots, redelivery, gaps, retention, outages, all told by a test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gravity_model::event::Micros;
use gravity_model::port::source::{
    Acceptance, AckToken, BatchLimits, Break, BreakKind, Position, PositionBook, Repeat, Slot, Source, SourceBatch,
    SourceRecord, Start,
};
use gravity_model::{Fault, FaultKind, HeaderBuf};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A message as a producer hands it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub time: Option<Micros>,
}

#[derive(Default)]
struct Partition {
    /// First offset that is still there.
    low: u64,
    /// `None`: an offset without record, as compaction and transaction markers leave them.
    records: VecDeque<Option<Published>>,
    /// Grows when the partition is made anew.
    incarnation: u64,
    acknowledged: u64,
}

impl Partition {
    fn end(&self) -> u64 {
        self.low + self.records.len() as u64
    }
}

#[derive(Default)]
struct Inner {
    partitions: BTreeMap<u32, Partition>,
    incarnation: u64,
    down: bool,
    /// Returned by the next calls of `next_batch`, one each.
    faults: VecDeque<Fault>,
    /// Offsets to deliver once more, by partition.
    redeliver: BTreeMap<u32, u64>,
    /// Answers of `next_batch` come this late.
    delay: Duration,
}

/// The broker. Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
}

impl MemoryBroker {
    pub fn new(partitions: u32) -> MemoryBroker {
        let broker = MemoryBroker::default();
        broker.grow(partitions);
        broker
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.inner.lock());
        self.changed.notify_waiters();
        result
    }

    /// Adds partitions up to this count.
    pub fn grow(&self, partitions: u32) {
        self.change(|inner| {
            for number in 0..partitions {
                let incarnation = inner.incarnation;
                inner.partitions.entry(number).or_insert_with(|| Partition { incarnation, ..Partition::default() });
            }
        });
    }

    pub fn publish(&self, partition: u32, message: Published) {
        self.change(|inner| {
            if let Some(partition) = inner.partitions.get_mut(&partition) {
                partition.records.push_back(Some(message));
            }
        });
    }

    /// Uses up one offset without a record.
    pub fn leave_gap(&self, partition: u32) {
        self.change(|inner| {
            if let Some(partition) = inner.partitions.get_mut(&partition) {
                partition.records.push_back(None);
            }
        });
    }

    /// Retention: drops everything before `low`.
    pub fn trim(&self, partition: u32, low: u64) {
        self.change(|inner| {
            let Some(partition) = inner.partitions.get_mut(&partition) else { return };
            while partition.low < low && partition.records.pop_front().is_some() {
                partition.low += 1;
            }
        });
    }

    /// Loses the newest records, as an unclean election does.
    pub fn truncate(&self, partition: u32, end: u64) {
        self.change(|inner| {
            if let Some(partition) = inner.partitions.get_mut(&partition) {
                let keep = end.saturating_sub(partition.low);
                partition.records.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            }
        });
    }

    /// Deletes everything and begins anew under the same name.
    pub fn recreate(&self) {
        self.change(|inner| {
            inner.incarnation += 1;
            let incarnation = inner.incarnation;
            for partition in inner.partitions.values_mut() {
                *partition = Partition { incarnation, ..Partition::default() };
            }
        });
    }

    /// While down, every call fails with [`FaultKind::Disconnected`].
    pub fn set_down(&self, down: bool) {
        self.change(|inner| inner.down = down);
    }

    /// The next call of `next_batch` returns this.
    pub fn fail_next(&self, fault: Fault) {
        self.change(|inner| inner.faults.push_back(fault));
    }

    /// Delivers again from `offset`, as a broker does that lost an acknowledgement.
    pub fn redeliver(&self, partition: u32, offset: u64) {
        self.change(|inner| inner.redeliver.insert(partition, offset));
    }

    pub fn set_delay(&self, delay: Duration) {
        self.change(|inner| inner.delay = delay);
    }

    /// First offset of the partition that was not acknowledged.
    pub fn acknowledged(&self, partition: u32) -> u64 {
        self.inner.lock().partitions.get(&partition).map_or(0, |partition| partition.acknowledged)
    }

    /// What somebody else acknowledged: must not matter to a source that has positions.
    pub fn set_acknowledged(&self, partition: u32, offset: u64) {
        self.change(|inner| {
            if let Some(partition) = inner.partitions.get_mut(&partition) {
                partition.acknowledged = offset;
            }
        });
    }
}

/// Reads a [`MemoryBroker`].
pub struct MemorySource {
    name: String,
    broker: MemoryBroker,
    connections: u64,
    connected: bool,
    start: Start,
    accept: Acceptance,
    book: Option<Arc<dyn PositionBook>>,
    cursors: BTreeMap<u32, Cursor>,
    ends: Option<BTreeMap<u32, u64>>,
    /// Where "latest" starts began, by slot, kept over reconnects.
    begun: HashMap<String, u64>,
    batches: u64,
    unacknowledged: VecDeque<(u64, Vec<(u32, u64)>)>,
}

struct Cursor {
    slot: Arc<str>,
    next: u64,
    /// An accepted break that was not told yet.
    broken: Option<BreakKind>,
    incarnation: u64,
}

impl MemorySource {
    pub fn new(name: impl Into<String>, broker: MemoryBroker) -> MemorySource {
        MemorySource {
            name: name.into(),
            broker,
            connections: 0,
            connected: false,
            start: Start::Earliest,
            accept: Acceptance::default(),
            book: None,
            cursors: BTreeMap::new(),
            ends: None,
            begun: HashMap::new(),
            batches: 0,
            unacknowledged: VecDeque::new(),
        }
    }

    /// Goes on where history broke.
    pub fn accepting(self, accept: Acceptance) -> MemorySource {
        MemorySource { accept, ..self }
    }

    fn fault(&self, kind: FaultKind, code: &'static str, detail: impl Into<String>) -> Fault {
        Fault::new(kind, code, format!("read source {}", self.name), detail)
    }

    /// Takes partitions up that appeared since, and checks the ones we have.
    fn refresh(&mut self, first: bool) -> Result<(), Fault> {
        let broker = self.broker.clone();
        let inner = broker.inner.lock();
        if inner.down {
            return Err(self.fault(FaultKind::Disconnected, "memory-down", "the broker is down"));
        }
        for (number, partition) in &inner.partitions {
            if !self.cursors.contains_key(number) {
                let cursor = self.begin(*number, partition, first)?;
                self.cursors.insert(*number, cursor);
            }
            let accept = self.accept;
            let Some(cursor) = self.cursors.get_mut(number) else { continue };
            if accept.recreated && cursor.incarnation != partition.incarnation {
                let broken = BreakKind::Recreated { former: Arc::clone(&cursor.slot), next: cursor.next };
                let slot = Arc::from(format!("memory/{}/{number}/{}", self.name, partition.incarnation));
                *cursor =
                    Cursor { slot, next: partition.low, broken: Some(broken), incarnation: partition.incarnation };
            }
            if accept.gap && cursor.next < partition.low {
                cursor.broken = Some(BreakKind::Gap { from: cursor.next, to: partition.low });
                cursor.next = partition.low;
            }
            let cursor = &self.cursors[number];
            if cursor.incarnation != partition.incarnation {
                let detail = format!("partition {number} was re-created");
                return Err(self.fault(FaultKind::HistoryBroken, "topic-recreated", detail));
            }
            if cursor.next < partition.low || cursor.next > partition.end() {
                let detail = format!(
                    "partition {number}: the broker holds offsets {} to {} (exclusive), the log expects offset {}",
                    partition.low,
                    partition.end(),
                    cursor.next
                );
                return Err(self.fault(FaultKind::HistoryBroken, "position-out-of-range", detail));
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: u32, partition: &Partition, first: bool) -> Result<Cursor, Fault> {
        let slot = format!("memory/{}/{number}/{}", self.name, partition.incarnation);
        let prefix = format!("memory/{}/{number}/", self.name);
        let book = self.book.clone();
        let position = book.as_ref().and_then(|book| book.position(&slot));
        let known = book.map_or_else(Vec::new, |book| book.positions());
        let former = known.iter().find(|(other, _)| position.is_none() && other.starts_with(&prefix));
        if let (Some((former, at)), true) = (former, self.accept.recreated) {
            let broken = Some(BreakKind::Recreated { former: Arc::from(former.as_str()), next: at.next });
            let (next, incarnation) = (partition.low, partition.incarnation);
            return Ok(Cursor { slot: Arc::from(slot), next, broken, incarnation });
        }
        if former.is_some() {
            let detail = format!("partition {number} was re-created");
            return Err(self.fault(FaultKind::HistoryBroken, "topic-recreated", detail));
        }
        let fresh = first && known.is_empty();
        let next = match position.map(|position| position.next).or_else(|| self.begun.get(&slot).copied()) {
            Some(next) => next,
            None if fresh && self.start == Start::Latest => {
                self.begun.insert(slot.clone(), partition.end());
                partition.end()
            }
            None => partition.low,
        };
        Ok(Cursor { slot: Arc::from(slot), next, broken: None, incarnation: partition.incarnation })
    }

    fn read(&mut self, limits: BatchLimits) -> SourceBatch {
        let broker = self.broker.clone();
        let mut inner = broker.inner.lock();
        let redeliver = std::mem::take(&mut inner.redeliver);
        let mut batch = SourceBatch::default();
        let mut reached = Vec::new();
        let mut headers = HeaderBuf::new();
        for (number, cursor) in &mut self.cursors {
            let Some(partition) = inner.partitions.get(number) else { continue };
            if let Some(offset) = redeliver.get(number) {
                cursor.next = cursor.next.min((*offset).max(partition.low));
            }
            let before = (batch.records.len(), batch.breaks.len());
            if let Some(kind) = cursor.broken.take() {
                let slot = u16::try_from(batch.slots.len()).unwrap_or(u16::MAX);
                batch.breaks.push(Break { slot, kind, position: Position { next: cursor.next, detail: 0 } });
            }
            while cursor.next < partition.end() {
                let index = usize::try_from(cursor.next - partition.low).unwrap_or(usize::MAX);
                let Some(Some(message)) = partition.records.get(index) else {
                    cursor.next += 1;
                    continue;
                };
                headers.clear();
                for (name, value) in &message.headers {
                    headers.push(name, value);
                }
                let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
                let size = length(&message.key) + length(&message.payload) + headers.as_encoded().len();
                let room = batch.records.is_empty() || batch.arena.len() + size <= limits.max_bytes;
                if !room || batch.records.len() >= limits.max_records {
                    break;
                }
                let payload = message.payload.as_ref().map(|bytes| batch.store(bytes));
                let key = message.key.as_ref().map(|bytes| batch.store(bytes));
                let headers = batch.store(headers.as_encoded());
                cursor.next += 1;
                batch.records.push(SourceRecord {
                    payload,
                    key,
                    headers,
                    time: message.time,
                    slot: u16::try_from(batch.slots.len()).unwrap_or(u16::MAX),
                    position: Position { next: cursor.next, detail: 0 },
                    repeat: Repeat::ByPosition,
                });
            }
            if (batch.records.len(), batch.breaks.len()) != before {
                let subject = Arc::from(self.name.as_str());
                batch.slots.push(Slot { position: Some(Arc::clone(&cursor.slot)), subject, queue: None });
                reached.push((*number, cursor.next));
            }
        }
        if !batch.is_empty() {
            self.batches += 1;
            batch.token = AckToken { connection: self.connections, batch: self.batches };
            self.unacknowledged.push_back((self.batches, reached));
        }
        batch
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn connect(&mut self, book: Arc<dyn PositionBook>, start: Start) -> Result<(), Fault> {
        self.close().await;
        self.connections += 1;
        self.book = Some(book);
        self.start = start;
        self.refresh(true)?;
        self.connected = true;
        Ok(())
    }

    async fn next_batch(&mut self, limits: BatchLimits) -> Result<SourceBatch, Fault> {
        if !self.connected {
            return Err(self.fault(FaultKind::Closed, "not-connected", "not connected"));
        }
        let until = tokio::time::Instant::now() + limits.max_wait;
        let delay = self.broker.inner.lock().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        loop {
            let changed = Arc::clone(&self.broker.changed);
            let changed = changed.notified();
            tokio::pin!(changed);
            // Listening before looking, or a change between the two would be slept through.
            changed.as_mut().enable();
            let scripted = self.broker.inner.lock().faults.pop_front();
            if let Some(fault) = scripted {
                self.connected = false;
                return Err(fault);
            }
            if let Err(fault) = self.refresh(false) {
                self.connected = false;
                return Err(fault);
            }
            let batch = self.read(limits);
            if !batch.is_empty() || tokio::time::timeout_at(until, changed).await.is_err() {
                return Ok(batch);
            }
        }
    }

    async fn acknowledge(&mut self, token: AckToken) -> Result<(), Fault> {
        if token.connection != self.connections {
            return Ok(());
        }
        let mut inner = self.broker.inner.lock();
        while self.unacknowledged.front().is_some_and(|(batch, _)| *batch <= token.batch) {
            let Some((_, reached)) = self.unacknowledged.pop_front() else { break };
            for (number, next) in reached {
                if let Some(partition) = inner.partitions.get_mut(&number) {
                    partition.acknowledged = partition.acknowledged.max(next);
                }
            }
        }
        Ok(())
    }

    async fn note_end(&mut self) -> Result<(), Fault> {
        let inner = self.broker.inner.lock();
        if inner.down {
            return Err(self.fault(FaultKind::Disconnected, "memory-down", "the broker is down"));
        }
        self.ends = Some(inner.partitions.iter().map(|(number, partition)| (*number, partition.end())).collect());
        Ok(())
    }

    async fn has_passed_end(&mut self) -> Result<bool, Fault> {
        let Some(ends) = &self.ends else { return Ok(false) };
        Ok(ends.iter().all(|(number, end)| self.cursors.get(number).is_some_and(|cursor| cursor.next >= *end)))
    }

    async fn lag(&mut self) -> Option<u64> {
        let inner = self.broker.inner.lock();
        let behind = |(number, partition): (&u32, &Partition)| {
            partition.end().saturating_sub(self.cursors.get(number).map_or(partition.low, |cursor| cursor.next))
        };
        Some(inner.partitions.iter().map(behind).sum())
    }

    async fn close(&mut self) {
        self.connected = false;
        self.cursors.clear();
        self.unacknowledged.clear();
        self.ends = None;
    }
}
