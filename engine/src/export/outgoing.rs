//! Messages on their way out, in order, and how many of them a target is handed at once.

use std::time::Duration;

use gravity_model::port::export::Message;
use gravity_model::{Fault, Sequence};
use hashbrown::{HashMap, HashSet};

use crate::export::backlog::Place;

/// Messages that are prepared at once.
pub const MOST_MESSAGES: usize = 512;
pub const MOST_BYTES: usize = 4 << 20;

/// What it takes to park a message, or to move the cursor over it.
#[derive(Clone, Debug)]
pub struct Mark {
    pub place: Place,
    /// Digest of the message's key; messages of one key leave in order.
    pub key: Option<u128>,
    /// Position among the events that a retry or skip released; 0 where the message stands for itself.
    pub index: u64,
}

/// What the cursor moves over once all of a batch is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// The log up to this sequence.
    Log { through: Sequence },
    /// Of the events that the decision at `record` released, the first `done`.
    Released { record: Sequence, done: u64 },
}

/// See the module's comment. `marks` and `messages` run in parallel.
#[derive(Debug)]
pub struct Outgoing {
    pub stretch: Stretch,
    pub marks: Vec<Mark>,
    pub messages: Vec<Message>,
    bytes: usize,
}

impl Outgoing {
    pub fn new(stretch: Stretch) -> Outgoing {
        Outgoing { stretch, marks: Vec::new(), messages: Vec::new(), bytes: 0 }
    }

    pub fn push(&mut self, mark: Mark, message: Message) {
        self.bytes += size(&message);
        self.marks.push(mark);
        self.messages.push(message);
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.messages.len() >= MOST_MESSAGES || self.bytes >= MOST_BYTES
    }

    pub fn clear(&mut self) {
        self.marks.clear();
        self.messages.clear();
        self.bytes = 0;
    }

    /// Takes out what `leaves` says, in order.
    pub fn take(&mut self, mut leaves: impl FnMut(&Mark) -> bool) -> Vec<(Mark, Message)> {
        let mut taken = Vec::new();
        let (marks, messages) = (std::mem::take(&mut self.marks), std::mem::take(&mut self.messages));
        self.bytes = 0;
        for (mark, message) in marks.into_iter().zip(messages) {
            if leaves(&mark) {
                taken.push((mark, message));
            } else {
                self.push(mark, message);
            }
        }
        taken
    }
}

fn size(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.body.len() + message.key.as_ref().map_or(0, |key| key.len()) + headers + message.id.len()
}

/// What became of one hand-over.
#[derive(Debug, Default)]
pub struct Attempt {
    pub confirmed: Vec<Mark>,
    /// Never to be delivered, with the target's words.
    pub refused: Vec<(Mark, Message, Fault)>,
    /// Why the others are left: the gravest reason, and how long the target wants to be left alone.
    pub trouble: Option<(Fault, Option<Duration>)>,
}

/// How much a target is handed at once. Between two hand-overs a pause is honoured and the cursor noted, so a slow target
/// gets less: exporters send the messages of one key one after the other, and those of [`SIDE_BY_SIDE`] keys side by side.
#[derive(Debug)]
pub struct Pace {
    /// Most messages of one key.
    deep: usize,
}

/// So many requests, roughly, an exporter keeps under way.
const SIDE_BY_SIDE: usize = 32;
const SLOW: Duration = Duration::from_secs(1);
const FAST: Duration = Duration::from_millis(250);

impl Pace {
    pub fn new() -> Pace {
        Pace { deep: 8 }
    }

    /// How many of the first messages to hand over: at least one, if there is one.
    pub fn of(&self, marks: &[Mark]) -> usize {
        let most = marks.len().min(self.deep.saturating_mul(SIDE_BY_SIDE)).min(MOST_MESSAGES);
        let mut of_key: HashMap<u128, usize> = HashMap::new();
        for (at, mark) in marks[..most].iter().enumerate() {
            let Some(key) = mark.key else { continue };
            let count = of_key.entry(key).or_default();
            *count += 1;
            if *count > self.deep {
                return at;
            }
        }
        most
    }

    pub fn took(&mut self, time: Duration) {
        if time >= SLOW {
            self.deep = (self.deep / 2).max(1);
        } else if time < FAST {
            self.deep = (self.deep * 2).min(MOST_MESSAGES);
        }
    }
}

/// Keys of `marks`, for what must not overtake them.
pub fn keys<'m>(marks: impl IntoIterator<Item = &'m Mark>) -> HashSet<u128> {
    marks.into_iter().filter_map(|mark| mark.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(keys: impl IntoIterator<Item = Option<u128>>) -> Vec<Mark> {
        let place = Place::of(Sequence(1), None);
        keys.into_iter().map(|key| Mark { place, key, index: 0 }).collect()
    }

    #[test]
    fn a_slow_target_is_handed_little_and_a_fast_one_much() {
        let (one, many) = (marks([Some(7); 600]), marks((0..600).map(Some)));
        let mut pace = Pace::new();
        for _ in 0..10 {
            pace.took(Duration::from_secs(30));
        }
        assert_eq!((pace.of(&one), pace.of(&many)), (1, SIDE_BY_SIDE));
        for _ in 0..10 {
            pace.took(Duration::from_millis(3));
        }
        assert_eq!((pace.of(&one), pace.of(&many)), (MOST_MESSAGES, MOST_MESSAGES));
        assert_eq!(pace.of(&marks([None; 3])), 3);
        assert_eq!(pace.of(&[]), 0);
    }
}
