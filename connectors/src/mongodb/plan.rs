//! From the overlay to writes, one per document, in the order in which they are made: what gives up a unique value goes
//! before what may take it.

use mongodb::bson::{Bson, Document};

use super::overlay::{Collection, Entry, live};

/// What is done to one document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// The document goes.
    Remove,
    /// Fields of a document that is there.
    Set(Document),
    /// The whole document in place of a tombstone.
    Replace(Document),
    /// The whole document, where there was nothing.
    Insert(Document),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub id: Bson,
    pub before: Option<Document>,
    pub action: Action,
}

/// The writes of a collection. In one that is cleared, all that are not among them go before.
pub(super) fn writes(collection: &Collection) -> Vec<Write> {
    let mut writes: Vec<Write> = collection.entries.iter().filter(|entry| entry.touched).filter_map(write).collect();
    writes.sort_by_key(|write| match write.action {
        Action::Remove => 0,
        Action::Set(_) => 1,
        Action::Replace(_) => 2,
        Action::Insert(_) => 3,
    });
    writes
}

fn write(entry: &Entry) -> Option<Write> {
    let action = match (live(entry.before.as_ref()), &entry.now) {
        (None, None) => return None,
        (Some(_), None) => Action::Remove,
        (Some(before), Some(now)) => Action::Set(changed(before, now)),
        (None, Some(now)) if entry.before.is_some() => Action::Replace(whole(entry, now)),
        (None, Some(now)) => Action::Insert(whole(entry, now)),
    };
    // A document that was deleted and made again in one transaction has lost the fields that it does not name.
    let action = match (action, &entry.before, &entry.now) {
        (Action::Set(_), Some(before), Some(now)) if before.keys().any(|name| is_lost(name, now)) => {
            Action::Replace(whole(entry, now))
        }
        (action, _, _) => action,
    };
    Some(Write { id: entry.id.clone(), before: entry.before.clone(), action })
}

/// Under the `_id` that the server has, whose number may be of another width.
fn whole(entry: &Entry, now: &Document) -> Document {
    let mut document = now.clone();
    document.insert("_id", entry.id.clone());
    document
}

fn is_lost(name: &str, now: &Document) -> bool {
    name != super::overlay::MARK && !now.contains_key(name)
}

/// Fields whose value is another one now.
fn changed(before: &Document, now: &Document) -> Document {
    now.iter()
        .filter(|(name, value)| *name != "_id" && before.get(name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    fn entry(before: Option<Document>, now: Option<Document>) -> Entry {
        Entry { id: Bson::Int64(1), before, now, touched: true }
    }

    #[test]
    fn one_write_per_document() {
        let old = || Some(doc! { "_id": 1_i64, "_g": 3_i64, "a": 1, "b": 2 });
        let tombstone = || Some(doc! { "_id": 1_i64, "_g": 3_i64, "_gravity_deleted": true });
        let action = |before, now| write(&entry(before, now)).map(|write| write.action);
        let fresh = doc! { "_id": 1_i64, "a": 5 };
        assert_eq!(action(None, None), None);
        assert_eq!(action(tombstone(), None), None);
        assert_eq!(action(old(), None), Some(Action::Remove));
        assert_eq!(action(None, Some(fresh.clone())), Some(Action::Insert(fresh.clone())));
        assert_eq!(action(tombstone(), Some(fresh.clone())), Some(Action::Replace(fresh.clone())));
        let changed = doc! { "_id": 1_i64, "_g": 3_i64, "a": 5, "b": 2 };
        assert_eq!(action(old(), Some(changed)), Some(Action::Set(doc! { "a": 5 })));
        assert_eq!(action(old(), old()), Some(Action::Set(doc! {})));
        assert_eq!(action(old(), Some(fresh.clone())), Some(Action::Replace(fresh)), "made again");
    }
}
