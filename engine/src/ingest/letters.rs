//! Dead letters of the pseudo-route `ingest`: input that is no event, kept raw, until an operator decides.
//!
//! The raw record and its dead letter are one append. The dead letter stands right behind the record it speaks of, because
//! sequences are given at append: its target is its own sequence minus one. Where a retry failed again the dead letter was
//! written anew, and names its target.

use std::collections::BTreeMap;
use std::sync::Arc;

use gravity_log::{Batch, StateEntry};
use gravity_model::Sequence;
use parking_lot::Mutex;

use crate::control::{self, Parked, Stage, UnreadableControl};
use crate::ingest::envelope::{Undecodable, excerpt};

/// The pseudo-route's name.
pub const INGEST: &str = "ingest";

/// Code of a message beyond the limits of the log, of which only the beginning is kept.
pub const TOO_LARGE: &str = "decode/too-large";

/// Open dead letters at which sources wait for an operator: they are live state, in memory and in every generation of the
/// log. What is under way when the bound is reached still becomes dead letters.
pub const MOST_LETTERS: usize = 100_000;

/// Open dead letters of `ingest`, by sequence of the raw record.
#[derive(Debug, Default)]
pub struct IngestLetters {
    open: Mutex<BTreeMap<Sequence, Letter>>,
    /// Newest one at start.
    newest_at_start: Sequence,
}

#[derive(Debug)]
struct Letter {
    state_key: String,
    parked: Parked,
    /// A decision about it is on its way into the log.
    held: bool,
}

/// Why a dead letter cannot be decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHeld {
    /// It is none.
    Unknown(Sequence),
    /// Another decision about it is on its way.
    Undecided(Sequence),
}

/// One dead letter that nobody else may decide about. Free again when dropped, unless it was closed.
#[derive(Debug)]
pub struct HeldLetter {
    letters: Arc<IngestLetters>,
    pub sequence: Sequence,
    pub state_key: String,
    pub parked: Parked,
}

impl HeldLetter {
    /// Its end is durable.
    pub fn close(self) {
        self.letters.open.lock().remove(&self.sequence);
    }

    /// It stays, with this as its newest error, which is durable.
    pub fn keep(self, parked: Parked) {
        if let Some(letter) = self.letters.open.lock().get_mut(&self.sequence) {
            letter.parked = parked;
        }
    }
}

impl Drop for HeldLetter {
    fn drop(&mut self) {
        if let Some(letter) = self.letters.open.lock().get_mut(&self.sequence) {
            letter.held = false;
        }
    }
}

impl IngestLetters {
    pub fn load(state: &[StateEntry]) -> Result<IngestLetters, UnreadableControl> {
        let mut letters = IngestLetters::default();
        for entry in state.iter().filter(|e| e.name == control::PARKED) {
            if control::route_of(&entry.key) == Some(INGEST) {
                let parked: Parked = control::read(&entry.name, entry.sequence, &entry.payload)?;
                let target = match parked.sequence {
                    Sequence::ZERO => Sequence(entry.sequence.get() - 1),
                    named => named,
                };
                letters.add(target, entry.key.clone(), parked);
            }
        }
        letters.newest_at_start = letters.newest();
        Ok(letters)
    }

    fn newest(&self) -> Sequence {
        self.open.lock().last_key_value().map_or(Sequence::ZERO, |(sequence, _)| *sequence)
    }

    /// True when dead letters came in since the start.
    pub fn has_new(&self) -> bool {
        self.newest() > self.newest_at_start
    }

    pub fn is_full(&self) -> bool {
        self.open.lock().len() >= MOST_LETTERS
    }

    /// Writes the dead letter of the record just pushed into `batch`; returns its state key and itself, for [`Self::add`]
    /// once sequences are known.
    pub fn write(batch: &mut Batch, why: &Undecodable, key: Option<&[u8]>, subject: &str) -> (String, Parked) {
        let state_key = format!("{INGEST}#{}", uuid::Uuid::new_v4().simple());
        let parked = Parked {
            route: INGEST.to_owned(),
            sequence: Sequence::ZERO,
            stage: Stage::Decode,
            code: why.code.to_owned(),
            error: why.detail.clone(),
            rule: None,
            key: key.map(|key| excerpt(&readable(key)).into_owned()),
            event: subject.to_owned(),
            waiting: false,
            blocks: Vec::new(),
            at: crate::clock::now(),
        };
        control::put(batch, control::PARKED, &state_key, &parked, None);
        (state_key, parked)
    }

    pub fn add(&self, sequence: Sequence, state_key: String, parked: Parked) {
        let letter = Letter { state_key, parked: Parked { sequence, ..parked }, held: false };
        self.open.lock().insert(sequence, letter);
    }

    pub fn all(&self) -> Vec<Parked> {
        self.open.lock().values().map(|letter| letter.parked.clone()).collect()
    }

    /// Holds these dead letters, all or none; a sequence that is named twice is held once.
    pub fn hold(self: &Arc<Self>, sequences: &[u64]) -> Result<Vec<HeldLetter>, NotHeld> {
        let mut open = self.open.lock();
        for sequence in sequences.iter().copied().map(Sequence) {
            match open.get(&sequence) {
                None => return Err(NotHeld::Unknown(sequence)),
                Some(letter) if letter.held => return Err(NotHeld::Undecided(sequence)),
                Some(_) => {}
            }
        }
        let wanted = sequences.iter().copied().map(Sequence);
        Ok(wanted.filter_map(|sequence| self.hold_one(sequence, open.get_mut(&sequence)?)).collect())
    }

    /// Holds every dead letter that is free.
    pub fn hold_all(self: &Arc<Self>) -> Vec<HeldLetter> {
        let mut open = self.open.lock();
        open.iter_mut().filter_map(|(sequence, letter)| self.hold_one(*sequence, letter)).collect()
    }

    fn hold_one(self: &Arc<Self>, sequence: Sequence, letter: &mut Letter) -> Option<HeldLetter> {
        if std::mem::replace(&mut letter.held, true) {
            return None;
        }
        let (state_key, parked) = (letter.state_key.clone(), letter.parked.clone());
        Some(HeldLetter { letters: self.clone(), sequence, state_key, parked })
    }
}

/// A key for people: text as it is, other bytes in base64 behind a mark.
pub fn readable(key: &[u8]) -> String {
    use base64::Engine;
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(sequences: &[u64]) -> Arc<IngestLetters> {
        let letters = Arc::new(IngestLetters::default());
        for sequence in sequences {
            let why = Undecodable { code: "decode/not-json", detail: "no".to_owned(), at: None };
            let (state_key, parked) = IngestLetters::write(&mut Batch::new(), &why, None, "t");
            letters.add(Sequence(*sequence), state_key, parked);
        }
        letters
    }

    #[test]
    fn a_dead_letter_is_decided_about_once() {
        let letters = with(&[1, 2, 3]);
        let held = letters.hold(&[2, 2]).expect("free");
        assert_eq!(held.len(), 1);
        assert_eq!(letters.hold(&[1, 2]).expect_err("held"), NotHeld::Undecided(Sequence(2)));
        assert_eq!(letters.hold(&[1, 9]).expect_err("none"), NotHeld::Unknown(Sequence(9)));
        assert_eq!(letters.hold_all().len(), 2, "nothing is held by a hold that failed");
        assert_eq!(letters.all().len(), 3, "what is held is still shown");
        drop(held);
        letters.hold(&[2]).expect("free again").into_iter().for_each(HeldLetter::close);
        assert_eq!(letters.all().len(), 2);
    }

    #[test]
    fn keys_are_shown_as_text_or_in_base64() {
        assert_eq!(readable(b"k\xc3\xa9y"), "k\u{e9}y");
        assert_eq!(readable(b"\xff"), "base64:/w==");
    }
}
