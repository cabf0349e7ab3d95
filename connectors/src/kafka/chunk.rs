//! Copies messages into a [`SourceBatch`]: each byte once, no allocation per message.

use std::sync::Arc;
use std::time::Instant;

use gravity_model::HeaderBuf;
use gravity_model::port::source::{Break, BreakKind, Position, Repeat, Slot, SourceBatch, SourceRecord};

use super::native::MessageRef;
use super::progress::{Assigned, CHUNK_BYTES, Chunk, Origin, Partition};

/// What no topic's partition has.
const NO_HANDLE: (usize, i32) = (0, -1);

/// The chunk being filled.
pub struct ChunkBuilder {
    chunk: Chunk,
    /// (topic handle, partition) of each slot of the chunk, in slot order.
    handles: Vec<(usize, i32)>,
    /// Slot of the last record: the next one mostly has the same.
    last: usize,
    headers: HeaderBuf,
    taken: Instant,
}

impl Default for ChunkBuilder {
    fn default() -> ChunkBuilder {
        ChunkBuilder {
            chunk: Chunk { number: 1, ..Chunk::default() },
            handles: Vec::new(),
            last: 0,
            headers: HeaderBuf::new(),
            taken: Instant::now(),
        }
    }
}

impl ChunkBuilder {
    pub fn is_empty(&self) -> bool {
        self.chunk.batch.is_empty()
    }

    pub fn records(&self) -> usize {
        self.chunk.batch.records.len()
    }

    pub fn bytes(&self) -> usize {
        self.chunk.batch.arena.len()
    }

    /// Number of the chunk being filled.
    pub fn number(&self) -> u64 {
        self.chunk.number
    }

    /// When its newest record was taken from the client.
    pub fn taken(&self) -> Instant {
        self.taken
    }

    /// Topic handles may be used anew after a rebalance, and assignments have changed.
    pub fn forget_slots(&mut self) {
        for handle in &mut self.handles {
            *handle = NO_HANDLE;
        }
    }

    /// Makes room for a partition's records. `revocations`: how many there were when the first of them was taken.
    pub fn open_slot(
        &mut self,
        message: &MessageRef<'_>,
        partition: &Arc<Partition>,
        assigned: &Assigned,
        revocations: u64,
    ) {
        self.add_slot((message.topic_handle(), message.partition()), partition, assigned, revocations);
    }

    /// An accepted break: told with the records that follow, or alone.
    pub fn note_break(
        &mut self,
        partition: &Arc<Partition>,
        assigned: &Assigned,
        revocations: u64,
        (kind, position): (BreakKind, Position),
    ) {
        self.add_slot(NO_HANDLE, partition, assigned, revocations);
        let slot = self.last as u16;
        self.chunk.batch.breaks.push(Break { slot, kind, position });
    }

    fn add_slot(&mut self, handle: (usize, i32), partition: &Arc<Partition>, assigned: &Assigned, revocations: u64) {
        if self.chunk.origins.is_empty() {
            self.chunk.revocations = revocations;
        }
        self.last = self.handles.len();
        self.handles.push(handle);
        let slot =
            Slot { position: Some(Arc::clone(&assigned.slot)), subject: Arc::clone(&assigned.subject), queue: None };
        self.chunk.batch.slots.push(slot);
        self.chunk.origins.push(Origin { partition: Arc::clone(partition), assignment: assigned.assignment });
    }

    /// Copies one record. False when its partition has no slot in this chunk yet.
    pub fn push(&mut self, message: &MessageRef<'_>) -> bool {
        let handle = (message.topic_handle(), message.partition());
        if self.handles.get(self.last) != Some(&handle) {
            match self.handles.iter().position(|known| *known == handle) {
                Some(slot) => self.last = slot,
                None => return false,
            }
        }
        self.taken = Instant::now();
        let batch = &mut self.chunk.batch;
        self.headers.clear();
        message.for_each_header(|name, value| self.headers.push(name, value));
        let payload = message.payload().map(|bytes| batch.store(bytes));
        let key = message.key().map(|bytes| batch.store(bytes));
        let headers = batch.store(self.headers.as_encoded());
        let detail = u64::try_from(i64::from(message.leader_epoch()) + 1).unwrap_or(0);
        let next = u64::try_from(message.offset()).map_or(0, |offset| offset + 1);
        batch.records.push(SourceRecord {
            payload,
            key,
            headers,
            time: message.timestamp_ms().and_then(|ms| ms.checked_mul(1000)),
            slot: self.last as u16,
            position: Position { next, detail },
            repeat: Repeat::ByPosition,
        });
        true
    }

    /// Takes the chunk out and begins the next.
    pub fn finish(&mut self) -> Chunk {
        let number = self.chunk.number;
        self.handles.clear();
        self.last = 0;
        // As large as the last one was: a stream in flow allocates once per chunk.
        let room = self.chunk.batch.arena.len().min(2 * CHUNK_BYTES);
        let records = self.chunk.batch.records.len();
        let batch = SourceBatch {
            arena: Vec::with_capacity(room),
            records: Vec::with_capacity(records),
            ..SourceBatch::default()
        };
        let next = Chunk { batch, number: number + 1, ..Chunk::default() };
        std::mem::replace(&mut self.chunk, next)
    }
}
