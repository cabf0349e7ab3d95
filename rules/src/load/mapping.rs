//! Checks one mapping by itself.

use gravity_model::{ColumnOp, ColumnType};
use hashbrown::HashMap;

use super::{At, op};
use crate::codes;
use crate::compile::convert_constant;
use crate::convert::{Cast, Converter};
use crate::diagnose::{Finding, Findings, Place, closest};
use crate::file::{Constant, MappingEntry, Method};
use crate::ident::{self, BadName};
use crate::path::{BadPath, Meta, Origin};
use crate::ruleset::{MappedValue, Mapping};

/// Words of other worlds for our types.
const ALIASES: &[(&str, &str)] = &[
    ("int", "i32"),
    ("integer", "i32"),
    ("int2", "i16"),
    ("int4", "i32"),
    ("int8", "i64"),
    ("smallint", "i16"),
    ("bigint", "i64"),
    ("long", "i64"),
    ("uint", "u32"),
    ("float", "f64"),
    ("double", "f64"),
    ("real", "f32"),
    ("number", "decimal"),
    ("numeric", "decimal"),
    ("string", "text"),
    ("char", "varchar(n)"),
    ("varchar", "varchar(n)"),
    ("boolean", "bool"),
    ("datetime", "timestamp"),
    ("bytes", "binary"),
    ("bytea", "binary"),
    ("blob", "binary"),
    ("jsonb", "json"),
    ("object", "json"),
];

/// Checks the mapping at `at`; `seen` holds the targets so far. `in_key`: its column is part of the rule's key.
pub(super) fn check(
    entry: &MappingEntry,
    method: Method,
    in_key: bool,
    at: &At<'_>,
    seen: &mut HashMap<String, usize>,
    findings: &mut Findings,
) -> Option<Mapping> {
    let before = findings.len();
    target(&entry.target, at, seen, findings);
    let column_type = match &entry.column_type {
        Some(word) => column_type(word, &at.value("/type"), findings),
        None => None,
    };
    let op = op::check(entry, method, in_key, column_type.as_ref(), at, findings);
    let value = value(entry, at, findings);
    if let (Some(constant), Some(column_type)) = (&entry.value, &column_type) {
        check_constant(constant, column_type, &at.value("/value"), findings);
    }
    if let (Some(constant), ColumnOp::Set) = (&entry.default, op) {
        default(entry, constant, method, column_type.as_ref(), at, findings);
    }
    let previous = match &entry.previous {
        Some(text) => previous(entry, text, method, at, findings),
        None => None,
    };
    if findings.len() > before {
        return None;
    }
    Some(Mapping {
        place: at.itself(),
        target: entry.target.clone(),
        value: value?,
        column_type,
        default: entry.default.clone(),
        op,
        previous,
    })
}

pub(super) fn target(name: &str, at: &At<'_>, seen: &mut HashMap<String, usize>, findings: &mut Findings) {
    let place = at.value("/target");
    if ident::check_column(name) == Err(BadName::Grammar) {
        findings.push(
            Finding::at(codes::BAD_IDENTIFIER, &place, format!("`{name}` cannot be the name of a column"))
                .found(name)
                .allowed([ident::GRAMMAR]),
        );
    }
    if let Some(line) = seen.insert(name.to_owned(), place.line()) {
        findings.push(
            Finding::at(codes::DUPLICATE_TARGET, &place, format!("two mappings write column `{name}`"))
                .found(name)
                .suggest(Some(format!("the first one is in line {line}"))),
        );
    }
}

/// Exactly one of `source`, `value`, `expression`.
fn value(entry: &MappingEntry, at: &At<'_>, findings: &mut Findings) -> Option<MappedValue> {
    const WAYS: [&str; 3] = ["source", "value", "expression"];
    let given = [entry.source.is_some(), entry.value.is_some(), entry.expression.is_some()];
    let several = WAYS.iter().zip(given).filter(|(_, given)| *given).nth(1);
    if let Some((second, _)) = several {
        let message = "a mapping has one of `source`, `value` and `expression`";
        findings.push(Finding::at(codes::SOURCE_CHOICE, &at.key(&format!("/{second}")), message).allowed(WAYS));
        return None;
    }
    if let Some(text) = &entry.source {
        return path(text, &at.value("/source"), findings).map(MappedValue::Source);
    }
    if let Some(constant) = &entry.value {
        return Some(MappedValue::Constant(constant.clone()));
    }
    if let Some(text) = &entry.expression {
        return super::formula::read(text, at.value("/expression"), findings).map(MappedValue::Expression);
    }
    let message = format!("nothing says what goes into column `{}`", entry.target);
    findings.push(Finding::at(codes::SOURCE_CHOICE, &at.itself(), message).allowed(WAYS));
    None
}

fn default(
    entry: &MappingEntry,
    constant: &Constant,
    method: Method,
    column_type: Option<&ColumnType>,
    at: &At<'_>,
    findings: &mut Findings,
) {
    let useless = match method {
        _ if entry.primary == Some(true) => Some("a key has no default: an event without it is parked"),
        _ if entry.value.is_some() => Some("a constant is always there, so its default is never used"),
        _ if entry.expression.is_some() => Some("an expression always gives a value or null: write coalesce(…, VALUE)"),
        Method::Patch => Some("`patch` never creates a row, so the default is never used"),
        Method::Delete | Method::Truncate => Some("no row is written, so the default is never used"),
        _ => None,
    };
    if let Some(message) = useless {
        findings.push(Finding::at(codes::UNUSED_KEY, &at.key("/default"), message).found("default"));
    }
    if let Some(column_type) = column_type {
        check_constant(constant, column_type, &at.value("/default"), findings);
    }
}

fn previous(entry: &MappingEntry, text: &str, method: Method, at: &At<'_>, findings: &mut Findings) -> Option<Origin> {
    let message = if entry.primary != Some(true) {
        Some("`previous` stands on a mapping with `\"primary\": true`: it is the key's former value")
    } else if !matches!(method, Method::Update | Method::Upsert) {
        Some("only `update` and `upsert` move a row to another key")
    } else if entry.value.is_some() {
        Some("a constant has no former value")
    } else if entry.expression.is_some() {
        Some("the event holds no former value of what is computed")
    } else {
        None
    };
    if let Some(message) = message {
        findings.push(Finding::at(codes::BAD_PREVIOUS, &at.key("/previous"), message).found(text));
    }
    path(text, &at.value("/previous"), findings)
}

fn check_constant(constant: &Constant, column_type: &ColumnType, place: &Place, findings: &mut Findings) {
    let converter =
        Converter { read_as: column_type.clone(), cast: Cast::Same, refuse_nul: false, refuse_json_nul: false };
    if let Err(reason) = convert_constant(constant, &converter) {
        let message = format!("this constant is no {column_type}: {reason}");
        findings.push(Finding::at(codes::BAD_CONSTANT, place, message).found(constant.text()));
    }
}

/// A path, or a finding.
pub(super) fn path(text: &str, place: &Place, findings: &mut Findings) -> Option<Origin> {
    match Origin::parse(text) {
        Ok(origin) => Some(origin),
        Err(error) => {
            let finding = Finding::at(codes::BAD_PATH, place, format!("`{text}` is no path: {error}")).found(text);
            findings.push(match error {
                BadPath::UnknownMeta => {
                    let suggestion = closest(text, Meta::WORDS.iter().copied()).map(|w| format!("did you mean `{w}`?"));
                    finding.allowed(Meta::WORDS.iter().copied()).suggest(suggestion)
                }
                BadPath::Malformed(_) => finding.allowed(["a.b[0].c", "/a/b/0", "$meta.NAME"]),
            });
            None
        }
    }
}

/// A type word, or a finding.
pub(super) fn column_type(word: &str, place: &Place, findings: &mut Findings) -> Option<ColumnType> {
    match word.parse() {
        Ok(column_type) => Some(column_type),
        Err(_) => {
            let lower = word.to_ascii_lowercase();
            let alias = ALIASES.iter().find(|(other, _)| *other == lower).map(|(_, ours)| *ours);
            let lowered = lower.parse::<ColumnType>().ok().map(|_| lower.as_str());
            let suggestion = alias.or(lowered).or_else(|| closest(word, ColumnType::WORDS.iter().copied()));
            findings.push(
                Finding::at(codes::UNKNOWN_TYPE, place, format!("`{word}` is no type"))
                    .found(word)
                    .allowed(ColumnType::WORDS.iter().copied().chain(["T[]"]))
                    .suggest(suggestion.map(|ours| format!("did you mean `{ours}`?"))),
            );
            None
        }
    }
}
