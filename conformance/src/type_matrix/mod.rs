//! Every type word in every database: what an event says, and what the database's own client reads back, or the code by which
//! the event is refused. The expectations are written by hand; `docs/types.md` is printed from the same rows.
//!
//! A cell goes the whole way: bytes of a payload, rules, log, route, store, a table that `"ddl": "create"` made.

pub mod lists;
pub mod numbers;
pub mod page;
pub mod read;
pub mod texts;
pub mod times;

use std::collections::BTreeMap;

/// Databases of the matrix, in the order of the page's columns. A further one joins here, and every cell below has to say what
/// it shows there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Postgres,
    Mariadb,
    Sqlite,
    Mongodb,
}

/// How many there are.
pub const TARGETS: usize = 4;

impl Target {
    pub const ALL: [Target; TARGETS] = [Target::Postgres, Target::Mariadb, Target::Sqlite, Target::Mongodb];

    pub fn heading(self) -> &'static str {
        match self {
            Target::Postgres => "PostgreSQL",
            Target::Mariadb => "MariaDB",
            Target::Sqlite => "SQLite",
            Target::Mongodb => "MongoDB",
        }
    }
}

/// What becomes of a value in one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The text that the database's client reads back.
    Reads(String),
    /// The code of the dead letter.
    Refused(&'static str),
}

/// One value of an event and what it is everywhere.
#[derive(Clone, Debug)]
pub struct Cell {
    /// A JSON value as it stands in the payload.
    pub given: String,
    /// For the page, where the value itself is too long for one.
    pub label: Option<&'static str>,
    pub shows: BTreeMap<Target, Shown>,
}

/// One type word.
#[derive(Clone, Debug)]
pub struct TypeRow {
    /// The word as a mapping gives it.
    pub word: &'static str,
    /// The column's type in the words of each database; in MongoDB the types of what stands in the field.
    pub columns: BTreeMap<Target, &'static str>,
    /// A table that a DBA made, where no type word of ours makes such a column.
    pub made: Option<BTreeMap<Target, &'static str>>,
    pub cells: Vec<Cell>,
    /// What the page says below the table.
    pub notes: Vec<&'static str>,
}

/// One text for each of [`Target::ALL`], in its order.
pub type Each = [Shown; TARGETS];

pub fn reads(text: impl Into<String>) -> Shown {
    Shown::Reads(text.into())
}

pub fn refused(code: &'static str) -> Shown {
    Shown::Refused(code)
}

fn each<T>(values: [T; TARGETS]) -> BTreeMap<Target, T> {
    Target::ALL.into_iter().zip(values).collect()
}

impl TypeRow {
    /// A type and the columns that `"ddl": "create"` makes for it. SQLite's is storage class and declared type.
    pub fn new(word: &'static str, columns: [&'static str; TARGETS]) -> TypeRow {
        TypeRow { word, columns: each(columns), made: None, cells: Vec::new(), notes: Vec::new() }
    }

    /// Columns of tables that a DBA made; written by rules that declare `word`.
    #[must_use]
    pub fn made(mut self, ddl: [&'static str; TARGETS]) -> TypeRow {
        self.made = Some(each(ddl));
        self
    }

    /// The same text everywhere.
    #[must_use]
    pub fn all(self, given: &str, shown: &str) -> TypeRow {
        self.each(given, Target::ALL.map(|_| reads(shown)))
    }

    /// Different texts.
    #[must_use]
    pub fn texts(self, given: &str, shown: [&str; TARGETS]) -> TypeRow {
        self.each(given, shown.map(reads))
    }

    /// Different texts in the databases that speak SQL, and a refusal in MongoDB.
    #[must_use]
    pub fn but(self, given: &str, [postgres, mariadb, sqlite]: [&str; 3], code: &'static str) -> TypeRow {
        self.each(given, [reads(postgres), reads(mariadb), reads(sqlite), refused(code)])
    }

    /// Refused everywhere, before any database sees it.
    #[must_use]
    pub fn refuses(self, code: &'static str, given: &[&str]) -> TypeRow {
        given.iter().fold(self, |row, given| row.each(given, Target::ALL.map(|_| refused(code))))
    }

    #[must_use]
    pub fn each(self, given: &str, shown: Each) -> TypeRow {
        self.cell(None, given, shown)
    }

    /// A value that the page only names.
    #[must_use]
    pub fn labelled(self, label: &'static str, given: &str, shown: Each) -> TypeRow {
        self.cell(Some(label), given, shown)
    }

    fn cell(mut self, label: Option<&'static str>, given: &str, shown: Each) -> TypeRow {
        self.cells.push(Cell { given: given.to_owned(), label, shows: each(shown) });
        self
    }

    #[must_use]
    pub fn note(mut self, text: &'static str) -> TypeRow {
        self.notes.push(text);
        self
    }
}

/// The matrix by chapters of the page.
pub fn chapters() -> Vec<(&'static str, Vec<TypeRow>)> {
    vec![
        ("Numbers and booleans", numbers::rows()),
        ("Text, uuid and binary", texts::rows()),
        ("Dates and times", times::rows()),
        ("JSON, lists and enumerations", lists::rows()),
    ]
}
