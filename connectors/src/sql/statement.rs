//! The one place where statement text is put together from parts and handed to sqlx as safe.
//!
//! A [`Statement`] can only hold literals of this crate, names that passed [`Name`]'s grammar, numbers, and type words that
//! passed [`TypeWord`]. Values of events never come here: they are bound. DDL that `describe` proposed is the one text taken
//! whole, through [`Statement::proposed_ddl`].

use std::fmt::Write;
use std::sync::Arc;

use gravity_model::{Fault, FaultKind};
use sqlx::AssertSqlSafe;

use super::name::{Name, TableName};

/// Finished statement text; a clone costs a reference count, and the prepared statement is found again by its text.
#[derive(Clone, Debug)]
pub(crate) struct Statement(Arc<str>);

impl Statement {
    /// For sqlx.
    pub fn text(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(self.0.clone())
    }

    /// Takes DDL that came back from `create`; anything but one CREATE TABLE is refused.
    pub fn proposed_ddl(text: &str) -> Result<Statement, Fault> {
        let body = text.trim_end().trim_end_matches(';');
        if !body.starts_with("CREATE TABLE ") || body.contains(';') || body.contains('\0') {
            return Err(Fault::new(
                FaultKind::Misconfigured,
                "live/ddl",
                "create a table",
                format!("not a single CREATE TABLE statement: {text:?}"),
            ));
        }
        Ok(Statement(body.into()))
    }
}

/// Puts a statement together.
pub(crate) struct StatementBuilder {
    text: String,
    /// Stands on both sides of a name; the grammar of names lets neither through.
    quote: char,
}

impl StatementBuilder {
    /// Names between `"`, as the standard has it.
    pub fn new() -> StatementBuilder {
        StatementBuilder { text: String::with_capacity(256), quote: '"' }
    }

    /// Names between backticks, which MySQL understands in every `sql_mode`.
    pub fn with_backticks() -> StatementBuilder {
        StatementBuilder { quote: '`', ..StatementBuilder::new() }
    }

    pub fn add(&mut self, literal: &'static str) -> &mut Self {
        self.text.push_str(literal);
        self
    }

    pub fn name(&mut self, name: &Name) -> &mut Self {
        self.text.push(self.quote);
        self.text.push_str(name.as_str());
        self.text.push(self.quote);
        self
    }

    pub fn table(&mut self, table: &TableName) -> &mut Self {
        if let Some(schema) = &table.schema {
            self.name(schema).add(".");
        }
        self.name(&table.table)
    }

    pub fn number(&mut self, number: usize) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{number}");
        self
    }

    pub fn type_word(&mut self, word: &TypeWord) -> &mut Self {
        self.text.push_str(&word.0);
        self
    }

    /// `count` parts written by `each`, with `separator` between them.
    pub fn list(
        &mut self,
        separator: &'static str,
        count: usize,
        mut each: impl FnMut(&mut StatementBuilder, usize),
    ) -> &mut Self {
        for i in 0..count {
            if i > 0 {
                self.add(separator);
            }
            each(self, i);
        }
        self
    }

    pub fn finish(self) -> Statement {
        Statement(self.text.into())
    }

    /// The text alone, for DDL shown to people.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A type as the live catalogue spells it (`numeric(12,2)`, `"Mood"`, `integer[]`), checked before it is used in a cast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeWord(Box<str>);

impl TypeWord {
    pub fn parse(text: &str) -> Result<TypeWord, Fault> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_ ,().[]\"".contains(&b);
        let quotes = text.bytes().filter(|b| *b == b'"').count();
        if text.is_empty() || !text.bytes().all(allowed) || quotes % 2 != 0 {
            return Err(Fault::new(
                FaultKind::Misconfigured,
                "live/column-type",
                "use a column's type",
                format!("{text:?} is no type name that can be written into a statement"),
            ));
        }
        Ok(TypeWord(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_words_cannot_leave_their_place() {
        for word in ["numeric(12,2)", "timestamp(3) with time zone", "\"My Mood\"", "public.mood[]"] {
            assert!(TypeWord::parse(word).is_ok(), "{word}");
        }
        for word in ["", "int;drop table x", "int--", "int'", "\"a", "int\0", "a/*b*/"] {
            assert!(TypeWord::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn ddl_is_one_create_table() {
        assert!(Statement::proposed_ddl("CREATE TABLE \"t\" (\"id\" bigint);").is_ok());
        for text in ["DROP TABLE t", "CREATE TABLE t (id int); DROP TABLE u", "create role x"] {
            assert!(Statement::proposed_ddl(text).is_err(), "{text}");
        }
    }
}
