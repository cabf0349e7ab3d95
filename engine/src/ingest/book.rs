//! Where each slot of a source stands: what is durable, and what is on its way there.

use gravity_log::EventLog;
use gravity_model::port::source::{Position, PositionBook};
use hashbrown::HashMap;
use parking_lot::RwLock;

/// Positions of one source, in-flight appends included: they become durable or the source is connected anew.
#[derive(Debug)]
pub struct Book {
    source: String,
    slots: RwLock<HashMap<String, Position>>,
}

impl Book {
    /// Starts from what the log holds.
    pub fn of(source: &str, log: &dyn EventLog) -> Book {
        let book = Book { source: source.to_owned(), slots: RwLock::default() };
        book.reset(log);
        book
    }

    /// Forgets what was in flight: after a failed append the log's positions are the truth again.
    pub fn reset(&self, log: &dyn EventLog) {
        *self.slots.write() = log.positions(&self.source).into_iter().collect();
    }

    /// True when a record that ends at `position` is not in the log yet.
    pub fn is_new(&self, slot: &str, position: Position) -> bool {
        self.slots.read().get(slot).is_none_or(|known| position.next > known.next)
    }

    pub fn advance(&self, slot: &str, position: Position) {
        let mut slots = self.slots.write();
        match slots.get_mut(slot) {
            Some(known) => *known = position,
            None => {
                slots.insert(slot.to_owned(), position);
            }
        }
    }
}

impl PositionBook for Book {
    fn position(&self, slot: &str) -> Option<Position> {
        self.slots.read().get(slot).copied()
    }

    fn positions(&self) -> Vec<(String, Position)> {
        self.slots.read().iter().map(|(slot, position)| (slot.clone(), *position)).collect()
    }
}
