//! Remembers the delete that a null value may follow: Debezium sends one behind every delete, with the same key, so that a
//! compacted topic forgets the row (SEMANTICS 1.3).
//!
//! Lives as long as a connection. What it forgets then is a tombstone like any other, and the source's `tombstone` decides.

use std::sync::Arc;

use gravity_model::RowChange;
use gravity_model::port::source::Slot;
use hashbrown::HashMap;

use crate::ingest::envelope::Decoded;

/// The newest record of a slot, where it was a delete.
#[derive(Default)]
pub struct LastDeletes {
    by_slot: HashMap<Arc<str>, Delete>,
}

struct Delete {
    key: Box<[u8]>,
    name: Box<str>,
}

impl LastDeletes {
    /// The event name of the delete that a null value with this key follows.
    pub fn before(&self, slot: &Slot, key: Option<&[u8]>) -> Option<&str> {
        let delete = self.by_slot.get(name_of(slot))?;
        (Some(&*delete.key) == key).then_some(&*delete.name)
    }

    /// Takes note of a record; `None` for one that could not be decoded.
    pub fn note(&mut self, slot: &Slot, key: Option<&[u8]>, decoded: Option<&Decoded<'_>>) {
        let deleted = |decoded: &&Decoded<'_>| decoded.captured.is_some_and(|c| c.change == RowChange::Delete);
        match (decoded.filter(deleted), key) {
            (Some(decoded), Some(key)) => {
                let delete = Delete { key: key.into(), name: (*decoded.name).into() };
                self.by_slot.insert(name_of(slot).clone(), delete);
            }
            _ if self.by_slot.is_empty() => {}
            _ => {
                self.by_slot.remove(name_of(slot));
            }
        }
    }
}

fn name_of(slot: &Slot) -> &Arc<str> {
    slot.position.as_ref().unwrap_or(&slot.subject)
}
