//! Control events: facts about Gravity itself on the same log. Their names, keys and payloads, in one place.
//!
//! Most are *state events* ([`gravity_model::Event::state`]): the newest of each (name, key) is live state, which the log
//! carries into every new generation; a null payload ends it. Payloads are JSON, so that an operator can read them.

use std::collections::BTreeSet;

use gravity_model::{Event, LogId, Micros, Sequence, TableShape};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Rules and what they were checked against; key: version number, 20 digits so that text order is number order.
pub const CONFIG_CHANGED: &str = "gravity.config_changed";
/// Column types of a route's tables; key: route.
pub const TYPES_RESOLVED: &str = "gravity.types_resolved";
/// An event that did not take effect on a route; key: `ROUTE#SEQUENCE`.
pub const PARKED: &str = "gravity.parked";
/// An operator's decision to run parked events again; key: `ROUTE#NUMBER`. No state: it does its work when the route
/// comes to it.
pub const RETRY: &str = "gravity.retry";
/// An operator's decision to leave parked events out for ever; key: `ROUTE#NUMBER`. No state.
pub const SKIP: &str = "gravity.skip";
/// What a retry or skip did, written before the transaction that does it; holds once the checkpoint has passed the record.
/// Key: `ROUTE#SEQUENCE-OF-RECORD`.
pub const RELEASED: &str = "gravity.released";
/// A table held rows before its route wrote there; key: `ROUTE/TABLE`. No fold of the log gives them.
pub const ADOPTED: &str = "gravity.adopted";
/// Up to which record a route's releases have left live state; key: route. A database that stands before it went back.
pub const SETTLED: &str = "gravity.settled";
/// Events that changed nothing although a rule matched (a `patch` whose row is missing); key: `ROUTE#LAST`.
pub const MISSED: &str = "gravity.missed";
/// How far a subscription has delivered; key: `EXPORTER@ROUTE`.
pub const CURSOR: &str = "gravity.cursor";
/// Counters of a source; key: source.
pub const SOURCE: &str = "gravity.source";
/// A source went on although the broker no longer had all that was before it (`accept_gap`, `accept_recreated`); key: source.
/// No state: it is there to be found.
pub const SOURCE_BREAK: &str = "gravity.source_break";
/// A route was paused by an operator; key: route.
pub const PAUSED: &str = "gravity.paused";

/// Control events that no rule may name: they would feed themselves (SEMANTICS 1.2).
pub const NOT_FOR_RULES: &[&str] = &[CURSOR, PARKED, RETRY, SKIP, RELEASED, SETTLED, MISSED, SOURCE];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigChanged {
    pub version: u64,
    /// Hexadecimal hash of the rules.
    pub hash: String,
    pub actor: String,
    pub at: Micros,
    /// Full text: (file name, text).
    pub files: Vec<(String, String)>,
    /// What the files were checked against.
    pub context: gravity_rules::Context,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypesResolved {
    pub route: String,
    /// The shapes hold for what the route writes after this checkpoint.
    pub after: Sequence,
    pub tables: Vec<TableShape>,
}

/// How an event came to be parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    pub route: String,
    pub sequence: Sequence,
    pub stage: Stage,
    /// Empty where the event only waits.
    pub code: String,
    pub error: String,
    pub rule: Option<String>,
    /// The event's key as text, for people.
    pub key: Option<String>,
    pub event: String,
    pub waiting: bool,
    /// What it blocks: hexadecimal [`BlockedKey`](crate::ledger::BlockedKey)s.
    pub blocks: Vec<crate::ledger::BlockedKey>,
    pub at: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Decode,
    Map,
    Apply,
    Export,
}

impl Stage {
    pub fn word(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Map => "map",
            Stage::Apply => "apply",
            Stage::Export => "export",
        }
    }
}

/// A retry (of all failed events, or of those named) or a skip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub route: String,
    /// `None`: every failed event of the route.
    pub sequences: Option<Vec<Sequence>>,
    pub actor: String,
    pub at: Micros,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub route: String,
    /// Sequence of the [`Decision`]; what it did takes effect there.
    pub record: Sequence,
    /// Ran and took effect, in order of effect.
    pub applied: Vec<Sequence>,
    /// Ran and changed nothing.
    pub filtered: Vec<Sequence>,
    pub skipped: Vec<Sequence>,
    pub parked_again: Vec<Sequence>,
}

impl Released {
    /// What is parked no longer.
    pub fn freed(&self) -> impl Iterator<Item = Sequence> {
        self.applied.iter().chain(&self.filtered).chain(&self.skipped).copied()
    }
}

/// The baseline of a view that was adopted with rows: until a snapshot of it exists it cannot be rebuilt from the log alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    pub route: String,
    pub table: String,
    /// The view holds its former rows and what came after this sequence.
    pub after: Sequence,
    pub at: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub through: Sequence,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    pub route: String,
    pub sequences: Vec<Sequence>,
}

/// A parked message: what [`Parked`] says, and where the event took effect if that was later than its own sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedMessage {
    #[serde(flatten)]
    pub parked: Parked,
    /// The record of the retry that the message follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Sequence>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Last sequence that needs nothing more from this subscription.
    pub through: Sequence,
    /// Messages confirmed since the subscription began.
    pub delivered: u64,
    /// Where a retry or skip of the route stands next: how many of the events that it released need nothing more either.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub released: u64,
    /// Events beyond these whose messages are confirmed although an earlier one is not: at most one batch.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ahead: BTreeSet<Sequence>,
}

impl Cursor {
    /// Nothing up to `through` needs anything more.
    pub fn move_to(&mut self, through: Sequence) {
        if through > self.through {
            self.through = through;
            self.released = 0;
            self.ahead = self.ahead.split_off(&through.next());
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounters {
    pub received: u64,
    pub duplicates: u64,
}

/// Positions of one slot that its broker no longer has, or a slot that took another's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBreak {
    pub source: String,
    pub slot: String,
    /// Topic, stream.
    pub subject: String,
    /// First position that was not read and can no longer be; with `former` the first one that is read.
    pub from: u64,
    /// First position behind them; equal to `from` with `former`.
    pub to: u64,
    /// The slot that was read before under this name, and where the log stands in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    pub actor: String,
    pub at: Micros,
}

/// Key of a control event about one sequence or decision of a route.
pub fn numbered(route: &str, number: u64) -> String {
    format!("{route}#{number:020}")
}

/// The route in a key that [`numbered`] made.
pub fn route_of(key: &str) -> Option<&str> {
    key.rsplit_once('#').map(|(route, _)| route)
}

pub fn subscription_key(exporter: &str, route: &str) -> String {
    format!("{exporter}@{route}")
}

/// Adds a state event with a JSON payload to a batch.
pub fn put(batch: &mut gravity_log::Batch, name: &str, key: &str, payload: &impl Serialize, actor: Option<&str>) {
    let json = serde_json::to_vec(payload).expect("control payloads have string keys and finite numbers");
    batch.push(&Event { actor, received: crate::clock::now(), ..Event::state(name, key, Some(&json)) });
}

/// Adds a control event that is no state: it does its work when a route comes to it.
pub fn tell(batch: &mut gravity_log::Batch, name: &str, key: &str, payload: &impl Serialize, actor: Option<&str>) {
    let json = serde_json::to_vec(payload).expect("control payloads have string keys and finite numbers");
    let event = Event { actor, received: crate::clock::now(), ..Event::state(name, key, Some(&json)) };
    batch.push(&Event { state: false, ..event });
}

/// Ends a state in a batch.
pub fn end(batch: &mut gravity_log::Batch, name: &str, key: &str) {
    batch.push(&Event { received: crate::clock::now(), ..Event::state(name, key, None) });
}

/// Reads a control payload; the error names the event, because only a foreign or newer program could have written it.
pub fn read<T: DeserializeOwned>(name: &str, sequence: Sequence, payload: &[u8]) -> Result<T, UnreadableControl> {
    serde_json::from_slice(payload).map_err(|source| UnreadableControl { name: name.to_owned(), sequence, source })
}

#[derive(Debug, thiserror::Error)]
#[error("control event {name} at sequence {sequence} cannot be read by this version")]
pub struct UnreadableControl {
    name: String,
    sequence: Sequence,
    #[source]
    source: serde_json::Error,
}

/// Stable message id (P7): UUIDv5 over the length-prefixed parts.
pub fn message_id(log_id: LogId, exporter: &str, route: &str, sequence: Sequence) -> uuid::Uuid {
    let mut name = Vec::with_capacity(64);
    for part in [&log_id.0[..], exporter.as_bytes(), route.as_bytes(), &sequence.get().to_be_bytes()] {
        name.extend_from_slice(&(part.len() as u32).to_be_bytes());
        name.extend_from_slice(part);
    }
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_stable_and_do_not_collide() {
        let log = LogId([1; 16]);
        let id = |e: &str, r: &str, s| message_id(log, e, r, Sequence(s));
        assert_eq!(id("e", "r", 1), id("e", "r", 1));
        assert_ne!(id("er", "", 1), id("e", "r", 1));
        assert_ne!(id("e", "r", 1), id("e", "r", 2));
        assert_ne!(id("e", "r", 1), message_id(LogId([2; 16]), "e", "r", Sequence(1)));
    }

    #[test]
    fn a_parked_message_reads_as_a_dead_letter_and_keeps_its_effect() {
        let parked = Parked {
            route: "out@db1".into(),
            sequence: Sequence(5),
            stage: Stage::Export,
            code: "400".into(),
            error: "refused".into(),
            rule: None,
            key: Some("k".into()),
            event: "e".into(),
            waiting: false,
            blocks: vec![crate::ledger::BlockedKey::row(&"".into(), b"k")],
            at: 1,
        };
        for effect in [None, Some(Sequence(9))] {
            let message = ParkedMessage { parked: parked.clone(), effect };
            let json = serde_json::to_vec(&message).expect("serialises");
            assert_eq!(read::<Parked>(PARKED, Sequence(10), &json).expect("readable"), parked);
            assert_eq!(read::<ParkedMessage>(PARKED, Sequence(10), &json).expect("readable"), message);
        }
    }

    #[test]
    fn a_cursor_of_an_earlier_version_is_readable() {
        let cursor: Cursor = read(CURSOR, Sequence(1), br#"{"through":7,"delivered":3}"#).expect("readable");
        assert_eq!(cursor, Cursor { through: Sequence(7), delivered: 3, ..Cursor::default() });
        let written = serde_json::to_string(&cursor).expect("serialises");
        assert_eq!(written, r#"{"through":7,"delivered":3}"#, "what is not needed is not written");
    }

    #[test]
    fn keys_give_their_route_back() {
        assert_eq!(route_of(&numbered("db#1", 7)), Some("db#1"));
    }
}
