//! Dead letters of the pseudo-route `ingest`: input that is no event, kept raw, until an operator decides.
//!
//! The raw record and its dead letter are one append. The dead letter stands right behind the record it speaks of, because
//! sequences are given at append: its target is its own sequence minus one.

use std::collections::BTreeMap;

use gravity_log::{Batch, StateEntry};
use gravity_model::Sequence;
use parking_lot::Mutex;

use crate::control::{self, Parked, Stage, UnreadableControl};
use crate::ingest::envelope::Undecodable;

/// The pseudo-route's name.
pub const INGEST: &str = "ingest";

/// Open dead letters of `ingest`, by sequence of the raw record.
#[derive(Debug, Default)]
pub struct IngestLetters {
    open: Mutex<BTreeMap<Sequence, (String, Parked)>>,
    /// Newest one at start.
    newest_at_start: Sequence,
}

impl IngestLetters {
    pub fn load(state: &[StateEntry]) -> Result<IngestLetters, UnreadableControl> {
        let mut letters = IngestLetters::default();
        for entry in state.iter().filter(|e| e.name == control::PARKED) {
            if control::route_of(&entry.key) == Some(INGEST) {
                let parked: Parked = control::read(&entry.name, entry.sequence, &entry.payload)?;
                letters.add(Sequence(entry.sequence.get() - 1), entry.key.clone(), parked);
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
            key: key.map(readable),
            event: subject.to_owned(),
            waiting: false,
            blocks: Vec::new(),
            at: crate::clock::now(),
        };
        control::put(batch, control::PARKED, &state_key, &parked, None);
        (state_key, parked)
    }

    pub fn add(&self, sequence: Sequence, state_key: String, parked: Parked) {
        self.open.lock().insert(sequence, (state_key, Parked { sequence, ..parked }));
    }

    pub fn all(&self) -> Vec<Parked> {
        self.open.lock().values().map(|(_, parked)| parked.clone()).collect()
    }

    pub fn get(&self, sequence: Sequence) -> Option<(String, Parked)> {
        self.open.lock().get(&sequence).cloned()
    }

    pub fn remove(&self, sequence: Sequence) {
        self.open.lock().remove(&sequence);
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
