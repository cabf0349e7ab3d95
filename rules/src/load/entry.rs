//! Checks one rule by itself.

use hashbrown::HashMap;

use super::mapping;
use super::{At, Context};
use crate::codes;
use crate::diagnose::{Finding, Findings, Place, closest};
use crate::file::{MappingEntry, Method, OneOrMany, RuleEntry};
use crate::ident::{self, BadName};
use crate::ruleset::{Mapping, Projection, Rule};

/// Beginnings of control events that no rule may name: working on one makes the next (SEMANTICS 1.2). Beside cursors, parks,
/// retries and skips those are what the engine writes about them (released, missed) and about its intake (source).
const SELF_FEEDING: [&str; 7] = [
    "gravity.cursor",
    "gravity.park",
    "gravity.retr",
    "gravity.skip",
    "gravity.released",
    "gravity.missed",
    "gravity.source",
];

const METHODS: [&str; 6] = ["insert", "update", "upsert", "patch", "delete", "truncate"];

/// The rule, or `None` after findings.
pub(super) fn check(entry: RuleEntry, at: &At<'_>, context: &Context, findings: &mut Findings) -> Option<Rule> {
    let before = errors(findings);
    event(&entry.event, at, findings);
    let filter = entry.filter.as_ref().and_then(|text| super::formula::read(text, at.value("/filter"), findings));
    if entry.match_columns.is_some() {
        findings.push(not_built(&at.key("/match"), "`match`"));
    }
    if let Some(name) = &entry.database {
        database(name, at, context, findings);
    }
    exporters(entry.exporter.as_deref().unwrap_or_default(), at, context, findings);
    let exporters = entry.exporter.clone().unwrap_or_default();
    let projection = match table(&entry, at, findings) {
        Some((table, place)) => projection(&entry, table, place, at, findings),
        None => {
            without_table(&entry, at, findings);
            None
        }
    };
    if errors(findings) > before {
        return None;
    }
    Some(Rule {
        place: at.itself(),
        id: entry.id,
        event: entry.event,
        projection,
        database: entry.database,
        exporters,
        filter,
        databases: Vec::new(),
        routing: false,
    })
}

/// Warnings do not make a rule unusable.
fn errors(findings: &Findings) -> usize {
    findings.iter().filter(|f| f.severity == crate::diagnose::Severity::Error).count()
}

fn not_built(place: &Place, what: &str) -> Finding {
    Finding::at(codes::NOT_BUILT, place, format!("this build does not have {what} yet"))
}

pub(super) fn database(name: &str, at: &At<'_>, context: &Context, findings: &mut Findings) {
    if !context.databases.contains_key(name) {
        let (known, place) = (context.databases.keys().map(String::as_str), at.value("/database"));
        findings.push(unknown_name(codes::UNKNOWN_DATABASE, "database", "databases.json", name, known, &place));
    }
}

pub(super) fn exporters(names: &[String], at: &At<'_>, context: &Context, findings: &mut Findings) {
    for (index, name) in names.iter().enumerate().filter(|(_, name)| !context.exporters.contains(name)) {
        let known = context.exporters.iter().map(String::as_str);
        let place = at.value(&format!("/exporter/{index}"));
        findings.push(unknown_name(codes::UNKNOWN_EXPORTER, "exporter", "exporter.json", name, known, &place));
    }
}

pub(super) fn event(name: &str, at: &At<'_>, findings: &mut Findings) {
    let place = at.value("/event");
    let message = if name.is_empty() {
        "an event has a name".to_owned()
    } else if name.chars().any(char::is_control) {
        "an event's name has no control characters".to_owned()
    } else if SELF_FEEDING.iter().any(|prefix| name.starts_with(prefix)) {
        format!("no rule may name `{name}`: each would make the next one")
    } else {
        return;
    };
    findings.push(Finding::at(codes::BAD_EVENT, &place, message).found(name));
}

fn unknown_name<'k>(
    code: &'static str,
    what: &str,
    file: &str,
    name: &str,
    known: impl Iterator<Item = &'k str> + Clone,
    place: &Place,
) -> Finding {
    let suggestion = closest(name, known.clone()).map(|known| format!("did you mean `{known}`?"));
    Finding::at(code, place, format!("there is no {what} `{name}` in {file}"))
        .found(name)
        .allowed(known)
        .suggest(suggestion)
}

/// `table` or its other spelling.
fn table(entry: &RuleEntry, at: &At<'_>, findings: &mut Findings) -> Option<(String, Place)> {
    let (name, place) = match (&entry.table, &entry.collection) {
        (Some(_), Some(other)) => {
            let message = "`collection` is another spelling of `table`: write one of them";
            findings.push(Finding::at(codes::DUPLICATE_KEY, &at.key("/collection"), message).found(other));
            return entry.table.clone().map(|name| (name, at.value("/table")));
        }
        (Some(name), None) => (name, at.value("/table")),
        (None, Some(name)) => (name, at.value("/collection")),
        (None, None) => return None,
    };
    table_name(name, &place, findings);
    Some((name.clone(), place))
}

pub(super) fn table_name(name: &str, place: &Place, findings: &mut Findings) {
    match ident::check_table(name) {
        Ok(()) => {}
        Err(BadName::Grammar) => findings.push(
            Finding::at(codes::BAD_IDENTIFIER, place, format!("`{name}` cannot be the name of a table"))
                .found(name)
                .allowed([format!("{}; or SCHEMA.TABLE", ident::GRAMMAR)]),
        ),
        Err(BadName::Reserved) => findings.push(
            Finding::at(codes::RESERVED_TABLE, place, format!("`{name}` belongs to the database or to Gravity itself"))
                .found(name),
        ),
    }
}

/// Keys that speak of rows need a table; a rule that says nothing at all is a slip.
fn without_table(entry: &RuleEntry, at: &At<'_>, findings: &mut Findings) {
    let row_keys = [
        ("method", entry.method.is_some()),
        ("mapping", entry.mapping.is_some()),
        ("primaryKey", entry.primary_key.is_some()),
        ("on_conflict", entry.on_conflict.is_some()),
        ("on_missing", entry.on_missing.is_some()),
        ("unknown_fields", entry.unknown_fields.is_some()),
    ];
    let mut any = false;
    for (key, _) in row_keys.into_iter().filter(|(_, present)| *present) {
        any = true;
        let message = format!("`{key}` says how rows are written, but the rule names no `table`");
        findings.push(Finding::at(codes::TABLE_MISSING, &at.key(&format!("/{key}")), message).found(key));
    }
    if !any && entry.database.is_none() && entry.exporter.as_ref().is_none_or(Vec::is_empty) {
        let message = "this rule does nothing: it has neither `table` nor `database` nor `exporter`";
        findings.push(Finding::at(codes::EMPTY_RULE, &at.itself(), message).allowed(["table", "database", "exporter"]));
    }
}

fn projection(
    entry: &RuleEntry,
    table: String,
    table_place: Place,
    at: &At<'_>,
    findings: &mut Findings,
) -> Option<Projection> {
    let Some(method) = entry.method else {
        let message = format!("nothing says what to do with the rows of `{table}`");
        findings.push(Finding::at(codes::METHOD_MISSING, &at.itself(), message).allowed(METHODS));
        return None;
    };
    let entries = entry.mapping.as_deref().unwrap_or_default();
    let pass_through = entries.is_empty() && method != Method::Truncate;
    unused_keys(entry, method, pass_through, at, findings);
    let mut seen = HashMap::new();
    let mut mappings = Vec::new();
    for (index, mapping) in entries.iter().enumerate() {
        let pointer = format!("{}/mapping/{index}", at.pointer);
        let at = At { positions: at.positions, pointer: &pointer };
        let named = |key: &OneOrMany| key.as_slice().contains(&mapping.target);
        let in_key = mapping.primary == Some(true) || entry.primary_key.as_ref().is_some_and(named);
        mappings.extend(mapping::check(mapping, method, in_key, &at, &mut seen, findings));
    }
    let whole = mappings.len() == entries.len();
    let (key, key_place) = key(entry, entries, &mappings, method, pass_through, at, findings);
    if !whole {
        return None;
    }
    if matches!(method, Method::Delete | Method::Truncate) {
        drop_unused_mappings(&mut mappings, &key, method, findings);
    }
    Some(Projection {
        table,
        table_place,
        method,
        mappings,
        key,
        key_place,
        on_conflict: entry.on_conflict.unwrap_or_default(),
        on_missing: entry.on_missing.unwrap_or_default(),
        unknown_fields: entry.unknown_fields,
    })
}

/// Keys that would change nothing with this method are refused: they show that something else was meant.
fn unused_keys(entry: &RuleEntry, method: Method, pass_through: bool, at: &At<'_>, findings: &mut Findings) {
    let cases = [
        (
            "on_conflict",
            entry.on_conflict.is_some() && method != Method::Insert,
            "only `insert` meets rows that exist already",
        ),
        ("on_missing", entry.on_missing.is_some() && method != Method::Patch, "only `patch` needs a row that exists"),
        (
            "unknown_fields",
            entry.unknown_fields.is_some() && (!pass_through || method == Method::Delete),
            "only a rule without `mapping` passes fields through",
        ),
        (
            "primaryKey",
            entry.primary_key.is_some() && method == Method::Truncate,
            "`truncate` removes all rows and needs no key",
        ),
    ];
    for (key, _, why) in cases.into_iter().filter(|(_, unused, _)| *unused) {
        let message = format!("`{key}` has no effect here: {why}");
        findings.push(Finding::at(codes::UNUSED_KEY, &at.key(&format!("/{key}")), message).found(key));
    }
}

/// The key columns in order, by `primary` or `primaryKey`; empty: the live table's.
fn key(
    entry: &RuleEntry,
    entries: &[MappingEntry],
    mappings: &[Mapping],
    method: Method,
    pass_through: bool,
    at: &At<'_>,
    findings: &mut Findings,
) -> (Vec<String>, Place) {
    let marked: Vec<String> = entries.iter().filter(|m| m.primary == Some(true)).map(|m| m.target.clone()).collect();
    let Some(named) = &entry.primary_key else {
        // Without a key an update or delete could only be dropped or hit every row.
        let keyless = entries.iter().all(|m| m.primary != Some(true));
        let needs_key = !pass_through && !matches!(method, Method::Insert | Method::Truncate);
        if keyless && needs_key {
            let word = METHODS[method as usize];
            let message = format!("`{word}` needs a key: no mapping has `\"primary\": true`");
            findings.push(
                Finding::at(codes::KEY_MISSING, &at.value("/method"), message).found(word).suggest(Some(
                    "mark the key's mapping with \"primary\": true, or write \"primaryKey\": \"COLUMN\"",
                )),
            );
        }
        return (marked, at.value("/mapping").start());
    };
    let place = at.value("/primaryKey");
    let named = named.as_slice();
    for (index, name) in named.iter().enumerate() {
        let mut fail = |code, message: String, suggestion: Option<String>| {
            findings.push(Finding::at(code, &place, message).found(name).suggest(suggestion));
        };
        if ident::check_column(name).is_err() {
            fail(codes::BAD_IDENTIFIER, format!("`{name}` cannot be the name of a column"), None);
        } else if named[..index].contains(name) {
            fail(codes::KEY_CONFLICT, format!("`{name}` stands twice in the key"), None);
        } else if !pass_through
            && method != Method::Truncate
            && mappings.len() == entries.len()
            && !mappings.iter().any(|m| m.target == *name)
        {
            let by_source = entries.iter().find(|m| m.source.as_deref() == Some(name)).map(|m| m.target.as_str());
            let near = by_source.or_else(|| closest(name, entries.iter().map(|m| m.target.as_str())));
            let suggestion = near.map(|target| format!("did you mean the column `{target}`?"));
            fail(codes::KEY_NOT_MAPPED, format!("nothing is mapped to the key column `{name}`"), suggestion);
        } else if entries.iter().any(|m| m.target == *name && m.primary == Some(false)) {
            fail(codes::KEY_CONFLICT, format!("the mapping of `{name}` says \"primary\": false"), None);
        }
    }
    if named.is_empty() {
        findings.push(Finding::at(codes::KEY_MISSING, &place, "the key needs at least one column").found("[]"));
    }
    let stray = marked.iter().find(|target| !named.contains(target));
    if let Some(stray) = stray {
        let message = format!("`primaryKey` leaves out `{stray}`, which its mapping marks as primary");
        findings.push(
            Finding::at(codes::KEY_CONFLICT, &place, message).found(named.join(", ")).allowed([marked.join(", ")]),
        );
    }
    (named.to_vec(), place)
}

/// `delete` needs the key's columns only, `truncate` none: the others are dropped with a warning, since such lists are often
/// copied from the rule that writes.
fn drop_unused_mappings(mappings: &mut Vec<Mapping>, key: &[String], method: Method, findings: &mut Findings) {
    let word = METHODS[method as usize];
    mappings.retain(|mapping| {
        let used = method == Method::Delete && (key.is_empty() || key.contains(&mapping.target));
        if !used {
            let message = format!("`{word}` does not write column `{}`", mapping.target);
            findings.push(Finding::at(codes::UNUSED_MAPPING, &mapping.place, message).found(&mapping.target).warning());
        }
        used
    });
}
