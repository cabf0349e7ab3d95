//! What a transaction has made of the documents that it touches, before anything is written. Pure.
//!
//! Steps work on documents in memory that were read for them; the result is one write per document, whatever number of steps
//! and events it took.

use std::collections::HashMap;

use gravity_model::{Fault, FaultKind, RowGroup, RowOp, TableShape, Value};
use mongodb::bson::{Bson, Document, doc};

use super::codec::{LARGEST, field, identity};
use super::combine::combine;
use super::error::{DUPLICATE_KEY, TOO_LARGE};

/// Sequence through which the transaction went that wrote the document last; on a stand-alone server only.
pub(super) const MARK: &str = "_g";
/// True in what is left of a deleted document.
pub(super) const DELETED: &str = "_gravity_deleted";

/// One document under a transaction.
pub(super) struct Entry {
    pub id: Bson,
    /// As the database had it, a tombstone included.
    pub before: Option<Document>,
    /// As it is to be; `None`: deleted, or not there.
    pub now: Option<Document>,
    /// A step changed it or meant to.
    pub touched: bool,
}

/// The touched documents of one collection, in the order in which they were met.
#[derive(Default)]
pub(super) struct Collection {
    pub entries: Vec<Entry>,
    places: HashMap<Vec<u8>, usize>,
    /// All documents that are not among the entries go.
    pub cleared: bool,
}

#[derive(Default)]
pub(super) struct Overlay {
    pub collections: Vec<(String, Collection)>,
    /// What to put back when the event under way is refused.
    savepoint: Option<Vec<Undo>>,
}

enum Undo {
    Document { collection: usize, entry: usize, now: Option<Document>, touched: bool },
    Cleared { collection: usize },
}

/// A tombstone is no document.
pub(super) fn live(document: Option<&Document>) -> Option<&Document> {
    document.filter(|document| !document.contains_key(DELETED))
}

/// Bytes that are equal where the server takes two `_id` for one: it compares numbers, whatever their width.
pub(super) fn bytes_of(id: &Bson) -> Vec<u8> {
    doc! { "": widened(id) }.to_vec().unwrap_or_default()
}

fn widened(id: &Bson) -> Bson {
    /// Below it every whole number is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match id {
        Bson::Int32(number) => Bson::Int64(i64::from(*number)),
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < EXACT => Bson::Int64(*number as i64),
        Bson::Document(parts) => {
            Bson::Document(parts.iter().map(|(name, part)| (name.clone(), widened(part))).collect())
        }
        other => other.clone(),
    }
}

impl Overlay {
    pub fn is_empty(&self) -> bool {
        self.collections.iter().all(|(_, c)| !c.cleared && c.entries.iter().all(|e| !e.touched))
    }

    pub fn knows(&self, name: &str) -> bool {
        self.collections.iter().any(|(n, _)| n == name)
    }

    pub fn collection(&mut self, name: &str) -> usize {
        if let Some(index) = self.collections.iter().position(|(n, _)| n == name) {
            return index;
        }
        self.collections.push((name.to_owned(), Collection::default()));
        self.collections.len() - 1
    }

    /// The `_id`s that a group touches and that were not read yet.
    pub fn unread(&mut self, collection: usize, shape: &TableShape, group: &RowGroup) -> Result<Vec<Bson>, Fault> {
        let mut ids = Vec::new();
        let mut wanted = std::collections::HashSet::new();
        let held = &self.collections[collection].1;
        let keys = shape.primary_key.len();
        for row in 0..group.len() {
            let values = group.row(row);
            let both = if group.op == RowOp::Move { 2 } else { 1 };
            for key in values[..keys * both].chunks(keys) {
                let id = identity(shape, key)?;
                let bytes = bytes_of(&id);
                if !held.places.contains_key(&bytes) && wanted.insert(bytes) {
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    }

    /// Takes what was read for `ids`; those without a document are known to be missing.
    pub fn read(&mut self, collection: usize, ids: Vec<Bson>, found: Vec<Document>) {
        let collection = &mut self.collections[collection].1;
        let mut by_id: HashMap<Vec<u8>, Document> =
            found.into_iter().filter_map(|document| Some((bytes_of(document.get("_id")?), document))).collect();
        for id in ids {
            let bytes = bytes_of(&id);
            let before = by_id.remove(&bytes);
            let now = live(before.as_ref()).filter(|_| !collection.cleared).cloned();
            // Of one value, perhaps of another width: the document keeps its own.
            let id = before.as_ref().and_then(|document| document.get("_id").cloned()).unwrap_or(id);
            collection.places.insert(bytes, collection.entries.len());
            collection.entries.push(Entry { id, before, now, touched: false });
        }
    }

    pub fn clear(&mut self, collection: usize) {
        if !self.collections[collection].1.cleared {
            self.note(Undo::Cleared { collection });
        }
        self.collections[collection].1.cleared = true;
        for entry in 0..self.collections[collection].1.entries.len() {
            self.change(collection, entry, None);
        }
    }

    /// What follows can be taken back by [`Overlay::undo`].
    pub fn begin_event(&mut self) {
        self.savepoint = Some(Vec::new());
    }

    pub fn keep(&mut self) {
        self.savepoint = None;
    }

    pub fn undo(&mut self) {
        for undo in self.savepoint.take().into_iter().flatten().rev() {
            match undo {
                Undo::Document { collection, entry, now, touched } => {
                    let entry = &mut self.collections[collection].1.entries[entry];
                    (entry.now, entry.touched) = (now, touched);
                }
                Undo::Cleared { collection } => {
                    // Documents read since then were taken for missing.
                    let collection = &mut self.collections[collection].1;
                    collection.cleared = false;
                    for entry in collection.entries.iter_mut().filter(|entry| !entry.touched) {
                        entry.now = live(entry.before.as_ref()).cloned();
                    }
                }
            }
        }
    }

    fn note(&mut self, undo: Undo) {
        if let Some(savepoint) = &mut self.savepoint {
            savepoint.push(undo);
        }
    }

    fn change(&mut self, collection: usize, entry: usize, now: Option<Document>) {
        let held = &mut self.collections[collection].1.entries[entry];
        let old = std::mem::replace(&mut held.now, now);
        let touched = std::mem::replace(&mut held.touched, true);
        self.note(Undo::Document { collection, entry, now: old, touched });
    }

    /// Writes a group whose documents were read. Returns the rows that a patch did not find.
    pub fn write(&mut self, collection: usize, shape: &TableShape, group: &RowGroup) -> Result<Vec<usize>, Fault> {
        if group.columns.joins() && matches!(group.op, RowOp::Insert | RowOp::InsertIgnore) {
            // Whether a document is the one that was inserted before cannot be told of a sum.
            let doing = format!("write rows of {}", shape.table);
            return Err(Fault::new(FaultKind::Misconfigured, "live/shape", doing, "an insert joins no values"));
        }
        let mut missed = Vec::new();
        for row in 0..group.len() {
            if !self.write_row(collection, shape, group, row)? {
                missed.push(row);
            }
        }
        Ok(missed)
    }

    fn place(&self, collection: usize, shape: &TableShape, key: &[Value]) -> Result<usize, Fault> {
        let place = self.collections[collection].1.places.get(&bytes_of(&identity(shape, key)?));
        place.copied().ok_or_else(|| {
            Fault::new(FaultKind::Transient, "unread", format!("write a row of {}", shape.table), "it was not read")
        })
    }

    fn write_row(
        &mut self,
        collection: usize,
        shape: &TableShape,
        group: &RowGroup,
        row: usize,
    ) -> Result<bool, Fault> {
        let values = group.row(row);
        let keys = shape.primary_key.len();
        let (old, rest) = values.split_at(keys);
        let (new, rest) = if group.op == RowOp::Move { rest.split_at(keys) } else { (old, rest) };
        let (set, on_create) = rest.split_at(group.columns.set.len());
        let place = self.place(collection, shape, old)?;
        let present = self.collections[collection].1.entries[place].now.clone();
        let fresh = || -> Result<Document, Fault> {
            let mut document = keyed(shape, new)?;
            self::set(shape, group, &mut document, set)?;
            for (column, value) in group.columns.on_create.iter().zip(on_create) {
                document.insert(name(shape, *column), field(shape, *column, value)?);
            }
            sized(shape, document)
        };
        match (group.op, present) {
            (RowOp::Delete, present) => {
                if present.is_some() {
                    self.change(collection, place, None);
                }
            }
            (RowOp::Patch, None) => return Ok(false),
            (RowOp::PatchRequired, None) => {
                return Err(refusal("row-missing", shape, format!("there is no document with key {}", shown(old))));
            }
            (RowOp::InsertIgnore, Some(_)) => {}
            (RowOp::Insert, Some(present)) => {
                let wanted = fresh()?;
                // A field that was never written is null to whoever reads it.
                if wanted.iter().any(|(name, value)| present.get(name).unwrap_or(&Bson::Null) != value) {
                    let detail = format!("a document with key {} exists with other values", shown(old));
                    return Err(refusal(DUPLICATE_KEY.to_string(), shape, detail));
                }
            }
            (RowOp::Move, present) => {
                let target = self.place(collection, shape, new)?;
                if target != place && self.collections[collection].1.entries[target].now.is_some() {
                    let detail = format!("a document with key {} exists", shown(new));
                    return Err(refusal(DUPLICATE_KEY.to_string(), shape, detail));
                }
                let document = match present {
                    None => fresh()?,
                    Some(mut document) => {
                        for (field, value) in keyed(shape, new)? {
                            document.insert(field, value);
                        }
                        self::set(shape, group, &mut document, set)?;
                        sized(shape, document)?
                    }
                };
                if target != place {
                    self.change(collection, place, None);
                }
                self.change(collection, target, Some(document));
            }
            (_, None) => {
                let document = fresh()?;
                self.change(collection, place, Some(document));
            }
            (_, Some(mut document)) => {
                self::set(shape, group, &mut document, set)?;
                let document = sized(shape, document)?;
                self.change(collection, place, Some(document));
            }
        }
        Ok(true)
    }
}

fn name(shape: &TableShape, column: u16) -> &str {
    &shape.columns[usize::from(column)].name
}

/// A document of nothing but its key: in `_id`, and part by part in fields of their own.
fn keyed(shape: &TableShape, key: &[Value]) -> Result<Document, Fault> {
    let mut document = doc! { "_id": identity(shape, key)? };
    for (column, value) in shape.primary_key.iter().zip(key) {
        if name(shape, *column) != "_id" {
            document.insert(name(shape, *column), field(shape, *column, value)?);
        }
    }
    Ok(document)
}

fn set(shape: &TableShape, group: &RowGroup, document: &mut Document, values: &[Value]) -> Result<(), Fault> {
    for (index, (column, value)) in group.columns.set.iter().zip(values).enumerate() {
        let name = name(shape, *column);
        let given = field(shape, *column, value)?;
        let column_type = &shape.columns[usize::from(*column)].column_type;
        let joined = combine(group.columns.op(index), column_type, document.get(name), (value, given));
        let value = joined.map_err(|(code, detail)| refusal(code, shape, format!("column {name}: {detail}")))?;
        document.insert(name, value);
    }
    Ok(())
}

fn sized(shape: &TableShape, document: Document) -> Result<Document, Fault> {
    let doing = || format!("write a row of {}", shape.table);
    let bytes = document
        .to_vec()
        .map_err(|error| Fault::new(FaultKind::RefusedEvent, TOO_LARGE.to_string(), doing(), error.to_string()))?;
    if bytes.len() > LARGEST {
        let detail = format!("a document of {} bytes; at most {LARGEST} are written", bytes.len());
        return Err(Fault::new(FaultKind::RefusedEvent, TOO_LARGE.to_string(), doing(), detail));
    }
    Ok(document)
}

fn refusal(code: impl Into<std::borrow::Cow<'static, str>>, shape: &TableShape, detail: String) -> Fault {
    Fault::new(FaultKind::RefusedEvent, code, format!("write a row of {}", shape.table), detail)
}

/// A key for messages, cut where it is long.
fn shown(key: &[Value]) -> String {
    let text = format!("{key:?}");
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
