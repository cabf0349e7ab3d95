//! The committer's thread: the one place where blocks become durable and acknowledged, and where a failed disk is survived.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use gravity_model::failpoint::{Hit, hit, sabotaged};
use gravity_model::ident::BlockMark;

use crate::api::{Block, Health, LogError};
use crate::encode::{Group, Work};
use crate::frame::{self, Frame};
use crate::hot::{self, Store};
use crate::opening::now;
use crate::pack::{Made, Packer};
use crate::queue::Intake;
use crate::record::Records;
use crate::recover::{self, ChainHead, HotBlock};
use crate::shared::Shared;

/// Groups that wait are committed together up to this many packed bytes.
const COMMIT_BYTES: usize = 4 << 20;
/// Between probes of a disk that could not write.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// Why a commit did not happen.
pub(crate) enum Failure {
    /// Nothing is lost but what was being written.
    Write(String),
    /// What the disk holds is unknown.
    Sync(String),
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    pub generation: u32,
    /// None before the first generation began.
    pub store: Option<Arc<dyn Store>>,
    pub head: ChainHead,
    /// Of the next frame.
    pub ordinal: u64,
    /// Through which the disk is known to be good.
    pub durable: u64,
    /// Taken from the channel, not worked on yet.
    held: Option<Work>,
}

impl Committer {
    /// Of a log without generations.
    pub fn new(shared: Arc<Shared>, head: ChainHead) -> Committer {
        Committer { shared, generation: 0, store: None, head, ordinal: 1, durable: 0, held: None }
    }

    /// Of a log whose newest generation was read back and synced.
    pub fn resume(
        shared: Arc<Shared>,
        generation: u32,
        store: Arc<dyn Store>,
        head: ChainHead,
        ordinal: u64,
    ) -> Committer {
        Committer { shared, generation, store: Some(store), head, ordinal, durable: ordinal - 1, held: None }
    }

    /// Runs until the encoder is gone and everything it sent is done.
    pub fn run(mut self, work: &Receiver<Work>) {
        while let Some(next) = self.held.take().or_else(|| work.recv().ok()) {
            let epoch = self.shared.queue.state.lock().epoch;
            let failed = match next {
                Work::Commit(group) if group.epoch == epoch => {
                    let groups = self.gather(group, work);
                    self.commit(groups)
                }
                Work::Roll { epoch: of, generation, made } if of == epoch => {
                    let rolled = self.roll(generation, made);
                    self.shared.queue.finished(0);
                    rolled
                }
                stale => {
                    self.give_up(stale);
                    continue;
                }
            };
            match failed {
                Ok(()) => {}
                Err(Failure::Sync(detail)) => {
                    self.shared.fatal(&detail);
                    self.drain(work);
                }
                Err(Failure::Write(detail)) => self.survive(&detail, work),
            }
        }
    }

    /// Takes the groups that already wait, so that one sync serves them all.
    fn gather(&mut self, first: Group, work: &Receiver<Work>) -> Vec<Group> {
        let size = |group: &Group| group.made.iter().map(|made| made.packed.framed.len()).sum::<usize>();
        let epoch = first.epoch;
        let mut bytes = size(&first);
        let mut groups = vec![first];
        while bytes < COMMIT_BYTES {
            match work.try_recv() {
                Ok(Work::Commit(group)) if group.epoch == epoch => {
                    bytes += size(&group);
                    groups.push(group);
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        groups
    }

    fn commit(&mut self, mut groups: Vec<Group>) -> Result<(), Failure> {
        let first_ordinal = self.ordinal;
        let written = self.write(groups.iter_mut().flat_map(|group| group.made.iter_mut()));
        if sabotaged("log.ack_before_sync") {
            acknowledge(&mut groups, &Ok(()));
        }
        if let Err(failure) = written.and_then(|()| self.sync()) {
            let error = match &failure {
                Failure::Write(detail) => LogError::WriteFailed { detail: detail.clone() },
                Failure::Sync(_) => LogError::Closed,
            };
            acknowledge(&mut groups, &Err(error));
            for group in groups {
                self.shared.queue.finished(group.bytes);
            }
            return Err(failure);
        }
        let _ = hit("log.after_sync");
        self.publish(&mut groups, first_ordinal);
        acknowledge(&mut groups, &Ok(()));
        for group in groups {
            self.shared.queue.finished(group.bytes);
        }
        Ok(())
    }

    /// Writes blocks; they are not durable yet.
    fn write<'a>(&mut self, made: impl Iterator<Item = &'a mut Made>) -> Result<(), Failure> {
        let _ = hit("log.before_write");
        let store = self.store.clone();
        let result = (|| -> io::Result<()> {
            let store = store.as_ref().ok_or_else(hot::closed)?;
            for made in made {
                if hit("log.write") == Hit::Fail {
                    return Err(io::Error::other("injected write error"));
                }
                let frame = Frame { ordinal: self.ordinal, durable: self.durable, salt: self.shared.salt };
                frame::seal(&mut made.packed.framed, frame);
                store.write(self.ordinal, &made.packed.framed)?;
                self.ordinal += 1;
            }
            store.flush()
        })();
        let _ = hit("log.after_write");
        result.map_err(|error| Failure::Write(error.to_string()))
    }

    fn sync(&mut self) -> Result<(), Failure> {
        if hit("log.before_sync") != Hit::Sabotage {
            let synced = match hit("log.sync") {
                Hit::Fail => Err(io::Error::other("injected sync error")),
                _ => self.store.as_ref().ok_or_else(hot::closed).and_then(|store| store.sync()),
            };
            synced.map_err(|error| Failure::Sync(format!("sync failed: {error}")))?;
        }
        self.durable = self.ordinal - 1;
        Ok(())
    }

    /// Makes durable blocks visible. Readers are woken when everything else that became true with them can be seen.
    fn publish(&mut self, groups: &mut [Group], first_ordinal: u64) {
        let mut ordinal = first_ordinal;
        let mut bytes = 0;
        let mut ends_with_events = true;
        {
            let mut live = self.shared.live.lock();
            for group in groups.iter() {
                for (source, slot, position) in &group.positions {
                    live.move_position(source, slot, *position);
                }
                for (sequence, record) in &group.states {
                    if let Some(recorded) = Records::new(record, *sequence).next() {
                        live.apply(&recorded);
                    }
                }
            }
        }
        for group in groups.iter_mut() {
            self.shared.dedupe.add(self.generation, &group.dedupe);
        }
        let mut view = self.shared.view.write();
        for group in groups.iter_mut() {
            for made in &mut group.made {
                let packed = &made.packed;
                bytes += packed.framed.len() as u64;
                ends_with_events = packed.head.count > 0;
                self.head =
                    ChainHead { digest: packed.digest, next: packed.head.first.plus(u64::from(packed.head.count)) };
                if let Some(records) = made.visible.take().filter(|_| packed.head.count > 0) {
                    let mark = BlockMark { first: packed.head.first, digest: packed.digest };
                    let count = packed.head.count;
                    view.hot.push_back(HotBlock {
                        mark,
                        count,
                        ordinal,
                        parts: made.parts,
                        generation: self.generation,
                    });
                    view.remember(Block { mark, count, records: Arc::new(records) }, self.shared.options.ring_bytes);
                }
                ordinal += 1;
            }
        }
        let last = gravity_model::Sequence(self.head.next.get() - 1);
        let moved = last > view.last;
        view.last = last;
        drop(view);
        {
            let mut filling = self.shared.filling.lock();
            filling.bytes += bytes;
            filling.ends_with_events = ends_with_events;
        }
        if moved {
            self.shared.durable.send_replace(last);
        }
    }

    /// Begins a generation; the one before is handed to the sealer.
    pub fn roll(&mut self, generation: u32, mut made: Vec<Made>) -> Result<(), Failure> {
        let directory = self.shared.directory.generation(generation);
        let as_write = |detail: String| Failure::Write(detail);
        let _ = hit("log.before_roll");
        // What an earlier attempt left was never acknowledged.
        crate::directory::remove_tree(&directory).map_err(|error| as_write(error.to_string()))?;
        let store = hot::open(self.shared.options.hot, &directory, self.shared.salt);
        let store = store.map_err(|error| as_write(error.to_string()))?;
        let before = self.store.replace(store.clone());
        let (ordinal, durable) = (self.ordinal, self.durable);
        (self.ordinal, self.durable) = (1, 0);
        if let Err(failure) = self.write(made.iter_mut()).and_then(|()| self.sync()) {
            store.close();
            self.store = before;
            (self.ordinal, self.durable) = (ordinal, durable);
            return Err(failure);
        }
        let _ = hit("log.after_roll");
        let full = std::mem::replace(&mut self.generation, generation);
        if let Some(last) = made.last() {
            self.head = ChainHead { digest: last.packed.digest, next: last.packed.head.first };
        }
        let bytes = made.iter().map(|made| made.packed.framed.len() as u64).sum();
        let begins = full == 0;
        self.shared.stores.write().insert(generation, store);
        *self.shared.filling.lock() =
            crate::shared::Filling { generation, bytes, since: Instant::now(), ends_with_events: false, worn: false };
        if !begins {
            self.shared.seal(full);
        }
        Ok(())
    }

    /// Writes that everything after the chain's head is void, if the disk holds such.
    pub fn declare_void(&mut self, scanned: &recover::Scanned) -> Result<(), Failure> {
        let Some(cut) = scanned.cut() else { return Ok(()) };
        let detail = scanned.torn.as_deref().unwrap_or("");
        tracing::warn!(last_kept = %cut.last_kept, detail, "the log's tail was never acknowledged and is cut");
        let packer = Packer::new(self.shared.options.block_bytes, self.head.digest);
        let mut packer = packer.map_err(|error| Failure::Write(error.to_string()))?;
        let mut made = packer.pack_cut(cut, self.head.next, now());
        self.write(std::iter::once(&mut made)).and_then(|()| self.sync())?;
        self.head.digest = made.packed.digest;
        let mut filling = self.shared.filling.lock();
        filling.bytes += made.packed.framed.len() as u64;
        filling.ends_with_events = false;
        Ok(())
    }

    /// The disk could not write: everything under way fails, reads go on, and the log opens again by itself.
    fn survive(&mut self, detail: &str, work: &Receiver<Work>) {
        tracing::error!(detail, "the log cannot write; appends fail until it can");
        let error = LogError::WriteFailed { detail: detail.to_owned() };
        let waiting = {
            let mut state = self.shared.queue.state.lock();
            if state.intake == Intake::Closed {
                return;
            }
            state.intake = Intake::Failed(detail.to_owned());
            state.epoch += 1;
            state.waiting_bytes = 0;
            state.first_durable = None;
            state.first_lazy = None;
            std::mem::take(&mut state.waiting)
        };
        let bytes: usize = waiting.iter().map(|waiting| waiting.batch.bytes()).sum();
        for waiting in waiting {
            if let Some(done) = waiting.done {
                let _ = done.send(Err(error.clone()));
            }
        }
        {
            let mut state = self.shared.queue.state.lock();
            state.pending_bytes = state.pending_bytes.saturating_sub(bytes);
        }
        self.shared.health.send_replace(Health::WriteFailed { detail: detail.to_owned() });
        self.shared.queue.progress.notify_all();
        loop {
            self.drain(work);
            if self.shared.queue.state.lock().stop {
                return;
            }
            std::thread::sleep(PROBE_EVERY);
            let reopened = match self.shared.directory.probe() {
                Ok(()) => self.reopen(),
                Err(error) => Err(Failure::Write(error.to_string())),
            };
            match reopened {
                Ok(()) => break,
                Err(Failure::Write(detail)) => tracing::debug!(detail, "the log still cannot write"),
                Err(Failure::Sync(detail)) => return self.shared.fatal(&detail),
            }
        }
        {
            let mut state = self.shared.queue.state.lock();
            if state.intake == Intake::Closed {
                return;
            }
            state.head = self.head;
            state.next = self.head.next;
            state.intake = Intake::Open;
        }
        tracing::info!("the log can write again");
        self.shared.health.send_replace(Health::Running);
        self.shared.queue.room.notify_waiters();
    }

    /// A handle that saw an error stays dead: opens the generation anew and reads what is really on the disk.
    fn reopen(&mut self) -> Result<(), Failure> {
        let generation = self.generation;
        let as_write = |detail: String| Failure::Write(detail);
        if let Some(dead) = &self.store {
            dead.close();
        }
        let directory = self.shared.directory.generation(generation);
        let kind = hot::kind_of(&directory).unwrap_or(self.shared.options.hot);
        let store = hot::open(kind, &directory, self.shared.salt).map_err(|error| as_write(error.to_string()))?;
        self.store = Some(store.clone());
        self.shared.stores.write().insert(generation, store.clone());
        let scanned = recover::scan(store.as_ref(), self.shared.salt, Some(self.head.digest));
        let scanned = scanned.map_err(|error| as_write(error.to_string()))?;
        if scanned.chain_head() != Some(self.head) || !scanned.damage.is_empty() {
            return Err(as_write("what was durable cannot be read back".to_owned()));
        }
        store.sync().map_err(|error| Failure::Sync(format!("sync failed: {error}")))?;
        self.ordinal = scanned.next_ordinal;
        self.durable = self.ordinal - 1;
        self.declare_void(&scanned)
    }

    /// Fails everything that is in the channel.
    fn drain(&mut self, work: &Receiver<Work>) {
        if let Some(held) = self.held.take() {
            self.give_up(held);
        }
        while let Ok(stale) = work.try_recv() {
            self.give_up(stale);
        }
    }

    fn give_up(&self, work: Work) {
        let bytes = match work {
            Work::Roll { .. } => 0,
            Work::Commit(group) => {
                let error = match &*self.shared.health.borrow() {
                    Health::Closed => LogError::Closed,
                    Health::WriteFailed { detail } => LogError::WriteFailed { detail: detail.clone() },
                    Health::Running => LogError::WriteFailed { detail: "given up with an earlier write".to_owned() },
                };
                let bytes = group.bytes;
                acknowledge(&mut [group], &Err(error));
                bytes
            }
        };
        self.shared.queue.finished(bytes);
    }
}

fn acknowledge(groups: &mut [Group], outcome: &Result<(), LogError>) {
    for group in groups {
        for done in group.done.drain(..) {
            let _ = done.send(outcome.clone());
        }
    }
}
