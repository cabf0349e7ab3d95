//! Live state: what a start-up needs to know without reading history. Kept in memory, carried into every new generation.

use std::collections::{BTreeMap, HashMap};

use gravity_model::port::source::Position;
use gravity_model::{LogId, Recorded, Sequence};

use crate::api::StateEntry;
use crate::block::Reader;

/// The newest state event of each (name, key), and the positions of all sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Live {
    entries: BTreeMap<(String, String), (Sequence, Vec<u8>)>,
    positions: HashMap<String, BTreeMap<String, Position>>,
}

impl Live {
    /// Takes in one state event.
    pub fn apply(&mut self, recorded: &Recorded<'_>) {
        let event = &recorded.event;
        let place = (event.name.to_owned(), String::from_utf8_lossy(event.key.unwrap_or(b"")).into_owned());
        match event.payload {
            Some(payload) => {
                self.entries.insert(place, (recorded.sequence, payload.to_vec()));
            }
            None => {
                self.entries.remove(&place);
            }
        }
    }

    pub fn move_position(&mut self, source: &str, slot: &str, position: Position) {
        if let Some(held) = self.positions.get_mut(source).and_then(|slots| slots.get_mut(slot)) {
            *held = position;
            return;
        }
        self.positions.entry(source.to_owned()).or_default().insert(slot.to_owned(), position);
    }

    pub fn positions_of(&self, source: &str) -> Vec<(String, Position)> {
        let slots = self.positions.get(source);
        slots.into_iter().flatten().map(|(slot, position)| (slot.clone(), *position)).collect()
    }

    pub fn positions(&self) -> Vec<(String, String, Position)> {
        let mut all: Vec<_> = self
            .positions
            .iter()
            .flat_map(|(source, slots)| slots.iter().map(move |(slot, p)| (source.clone(), slot.clone(), *p)))
            .collect();
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }

    /// By sequence.
    pub fn entries(&self) -> Vec<StateEntry> {
        let mut all: Vec<StateEntry> = self
            .entries
            .iter()
            .map(|((name, key), (sequence, payload))| StateEntry {
                name: name.clone(),
                key: key.clone(),
                sequence: *sequence,
                payload: payload.clone(),
            })
            .collect();
        all.sort_by_key(|entry| entry.sequence);
        all
    }

    /// State entries under one name, by sequence.
    pub fn named(&self, name: &str) -> Vec<StateEntry> {
        let mut named = self.entries();
        named.retain(|entry| entry.name == name);
        named
    }
}

/// What the first blocks of a generation say: whose log this is, and the live state before their first sequence. Positions
/// stand in the blocks' meta parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Carry {
    pub log_id: LogId,
    pub generation: u32,
    pub entries: Vec<StateEntry>,
}

const CARRY_FORMAT: u8 = 1;

impl Carry {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![CARRY_FORMAT];
        out.extend_from_slice(&self.log_id.0);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.sequence.get().to_le_bytes());
            for part in [entry.name.as_bytes(), entry.key.as_bytes(), &entry.payload] {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
                out.extend_from_slice(part);
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Carry> {
        let mut read = Reader(bytes);
        if read.u8()? != CARRY_FORMAT {
            return None;
        }
        let log_id = LogId(read.array()?);
        let generation = read.u32()?;
        let mut entries = Vec::new();
        for _ in 0..read.u32()? {
            entries.push(StateEntry {
                sequence: Sequence(read.u64()?),
                name: read.text()?.to_owned(),
                key: read.text()?.to_owned(),
                payload: read.bytes()?.to_vec(),
            });
        }
        read.0.is_empty().then_some(Carry { log_id, generation, entries })
    }

    /// The state that a reader of this carry begins with; positions are added from the meta parts.
    pub fn into_live(self) -> Live {
        let entries = self.entries.into_iter().map(|e| ((e.name, e.key), (e.sequence, e.payload))).collect();
        Live { entries, positions: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gravity_model::Event;
    use proptest::prelude::*;

    fn recorded(sequence: u64, event: Event<'_>) -> Recorded<'_> {
        Recorded { sequence: Sequence(sequence), event }
    }

    #[test]
    fn the_newest_entry_wins_and_a_null_payload_removes_it() {
        let mut live = Live::default();
        live.apply(&recorded(1, Event::state("gravity.config", "", Some(b"a"))));
        live.apply(&recorded(2, Event::state("gravity.park", "k", Some(b"b"))));
        live.apply(&recorded(3, Event::state("gravity.config", "", Some(b"c"))));
        let payloads = |live: &Live| live.entries().into_iter().map(|e| e.payload).collect::<Vec<_>>();
        assert_eq!(payloads(&live), [b"b".to_vec(), b"c".to_vec()]);
        live.apply(&recorded(4, Event::state("gravity.park", "k", None)));
        assert_eq!(payloads(&live), [b"c".to_vec()]);
    }

    proptest! {
        #[test]
        fn a_carry_comes_back(
            id in any::<[u8; 16]>(),
            generation in any::<u32>(),
            entries in proptest::collection::vec(
                (any::<u64>(), "\\PC{0,10}", "\\PC{0,10}", proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
            cut in any::<proptest::sample::Index>(),
        ) {
            let entries = entries
                .into_iter()
                .map(|(sequence, name, key, payload)| StateEntry { name, key, sequence: Sequence(sequence), payload })
                .collect();
            let carry = Carry { log_id: LogId(id), generation, entries };
            let bytes = carry.encode();
            prop_assert_eq!(Carry::decode(&bytes), Some(carry));
            prop_assert_eq!(Carry::decode(&bytes[..cut.index(bytes.len())]), None);
        }
    }
}
