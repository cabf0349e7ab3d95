//! The row in a captured change: what rules read of a Debezium message, whose bytes the log keeps as they came.
//!
//! A rule's paths begin in the row: `after`, or `before` of a delete, or the key where a tombstone stands for a delete. The
//! change's own parts (`before.x`, `after.x`, `op`, `source.x`, `ts_ms`, `transaction.x`) can be named too, where the row has no
//! field of that name. Values that only a schema explains are put into words that columns know: [`meaning`].

mod meaning;
mod schema;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use gravity_model::{CAPTURE_HEADER, Captured, Event, RowChange};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::compile::{Action, EventProgram};
use crate::scan::{self, Kind, ScanError, Slot};
use crate::trie::{Trie, TrieBuilder};

use schema::RowSchema;
pub(crate) use schema::Schemas;

/// What the engine noted about the event at ingest. The last header counts: a producer's own comes before it.
pub(crate) fn captured(event: &Event<'_>) -> Option<Captured> {
    if event.headers.is_empty() {
        return None;
    }
    let (_, value) = event.headers.iter().filter(|(name, _)| *name == CAPTURE_HEADER).last()?;
    Captured::read(value)
}

/// The key changed: Debezium sends a delete of the old key and a create of the new one.
const NEW_KEY: &str = "__debezium.newkey";
const OLD_KEY: &str = "__debezium.oldkey";

/// True for the half of a key change that writes nothing: the create that names the old key moves the row (SEMANTICS 2.3).
pub(crate) fn is_left_to_the_create(event: &Event<'_>, captured: Captured) -> bool {
    captured.change == RowChange::Delete && event.headers.get(NEW_KEY).is_some()
}

/// What a rule does about a change; `None`: the change is none of its business.
pub(crate) fn action_on(action: Action, captured: Option<Captured>) -> Option<Action> {
    let Some(Captured { change, method_follows: true }) = captured else { return Some(action) };
    match (change, action) {
        (RowChange::Delete | RowChange::Tombstone, Action::Write | Action::Insert { .. } | Action::Delete) => {
            Some(Action::Delete)
        }
        (RowChange::Truncate, Action::Write | Action::Insert { .. } | Action::DeleteAll) => Some(Action::DeleteAll),
        (RowChange::Delete | RowChange::Tombstone | RowChange::Truncate, _) => None,
        // A snapshot may find a row that is there already, and an update always does.
        (RowChange::Read | RowChange::Update, Action::Insert { .. }) => Some(Action::Write),
        (RowChange::Create | RowChange::Read | RowChange::Update, Action::Delete | Action::DeleteAll) => None,
        (RowChange::Create | RowChange::Read | RowChange::Update, action) => Some(action),
    }
}

/// Working memory for the rows of one event.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// The row that rules read.
    pub row: Row,
    /// The row under its former key.
    pub former: Row,
    pub schemas: Schemas,
}

/// One row as JSON. Behind the text stand documents that a value of it holds as text.
#[derive(Debug, Default)]
pub(crate) struct Row {
    buffer: Vec<u8>,
    text: Range<usize>,
    /// Place of a value's token in the text, and of its document in the buffer.
    documents: Vec<(u32, Range<usize>)>,
    /// The text is this stretch of the event's payload instead, which says the same.
    in_payload: Option<Range<usize>>,
    /// A key that is no object: the value of a key of one column.
    pub scalar: Option<Vec<u8>>,
    pub slots: Vec<Slot>,
}

impl Row {
    fn clear(&mut self) {
        self.buffer.clear();
        self.documents.clear();
        (self.text, self.in_payload, self.scalar) = (0..0, None, None);
    }

    /// The bytes that slots are about.
    pub fn bytes<'r>(&'r self, payload: &'r [u8]) -> &'r [u8] {
        match &self.in_payload {
            Some(range) => &payload[range.clone()],
            None => &self.buffer[self.text.clone()],
        }
    }

    /// The JSON document that the text at `slot` holds, where the schema says that it holds one.
    pub fn document(&self, slot: Slot) -> Option<&[u8]> {
        let (_, range) = self.documents.iter().find(|(at, _)| *at == slot.start)?;
        Some(&self.buffer[range.clone()])
    }

    /// Scans the row for what rules want.
    pub fn scan(&mut self, payload: &[u8], trie: &Trie, fields: Option<&mut Vec<(u32, u32)>>) -> Result<(), ScanError> {
        let mut slots = std::mem::take(&mut self.slots);
        slots.clear();
        slots.resize(trie.slots(), Slot::default());
        let scanned =
            if self.scalar.is_some() { Ok(()) } else { scan::scan(self.bytes(payload), trie, &mut slots, fields) };
        self.slots = slots;
        scanned
    }
}

/// Which of the change's own parts a message has, with and without schema.
const PARTS: [&str; 8] = ["before", "after", "op", "source", "ts_ms", "ts_us", "ts_ns", "transaction"];

struct Places {
    trie: Trie,
    schema: u32,
    payload: u32,
    bare: [u32; PARTS.len()],
    wrapped: [u32; PARTS.len()],
}

static PLACES: LazyLock<Places> = LazyLock::new(|| {
    use crate::path::Step::Member;
    let mut builder = TrieBuilder::default();
    let member = |name: &str| Member(name.to_owned());
    let schema = builder.slot(&[member("schema")]);
    let payload = builder.slot(&[member("payload")]);
    let bare = PARTS.map(|part| builder.slot(&[member(part)]));
    let wrapped = PARTS.map(|part| builder.slot(&[member("payload"), member(part)]));
    Places { trie: builder.build(), schema, payload, bare, wrapped }
});

/// Finds the row of a change, and the one before where it may have had another key. False: the change names no row.
pub(crate) fn read_rows(
    event: &Event<'_>,
    captured: Captured,
    program: &EventProgram,
    rows: &mut Rows,
) -> Result<bool, ScanError> {
    rows.row.clear();
    rows.former.clear();
    if captured.change == RowChange::Truncate {
        return Ok(false);
    }
    let Some(payload) = event.payload else { return of_key(event.key, rows) };
    let places = &*PLACES;
    let mut found = vec![Slot::default(); places.trie.slots()];
    scan::scan(payload, &places.trie, &mut found, None)?;
    let at = |slot: u32| found[slot as usize];
    let is_wrapped = at(places.payload).kind == Kind::Object && at(places.bare[2]).kind == Kind::Absent;
    let parts = if is_wrapped { &places.wrapped } else { &places.bare };
    let (before, after) = (at(parts[0]), at(parts[1]));
    let row = if captured.change == RowChange::Delete { before } else { after };
    if row.kind != Kind::Object {
        return of_key(event.key, rows);
    }
    let schema = match at(places.schema) {
        slot if is_wrapped && slot.kind == Kind::Object => {
            Some(rows.schemas.of_change(&payload[slot.start as usize..slot.end as usize]))
        }
        _ => None,
    };
    let schema = schema.as_deref().filter(|schema| !schema.is_empty());
    let wants_part = |name: &str| !program.wants_fields && program.trie.root().named(name.as_bytes()).is_some();
    let own_parts: Vec<(&str, Slot)> = PARTS.iter().zip(parts).map(|(name, slot)| (*name, at(*slot))).collect();
    let own_parts: Vec<(&str, Slot)> =
        own_parts.into_iter().filter(|(name, slot)| slot.kind != Kind::Absent && wants_part(name)).collect();
    build(payload, row, &own_parts, schema, &mut rows.row);
    match former_key(event, captured) {
        Some(key) => {
            of_bytes(key, &mut rows.schemas, &mut rows.former)?;
        }
        None if captured.change == RowChange::Update && before.kind == Kind::Object => {
            build(payload, before, &[], schema, &mut rows.former);
        }
        None => {}
    }
    Ok(true)
}

impl Rows {
    /// True where the event says what the row's key was before.
    pub fn has_former(&self) -> bool {
        let row = &self.former;
        row.in_payload.is_some() || !row.text.is_empty() || row.scalar.is_some()
    }
}

fn former_key<'e>(event: &Event<'e>, captured: Captured) -> Option<&'e [u8]> {
    if captured.change == RowChange::Create { event.headers.get(OLD_KEY) } else { None }
}

fn of_key(key: Option<&[u8]>, rows: &mut Rows) -> Result<bool, ScanError> {
    match key {
        Some(key) => of_bytes(key, &mut rows.schemas, &mut rows.row),
        None => Ok(false),
    }
}

/// Reads a key: an object, an object behind its schema, or one value as JSON or plain text.
fn of_bytes(key: &[u8], schemas: &mut Schemas, row: &mut Row) -> Result<bool, ScanError> {
    let places = &*PLACES;
    let mut found = vec![Slot::default(); places.trie.slots()];
    let text = key.trim_ascii();
    if text.first() != Some(&b'{') || scan::scan(text, &places.trie, &mut found, None).is_err() {
        row.scalar = Some(text.to_vec());
        return Ok(true);
    }
    let (schema, payload) = (found[places.schema as usize], found[places.payload as usize]);
    let is_wrapped = matches!(schema.kind, Kind::Object | Kind::Null) && payload.kind != Kind::Absent;
    if is_wrapped && payload.kind != Kind::Object {
        row.scalar = Some(text[payload.start as usize..payload.end as usize].to_vec());
        return Ok(payload.kind != Kind::Null);
    }
    let whole = Slot { start: 0, end: text.len() as u32, kind: Kind::Object };
    let (at, known) = match (is_wrapped, schema.kind) {
        (true, Kind::Object) => (payload, Some(schemas.of_row(&text[schema.start as usize..schema.end as usize]))),
        (true, _) => (payload, None),
        (false, _) => (whole, None),
    };
    build(text, at, &[], known.as_deref(), row);
    // The key is not the payload, so its bytes are kept.
    if let Some(range) = row.in_payload.take() {
        row.buffer.extend_from_slice(&text[range]);
        row.text = 0..row.buffer.len();
    }
    Ok(true)
}

/// What Debezium writes where a value was not at hand, because it did not change: the column is left alone.
const UNAVAILABLE: &[u8] = b"__debezium_unavailable_value";
/// The same for a column of bytes.
const UNAVAILABLE_BASE64: &[u8] = b"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

fn holds_unavailable(text: &[u8]) -> bool {
    memchr::memmem::find(text, UNAVAILABLE).is_some() || memchr::memmem::find(text, UNAVAILABLE_BASE64).is_some()
}

fn is_unavailable(token: &[u8]) -> bool {
    let inner = match token {
        [b'[', inner @ .., b']'] => inner.trim_ascii(),
        token => token,
    };
    match inner {
        [b'"', inner @ .., b'"'] => inner == UNAVAILABLE || inner == UNAVAILABLE_BASE64,
        _ => false,
    }
}

/// Lays out a row: as it stands in `bytes` where that will do, else word by word.
fn build(bytes: &[u8], at: Slot, own_parts: &[(&str, Slot)], schema: Option<&RowSchema>, into: &mut Row) {
    let range = at.start as usize..at.end as usize;
    let schema = schema.filter(|schema| !schema.is_empty());
    if own_parts.is_empty() && schema.is_none() && !holds_unavailable(&bytes[range.clone()]) {
        into.in_payload = Some(range);
        return;
    }
    let mut documents = Vec::new();
    into.buffer.push(b'{');
    for (name, slot) in own_parts {
        separate(&mut into.buffer);
        into.buffer.extend_from_slice(format!("\"{name}\":").as_bytes());
        let part = &bytes[slot.start as usize..slot.end as usize];
        match (*name, slot.kind) {
            ("before" | "after", Kind::Object) => {
                into.buffer.push(b'{');
                members(part, schema, &mut into.buffer, &mut documents);
                into.buffer.push(b'}');
            }
            _ => into.buffer.extend_from_slice(part),
        }
    }
    members(&bytes[range], schema, &mut into.buffer, &mut documents);
    into.buffer.push(b'}');
    into.text = 0..into.buffer.len();
    for (start, document) in documents {
        let from = into.buffer.len();
        into.buffer.extend_from_slice(document.as_bytes());
        into.documents.push((start, from..into.buffer.len()));
    }
}

fn separate(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}

/// Writes the members of an object that was scanned before.
fn members(object: &[u8], schema: Option<&RowSchema>, out: &mut Vec<u8>, documents: &mut Vec<(u32, String)>) {
    let Ok(Members(members)) = serde_json::from_slice(object) else { return };
    for (name, value) in members {
        let token = value.get();
        if is_unavailable(token.as_bytes()) {
            continue;
        }
        separate(out);
        out.extend_from_slice(serde_json::Value::from(&*name).to_string().as_bytes());
        out.push(b':');
        let meaning = schema.and_then(|schema| schema.meaning(&name));
        let start = out.len() as u32;
        match meaning {
            Some(meaning::Meaning::Document) => {
                out.extend_from_slice(token.as_bytes());
                documents.extend(meaning::document(token).map(|document| (start, document)));
            }
            Some(meaning) => match meaning.words(token) {
                Some(words) => out.extend_from_slice(words.as_bytes()),
                None => out.extend_from_slice(token.as_bytes()),
            },
            None => out.extend_from_slice(token.as_bytes()),
        }
    }
}

struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}
