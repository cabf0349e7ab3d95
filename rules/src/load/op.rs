//! Checks the `op` of one mapping: where a value may join the one that is there, and where that would have no exact meaning.

use gravity_model::{ColumnOp, ColumnType};

use super::At;
use crate::codes;
use crate::diagnose::{Finding, Findings};
use crate::file::{MappingEntry, Method};

/// The op of a mapping; other than `set` only where nothing speaks against it, else after findings.
pub(super) fn check(
    entry: &MappingEntry,
    method: Method,
    in_key: bool,
    column_type: Option<&ColumnType>,
    at: &At<'_>,
    findings: &mut Findings,
) -> ColumnOp {
    let op = entry.op.map_or(ColumnOp::Set, ColumnOp::from);
    if op == ColumnOp::Set {
        return op;
    }
    let word = op.word();
    let mut refuse = |key: &str, message: String, suggestion: &'static str| {
        findings.push(
            Finding::at(codes::BAD_OP, &at.value(key), message)
                .found(word)
                .allowed(["set"])
                .suggest((!suggestion.is_empty()).then_some(suggestion)),
        );
    };
    match method {
        _ if in_key => {
            refuse("/op", format!("the key finds the row, so `{word}` cannot change column `{}`", entry.target), "");
        }
        Method::Update | Method::Upsert | Method::Patch => {}
        Method::Insert => {
            // Whether a row is the same that was inserted before cannot be seen in a sum.
            let message = format!("`insert` takes an event that comes twice for one, which `{word}` cannot show");
            refuse("/op", message, "write \"method\": \"upsert\"");
        }
        Method::Delete | Method::Truncate => {
            refuse("/op", format!("no row is written, so there is nothing to {word}"), "")
        }
    }
    if entry.default.is_some() {
        let message = format!("`{word}` begins with nothing where there is no row, so a `default` is never used");
        refuse("/default", message, "leave `default` out");
    }
    if entry.value.as_ref().is_some_and(|constant| constant.text().trim() == "null") {
        refuse("/value", format!("`{word}` of null changes nothing"), "");
    }
    if let Some(column_type) = column_type
        && !op.fits(column_type)
    {
        findings.push(unfit(op, column_type, Finding::at(codes::OP_TYPE, &at.value("/type"), String::new())));
    }
    op
}

/// Completes a finding about a type that the op has no meaning for.
pub(crate) fn unfit(op: ColumnOp, column_type: &ColumnType, finding: Finding) -> Finding {
    let word = op.word();
    let what = match op {
        ColumnOp::Add => "sums are of numbers",
        ColumnOp::Append => "texts and lists have an end to append to",
        ColumnOp::Min | ColumnOp::Max | ColumnOp::Set => "only numbers, texts, dates and times have an order here",
    };
    Finding { message: format!("`{word}` does not work on {column_type}: {what}"), ..finding }
        .found(column_type.to_string())
        .allowed(op.fitting().iter().copied())
}
