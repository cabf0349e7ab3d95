//! What reader thread and source share: which partitions are ours, how far each was handed out, what is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use gravity_model::Fault;
use gravity_model::port::source::{BatchLimits, Position, SourceBatch};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

/// Topic and partition.
pub type Partition = (String, i32);

/// Bounds of one chunk, whatever the engine allows: a handful of chunks wait between the thread and the engine.
pub const CHUNK_BYTES: usize = 1024 * 1024;
pub const CHUNK_RECORDS: usize = 8192;

/// A stretch of records on its way from the reader thread to `next_batch`.
#[derive(Default)]
pub struct Chunk {
    pub batch: SourceBatch,
    /// For each slot of the batch: the partition and the assignment under which its records were read.
    pub origins: Vec<Origin>,
    /// Counts from 1 within a connection.
    pub number: u64,
    /// [`Progress::revocations`] when it was filled.
    pub revocations: u64,
}

#[derive(Clone)]
pub struct Origin {
    pub partition: Arc<Partition>,
    pub assignment: u64,
}

/// A partition's highest position in one batch.
pub struct Given {
    pub origin: Origin,
    pub position: Position,
}

/// What the reader thread sends; after a fault nothing follows.
pub enum Delivered {
    Chunk(Box<Chunk>),
    Fault(Fault),
}

/// One assigned partition.
pub struct Assigned {
    pub slot: Arc<str>,
    pub subject: Arc<str>,
    /// Names this assignment of it: records of an earlier one are dropped.
    pub assignment: u64,
    /// First offset that the engine was not given yet; `None` before anything is known (a start at the beginning).
    pub given: Option<u64>,
    /// How far the client was when all was handed over, and the chunk that holds everything before that.
    pub end: Option<(u64, u64)>,
}

/// An offset that may be committed: everything before it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    pub next: u64,
    pub leader_epoch: Option<i32>,
    pub committed: bool,
}

#[derive(Default)]
pub struct State {
    pub assigned: HashMap<Arc<Partition>, Assigned>,
    pub durable: HashMap<Arc<Partition>, Durable>,
}

/// Of one connection.
pub struct Progress {
    pub state: Mutex<State>,
    /// Grows with every revocation.
    pub revocations: AtomicU64,
    /// Number of the newest chunk that was returned whole.
    pub returned: AtomicU64,
    pub stop: AtomicBool,
    max_bytes: AtomicUsize,
    max_records: AtomicUsize,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            state: Mutex::new(State::default()),
            revocations: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            max_bytes: AtomicUsize::new(CHUNK_BYTES),
            max_records: AtomicUsize::new(CHUNK_RECORDS),
        }
    }

    /// Tells the thread how large a chunk is of use.
    pub fn set_limits(&self, limits: BatchLimits) {
        self.max_bytes.store(limits.max_bytes.clamp(1, CHUNK_BYTES), Ordering::Relaxed);
        self.max_records.store(limits.max_records.clamp(1, CHUNK_RECORDS), Ordering::Relaxed);
    }

    pub fn max_bytes(&self) -> usize {
        self.max_bytes.load(Ordering::Relaxed)
    }

    pub fn max_records(&self) -> usize {
        self.max_records.load(Ordering::Relaxed)
    }

    /// Takes records of partitions out that were revoked after the chunk was filled: their next owner reads them, or we
    /// do again, from the position that the log holds then.
    pub fn drop_revoked(&self, chunk: &mut Chunk) {
        let now = self.revocations.load(Ordering::SeqCst);
        if chunk.revocations == now {
            return;
        }
        let state = self.state.lock();
        let keep: Vec<bool> = chunk
            .origins
            .iter()
            .map(|origin| state.assigned.get(&origin.partition).is_some_and(|a| a.assignment == origin.assignment))
            .collect();
        drop(state);
        chunk.batch.records.retain(|record| keep[usize::from(record.slot)]);
        chunk.batch.breaks.retain(|found| keep[usize::from(found.slot)]);
        chunk.revocations = now;
    }

    /// Notes that the engine has every record of `batch`; the highest next offset per slot is what its token stands for.
    pub fn note_given(&self, batch: &SourceBatch, origins: &[Origin]) -> Vec<Given> {
        let mut highest = vec![None; origins.len()];
        for record in &batch.records {
            highest[usize::from(record.slot)] = Some(record.position);
        }
        let mut state = self.state.lock();
        let mut given = Vec::new();
        for (origin, highest) in origins.iter().zip(highest) {
            let Some(position) = highest else { continue };
            if let Some(assigned) = state.assigned.get_mut(&origin.partition)
                && assigned.assignment == origin.assignment
            {
                assigned.given = Some(position.next);
            }
            given.push(Given { origin: origin.clone(), position });
        }
        given
    }

    /// Offsets up to which the engine was given a partition's records, where that is known.
    pub fn given(&self, partition: &Partition) -> Option<u64> {
        let returned = self.returned.load(Ordering::SeqCst);
        let state = self.state.lock();
        let assigned = state.assigned.get(partition)?;
        let end = assigned.end.filter(|(_, chunk)| *chunk <= returned).map(|(offset, _)| offset);
        assigned.given.max(end)
    }
}

/// What a source remembers from one connection to the next, where the log has no record to remember it by.
#[derive(Default)]
pub struct Memory {
    /// Topics of which partitions were assigned before: what appears later is new and starts at its beginning.
    pub read_topics: HashSet<String>,
    /// Where a `latest` start began, by slot.
    pub begun: HashMap<String, u64>,
}
