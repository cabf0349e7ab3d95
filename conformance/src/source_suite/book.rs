//! The log's side of a source, as small as it can be: positions move with the records, duplicates are dropped by position, or
//! where there is none by the producer's id, or by the content of what the broker says it delivers again.

use std::collections::{BTreeMap, BTreeSet};

use gravity_model::Headers;
use gravity_model::port::source::{Break, Position, PositionBook, Repeat, SourceBatch, SourceRecord};
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
    /// With the number of records that came before it.
    breaks: Vec<(usize, Break)>,
    duplicates: usize,
    ids: BTreeSet<Vec<u8>>,
    /// Contents that an earlier book took, each as often as it did.
    before: Vec<Vec<u8>>,
    /// Contents that this one took.
    contents: Vec<Vec<u8>>,
}

impl Inner {
    /// Whether a record without a position came before; it is remembered now.
    fn is_known(&mut self, batch: &SourceBatch, record: &SourceRecord) -> bool {
        match record.repeat {
            Repeat::ByPosition => false,
            Repeat::ById(id) => !self.ids.insert(batch.bytes(id).to_vec()),
            Repeat::ByContent { redelivered } => {
                let mut content = batch.bytes(record.headers).to_vec();
                content.extend_from_slice(record.payload.map_or(&[], |span| batch.bytes(span)));
                let before = self.before.iter().position(|known| *known == content).filter(|_| redelivered);
                match before {
                    Some(at) => drop(self.before.swap_remove(at)),
                    None => self.contents.push(content),
                }
                before.is_some()
            }
        }
    }
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
        for found in &batch.breaks {
            let name = batch.slots[usize::from(found.slot)].position.as_deref().expect("only positions break");
            let known = inner.positions.get(name).map_or(0, |position| position.next);
            if found.position.next >= known {
                inner.positions.insert(name.to_owned(), found.position);
            }
            let before = inner.taken.len();
            inner.breaks.push((before, found.clone()));
        }
        for record in &batch.records {
            let slot = &batch.slots[usize::from(record.slot)];
            let name = slot.position.as_deref().or(slot.queue.as_deref()).expect("a slot has positions, or a queue");
            let known = inner.positions.get(name).map_or(0, |position| position.next);
            let position = match slot.position {
                Some(_) => record.position,
                // Numbers of our own, for what is taken.
                None => Position { next: known + 1, detail: 0 },
            };
            if position.next <= known || slot.position.is_none() && inner.is_known(batch, record) {
                inner.duplicates += 1;
                continue;
            }
            inner.positions.insert(name.to_owned(), position);
            let headers = Headers::from_encoded(batch.bytes(record.headers)).expect("headers as HeaderBuf writes them");
            let message = Published {
                key: record.key.map(|span| batch.bytes(span).to_vec()),
                payload: record.payload.map(|span| batch.bytes(span).to_vec()),
                headers: headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
                time: record.time,
            };
            inner.taken.push(Taken { slot: name.to_owned(), offset: position.next - 1, message });
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

    /// Accepted breaks, each with the number of records that came before it.
    pub fn breaks(&self) -> Vec<(usize, Break)> {
        self.inner.lock().breaks.clone()
    }

    /// Records that came again.
    pub fn duplicates(&self) -> usize {
        self.inner.lock().duplicates
    }

    /// A book that stands at the same positions but has taken nothing: the log after a restart.
    pub fn reopened(&self) -> Book {
        let inner = self.inner.lock();
        let (positions, ids) = (inner.positions.clone(), inner.ids.clone());
        let before = inner.before.iter().chain(&inner.contents).cloned().collect();
        Book { inner: Mutex::new(Inner { positions, ids, before, ..Inner::default() }) }
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
