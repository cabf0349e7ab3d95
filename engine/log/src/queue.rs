//! What waits for the disk: batches in the order of their sequences, who waits for them, and how much may wait.

use std::time::Instant;

use gravity_model::Sequence;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use crate::api::{Batch, Epoch, LogError, SequenceRange};
use crate::recover::ChainHead;

pub(crate) type Done = oneshot::Sender<Result<(), LogError>>;

/// A batch with its place.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub first: Sequence,
    pub batch: Batch,
    pub done: Option<Done>,
}

/// Whether appends are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    Open,
    Failed(String),
    Closed,
}

pub(crate) struct State {
    pub intake: Intake,
    pub next: Sequence,
    pub waiting: Vec<Waiting>,
    /// Of the batches in `waiting`.
    pub waiting_bytes: usize,
    /// Of everything that is not durable yet.
    pub pending_bytes: usize,
    /// When the first batch that somebody waits for came, and the first that nobody waits for.
    pub first_durable: Option<Instant>,
    pub first_lazy: Option<Instant>,
    /// Raised when everything under way was given up; `head` is then where the chain goes on.
    pub epoch: u64,
    pub head: ChainHead,
    /// Groups handed to the committer and not finished.
    pub in_flight: usize,
    /// A generation waits to be sealed or is being sealed.
    pub sealing: bool,
    /// Batches are to be committed without waiting for more.
    pub hurry: bool,
    pub stop: bool,
}

pub(crate) struct Queue {
    pub state: Mutex<State>,
    /// Something to encode, or to stop for.
    pub work: Condvar,
    /// The committer finished something, or sealing ended.
    pub progress: Condvar,
    pub room: Notify,
    /// Bytes that may be pending.
    pub limit: usize,
    /// An encoder that waits for its linger is woken when this much waits.
    pub full_at: usize,
}

impl Queue {
    pub fn new(head: ChainHead, limit: usize, full_at: usize) -> Queue {
        let state = State {
            intake: Intake::Open,
            next: head.next,
            waiting: Vec::new(),
            waiting_bytes: 0,
            pending_bytes: 0,
            first_durable: None,
            first_lazy: None,
            epoch: 0,
            head,
            in_flight: 0,
            sealing: false,
            hurry: false,
            stop: false,
        };
        Queue {
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            room: Notify::new(),
            limit,
            full_at,
        }
    }

    /// Takes `batch` in and leaves it empty; on an error it is as it was.
    pub fn push(&self, batch: &mut Batch, done: Option<Done>) -> Result<(SequenceRange, Epoch), LogError> {
        let mut state = self.state.lock();
        let epoch = Epoch(state.epoch);
        match &state.intake {
            Intake::Open => {}
            Intake::Failed(detail) => return Err(LogError::WriteFailed { detail: detail.clone() }),
            Intake::Closed => return Err(LogError::Closed),
        }
        batch.check(epoch)?;
        if done.is_some() && state.pending_bytes > self.limit {
            return Err(LogError::Busy);
        }
        let first = state.next;
        let bytes = batch.bytes();
        state.next = first.plus(u64::from(batch.count));
        state.waiting_bytes += bytes;
        state.pending_bytes += bytes;
        let now = Instant::now();
        // The encoder sleeps until its deadline; it must be woken when there was none, or when it has become earlier.
        let wake = if done.is_some() {
            let none = state.first_durable.is_none();
            state.first_durable.get_or_insert(now);
            none
        } else {
            let none = state.first_lazy.is_none() && state.first_durable.is_none();
            state.first_lazy.get_or_insert(now);
            none
        };
        let range = SequenceRange { first, last: Sequence(state.next.get() - 1) };
        let full_before = state.waiting_bytes - bytes >= self.full_at;
        state.waiting.push(Waiting { first, batch: std::mem::take(batch), done });
        let full = state.waiting_bytes >= self.full_at && !full_before;
        drop(state);
        if wake || full {
            self.work.notify_one();
        }
        Ok((range, epoch))
    }

    /// Whether `append` would be taken now.
    pub fn has_room(&self) -> Result<bool, LogError> {
        let state = self.state.lock();
        match state.intake {
            Intake::Open => Ok(state.pending_bytes <= self.limit),
            Intake::Failed(_) => Ok(false),
            Intake::Closed => Err(LogError::Closed),
        }
    }

    /// Gives back the room of what became durable or failed.
    pub fn finished(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.pending_bytes = state.pending_bytes.saturating_sub(bytes);
        state.in_flight = state.in_flight.saturating_sub(1);
        let room = state.pending_bytes <= self.limit;
        drop(state);
        self.progress.notify_all();
        if room {
            self.room.notify_waiters();
        }
    }
}
