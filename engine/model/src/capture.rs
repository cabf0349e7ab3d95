//! What change data capture says happened to a row, carried beside the payload: the log keeps a message as it was received,
//! and whoever evaluates it has to know that its payload is a change and not the row itself.

use std::fmt;

/// Header of an event whose message is a captured change. Only the engine writes it; a producer's header of that name is
/// left out at ingest.
pub const CAPTURE_HEADER: &str = "gravity-change";

/// What happened to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowChange {
    Create,
    Update,
    Delete,
    /// Found by a snapshot.
    Read,
    /// All rows of the table are gone; the message names none.
    Truncate,
    /// A null payload that stands for a delete: the row is named by the event's key.
    Tombstone,
}

impl RowChange {
    const WORDS: [(RowChange, &'static str); 6] = [
        (RowChange::Create, "create"),
        (RowChange::Update, "update"),
        (RowChange::Delete, "delete"),
        (RowChange::Read, "read"),
        (RowChange::Truncate, "truncate"),
        (RowChange::Tombstone, "tombstone"),
    ];

    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(change, _)| *change == self).map_or("", |(_, word)| word)
    }
}

/// Value of [`CAPTURE_HEADER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Captured {
    pub change: RowChange,
    /// The event's name does not tell the operation, so the method of a rule follows it: a `delete` removes the row that an
    /// `upsert` rule would write.
    pub method_follows: bool,
}

/// Behind the word where the method follows.
const FOLLOWS: &str = ", method follows";

impl Captured {
    /// Reads a header's value; `None` for what [`fmt::Display`] never writes.
    pub fn read(value: &[u8]) -> Option<Captured> {
        let text = std::str::from_utf8(value).ok()?;
        let (word, method_follows) = match text.strip_suffix(FOLLOWS) {
            Some(word) => (word, true),
            None => (text, false),
        };
        let (change, _) = RowChange::WORDS.into_iter().find(|(_, known)| *known == word)?;
        Some(Captured { change, method_follows })
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.change.word())?;
        if self.method_follows { f.write_str(FOLLOWS) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_round_trip() {
        for (change, _) in RowChange::WORDS {
            for method_follows in [false, true] {
                let mark = Captured { change, method_follows };
                assert_eq!(Captured::read(mark.to_string().as_bytes()), Some(mark));
            }
        }
        for other in ["", "c", "delete,", "Create", ", method follows"] {
            assert_eq!(Captured::read(other.as_bytes()), None, "{other}");
        }
    }
}
