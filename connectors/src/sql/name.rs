//! Identifiers: the allow-list grammar that every table and column name must pass before it can reach a statement.
//!
//! `[A-Za-z_][A-Za-z0-9_]{0,62}`; a table may carry one schema before a dot. Names are always written between quotes, so
//! reserved words and mixed case mean themselves, and nothing that the grammar lets through can end a quote.

use gravity_model::{Fault, FaultKind};

/// Longest name in bytes (PostgreSQL cuts longer ones silently).
const LONGEST: usize = 63;

/// A column, table or schema name that passed the grammar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(Box<str>);

impl Name {
    pub fn parse(text: &str) -> Result<Name, BadName> {
        let bad = |why| BadName { name: text.to_owned(), why };
        let Some(first) = text.bytes().next() else { return Err(bad("it is empty")) };
        if !(first.is_ascii_alphabetic() || first == b'_') {
            return Err(bad("it must begin with a letter A-Z, a-z or an underscore"));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(bad("only letters A-Z, a-z, digits and underscores are allowed"));
        }
        if text.len() > LONGEST {
            return Err(bad("it is longer than 63 bytes"));
        }
        Ok(Name(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A table, with or without its schema, that is neither the database's nor ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableName {
    pub schema: Option<Name>,
    pub table: Name,
}

impl TableName {
    pub fn parse(text: &str) -> Result<TableName, BadName> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(Name::parse(schema).map_err(|e| e.within(text))?), table),
            None => (None, text),
        };
        let table = Name::parse(table).map_err(|e| e.within(text))?;
        let reserved = |name: &Name, prefixes: &[&str]| {
            let lower = name.as_str().to_ascii_lowercase();
            prefixes.iter().any(|p| lower.starts_with(p))
        };
        let bad = |why| BadName { name: text.to_owned(), why };
        if schema.as_ref().is_some_and(|s| reserved(s, &["pg_", "information_schema"])) {
            return Err(bad("the schema belongs to the database itself"));
        }
        if reserved(&table, &["pg_", "sqlite_"]) {
            return Err(bad("names that begin with pg_ or sqlite_ belong to the database itself"));
        }
        if reserved(&table, &["gravity_"]) {
            return Err(bad("names that begin with gravity_ are kept for bookkeeping"));
        }
        Ok(TableName { schema, table })
    }

    /// The name as a quoted SQL text, for catalogue look-ups that take a name as a *value*.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("\"{}\".\"{}\"", schema.as_str(), self.table.as_str()),
            None => format!("\"{}\"", self.table.as_str()),
        }
    }
}

/// A name that must not reach a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be used as a name: {why}")]
pub(crate) struct BadName {
    pub name: String,
    pub why: &'static str,
}

impl BadName {
    fn within(self, whole: &str) -> BadName {
        BadName { name: whole.to_owned(), ..self }
    }
}

impl From<BadName> for Fault {
    fn from(bad: BadName) -> Fault {
        Fault::new(FaultKind::Misconfigured, "live/name", "name a table or column", bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o35_only_the_grammar_passes() {
        for name in ["id", "_x", "User", "select", &"a".repeat(63)] {
            assert!(Name::parse(name).is_ok(), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["", "1a", "a\"b", "a;drop table x", "a b", "a-b", "a.b", "a\0", "é", "a'b", "a\nb", "a`b", &long]
        {
            assert!(Name::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn t2_tables_of_the_database_and_ours_are_refused() {
        for name in ["users", "public.users", "Sales.Orders"] {
            assert!(TableName::parse(name).is_ok(), "{name}");
        }
        for name in [
            "pg_catalog.pg_class",
            "information_schema.tables",
            "sqlite_master",
            "SQLITE_master",
            "gravity_checkpoints",
            "public.gravity_views",
            "Gravity_x",
            "a.b.c",
            ".a",
            "a.",
            "pg_class",
        ] {
            assert!(TableName::parse(name).is_err(), "{name}");
        }
    }
}
