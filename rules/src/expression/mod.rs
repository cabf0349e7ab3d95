//! Filters and expressions: CEL's syntax as one small, total, deterministic language (SEMANTICS 2.6).
//!
//! A text goes through four steps: [`Written::parse`] reads it; [`infer::types`] finds the type of every event field from the
//! declarations and from all expressions of that event; [`check::Checker`] refuses whatever could fail later and bounds the cost;
//! [`program::Program`] runs over the slots of one scan. Nothing of a loaded expression can fail: a value of another type is
//! refused while the fields are bound, before the first step is evaluated.

mod bind;
mod check;
mod evaluate;
mod function;
mod infer;
mod kind;
mod lex;
mod native;
mod number;
mod parse;
mod program;
mod value;

use std::ops::Range;

use crate::diagnose::{Finding, Place};

pub(crate) use bind::Source;
pub(crate) use check::{Checked, Checker};
pub(crate) use infer::{FieldTypes, Known};
pub(crate) use kind::Kind;
pub(crate) use parse::Ast;
pub(crate) use program::{Event, Misfit, Program};

/// Longest text of an expression, in bytes.
pub(crate) const MOST_BYTES: usize = 4_096;

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub code: &'static str,
    pub range: Range<usize>,
    pub message: String,
    pub allowed: Vec<String>,
    pub suggestion: Option<String>,
}

impl Trouble {
    fn new(code: &'static str, range: Range<usize>, message: impl Into<String>) -> Trouble {
        Trouble { code, range, message: message.into(), allowed: Vec::new(), suggestion: None }
    }

    #[must_use]
    fn allowed<S: Into<String>>(mut self, allowed: impl IntoIterator<Item = S>) -> Trouble {
        self.allowed = allowed.into_iter().map(Into::into).collect();
        self
    }

    #[must_use]
    fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Trouble {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    /// The same at its place in the file; `place` is the JSON text that holds the expression.
    pub fn finding(self, place: &Place) -> Finding {
        let place = place.within_text(self.range);
        let found = place.text().to_owned();
        Finding::at(self.code, &place, self.message).found(found).allowed(self.allowed).suggest(self.suggestion)
    }
}

/// An expression as it stands in the file, read.
#[derive(Debug)]
pub(crate) struct Written {
    /// Of the JSON text, quotes included.
    pub place: Place,
    pub ast: Ast,
    /// One blank between words, no comments: equal for texts that differ only in layout.
    pub normal: String,
}

impl Written {
    pub fn parse(text: &str, place: Place) -> Result<Written, Trouble> {
        if text.len() > MOST_BYTES {
            let message = format!("an expression has at most {MOST_BYTES} bytes");
            return Err(Trouble::new(crate::codes::EXPRESSION_COST, 0..text.len(), message));
        }
        let tokens = lex::tokens(text)?;
        let words: Vec<&str> = tokens.iter().map(|(_, range)| &text[range.clone()]).collect();
        let normal = words.join(" ").trim_end().to_owned();
        Ok(Written { place, ast: parse::parse(tokens)?, normal })
    }
}
