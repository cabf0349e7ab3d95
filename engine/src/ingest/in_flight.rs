//! Appends of one source that are not durable yet, oldest first, and what becomes true with each of them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use gravity_log::{Epoch, LogError, SequenceRange};
use gravity_model::Sequence;
use gravity_model::port::source::AckToken;

use crate::control::Parked;
use crate::ingest::gauge::Appended;
use crate::ingest::letters::IngestLetters;

type Pending = Pin<Box<dyn Future<Output = Result<SequenceRange, LogError>> + Send>>;

/// See the module's comment.
pub struct InFlight {
    queue: VecDeque<Waiting>,
    /// Of the newest append.
    epoch: Option<Epoch>,
    letters: Arc<IngestLetters>,
}

struct Waiting {
    /// `None`: nothing but what is before it has to become durable.
    pending: Option<Pending>,
    /// Set on the last append of a source batch.
    token: Option<AckToken>,
    /// Dead letters that exist once the append is durable.
    letters: Vec<(Sequence, String, Parked)>,
}

impl InFlight {
    pub fn new(letters: Arc<IngestLetters>) -> InFlight {
        InFlight { queue: VecDeque::new(), epoch: None, letters }
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What the next append has to require, so that it is not stored without those before it.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch.filter(|_| !self.queue.is_empty())
    }

    /// `letters`: (index in the append, state key, dead letter).
    pub fn push(&mut self, appended: Appended, letters: Vec<(u64, String, Parked)>) {
        let first = appended.range().first;
        self.epoch = Some(appended.epoch());
        let letters = letters.into_iter().map(|(index, key, parked)| (first.plus(index), key, parked)).collect();
        self.queue.push_back(Waiting { pending: Some(Box::pin(appended.durable())), token: None, letters });
    }

    /// `token` is given out once everything that was pushed so far is durable.
    pub fn acknowledge_after(&mut self, token: AckToken) {
        match self.queue.back_mut() {
            Some(newest) => newest.token = Some(token),
            None => self.queue.push_back(Waiting { pending: None, token: Some(token), letters: Vec::new() }),
        }
    }

    /// Waits for the oldest append. Cancel-safe: it stays until it is ready. `None` also where nothing is in flight.
    pub async fn next(&mut self) -> Result<Option<AckToken>, LogError> {
        let Some(oldest) = self.queue.front_mut() else { return Ok(None) };
        let done = match &mut oldest.pending {
            Some(pending) => pending.as_mut().await.map(|_| ()),
            None => Ok(()),
        };
        let Some(oldest) = self.queue.pop_front() else { return Ok(None) };
        done?;
        oldest.letters.into_iter().for_each(|(sequence, key, parked)| self.letters.add(sequence, key, parked));
        Ok(oldest.token)
    }

    /// Waits until the fate of everything in flight is known: stored, with its dead letters, or never. Nothing is
    /// acknowledged. Cancel-safe.
    pub async fn settle(&mut self) {
        while !self.queue.is_empty() {
            if let Err(error) = self.next().await {
                tracing::debug!(%error, "an append failed; its records will be delivered again");
            }
        }
    }
}
