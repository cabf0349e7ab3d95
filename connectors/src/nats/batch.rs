//! Copies messages into a [`SourceBatch`].

use std::sync::Arc;

use async_nats::Message;
use gravity_model::port::source::{BatchLimits, Position, Repeat, Slot, SourceBatch, SourceRecord};
use gravity_model::{HeaderBuf, Micros};
use hashbrown::HashMap;

use super::rescue::RawMessage;

/// What the server calls the id that a publisher gave; kept as a header like any other.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The batch being filled.
pub(super) struct BatchBuilder {
    batch: SourceBatch,
    limits: BatchLimits,
    /// Name of the stream in the log; `None` for core subjects.
    slot: Option<Arc<str>>,
    slots: HashMap<Arc<str>, u16>,
    headers: HeaderBuf,
}

impl BatchBuilder {
    pub(super) fn new(limits: BatchLimits, slot: Option<Arc<str>>) -> BatchBuilder {
        BatchBuilder {
            batch: SourceBatch::default(),
            // A batch counts its subjects in 16 bits.
            limits: BatchLimits { max_records: limits.max_records.clamp(1, usize::from(u16::MAX)), ..limits },
            slot,
            slots: HashMap::new(),
            headers: HeaderBuf::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batch.records.is_empty()
    }

    /// True when `message` may still join; the first always may.
    pub(super) fn has_room_for(&self, message: &Message) -> bool {
        self.is_empty()
            || self.batch.records.len() < self.limits.max_records
                && self.batch.arena.len() + message.length <= self.limits.max_bytes
    }

    /// Copies one message. `next`: the stream sequence behind it.
    pub(super) fn push(&mut self, message: &Message, next: u64, time: Option<Micros>) {
        self.headers.clear();
        if let Some(map) = &message.headers {
            // The client keeps them in a hash map: values of one name in order, names in none. What is stored must not depend
            // on chance, so names are sorted.
            let mut names: Vec<_> = map.iter().collect();
            names.sort_by(|(a, _), (b, _)| AsRef::<str>::as_ref(a).cmp(AsRef::<str>::as_ref(b)));
            for (name, values) in names {
                for value in values {
                    self.headers.push(name.as_ref(), value.as_str().as_bytes());
                }
            }
        }
        self.store(message.subject.as_str(), &message.payload, next, time);
    }

    /// The same for a message that the client could not read, taken from the stream by its number.
    pub(super) fn push_raw(&mut self, raw: &RawMessage) {
        self.headers.clear();
        raw.headers.iter().for_each(|(name, value)| self.headers.push(name, value));
        self.store(&raw.subject, &raw.payload, raw.sequence + 1, raw.time);
    }

    fn store(&mut self, subject: &str, payload: &[u8], next: u64, time: Option<Micros>) {
        let slot = match self.slots.get(subject) {
            Some(slot) => *slot,
            None => {
                let index = self.batch.slots.len() as u16;
                let subject: Arc<str> = Arc::from(subject);
                self.batch.slots.push(Slot { position: self.slot.clone(), subject: Arc::clone(&subject), queue: None });
                self.slots.insert(subject, index);
                index
            }
        };
        let payload = Some(self.batch.store(payload));
        let headers = self.batch.store(self.headers.as_encoded());
        let position = Position { next, detail: 0 };
        self.batch.records.push(SourceRecord {
            payload,
            key: None,
            headers,
            time,
            slot,
            position,
            repeat: Repeat::ByPosition,
        });
    }

    pub(super) fn finish(self) -> SourceBatch {
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::HeaderMap;
    use gravity_model::Headers;

    use super::*;

    fn message(subject: &str, headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.append(*name, *value));
        Message {
            subject: subject.into(),
            reply: None,
            payload: "p".into(),
            headers: (!headers.is_empty()).then_some(map),
            status: None,
            description: None,
            length: 100,
        }
    }

    #[test]
    fn one_slot_per_subject_and_headers_in_an_order_of_their_own() {
        let limits = BatchLimits { max_records: 10, max_bytes: 1000, max_wait: Duration::ZERO };
        let mut builder = BatchBuilder::new(limits, Some(Arc::from("S/1")));
        let headers = [("b", "1"), ("a", "x"), ("b", "2"), (MESSAGE_ID, "id-1")];
        builder.push(&message("o.1", &headers), 2, Some(5));
        builder.push(&message("o.2", &[]), 3, None);
        builder.push(&message("o.1", &[]), 4, None);
        let batch = builder.finish();
        let subjects: Vec<&str> = batch.slots.iter().map(|slot| &*slot.subject).collect();
        assert_eq!(subjects, ["o.1", "o.2"]);
        assert_eq!(batch.records.iter().map(|record| record.slot).collect::<Vec<_>>(), [0, 1, 0]);
        let stored = Headers::from_encoded(batch.bytes(batch.records[0].headers)).expect("encoded by us");
        let stored: Vec<(&str, &[u8])> = stored.iter().collect();
        assert_eq!(stored, [(MESSAGE_ID, &b"id-1"[..]), ("a", b"x"), ("b", b"1"), ("b", b"2")]);
    }

    #[test]
    fn the_first_message_always_has_room() {
        let limits = BatchLimits { max_records: 2, max_bytes: 10, max_wait: Duration::ZERO };
        let mut builder = BatchBuilder::new(limits, None);
        assert!(builder.has_room_for(&message("o", &[])));
        builder.push(&message("o", &[]), 0, None);
        assert!(!builder.has_room_for(&message("o", &[])));
    }
}
