//! What the log's threads and its readers share: the index of durable blocks, the newest of them in memory, live state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use gravity_model::Sequence;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::watch;

use crate::api::{Block, Health, LogError, LogOptions, ReadLimits};
use crate::dedupe::Dedupe;
use crate::directory::Directory;
use crate::hot::Store;
use crate::live::Live;
use crate::queue::{Intake, Queue};
use crate::recover::HotBlock;
use crate::segment::catalogue::Catalogue;
use crate::segment::{Cache, Segment};

/// See the module.
pub(crate) struct Shared {
    pub options: LogOptions,
    pub directory: Directory,
    /// Marks this log's frames.
    pub salt: u32,
    pub queue: Queue,
    pub durable: watch::Sender<Sequence>,
    pub health: watch::Sender<Health>,
    pub view: RwLock<View>,
    pub live: Mutex<Live>,
    pub dedupe: Dedupe,
    pub catalogue: Mutex<Catalogue>,
    /// Of readers of history.
    pub cache: Cache,
    /// Of the hot generations, by number.
    pub stores: RwLock<BTreeMap<u32, Arc<dyn Store>>>,
    pub filling: Mutex<Filling>,
    /// Generations to seal, oldest first, and whether the sealer is to stop.
    pub to_seal: Mutex<(VecDeque<u32>, bool)>,
    pub seal_work: Condvar,
}

/// What readers see. Everything in it is durable.
#[derive(Default)]
pub(crate) struct View {
    pub segments: Vec<Arc<Segment>>,
    /// Blocks of the hot generations, by sequence.
    pub hot: VecDeque<HotBlock>,
    /// The newest blocks.
    pub ring: VecDeque<Block>,
    pub ring_bytes: usize,
    pub last: Sequence,
}

/// The hot generation that takes blocks.
pub(crate) struct Filling {
    pub generation: u32,
    pub bytes: u64,
    pub since: Instant,
    /// A generation may only end with a block that has events: the block table of a segment hangs on them.
    pub ends_with_events: bool,
    /// The next append begins another generation, however small this one is.
    pub worn: bool,
}

impl View {
    /// First sequence that can be read.
    pub fn first(&self) -> Sequence {
        if let Some(segment) = self.segments.first() {
            return segment.entry.first;
        }
        self.hot.front().map_or(self.last.next(), |block| block.mark.first)
    }

    /// Adds a block that became durable to the newest ones.
    pub fn remember(&mut self, block: Block, ring_bytes: usize) {
        self.ring_bytes += block.records().len();
        self.ring.push_back(block);
        while self.ring_bytes > ring_bytes && self.ring.len() > 1 {
            if let Some(old) = self.ring.pop_front() {
                self.ring_bytes -= old.records().len();
            }
        }
    }

    /// From memory; `None` where `after` is older than the ring.
    pub fn recent(&self, after: Sequence, limits: ReadLimits) -> Option<Vec<Block>> {
        if after >= self.last {
            return (after == self.last).then(Vec::new);
        }
        if self.ring.front()?.mark.first > after.next() {
            return None;
        }
        let from = self.ring.partition_point(|block| block.last() <= after);
        let mut taken = Taken::new(limits);
        for block in self.ring.range(from..) {
            taken.push(block.clone());
            if taken.is_full() {
                break;
            }
        }
        Some(taken.blocks)
    }
}

/// Collects blocks up to the limits of a read.
pub(crate) struct Taken {
    pub blocks: Vec<Block>,
    limits: ReadLimits,
    events: usize,
    bytes: usize,
}

impl Taken {
    pub fn new(limits: ReadLimits) -> Taken {
        Taken { blocks: Vec::new(), limits, events: 0, bytes: 0 }
    }

    pub fn push(&mut self, block: Block) {
        self.events += block.count as usize;
        self.bytes += block.records().len();
        self.blocks.push(block);
    }

    /// At least one block was taken and a limit is reached.
    pub fn is_full(&self) -> bool {
        !self.blocks.is_empty() && (self.events >= self.limits.events || self.bytes >= self.limits.bytes)
    }
}

impl Shared {
    pub fn store(&self, generation: u32) -> Option<Arc<dyn Store>> {
        self.stores.read().get(&generation).cloned()
    }

    /// The one way out after a failed sync: nothing that is only in memory may be believed any more.
    pub fn fatal(&self, detail: &str) {
        self.shut(&LogError::Closed);
        (self.options.fatal)(&format!("{}: {detail}", self.directory.root.display()));
    }

    /// Refuses everything from now on and fails what waits.
    pub fn shut(&self, error: &LogError) {
        let waiting = {
            let mut state = self.queue.state.lock();
            state.intake = Intake::Closed;
            state.epoch += 1;
            state.stop = true;
            state.waiting_bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            if let Some(done) = waiting.done {
                let _ = done.send(Err(error.clone()));
            }
        }
        self.health.send_replace(Health::Closed);
        self.queue.work.notify_all();
        self.queue.progress.notify_all();
        self.queue.room.notify_waiters();
    }

    /// Queues a full generation for sealing.
    pub fn seal(&self, generation: u32) {
        self.queue.state.lock().sealing = true;
        self.to_seal.lock().0.push_back(generation);
        self.seal_work.notify_all();
    }
}
