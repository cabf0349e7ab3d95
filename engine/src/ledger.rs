//! What a route (or a subscription) still owes: parked events, what they block, and what was released since.
//!
//! The ledger is a fold of control events: it is rebuilt from the log's live state at start, and every change to it is
//! appended there first. A park record binds as soon as it is durable (SEMANTICS 4.3).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use gravity_log::{Batch, EventLog, LogError, ReadLimits, StateEntry};
use gravity_model::{EventKind, Sequence};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::control::{self, Missed, Parked, Released, Settled, UnreadableControl};

/// Something that a parked event keeps later events from touching: one row of a table, or the whole table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockedKey {
    pub table: Arc<str>,
    /// 128-bit digest of the canonical view key; `None` blocks, and waits for, every row.
    pub row: Option<u128>,
}

impl BlockedKey {
    pub fn row(table: &Arc<str>, canonical_key: &[u8]) -> BlockedKey {
        BlockedKey { table: table.clone(), row: Some(xxhash_rust::xxh3::xxh3_128(canonical_key)) }
    }

    pub fn table(table: &Arc<str>) -> BlockedKey {
        BlockedKey { table: table.clone(), row: None }
    }
}

impl fmt::Display for BlockedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "{}:{row:032x}", self.table),
            None => write!(f, "{}:*", self.table),
        }
    }
}

impl FromStr for BlockedKey {
    type Err = String;

    fn from_str(text: &str) -> Result<BlockedKey, String> {
        let (table, row) = text.rsplit_once(':').ok_or_else(|| format!("no blocked key: {text:?}"))?;
        let row = match row {
            "*" => None,
            hex => Some(u128::from_str_radix(hex, 16).map_err(|_| format!("no blocked key: {text:?}"))?),
        };
        Ok(BlockedKey { table: table.into(), row })
    }
}

impl Serialize for BlockedKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockedKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Holders of one table's rows.
#[derive(Debug, Default)]
struct Holders {
    rows: HashMap<u128, BTreeSet<Sequence>>,
    whole: BTreeSet<Sequence>,
    /// Every parked event that touches the table, with how many of its keys do.
    all: BTreeMap<Sequence, u32>,
}

/// See the module's comment.
#[derive(Debug, Default)]
pub struct Ledger {
    parked: BTreeMap<Sequence, Arc<Parked>>,
    holders: HashMap<Arc<str>, Holders>,
    failed: u64,
    waiting_bytes: u64,
    /// By sequence of the deciding record.
    released: BTreeMap<Sequence, Arc<Released>>,
    /// Event → record at which it took effect or was skipped.
    effect: HashMap<Sequence, Sequence>,
    missed: BTreeSet<Sequence>,
    missed_records: BTreeMap<Sequence, Vec<Sequence>>,
}

impl Ledger {
    /// Rebuilds the ledger of `route` from live state, as of its `checkpoint`. Releases beyond the checkpoint are left out:
    /// their transaction did not commit, and the route will come to their record again. `None` where live state has moved on
    /// since, because the database went back (fault V6): [`Ledger::read_again`] tells.
    pub fn load(route: &str, checkpoint: Sequence, state: &[StateEntry]) -> Result<Option<Ledger>, UnreadableControl> {
        let mut facts = Facts::default();
        let mut settled = Sequence::ZERO;
        for entry in state {
            if entry.name == control::SETTLED && entry.key == route {
                settled = control::read::<Settled>(&entry.name, entry.sequence, &entry.payload)?.through;
            } else if control::route_of(&entry.key) == Some(route) {
                facts.take(&entry.name, entry.sequence, &entry.payload)?;
            }
        }
        let beyond = facts.released.range(checkpoint.next()..);
        let ended = |released: &Released| released.freed().any(|sequence| !facts.parked.contains_key(&sequence));
        if settled > checkpoint || beyond.into_iter().any(|(_, released)| ended(released)) {
            return Ok(None);
        }
        Ok(Some(facts.into_ledger(checkpoint)))
    }

    /// [`Ledger::load`] from the log's present state, or from the whole log where it takes that.
    pub async fn rebuild(route: &str, checkpoint: Sequence, log: &Arc<dyn EventLog>) -> Result<Ledger, LedgerError> {
        if let Some(ledger) = Ledger::load(route, checkpoint, &log.state())? {
            return Ok(ledger);
        }
        tracing::warn!(route, %checkpoint, "stands before releases that are settled; its dead letters are read from the log");
        let (name, log) = (route.to_owned(), log.clone());
        let read = tokio::task::spawn_blocking(move || Ledger::read_again(&name, checkpoint, &*log)).await;
        read.unwrap_or(Err(LedgerError::Gone))
    }

    /// The same from the whole log: dead letters are what their records say up to `checkpoint` (SEMANTICS 4.3), also those
    /// that were released later. Reads everything, on the calling thread.
    pub fn read_again(route: &str, checkpoint: Sequence, log: &dyn EventLog) -> Result<Ledger, LedgerError> {
        let mut facts = Facts::default();
        let last = *log.durable().borrow();
        let mut after = Sequence(log.stat().first.get().saturating_sub(1));
        while after < last {
            let blocks = log.read(after, ReadLimits { events: 65_536, bytes: 16 << 20 })?;
            let Some(end) = blocks.last().map(gravity_log::Block::last) else { break };
            for recorded in blocks.iter().flat_map(gravity_log::Block::iter) {
                let event = &recorded.event;
                let (EventKind::Control, Some(payload)) = (event.kind, event.payload) else { continue };
                let key = event.key.and_then(|key| std::str::from_utf8(key).ok()).and_then(control::route_of);
                if key == Some(route) {
                    facts.take(event.name, recorded.sequence, payload)?;
                }
            }
            after = end;
        }
        Ok(facts.into_ledger(checkpoint))
    }

    pub fn parked(&self, sequence: Sequence) -> Option<&Arc<Parked>> {
        self.parked.get(&sequence)
    }

    /// All parked events, oldest first.
    pub fn all_parked(&self) -> impl Iterator<Item = &Arc<Parked>> {
        self.parked.values()
    }

    pub fn newest_parked(&self) -> Option<Sequence> {
        self.parked.last_key_value().map(|(sequence, _)| *sequence)
    }

    pub fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Memory that waiting events take, in bytes, as far as it is ours to say.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    pub fn waiting(&self) -> u64 {
        self.parked.len() as u64 - self.failed
    }

    /// Most events that wait behind one key.
    pub fn widest(&self) -> u64 {
        let rows = self.holders.values().flat_map(|h| h.rows.values().map(BTreeSet::len));
        let whole = self.holders.values().map(|h| h.whole.len());
        rows.chain(whole).max().map_or(0, |held| held.saturating_sub(1) as u64)
    }

    /// True when an event parked before `sequence` holds something that `keys` touch.
    pub fn blocks(&self, sequence: Sequence, keys: &[BlockedKey]) -> bool {
        if self.parked.is_empty() {
            return false;
        }
        let before = |held: &BTreeSet<Sequence>| held.first().is_some_and(|first| *first < sequence);
        keys.iter().any(|key| {
            let Some(holders) = self.holders.get(&key.table) else { return false };
            match key.row {
                Some(row) => before(&holders.whole) || holders.rows.get(&row).is_some_and(before),
                None => holders.all.first_key_value().is_some_and(|(first, _)| *first < sequence),
            }
        })
    }

    /// The oldest parked event that a parked one waits for.
    pub fn waits_for(&self, sequence: Sequence) -> Option<Sequence> {
        let parked = self.parked.get(&sequence)?;
        let held = parked.blocks.iter().filter_map(|key| {
            let holders = self.holders.get(&key.table)?;
            match key.row {
                Some(row) => {
                    let of_row = holders.rows.get(&row).and_then(|held| held.first().copied());
                    of_row.into_iter().chain(holders.whole.first().copied()).min()
                }
                None => holders.all.first_key_value().map(|(first, _)| *first),
            }
        });
        held.min().filter(|first| *first < sequence)
    }

    /// Parks an event, or replaces what is known of it.
    pub fn park(&mut self, parked: Arc<Parked>) {
        self.unpark(parked.sequence);
        self.failed += u64::from(!parked.waiting);
        self.waiting_bytes += waiting_bytes(&parked);
        for key in &parked.blocks {
            let holders = self.holders.entry(key.table.clone()).or_default();
            match key.row {
                Some(row) => holders.rows.entry(row).or_default().insert(parked.sequence),
                None => holders.whole.insert(parked.sequence),
            };
            *holders.all.entry(parked.sequence).or_default() += 1;
        }
        self.parked.insert(parked.sequence, parked);
    }

    /// Takes an event out, as if it had never been parked.
    pub fn unpark(&mut self, sequence: Sequence) {
        let Some(parked) = self.parked.remove(&sequence) else { return };
        self.failed -= u64::from(!parked.waiting);
        self.waiting_bytes -= waiting_bytes(&parked);
        for key in &parked.blocks {
            let Some(holders) = self.holders.get_mut(&key.table) else { continue };
            match key.row {
                Some(row) => {
                    if let Some(held) = holders.rows.get_mut(&row) {
                        held.remove(&sequence);
                        if held.is_empty() {
                            holders.rows.remove(&row);
                        }
                    }
                }
                None => {
                    holders.whole.remove(&sequence);
                }
            }
            holders.all.remove(&sequence);
            if holders.all.is_empty() {
                self.holders.remove(&key.table);
            }
        }
    }

    /// Takes in what a committed retry or skip did.
    pub fn release(&mut self, released: Arc<Released>) {
        for sequence in released.freed() {
            self.unpark(sequence);
            self.effect.insert(sequence, released.record);
        }
        self.released.insert(released.record, released);
    }

    /// What the decision at `record` released.
    pub fn released_at(&self, record: Sequence) -> Option<&Arc<Released>> {
        self.released.get(&record)
    }

    /// The record at which a once parked event took effect or was skipped.
    pub fn effect_of(&self, sequence: Sequence) -> Option<Sequence> {
        self.effect.get(&sequence).copied()
    }

    /// Notes events that a rule matched but that changed nothing.
    pub fn miss(&mut self, sequences: Vec<Sequence>) {
        let Some(last) = sequences.last().copied() else { return };
        self.missed.extend(&sequences);
        self.missed_records.insert(last, sequences);
    }

    pub fn was_missed(&self, sequence: Sequence) -> bool {
        self.missed.contains(&sequence)
    }

    /// The oldest record that `forget` would take, were `through` far enough.
    pub fn oldest_kept(&self) -> Option<Sequence> {
        let released = self.released.first_key_value().map(|(record, _)| *record);
        let missed = self.missed_records.first_key_value().map(|(last, _)| *last);
        released.into_iter().chain(missed).min()
    }

    /// Forgets what no subscription will ask for again, now that all of them are past `through`.
    pub fn forget(&mut self, route: &str, through: Sequence) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let old: Vec<Sequence> = self.released.range(..=through).map(|(record, _)| *record).collect();
        for record in old {
            if let Some(released) = self.released.remove(&record) {
                for sequence in released.freed() {
                    self.effect.remove(&sequence);
                    // Usually ended when it was released; that was lazy and a crash may have lost it. Without its release
                    // the dead letter would come back.
                    if !self.parked.contains_key(&sequence) {
                        forgotten.ended.push((control::PARKED, control::numbered(route, sequence.get())));
                    }
                }
            }
            forgotten.ended.push((control::RELEASED, control::numbered(route, record.get())));
            forgotten.settled = Some(record);
        }
        let old: Vec<Sequence> = self.missed_records.range(..=through).map(|(last, _)| *last).collect();
        for last in old {
            for sequence in self.missed_records.remove(&last).unwrap_or_default() {
                self.missed.remove(&sequence);
            }
            forgotten.ended.push((control::MISSED, control::numbered(route, last.get())));
        }
        forgotten
    }
}

/// What a ledger has let go of, to be told to the log in this order and in one batch.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// The newest record whose release left live state.
    pub settled: Option<Sequence>,
    /// (name, key) of the states to end.
    pub ended: Vec<(&'static str, String)>,
}

impl Forgotten {
    pub fn write(self, route: &str, batch: &mut Batch) {
        if let Some(through) = self.settled {
            control::put(batch, control::SETTLED, route, &Settled { through }, None);
        }
        self.ended.into_iter().for_each(|(name, key)| control::end(batch, name, &key));
    }
}

/// Control events of one route as they were read, newest of each key.
#[derive(Default)]
struct Facts {
    parked: BTreeMap<Sequence, Arc<Parked>>,
    released: BTreeMap<Sequence, Arc<Released>>,
    missed: Vec<Missed>,
}

impl Facts {
    fn take(&mut self, name: &str, at: Sequence, payload: &[u8]) -> Result<(), UnreadableControl> {
        match name {
            control::PARKED => {
                let parked: Parked = control::read(name, at, payload)?;
                self.parked.insert(parked.sequence, Arc::new(parked));
            }
            control::RELEASED => {
                let released: Released = control::read(name, at, payload)?;
                self.released.insert(released.record, Arc::new(released));
            }
            control::MISSED => self.missed.push(control::read(name, at, payload)?),
            _ => {}
        }
        Ok(())
    }

    fn into_ledger(self, checkpoint: Sequence) -> Ledger {
        let mut ledger = Ledger::default();
        self.parked.into_values().for_each(|parked| ledger.park(parked));
        self.released.into_iter().take_while(|(record, _)| *record <= checkpoint).for_each(|(_, r)| ledger.release(r));
        self.missed.into_iter().for_each(|missed| ledger.miss(missed.sequences));
        ledger
    }
}

/// Why a ledger cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    Unreadable(#[from] UnreadableControl),
    #[error("the log cannot be read: {0}")]
    Log(#[from] LogError),
    #[error("the task that read the log is gone")]
    Gone,
}

/// Close to what a waiting record takes in memory: itself, its texts, its keys here and among the holders.
fn waiting_bytes(parked: &Parked) -> u64 {
    if !parked.waiting {
        return 0;
    }
    let texts = parked.route.len() + parked.event.len() + parked.key.as_ref().map_or(0, String::len);
    (size_of::<Parked>() + texts + parked.blocks.len() * 4 * size_of::<BlockedKey>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Stage;

    fn parked(sequence: u64, waiting: bool, blocks: &[BlockedKey]) -> Arc<Parked> {
        Arc::new(Parked {
            route: "db1".into(),
            sequence: Sequence(sequence),
            stage: Stage::Map,
            code: String::new(),
            error: String::new(),
            rule: None,
            key: None,
            event: "e".into(),
            waiting,
            blocks: blocks.to_vec(),
            at: 0,
        })
    }

    #[test]
    fn a_parked_event_blocks_later_events_of_its_keys_only() {
        let users: Arc<str> = "users".into();
        let (a, b) = (BlockedKey::row(&users, b"a"), BlockedKey::row(&users, b"b"));
        let mut ledger = Ledger::default();
        ledger.park(parked(5, false, std::slice::from_ref(&a)));
        assert!(ledger.blocks(Sequence(6), std::slice::from_ref(&a)));
        assert!(!ledger.blocks(Sequence(5), std::slice::from_ref(&a)), "an event does not block itself");
        assert!(!ledger.blocks(Sequence(6), std::slice::from_ref(&b)));
        assert!(ledger.blocks(Sequence(6), &[BlockedKey::table(&users)]), "a truncate waits for every row");
        ledger.park(parked(7, true, &[a.clone(), b.clone()]));
        assert!(ledger.blocks(Sequence(8), std::slice::from_ref(&b)), "what waits blocks its own keys");
        assert_eq!((ledger.failed(), ledger.waiting(), ledger.widest()), (1, 1, 1));
        assert_eq!((ledger.waits_for(Sequence(7)), ledger.waits_for(Sequence(5))), (Some(Sequence(5)), None));
        ledger.release(Arc::new(Released {
            record: Sequence(9),
            applied: vec![Sequence(5), Sequence(7)],
            ..Default::default()
        }));
        assert!(!ledger.blocks(Sequence(10), &[a, b]));
        assert_eq!(ledger.effect_of(Sequence(7)), Some(Sequence(9)));
        assert!(ledger.holders.is_empty());
    }

    #[test]
    fn a_parked_truncate_blocks_the_whole_table() {
        let users: Arc<str> = "users".into();
        let mut ledger = Ledger::default();
        ledger.park(parked(5, false, &[BlockedKey::table(&users)]));
        assert!(ledger.blocks(Sequence(6), &[BlockedKey::row(&users, b"a")]));
    }

    #[test]
    fn a_release_beyond_the_checkpoint_is_not_believed() {
        let state = |name: &str, key: String, payload: Vec<u8>| StateEntry {
            name: name.into(),
            key,
            sequence: Sequence(20),
            payload,
        };
        let park = serde_json::to_vec(&*parked(5, false, &[])).expect("serialises");
        let released =
            Released { route: "db1".into(), record: Sequence(12), applied: vec![Sequence(5)], ..Default::default() };
        let entries = [
            state(control::PARKED, control::numbered("db1", 5), park.clone()),
            state(control::PARKED, control::numbered("db2", 6), park),
            state(control::RELEASED, control::numbered("db1", 12), serde_json::to_vec(&released).expect("serialises")),
        ];
        let before = Ledger::load("db1", Sequence(11), &entries).expect("readable").expect("nothing went back");
        assert_eq!(before.failed(), 1);
        let after = Ledger::load("db1", Sequence(12), &entries).expect("readable").expect("nothing went back");
        assert_eq!(after.failed(), 0);
        let ended = Ledger::load("db1", Sequence(11), &entries[1..]).expect("readable");
        assert!(ended.is_none(), "the park record has ended, so the database went back behind its release");
    }
}
