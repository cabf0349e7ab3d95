//! What a log run appends: batch and event at index i are functions of (seed, i), so that any process can say what must be there.

use gravity_log::{DedupeEntry, DedupeKey};
use gravity_model::event::HeaderBuf;
use gravity_model::port::source::Position;
use gravity_model::{Event, EventKind, Sequence};

use crate::torture::random::Random;

/// Source under which the run's positions are kept.
pub const SOURCE: &str = "torture";
/// Slot whose position is the number of events appended so far.
pub const WHOLE: &str = "whole";
/// Name of the run's state events.
pub const STATE_NAME: &str = "twist.torture";
/// Other slots take turns, so that positions of several slots and ages live side by side.
const SLOTS: u64 = 5;

/// The whole run, as a function of its seed.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    seed: u64,
}

/// One batch: events `first..first + count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    pub first: u64,
    pub count: u64,
    /// Appended without waiting; durable with what follows.
    pub lazy: bool,
    pub dedupe: Vec<DedupeEntry>,
    /// Slot beside [`WHOLE`] whose position moves with this batch.
    pub slot: String,
}

impl BatchPlan {
    pub fn end(&self) -> u64 {
        self.first + self.count
    }

    /// Position of [`WHOLE`] and of `slot` after this batch.
    pub fn position(&self) -> Position {
        Position { next: self.end(), detail: self.first % 7 }
    }
}

/// An event with the memory that it borrows.
#[derive(Default)]
pub struct EventBuf {
    name: String,
    id: String,
    key: Vec<u8>,
    traceparent: String,
    headers: HeaderBuf,
    payload: Vec<u8>,
}

impl Script {
    pub fn new(seed: u64) -> Script {
        Script { seed }
    }

    /// The batch that begins at event `first`.
    pub fn batch(&self, first: u64) -> BatchPlan {
        let mut random = Random::of(self.seed ^ 0xba7c, first);
        let count = match random.below(80) {
            // Several blocks of 512 KiB: taken whole or not at all.
            0 => random.within(700, 1_500),
            1..=15 => 1,
            _ => random.within(2, 64),
        };
        let mut dedupe = Vec::new();
        if random.one_in(2) {
            dedupe.push(self.entry(first, 0, count as u32));
        }
        for event in 0..count as u32 {
            if random.one_in(16) {
                dedupe.push(self.entry(first + u64::from(event), event, 1));
            }
        }
        // An entry for the first event alone would have the key of the entry for the whole batch.
        dedupe.dedup_by_key(|entry| entry.key);
        BatchPlan { first, count, lazy: random.one_in(6), dedupe, slot: format!("slot-{}", first % SLOTS) }
    }

    /// The key that stands for event `index`.
    pub fn dedupe_key(&self, index: u64) -> DedupeKey {
        let mut key = [0; 16];
        Random::of(self.seed ^ 0xded0, index).fill(&mut key);
        DedupeKey(key)
    }

    fn entry(&self, index: u64, event: u32, count: u32) -> DedupeEntry {
        let mut body = [0; 16];
        Random::of(self.seed ^ 0xb0d1, index).fill(&mut body);
        DedupeEntry { key: self.dedupe_key(index), body, event, count }
    }

    /// Event `index`; its id is the index, so that it can be found again whatever sequence it got.
    pub fn event<'a>(&self, index: u64, buf: &'a mut EventBuf) -> Event<'a> {
        let mut random = Random::of(self.seed, index);
        let kind = random.below(200);
        let size = match random.below(5_000) {
            // Larger than a block: chunked.
            0 => random.within(300 << 10, 1_200 << 10),
            _ => random.within(300, 2_000),
        };
        buf.payload.resize(size as usize, 0);
        random.fill(&mut buf.payload);
        buf.id = index.to_string();
        buf.key.resize(random.within(0, 24) as usize, 0);
        random.fill(&mut buf.key);
        buf.headers.clear();
        if random.one_in(3) {
            for _ in 0..random.within(1, 3) {
                // Two names only, so that duplicates happen.
                let name = if random.one_in(2) { "a" } else { "Überschrift" };
                buf.headers.push(name, &buf.id.as_bytes()[..random.within(0, buf.id.len() as u64) as usize]);
            }
        }
        if kind < 4 {
            buf.name = format!("key-{}", random.below(16));
            let payload = (!random.one_in(5)).then_some(buf.payload.as_slice());
            return Event { id: Some(&buf.id), ..Event::state(STATE_NAME, &buf.name, payload) };
        }
        buf.name = format!("event{}", random.below(9));
        buf.traceparent = format!("00-{:016x}{:016x}-{:016x}-01", random.word(), random.word(), random.word());
        Event {
            kind: if kind == 4 { EventKind::Undecodable } else { EventKind::Data },
            state: false,
            name: if kind == 4 { "" } else { &buf.name },
            source: SOURCE,
            id: Some(&buf.id),
            key: (!random.one_in(10)).then_some(buf.key.as_slice()),
            time: random.one_in(2).then_some(index as i64 * 1_000 - 5_000_000),
            received: 1_700_000_000_000_000 + index as i64,
            traceparent: random.one_in(4).then_some(buf.traceparent.as_str()),
            headers: buf.headers.as_headers(),
            causation: random.one_in(50).then(|| Sequence(random.within(1, index + 1))),
            actor: random.one_in(60).then_some("somebody"),
            payload: (kind != 5).then_some(buf.payload.as_slice()),
        }
    }
}

/// Name of the first field in which the two differ.
pub fn difference(found: &Event<'_>, expected: &Event<'_>) -> Option<&'static str> {
    let fields = [
        ("kind", found.kind == expected.kind),
        ("state", found.state == expected.state),
        ("name", found.name == expected.name),
        ("source", found.source == expected.source),
        ("id", found.id == expected.id),
        ("key", found.key == expected.key),
        ("time", found.time == expected.time),
        ("received", found.received == expected.received),
        ("traceparent", found.traceparent == expected.traceparent),
        ("headers", found.headers == expected.headers),
        ("causation", found.causation == expected.causation),
        ("actor", found.actor == expected.actor),
        ("payload", found.payload == expected.payload),
    ];
    fields.into_iter().find(|(_, same)| !same).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_function_of_seed_and_index() {
        let (mut one, mut other) = (EventBuf::default(), EventBuf::default());
        // The other buffer is dirty from other events: nothing of them may shine through.
        for index in (0..200).rev() {
            Script::new(1).event(index + 1_000, &mut other);
            let (a, b) = (Script::new(1).event(index, &mut one), Script::new(1).event(index, &mut other));
            assert_eq!(difference(&a, &b), None);
        }
        assert_ne!(difference(&Script::new(1).event(3, &mut one), &Script::new(2).event(3, &mut other)), None);
        assert_eq!(Script::new(1).batch(40), Script::new(1).batch(40));
    }

    #[test]
    fn every_kind_of_event_and_batch_occurs() {
        let script = Script::new(5);
        let mut buf = EventBuf::default();
        let (mut state, mut removed, mut undecodable, mut null, mut chunked, mut bytes) = (0, 0, 0, 0, 0, 0u64);
        for index in 0..20_000 {
            let event = script.event(index, &mut buf);
            state += u32::from(event.state);
            removed += u32::from(event.state && event.payload.is_none());
            undecodable += u32::from(event.kind == EventKind::Undecodable);
            null += u32::from(!event.state && event.payload.is_none());
            chunked += u32::from(event.payload.is_some_and(|p| p.len() > 256 << 10));
            bytes += event.payload.map_or(0, <[u8]>::len) as u64;
        }
        assert!(state > 200 && removed > 30 && undecodable > 50 && null > 50 && chunked > 1);
        assert!((1_000..1_500).contains(&(bytes / 20_000)), "{} bytes on average", bytes / 20_000);
        let (mut large, mut lazy, mut keys, mut first) = (0, 0, 0, 0);
        for _ in 0..1_000 {
            let batch = script.batch(first);
            large += u32::from(batch.count >= 700);
            lazy += u32::from(batch.lazy);
            keys += batch.dedupe.len();
            let mut distinct: Vec<_> = batch.dedupe.iter().map(|entry| entry.key).collect();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), batch.dedupe.len());
            first = batch.end();
        }
        assert!(large > 3 && lazy > 100 && keys > 1_000);
    }
}
