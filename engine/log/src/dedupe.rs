//! What must be in the log once: the dedupe window. Entries of hot generations are in memory, older ones in sorted runs.

use std::collections::{BTreeMap, HashMap};

use gravity_model::Sequence;
use parking_lot::RwLock;

use crate::api::{DedupeHit, DedupeKey};
use crate::block::Remembered;

#[derive(Default)]
pub(crate) struct Dedupe {
    hot: RwLock<BTreeMap<u32, HashMap<DedupeKey, DedupeHit>>>,
}

impl Dedupe {
    /// Remembers entries of a hot generation.
    pub fn add(&self, generation: u32, entries: &[Remembered]) {
        if entries.is_empty() {
            return;
        }
        let mut hot = self.hot.write();
        let map = hot.entry(generation).or_default();
        for entry in entries {
            map.insert(entry.key, DedupeHit { body: entry.body, first: entry.first, count: entry.count });
        }
    }

    /// One answer per key; the newest wins.
    pub fn find(&self, keys: &[DedupeKey]) -> Vec<Option<DedupeHit>> {
        let hot = self.hot.read();
        keys.iter().map(|key| hot.values().rev().find_map(|map| map.get(key).copied())).collect()
    }

    pub fn len(&self) -> u64 {
        self.hot.read().values().map(|map| map.len() as u64).sum()
    }

    /// First sequence that the window still holds entries for.
    pub fn from(&self) -> Sequence {
        Sequence(1)
    }
}
