//! Parked messages in the order in which they must leave: that of effect, per key (SEMANTICS 5.3).
//!
//! An event that a retry of its route released took effect at the record of that retry, behind messages of its key with
//! higher sequences; parked by sequence it would overtake them.

use std::collections::{BTreeMap, BTreeSet};

use gravity_model::Sequence;
use hashbrown::HashMap;

use crate::control::{Parked, ParkedMessage};

/// Where a message stands among others: the sequence at which its event took effect, then its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub effect: Sequence,
    pub sequence: Sequence,
}

impl Place {
    pub fn of(sequence: Sequence, effect: Option<Sequence>) -> Place {
        Place { effect: effect.unwrap_or(sequence), sequence }
    }

    /// The record of the retry at which the event took effect; `None` where it did at once.
    pub fn retried_at(self) -> Option<Sequence> {
        (self.effect != self.sequence).then_some(self.effect)
    }
}

/// See the module's comment.
#[derive(Debug, Default)]
pub struct Backlog {
    all: BTreeMap<Place, Option<u128>>,
    places: HashMap<Sequence, Place>,
    holders: HashMap<u128, BTreeSet<Place>>,
}

impl Backlog {
    /// Takes a message in, or learns a new place or key of it.
    pub fn add(&mut self, message: &ParkedMessage) {
        let sequence = message.parked.sequence;
        self.remove(sequence);
        let place = Place::of(sequence, message.effect);
        let key = key_of(&message.parked);
        if let Some(key) = key {
            self.holders.entry(key).or_default().insert(place);
        }
        self.places.insert(sequence, place);
        self.all.insert(place, key);
    }

    pub fn remove(&mut self, sequence: Sequence) {
        let Some(place) = self.places.remove(&sequence) else { return };
        let Some(Some(key)) = self.all.remove(&place) else { return };
        if let Some(held) = self.holders.get_mut(&key) {
            held.remove(&place);
            if held.is_empty() {
                self.holders.remove(&key);
            }
        }
    }

    /// The oldest parked message that a message of `key` at `place` has to wait for.
    pub fn before(&self, place: Place, key: Option<u128>) -> Option<Sequence> {
        let first = self.holders.get(&key?)?.first()?;
        (*first < place).then_some(first.sequence)
    }

    /// What a parked message waits for, other than itself.
    pub fn waits_for(&self, sequence: Sequence) -> Option<Sequence> {
        let place = *self.places.get(&sequence)?;
        self.before(place, *self.all.get(&place)?)
    }

    /// Places and keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Place, Option<u128>)> {
        self.all.iter().map(|(place, key)| (*place, *key))
    }
}

/// The order key in a message's park record; messages without one hold back nothing.
pub fn key_of(parked: &Parked) -> Option<u128> {
    parked.blocks.first().and_then(|key| key.row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Stage;
    use crate::ledger::BlockedKey;

    fn message(sequence: u64, effect: Option<u64>, key: Option<&str>) -> ParkedMessage {
        let blocks = key.map(|key| BlockedKey::row(&"".into(), key.as_bytes())).into_iter().collect();
        let parked = Parked {
            route: "out@db1".into(),
            sequence: Sequence(sequence),
            stage: Stage::Export,
            code: String::new(),
            error: String::new(),
            rule: None,
            key: None,
            event: "e".into(),
            waiting: false,
            blocks,
            at: 0,
        };
        ParkedMessage { parked, effect: effect.map(Sequence) }
    }

    #[test]
    fn what_took_effect_later_waits_for_what_did_before() {
        let mut backlog = Backlog::default();
        backlog.add(&message(7, None, Some("k")));
        let key = key_of(&message(0, None, Some("k")).parked);
        let retried = Place::of(Sequence(5), Some(Sequence(9)));
        assert_eq!(backlog.before(retried, key), Some(Sequence(7)));
        assert_eq!(backlog.before(Place::of(Sequence(5), None), key), None);
        backlog.add(&message(5, Some(9), Some("k")));
        backlog.add(&message(8, None, None));
        let order: Vec<u64> = backlog.iter().map(|(place, _)| place.sequence.get()).collect();
        assert_eq!(order, [7, 8, 5]);
        assert_eq!(backlog.waits_for(Sequence(5)), Some(Sequence(7)));
        assert_eq!(backlog.waits_for(Sequence(7)), None, "a message does not wait for itself");
        assert_eq!(backlog.waits_for(Sequence(8)), None, "no key, no order");
        backlog.remove(Sequence(7));
        assert_eq!(backlog.waits_for(Sequence(5)), None);
        backlog.remove(Sequence(5));
        backlog.remove(Sequence(8));
        assert!(backlog.all.is_empty() && backlog.holders.is_empty() && backlog.places.is_empty());
    }
}
