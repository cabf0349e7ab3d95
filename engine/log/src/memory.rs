//! An event log in memory: the double for engine tests, with the same contract and with faults on command.

use std::collections::HashMap;
use std::sync::Arc;

use gravity_model::ident::{BlockMark, Digest};
use gravity_model::port::source::Position;
use gravity_model::{LogId, Sequence};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::api::{
    Batch, Block, DedupeHit, DedupeKey, Epoch, EventLog, Health, Identity, LogError, LogStat, ReadLimits,
    SequenceRange, StateEntry, Ticket, Verified,
};
use crate::block::{self, Head};
use crate::live::Live;
use crate::opening;
use crate::record::Records;

/// What survives when a [`MemoryLog`] is dropped without `close`: the durable part.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    log_id: Option<LogId>,
    blocks: Vec<Block>,
    live: Live,
    dedupe: HashMap<DedupeKey, DedupeHit>,
    open: bool,
}

/// See the module. Appends are durable at once unless [`MemoryLog::hold`] was called.
pub struct MemoryLog {
    identity: Identity,
    disk: MemoryDisk,
    state: Mutex<State>,
    room: Notify,
    durable: watch::Sender<Sequence>,
    health: watch::Sender<Health>,
}

struct State {
    next: Sequence,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    queue_bytes: usize,
    held: bool,
    /// Grows when what waits fails.
    epoch: u64,
}

struct Waiting {
    batch: Batch,
    first: Sequence,
    done: Option<oneshot::Sender<Result<(), LogError>>>,
}

impl MemoryLog {
    /// Opens what `disk` holds. [`LogError::Locked`] while another log has it open.
    pub fn open(disk: &MemoryDisk) -> Result<Arc<MemoryLog>, LogError> {
        let (identity, next) = {
            let mut held = disk.0.lock();
            if held.open {
                return Err(LogError::Locked { directory: "memory".into(), pid: std::process::id().to_string() });
            }
            held.open = true;
            let log_id = *held.log_id.get_or_insert_with(|| LogId(*uuid::Uuid::new_v4().as_bytes()));
            let next = held.blocks.last().map_or(Sequence(1), |block| block.last().next());
            (opening::next_identity(log_id, &held.live), next)
        };
        let log = Arc::new(MemoryLog {
            identity,
            disk: disk.clone(),
            state: Mutex::new(State {
                next,
                waiting: Vec::new(),
                waiting_bytes: 0,
                queue_bytes: 16 << 20,
                held: false,
                epoch: 0,
            }),
            room: Notify::new(),
            durable: watch::Sender::new(Sequence(next.get() - 1)),
            health: watch::Sender::new(Health::Running),
        });
        let mut opened = opening::batch(&log.identity, &log.disk.0.lock().live);
        log.append(&mut opened)?;
        Ok(log)
    }

    /// Appends are accepted but do not become durable until [`MemoryLog::release`].
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    /// What was held becomes durable, in order.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.held = false;
        self.commit(&mut state);
    }

    /// What is held fails, and so does every append until [`MemoryLog::heal`].
    pub fn fail_writes(&self, detail: &str) {
        let mut state = self.state.lock();
        let error = LogError::WriteFailed { detail: detail.to_owned() };
        for waiting in state.waiting.drain(..) {
            if let Some(done) = waiting.done {
                let _ = done.send(Err(error.clone()));
            }
        }
        state.waiting_bytes = 0;
        state.epoch += 1;
        state.next = self.durable.borrow().next();
        self.health.send_replace(Health::WriteFailed { detail: detail.to_owned() });
        self.room.notify_waiters();
    }

    pub fn heal(&self) {
        let _state = self.state.lock();
        self.health.send_replace(Health::Running);
        self.room.notify_waiters();
    }

    /// Bytes that may wait before `append` answers Busy.
    pub fn limit_queue(&self, bytes: usize) {
        self.state.lock().queue_bytes = bytes;
    }

    fn enqueue(
        &self,
        batch: &mut Batch,
        done: Option<oneshot::Sender<Result<(), LogError>>>,
    ) -> Result<(SequenceRange, Epoch), LogError> {
        let mut state = self.state.lock();
        let epoch = Epoch(state.epoch);
        match &*self.health.borrow() {
            Health::Running => {}
            Health::WriteFailed { detail } => return Err(LogError::WriteFailed { detail: detail.clone() }),
            Health::Closed => return Err(LogError::Closed),
        }
        batch.check(epoch)?;
        if done.is_some() && state.waiting_bytes > state.queue_bytes {
            return Err(LogError::Busy);
        }
        let first = state.next;
        state.next = first.plus(u64::from(batch.count));
        state.waiting_bytes += batch.bytes();
        let range = SequenceRange { first, last: Sequence(state.next.get() - 1) };
        state.waiting.push(Waiting { batch: std::mem::take(batch), first, done });
        if !state.held {
            self.commit(&mut state);
        }
        Ok((range, epoch))
    }

    fn commit(&self, state: &mut State) {
        let mut disk = self.disk.0.lock();
        let mut last = None;
        for Waiting { batch, first, done } in state.waiting.drain(..) {
            for (source, slot, position) in &batch.positions {
                disk.live.move_position(source, slot, *position);
            }
            for entry in &batch.dedupe {
                let first = first.plus(u64::from(entry.event));
                disk.dedupe.insert(entry.key, DedupeHit { body: entry.body, first, count: entry.count });
            }
            if batch.count > 0 {
                let previous = disk.blocks.last().map_or(Digest::default(), |block| block.mark.digest);
                let head = Head { flags: 0, count: batch.count, body_len: batch.records.len() as u32, first, made: 0 };
                let digest = block::digest(&previous, &head, &[], &batch.records);
                for (index, offset) in &batch.states {
                    let mut records = Records::new(&batch.records[*offset as usize..], first.plus(u64::from(*index)));
                    if let Some(recorded) = records.next() {
                        disk.live.apply(&recorded);
                    }
                }
                let block = Block {
                    mark: BlockMark { first, digest },
                    count: batch.count,
                    records: Arc::new(batch.records.into()),
                };
                last = Some(block.last());
                disk.blocks.push(block);
            }
            if let Some(done) = done {
                let _ = done.send(Ok(()));
            }
        }
        state.waiting_bytes = 0;
        drop(disk);
        if let Some(last) = last {
            self.durable.send_replace(last);
        }
        self.room.notify_waiters();
    }

    fn has_room(&self) -> Result<bool, LogError> {
        if *self.health.borrow() == Health::Closed {
            return Err(LogError::Closed);
        }
        let state = self.state.lock();
        Ok(state.waiting_bytes <= state.queue_bytes && *self.health.borrow() == Health::Running)
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        self.disk.0.lock().open = false;
    }
}

#[async_trait::async_trait]
impl EventLog for MemoryLog {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn append(&self, batch: &mut Batch) -> Result<Ticket, LogError> {
        let (sender, done) = oneshot::channel();
        let (range, epoch) = self.enqueue(batch, Some(sender))?;
        Ok(Ticket { range, epoch, done })
    }

    fn append_lazy(&self, mut batch: Batch) -> Result<SequenceRange, LogError> {
        self.enqueue(&mut batch, None).map(|(range, _)| range)
    }

    async fn room(&self) -> Result<(), LogError> {
        loop {
            let notified = self.room.notified();
            if self.has_room()? {
                return Ok(());
            }
            notified.await;
        }
    }

    fn durable(&self) -> watch::Receiver<Sequence> {
        self.durable.subscribe()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Block>, LogError> {
        let disk = self.disk.0.lock();
        let last = *self.durable.borrow();
        if after > last {
            return Err(LogError::OutOfRange { wanted: after, first: Sequence(1), last });
        }
        let from = disk.blocks.partition_point(|block| block.last() <= after);
        let (mut events, mut bytes) = (0, 0);
        let mut out = Vec::new();
        for block in &disk.blocks[from..] {
            out.push(block.clone());
            events += block.count as usize;
            bytes += block.records.len();
            if events >= limits.events || bytes >= limits.bytes {
                break;
            }
        }
        Ok(out)
    }

    fn read_recent(&self, after: Sequence, limits: ReadLimits) -> Option<Vec<Block>> {
        self.read(after, limits).ok()
    }

    fn block_mark(&self, sequence: Sequence) -> Result<BlockMark, LogError> {
        if sequence == Sequence::ZERO {
            return Ok(BlockMark::default());
        }
        let last = *self.durable.borrow();
        if sequence > last {
            return Err(LogError::OutOfRange { wanted: sequence, first: Sequence(1), last });
        }
        let disk = self.disk.0.lock();
        let at = disk.blocks.partition_point(|block| block.last() < sequence);
        Ok(disk.blocks[at].mark)
    }

    fn positions(&self, source: &str) -> Vec<(String, Position)> {
        self.disk.0.lock().live.positions_of(source)
    }

    fn state(&self) -> Vec<StateEntry> {
        self.disk.0.lock().live.entries()
    }

    fn dedupe(&self, keys: &[DedupeKey]) -> Result<Vec<Option<DedupeHit>>, LogError> {
        let disk = self.disk.0.lock();
        Ok(keys.iter().map(|key| disk.dedupe.get(key).copied()).collect())
    }

    fn stat(&self) -> LogStat {
        let disk = self.disk.0.lock();
        let bytes = disk.blocks.iter().map(|block| block.records.len() as u64).sum();
        LogStat {
            first: Sequence(1),
            last: *self.durable.borrow(),
            bytes,
            hot_bytes: bytes,
            hot_generations: 1,
            segments: 0,
            blocks: disk.blocks.len() as u64,
            sled_blobs: 0,
            dedupe_entries: disk.dedupe.len() as u64,
            dedupe_from: Sequence(1),
        }
    }

    fn verify(&self, range: Option<SequenceRange>, progress: &mut dyn FnMut(u64)) -> Result<Verified, LogError> {
        let disk = self.disk.0.lock();
        let mut found = Verified::default();
        let mut previous = Digest::default();
        for block in &disk.blocks {
            let head = Head {
                flags: 0,
                count: block.count,
                body_len: block.records.len() as u32,
                first: block.mark.first,
                made: 0,
            };
            let within = range.is_none_or(|r| block.mark.first <= r.last && block.last() >= r.first);
            if within {
                let range = SequenceRange { first: block.mark.first, last: block.last() };
                if block::digest(&previous, &head, &[], &block.records) != block.mark.digest {
                    found.bad.push(("memory".to_owned(), range, "the digest does not match".to_owned()));
                }
                found.blocks += 1;
                found.events += u64::from(block.count);
                found.bytes += block.records.len() as u64;
                progress(found.events);
                found.head = block.mark.digest;
            }
            previous = block.mark.digest;
        }
        Ok(found)
    }

    fn close(&self) {
        self.release();
        let mut state = self.state.lock();
        state.waiting.clear();
        self.health.send_replace(Health::Closed);
        self.disk.0.lock().open = false;
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gravity_model::Event;

    /// Room may be given after a failed write: what waited for it must not be stored without what was before it.
    #[test]
    fn a_batch_that_requires_an_epoch_is_not_taken_after_a_failed_write() {
        let log = MemoryLog::open(&MemoryDisk::default()).expect("a new disk is not locked");
        let batch = |epoch: Option<Epoch>| {
            let mut batch = Batch::new();
            batch.push(&Event::data("e", "s", b"1"));
            epoch.into_iter().for_each(|epoch| batch.require(epoch));
            batch
        };
        let first = log.append(&mut batch(None)).expect("taken").epoch;
        log.hold();
        let failed = log.append(&mut batch(Some(first))).expect("nothing failed yet");
        log.fail_writes("disk full");
        log.release();
        log.heal();
        let mut late = batch(Some(first));
        assert!(matches!(log.append(&mut late), Err(LogError::WriteFailed { .. })));
        assert_eq!(late.len(), 1, "left as it was");
        assert!(log.append_lazy(batch(Some(first))).is_err());
        failed.wait().expect_err("it was held when writes failed");
        let second = log.append(&mut batch(None)).expect("taken").epoch;
        assert!(second > first);
        log.append(&mut batch(Some(second))).expect("taken").wait().expect("durable");
    }
}
