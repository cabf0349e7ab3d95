//! The log's side of a source, as small as it can be: positions move with the records, duplicates are dropped by position.

use std::collections::BTreeMap;

use gravity_model::Headers;
use gravity_model::port::source::{Position, PositionBook, SourceBatch};
use parking_lot::Mutex;

use super::Published;

/// A record that the book took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub slot: String,
    /// Offset of the record: one less than the position after it.
    pub offset: u64,
    pub message: Published,
}

#[derive(Default)]
struct Inner {
    positions: BTreeMap<String, Position>,
    taken: Vec<Taken>,
    duplicates: usize,
}

/// See the module.
#[derive(Default)]
pub struct Book {
    inner: Mutex<Inner>,
}

impl Book {
    /// Appends what is new and counts what is not.
    pub fn take(&self, batch: &SourceBatch) {
        let mut inner = self.inner.lock();
        for record in &batch.records {
            let slot = &batch.slots[usize::from(record.slot)];
            let slot = slot.position.as_deref().expect("a source with positions names its slots");
            let known = inner.positions.get(slot).map_or(0, |position| position.next);
            if record.position.next <= known {
                inner.duplicates += 1;
                continue;
            }
            inner.positions.insert(slot.to_owned(), record.position);
            let headers = Headers::from_encoded(batch.bytes(record.headers)).expect("headers as HeaderBuf writes them");
            let message = Published {
                key: record.key.map(|span| batch.bytes(span).to_vec()),
                payload: record.payload.map(|span| batch.bytes(span).to_vec()),
                headers: headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
                time: record.time,
            };
            inner.taken.push(Taken { slot: slot.to_owned(), offset: record.position.next - 1, message });
        }
    }

    pub fn len(&self) -> usize {
        self.inner.lock().taken.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.inner.lock().taken.clone()
    }

    /// Payloads as text, in order of arrival.
    pub fn payloads(&self) -> Vec<String> {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        self.inner.lock().taken.iter().map(|t| t.message.payload.as_ref().map_or_else(String::new, text)).collect()
    }

    /// Records that came again.
    pub fn duplicates(&self) -> usize {
        self.inner.lock().duplicates
    }

    /// A book that stands at the same positions but has taken nothing: the log after a restart.
    pub fn reopened(&self) -> Book {
        let positions = self.inner.lock().positions.clone();
        Book { inner: Mutex::new(Inner { positions, ..Inner::default() }) }
    }

    /// Moves one slot by hand.
    pub fn set(&self, slot: &str, next: u64) {
        let mut inner = self.inner.lock();
        let detail = inner.positions.get(slot).map_or(0, |position| position.detail);
        inner.positions.insert(slot.to_owned(), Position { next, detail });
    }
}

impl PositionBook for Book {
    fn position(&self, slot: &str) -> Option<Position> {
        self.inner.lock().positions.get(slot).copied()
    }

    fn positions(&self) -> Vec<(String, Position)> {
        self.inner.lock().positions.iter().map(|(slot, position)| (slot.clone(), *position)).collect()
    }
}
