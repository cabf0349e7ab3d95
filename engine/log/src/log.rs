//! The log itself: opens a directory, starts its threads, answers the calls of [`EventLog`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Instant;

use gravity_model::Sequence;
use gravity_model::ident::{BlockMark, Digest};
use gravity_model::port::source::Position;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::api::{
    Batch, Block, DedupeHit, DedupeKey, EventLog, Health, Identity, LogError, LogOptions, LogStat, ReadLimits,
    SequenceRange, StateEntry, Ticket, Verified,
};
use crate::commit::{Committer, Failure};
use crate::dedupe::Dedupe;
use crate::directory::{Directory, bytes_on_disk};
use crate::encode;
use crate::hot::{self, Store};
use crate::live::Live;
use crate::opening;
use crate::pack::Packer;
use crate::queue::{Intake, Queue};
use crate::read_only::Scratch;
use crate::recover::{self, ChainHead, Scanned};
use crate::seal;
use crate::segment::catalogue::Catalogue;
use crate::segment::{Cache, Segment};
use crate::shared::{Filling, Shared, Taken, View};
use crate::verify;

/// Groups between encoder and committer.
const GROUPS_AHEAD: usize = 4;

pub(crate) struct Log {
    shared: Arc<Shared>,
    identity: Identity,
    /// None once it was stopped.
    threads: Mutex<Option<Vec<JoinHandle<()>>>>,
    /// Copies that a reader reads from.
    scratch: Mutex<Option<Scratch>>,
}

/// What an opening found, before anything runs on it.
pub(crate) struct Parts {
    pub directory: Directory,
    pub catalogue: Catalogue,
    pub view: View,
    pub dedupe: Dedupe,
    pub live: Live,
    pub stores: BTreeMap<u32, Arc<dyn Store>>,
}

impl Parts {
    fn share(self, options: LogOptions, head: ChainHead, filling: Filling) -> Arc<Shared> {
        Arc::new(Shared {
            salt: self.directory.salt(),
            queue: Queue::new(head, options.queue_bytes, options.block_bytes),
            durable: watch::Sender::new(self.view.last),
            health: watch::Sender::new(Health::Running),
            view: RwLock::new(self.view),
            live: Mutex::new(self.live),
            dedupe: self.dedupe,
            catalogue: Mutex::new(self.catalogue),
            cache: Cache::default(),
            stores: RwLock::new(self.stores),
            filling: Mutex::new(filling),
            to_seal: Mutex::default(),
            seal_work: Condvar::new(),
            directory: self.directory,
            options,
        })
    }
}

/// Hot generations as they were found.
pub(crate) struct Found {
    pub generation: u32,
    pub store: Arc<dyn Store>,
    pub scanned: Scanned,
}

/// See [`crate::open`].
pub(crate) fn open(options: LogOptions) -> Result<Log, LogError> {
    let directory = Directory::open(&options.directory)?;
    let salt = directory.salt();
    let catalogue = Catalogue::read(&directory.catalogue())?;
    seal::collect_leftovers(&directory, &catalogue)?;
    let found = open_generations(&directory, salt)?;
    check_joints(&directory, &catalogue, &found)?;
    let mut view = View { segments: segments_of(&directory, &catalogue), ..View::default() };
    let dedupe = Dedupe::open(&directory, &catalogue)?;
    let mut stores = BTreeMap::new();
    let mut head = ChainHead { digest: Digest::default(), next: Sequence(1) };
    let mut live = Live::default();
    for (index, generation) in found.iter().enumerate() {
        let scanned = &generation.scanned;
        view.hot.extend(scanned.hot_blocks(generation.generation));
        for seen in &scanned.blocks {
            dedupe.add(generation.generation, &seen.meta.dedupe);
        }
        stores.insert(generation.generation, generation.store.clone());
        if index + 1 == found.len() {
            head = scanned.chain_head().unwrap_or(head);
            let (carry, state) = scanned.live().ok_or_else(|| LogError::Refused {
                path: directory.generation(generation.generation),
                detail: "the live state at its beginning is malformed".to_owned(),
            })?;
            if carry.log_id != directory.log_id || carry.generation != generation.generation {
                return Err(LogError::Refused {
                    path: directory.generation(generation.generation),
                    detail: format!("holds generation {} of log {}", carry.generation, carry.log_id),
                });
            }
            live = state;
        }
    }
    view.last = Sequence(head.next.get() - 1);
    let identity = opening::next_identity(directory.log_id, &live);
    let opened = opening::batch(&identity, &live);
    let newest = found.last();
    let filling = Filling {
        generation: newest.map_or(0, |newest| newest.generation),
        bytes: newest.map_or(0, |newest| newest.scanned.bytes),
        since: Instant::now(),
        ends_with_events: newest
            .and_then(|newest| newest.scanned.blocks.last())
            .is_some_and(|seen| seen.head.count > 0),
        worn: newest.is_some_and(|newest| hot::kind_of(&directory.generation(newest.generation)) != Some(options.hot)),
    };
    let parts = Parts { directory, catalogue, view, dedupe, live, stores };
    let shared = parts.share(options, head, filling);
    let packer = |head: ChainHead| {
        Packer::new(shared.options.block_bytes, head.digest)
            .map_err(|error| LogError::Io { path: shared.directory.root.clone(), detail: error.to_string() })
    };
    let committer = match found.last() {
        None => {
            let mut committer = Committer::new(shared.clone(), head);
            let live = shared.live.lock().clone();
            let made = encode::carry(shared.directory.log_id, 1, &live, &mut packer(head)?, head.next);
            committer.roll(1, made).map_err(|failure| failed(&shared, failure))?;
            committer
        }
        Some(newest) => {
            for older in &found[..found.len() - 1] {
                older.store.sync().map_err(|error| failed(&shared, Failure::Sync(error.to_string())))?;
                shared.seal(older.generation);
            }
            newest.store.sync().map_err(|error| failed(&shared, Failure::Sync(error.to_string())))?;
            let ordinal = newest.scanned.next_ordinal;
            let mut committer =
                Committer::resume(shared.clone(), newest.generation, newest.store.clone(), head, ordinal);
            committer.declare_void(&newest.scanned).map_err(|failure| failed(&shared, failure))?;
            committer
        }
    };
    {
        let mut state = shared.queue.state.lock();
        state.head = committer.head;
    }
    let packer = packer(committer.head)?;
    let log = Log {
        identity,
        threads: Mutex::new(Some(start(&shared, packer, committer))),
        scratch: Mutex::default(),
        shared,
    };
    log.record(opened)?;
    Ok(log)
}

fn start(shared: &Arc<Shared>, packer: Packer, committer: Committer) -> Vec<JoinHandle<()>> {
    let (sender, receiver) = sync_channel(GROUPS_AHEAD);
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("the system starts threads at start-up")
    };
    let (encoding, sealing) = (shared.clone(), shared.clone());
    vec![
        spawn("log-encode", Box::new(move || encode::run(&encoding, packer, &sender))),
        spawn("log-commit", Box::new(move || committer.run(&receiver))),
        spawn("log-seal", Box::new(move || seal::run(&sealing))),
    ]
}

fn failed(shared: &Shared, failure: Failure) -> LogError {
    match failure {
        Failure::Write(detail) => LogError::Io { path: shared.directory.root.clone(), detail },
        Failure::Sync(detail) => {
            shared.fatal(&detail);
            LogError::Io { path: shared.directory.root.clone(), detail }
        }
    }
}

pub(crate) fn segments_of(directory: &Directory, catalogue: &Catalogue) -> Vec<Arc<Segment>> {
    let sealed = directory.sealed();
    catalogue.segments.iter().map(|entry| Arc::new(Segment::new(&sealed, entry.clone()))).collect()
}

/// History and the hot generations must join without a gap: a generation is dropped only after it became history.
fn check_joints(directory: &Directory, catalogue: &Catalogue, found: &[Found]) -> Result<(), LogError> {
    let refused = |detail: String| LogError::Refused { path: directory.hot(), detail };
    let mut end = catalogue.segments.last().map(|entry| (entry.head, entry.last.next(), entry.generation));
    if end.is_some() && found.is_empty() {
        return Err(refused("the hot generation after the last segment is missing".to_owned()));
    }
    for generation in found {
        let Some(first) = generation.scanned.blocks.first() else { continue };
        let number = generation.generation;
        let joins = match end {
            Some((head, next, before)) => first.previous == head && first.head.first == next && number == before + 1,
            None => first.previous == Digest::default() && first.head.first == Sequence(1),
        };
        if !joins {
            return Err(refused(format!("generation {number} does not follow what is before it")));
        }
        end = generation.scanned.chain_head().map(|head| (head.digest, head.next, number));
    }
    Ok(())
}

/// Opens and reads every hot generation that counts; removes a newest one that never began.
fn open_generations(directory: &Directory, salt: u32) -> Result<Vec<Found>, LogError> {
    let mut found: Vec<Found> = Vec::new();
    let numbers = directory.generations()?;
    for generation in &numbers {
        let path = directory.generation(*generation);
        let Some(kind) = hot::kind_of(&path) else {
            crate::directory::remove_tree(&path).map_err(|error| crate::directory::io_error(&path, &error))?;
            continue;
        };
        let store = hot::open(kind, &path, salt)?;
        let scanned =
            recover::scan(store.as_ref(), salt, None).map_err(|error| crate::directory::io_error(&path, &error))?;
        if let Some(damage) = scanned.damage.first() {
            return Err(LogError::Damaged {
                what: path.display().to_string(),
                range: damage.range,
                detail: damage.detail.clone(),
            });
        }
        if !scanned.has_begun() {
            // Begun after everything before it was durable, and never used: the crash came first.
            tracing::warn!(generation, "removing a hot generation that never began");
            store.close();
            drop(store);
            crate::directory::remove_tree(&path).map_err(|error| crate::directory::io_error(&path, &error))?;
            continue;
        }
        found.push(Found { generation: *generation, store, scanned });
    }
    Ok(found)
}

impl Log {
    /// A log that only reads: nothing runs, appends are refused.
    pub fn reading(parts: Parts, identity: Identity, scratch: Scratch) -> Log {
        let head = ChainHead { digest: Digest::default(), next: parts.view.last.next() };
        let filling = Filling { generation: 0, bytes: 0, since: Instant::now(), ends_with_events: false, worn: false };
        let options = LogOptions::new(&parts.directory.root);
        let shared = parts.share(options, head, filling);
        shared.shut(&LogError::Closed);
        Log { shared, identity, threads: Mutex::new(Some(Vec::new())), scratch: Mutex::new(Some(scratch)) }
    }

    /// Appends this opening and waits until it is durable.
    fn record(&self, mut opened: Batch) -> Result<(), LogError> {
        self.shared.queue.state.lock().hurry = true;
        let ticket = self.append(&mut opened)?;
        let waited = ticket.wait();
        self.shared.queue.state.lock().hurry = false;
        waited.map(|_| ())
    }

    /// Blocks after `after` from the hot generations.
    fn read_hot(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Block>, LogError> {
        let shared = &self.shared;
        let wanted: Vec<_> = {
            let view = shared.view.read();
            let from = view.hot.partition_point(|block| block.last() <= after);
            let mut events = 0;
            let mut wanted = Vec::new();
            for block in view.hot.range(from..) {
                wanted.push(*block);
                events += block.count as usize;
                if events >= limits.events {
                    break;
                }
            }
            wanted
        };
        let mut taken = Taken::new(limits);
        let mut buffer = Vec::new();
        let mut next = after.next();
        for at in wanted {
            if at.mark.first > next {
                if taken.blocks.is_empty() {
                    return Err(LogError::Damaged {
                        what: format!("hot generation {}", at.generation),
                        range: SequenceRange { first: next, last: Sequence(at.mark.first.get() - 1) },
                        detail: "cannot be read back".to_owned(),
                    });
                }
                break;
            }
            next = at.last().next();
            let store = shared.store(at.generation).ok_or_else(|| LogError::WriteFailed {
                detail: format!("hot generation {} is being opened again", at.generation),
            })?;
            let records = match recover::read_block(store.as_ref(), shared.salt, &at, &mut buffer) {
                // What was read before the damage is served; the next read names it.
                Err(_) if !taken.blocks.is_empty() => break,
                other => other?,
            };
            taken.push(Block { mark: at.mark, count: at.count, records: Arc::new(records) });
            if taken.is_full() {
                break;
            }
        }
        Ok(taken.blocks)
    }

    /// Blocks after `after`, which history holds, up to its end.
    fn read_sealed(
        &self,
        sealed: &[Arc<Segment>],
        after: Sequence,
        limits: ReadLimits,
    ) -> Result<Vec<Block>, LogError> {
        let mut taken = Taken::new(limits);
        for segment in sealed {
            let after = taken.blocks.last().map_or(after, Block::last);
            match segment.read(after, &mut taken, &self.shared.cache) {
                Err(_) if !taken.blocks.is_empty() => break,
                other => other?,
            }
            let whole = taken.blocks.last().is_some_and(|block| block.last() == segment.entry.last);
            if taken.is_full() || !whole {
                break;
            }
        }
        Ok(taken.blocks)
    }

    fn out_of_range(&self, wanted: Sequence) -> LogError {
        let view = self.shared.view.read();
        LogError::OutOfRange { wanted, first: view.first(), last: view.last }
    }

    fn stop(&self, commit: bool) {
        let Some(threads) = self.threads.lock().take() else { return };
        {
            let mut state = self.shared.queue.state.lock();
            state.intake = match (commit, state.intake.clone()) {
                (true, Intake::Open) => Intake::Open,
                _ => Intake::Closed,
            };
            state.stop = true;
        }
        self.shared.to_seal.lock().1 = true;
        self.shared.seal_work.notify_all();
        self.shared.queue.work.notify_all();
        self.shared.queue.progress.notify_all();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        self.shared.shut(&LogError::Closed);
        for store in std::mem::take(&mut *self.shared.stores.write()).into_values() {
            store.close();
        }
        self.shared.directory.release();
        self.scratch.lock().take();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop(false);
    }
}

#[async_trait::async_trait]
impl EventLog for Log {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn append(&self, batch: &mut Batch) -> Result<Ticket, LogError> {
        let (sender, done) = oneshot::channel();
        let (range, epoch) = self.shared.queue.push(batch, Some(sender))?;
        Ok(Ticket { range, epoch, done })
    }

    fn append_lazy(&self, mut batch: Batch) -> Result<SequenceRange, LogError> {
        self.shared.queue.push(&mut batch, None).map(|(range, _)| range)
    }

    async fn room(&self) -> Result<(), LogError> {
        loop {
            let mut notified = std::pin::pin!(self.shared.queue.room.notified());
            notified.as_mut().enable();
            if self.shared.queue.has_room()? {
                return Ok(());
            }
            notified.await;
        }
    }

    fn durable(&self) -> watch::Receiver<Sequence> {
        self.shared.durable.subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Block>, LogError> {
        if let Some(blocks) = self.read_recent(after, limits) {
            return Ok(blocks);
        }
        let (first, last) = {
            let view = self.shared.view.read();
            (view.first(), view.last)
        };
        if after > last || after.next() < first {
            return Err(self.out_of_range(after.next()));
        }
        // A generation may become a segment between the look at the index and the read: then the second look finds it there.
        for _ in 0..2 {
            let sealed = {
                let view = self.shared.view.read();
                let at = view.segments.partition_point(|segment| segment.entry.last <= after);
                view.segments[at..].to_vec()
            };
            if !sealed.is_empty() {
                return self.read_sealed(&sealed, after, limits);
            }
            match self.read_hot(after, limits) {
                Err(LogError::WriteFailed { .. }) => {}
                other => return other,
            }
        }
        self.read_hot(after, limits)
    }

    fn read_recent(&self, after: Sequence, limits: ReadLimits) -> Option<Vec<Block>> {
        self.shared.view.read().recent(after, limits)
    }

    fn block_mark(&self, sequence: Sequence) -> Result<BlockMark, LogError> {
        if sequence == Sequence::ZERO {
            return Ok(BlockMark::default());
        }
        let view = self.shared.view.read();
        let at = view.segments.partition_point(|segment| segment.entry.last < sequence);
        if let Some(segment) = view.segments.get(at).filter(|segment| segment.entry.first <= sequence).cloned() {
            drop(view);
            return segment.mark(sequence, &self.shared.cache);
        }
        let at = view.hot.partition_point(|block| block.last() < sequence);
        match view.hot.get(at).filter(|block| block.mark.first <= sequence) {
            Some(block) => Ok(block.mark),
            None => {
                drop(view);
                Err(self.out_of_range(sequence))
            }
        }
    }

    fn positions(&self, source: &str) -> Vec<(String, Position)> {
        self.shared.live.lock().positions_of(source)
    }

    fn state(&self) -> Vec<StateEntry> {
        self.shared.live.lock().entries()
    }

    fn dedupe(&self, keys: &[DedupeKey]) -> Result<Vec<Option<DedupeHit>>, LogError> {
        let path = self.shared.directory.dedupe();
        self.shared.dedupe.find(keys).map_err(|error| crate::directory::io_error(&path, &error))
    }

    fn stat(&self) -> LogStat {
        let shared = &self.shared;
        let hot_bytes = bytes_on_disk(&shared.directory.hot());
        let sealed_bytes = bytes_on_disk(&shared.directory.sealed()) + bytes_on_disk(&shared.directory.dedupe());
        let (hot_generations, sled_blobs) = {
            let stores = shared.stores.read();
            (stores.len() as u32, stores.values().map(|store| store.blobs()).sum())
        };
        let view = shared.view.read();
        let first_hot = view.hot.front().map_or(view.last.next(), |block| block.mark.first);
        LogStat {
            first: view.first(),
            last: view.last,
            bytes: hot_bytes + sealed_bytes,
            hot_bytes,
            hot_generations,
            segments: view.segments.len() as u32,
            blocks: view.hot.len() as u64 + view.segments.iter().map(|segment| segment.entry.blocks).sum::<u64>(),
            sled_blobs,
            dedupe_entries: shared.dedupe.len(),
            dedupe_from: Dedupe::from(&shared.catalogue.lock(), first_hot),
        }
    }

    fn verify(&self, range: Option<SequenceRange>, progress: &mut dyn FnMut(u64)) -> Result<Verified, LogError> {
        verify::verify(&self.shared, range, progress)
    }

    fn close(&self) {
        self.stop(true);
    }
}
