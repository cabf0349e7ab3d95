//! The encoder's thread: gathers what waits into blocks while the committer writes the ones before.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gravity_model::Sequence;
use gravity_model::port::source::Position;

use crate::block::Remembered;
use crate::live::Carry;
use crate::opening::now;
use crate::pack::{Made, Packer, Placed};
use crate::queue::{Done, Intake, Waiting};
use crate::shared::Shared;

/// What nobody waits for is committed at the latest after this.
const LAZY: Duration = Duration::from_millis(250);
/// One group is about this large, so that encoding one and writing the other overlap.
const GROUP_BYTES: usize = 2 << 20;

/// Work for the committer, in order.
pub(crate) enum Work {
    Commit(Group),
    /// Begin this generation with these blocks.
    Roll {
        epoch: u64,
        generation: u32,
        made: Vec<Made>,
    },
}

/// Blocks that are committed together and what becomes true with them.
#[derive(Default)]
pub(crate) struct Group {
    pub epoch: u64,
    pub made: Vec<Made>,
    pub done: Vec<Done>,
    /// State events, each with its record.
    pub states: Vec<(Sequence, Bytes)>,
    pub positions: Vec<(String, String, Position)>,
    pub dedupe: Vec<Remembered>,
    /// Uncompressed bytes that give room when this is done.
    pub bytes: usize,
    pub next: Sequence,
}

enum Next {
    Stop,
    /// These batches, of this epoch.
    Batches(Vec<Waiting>, u64),
    /// The generation is full; the first batch waiting has this sequence.
    Roll(Sequence, u64),
}

/// Runs until the queue says stop and nothing waits.
pub(crate) fn run(shared: &Arc<Shared>, mut packer: Packer, work: &SyncSender<Work>) {
    let mut epoch = shared.queue.state.lock().epoch;
    loop {
        let next = next(shared);
        let taken_epoch = match &next {
            Next::Stop => return,
            Next::Batches(_, epoch) | Next::Roll(_, epoch) => *epoch,
        };
        if taken_epoch != epoch {
            // Everything under way was given up; the chain goes on where the disk ends.
            epoch = taken_epoch;
            packer.previous = shared.queue.state.lock().head.digest;
        }
        let sent = match next {
            Next::Stop => return,
            Next::Batches(batches, epoch) => work.send(Work::Commit(encode(&mut packer, batches, epoch))),
            Next::Roll(first, epoch) => work.send(roll(shared, &mut packer, first, epoch)),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Waits for batches whose time has come.
fn next(shared: &Shared) -> Next {
    let queue = &shared.queue;
    let mut state = queue.state.lock();
    loop {
        if state.waiting.is_empty() || state.intake != Intake::Open {
            if state.stop {
                return Next::Stop;
            }
            queue.work.wait(&mut state);
            continue;
        }
        let linger = state.first_durable.map(|first| first + shared.options.linger);
        let lazy = state.first_lazy.map(|first| first + LAZY);
        let deadline = [linger, lazy].into_iter().flatten().min().unwrap_or_else(Instant::now);
        let due = state.waiting_bytes >= queue.full_at || state.hurry || state.stop || Instant::now() >= deadline;
        if !due {
            queue.work.wait_until(&mut state, deadline);
            continue;
        }
        if !state.stop && generation_is_full(shared) {
            // The carried state must include everything before it, and only two generations may be open.
            if state.in_flight > 0 || state.sealing {
                queue.progress.wait(&mut state);
                continue;
            }
            state.in_flight += 1;
            return Next::Roll(state.waiting[0].first, state.epoch);
        }
        let mut bytes = 0;
        let mut count = 0;
        for waiting in &state.waiting {
            if count > 0 && bytes + waiting.batch.bytes() > GROUP_BYTES {
                break;
            }
            bytes += waiting.batch.bytes();
            count += 1;
        }
        let taken: Vec<Waiting> = state.waiting.drain(..count).collect();
        state.waiting_bytes -= bytes;
        if state.waiting.is_empty() {
            state.first_durable = None;
            state.first_lazy = None;
        }
        state.in_flight += 1;
        return Next::Batches(taken, state.epoch);
    }
}

fn generation_is_full(shared: &Shared) -> bool {
    let filling = shared.filling.lock();
    if !filling.ends_with_events {
        return false;
    }
    let full = filling.worn
        || filling.bytes >= shared.options.generation_bytes
        || filling.since.elapsed() >= shared.options.generation_age
        || shared.dedupe.is_full(filling.generation);
    full || shared.store(filling.generation).is_some_and(|store| store.fullness() >= 1.0)
}

fn encode(packer: &mut Packer, batches: Vec<Waiting>, epoch: u64) -> Group {
    let mut group = Group { epoch, ..Group::default() };
    let mut placed = Vec::with_capacity(batches.len());
    for Waiting { first, batch, done } in batches {
        group.bytes += batch.bytes();
        group.next = first.plus(u64::from(batch.count));
        group.done.extend(done);
        let records = Bytes::from(batch.records);
        for (index, offset) in batch.states {
            group.states.push((first.plus(u64::from(index)), records.slice(offset as usize..)));
        }
        let dedupe = batch.dedupe.iter().map(|entry| Remembered {
            key: entry.key,
            body: entry.body,
            first: first.plus(u64::from(entry.event)),
            count: entry.count,
        });
        let dedupe: Vec<Remembered> = dedupe.collect();
        group.dedupe.extend_from_slice(&dedupe);
        group.positions.extend_from_slice(&batch.positions);
        placed.push(Placed { first, count: batch.count, records, positions: batch.positions, dedupe });
    }
    packer.pack(placed, now(), &mut group.made);
    group
}

/// The first blocks of the next generation. Nothing is in flight, so live state is exactly what is before `first`.
fn roll(shared: &Shared, packer: &mut Packer, first: Sequence, epoch: u64) -> Work {
    let generation = shared.filling.lock().generation + 1;
    let made = carry(shared.directory.log_id, generation, &shared.live.lock(), packer, first);
    Work::Roll { epoch, generation, made }
}

/// The blocks that carry live state into `generation`.
pub(crate) fn carry(
    log_id: gravity_model::LogId,
    generation: u32,
    live: &crate::live::Live,
    packer: &mut Packer,
    next: Sequence,
) -> Vec<Made> {
    let carry = Carry { log_id, generation, entries: live.entries() };
    packer.pack_carry(&carry.encode(), live.positions(), next, now())
}
