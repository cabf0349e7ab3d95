//! Joins the rules of one route with its live tables: what can be decided before the first event is decided here.

mod rule;
mod sets;

use std::sync::Arc;

use gravity_model::shape::SharedShape;
use gravity_model::{ColumnSet, Value};
use hashbrown::HashMap;
use indexmap::IndexMap;

use crate::codes;
use crate::convert::Converter;
use crate::diagnose::{Finding, Findings, closest};
use crate::file::UnknownFields;
use crate::load::DatabaseKind;
use crate::path::Meta;
use crate::ruleset::RuleSet;
use crate::trie::{Trie, TrieBuilder};

use rule::RuleCompiler;
pub(crate) use rule::convert_constant;
pub(crate) use sets::{ColumnSets, InternedSet};

/// The rules of one route, ready for events. Shared between tasks; evaluation needs `&self` only.
#[derive(Debug)]
pub struct RouteProgram {
    tables: Vec<SharedShape>,
    pub(crate) events: HashMap<Box<str>, EventProgram>,
    places: Vec<String>,
    pub(crate) sets: ColumnSets,
}

/// What one event does on the route.
#[derive(Debug)]
pub(crate) struct EventProgram {
    pub trie: Trie,
    /// Some rule passes fields through, so the names of all of them are wanted.
    pub wants_fields: bool,
    pub rules: Vec<RuleProgram>,
    /// Indices into [`RuleSet::subscriptions`].
    fires: Vec<u16>,
}

#[derive(Debug)]
pub(crate) struct RuleProgram {
    /// Index into the rule set, for `Change::rule`.
    pub rule: u16,
    pub table: u16,
    pub action: Action,
    /// In primary key order.
    pub key: Vec<KeyCell>,
    /// By ascending column.
    pub cells: Vec<Cell>,
    pub pass_through: Option<PassThrough>,
    /// The column set of an event that carries every cell.
    pub full: InternedSet,
    /// False for rules that live on metadata and constants alone.
    pub reads_payload: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Write,
    Insert { ignore: bool },
    Patch { park_if_missing: bool },
    Delete,
    DeleteAll,
}

#[derive(Debug)]
pub(crate) struct KeyCell {
    pub input: Input,
    pub previous: Option<Input>,
    pub converter: Converter,
    pub label: Label,
}

#[derive(Debug)]
pub(crate) struct Cell {
    pub column: u16,
    pub input: Input,
    pub converter: Converter,
    pub default: Option<Value>,
    pub not_null: bool,
    pub label: Label,
}

/// For messages about a cell.
#[derive(Debug)]
pub(crate) struct Label {
    /// `file:line` of the mapping, or of the rule where it passes fields through.
    pub place: String,
    pub source: String,
    pub target: String,
}

#[derive(Debug)]
pub(crate) enum Input {
    Slot(u32),
    Meta(Meta),
    Constant(Value),
}

#[derive(Debug)]
pub(crate) struct PassThrough {
    pub known: hashbrown::HashSet<Box<str>>,
    pub park_unknown: bool,
    pub place: String,
}

impl RouteProgram {
    /// Tables that changes refer to by index.
    pub fn tables(&self) -> &[SharedShape] {
        &self.tables
    }

    /// The column set of a change.
    pub fn column_set(&self, id: u32) -> Arc<ColumnSet> {
        self.sets.get(id)
    }

    /// Indices into [`RuleSet::subscriptions`] of the exporters that hear of the event on this route.
    pub fn fires(&self, event: &str) -> &[u16] {
        self.events.get(event).map_or(&[], |program| &program.fires)
    }

    /// True when the event has rules that write rows on this route; its messages then depend on them (SEMANTICS 5.1).
    pub fn writes(&self, event: &str) -> bool {
        self.events.get(event).is_some_and(|program| !program.rules.is_empty())
    }

    /// Tables that an event writes on this route, in the order of its rules, each once.
    pub fn tables_of(&self, event: &str) -> Vec<&str> {
        let mut tables: Vec<&str> = Vec::new();
        for rule in self.events.get(event).into_iter().flat_map(|program| &program.rules) {
            let table = self.tables[usize::from(rule.table)].table.as_str();
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        tables
    }

    /// True when a rule of this route names the event.
    pub fn wants(&self, event: &str) -> bool {
        self.events.contains_key(event)
    }

    /// Event names that this route wants, sorted. A block without any of them can be passed over.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.events.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names
    }

    /// `file:line` of a rule, by [`Change::rule`](crate::Change).
    pub fn rule_place(&self, rule: u16) -> &str {
        self.places.get(rule as usize).map_or("", String::as_str)
    }

    /// The same without exporters and without events that are only routed: for a view that is built beside its route.
    #[must_use]
    pub fn without_routings(mut self) -> RouteProgram {
        self.events.retain(|_, program| !program.rules.is_empty());
        self.events.values_mut().for_each(|program| program.fires.clear());
        self
    }
}

pub(crate) fn compile(
    rules: &RuleSet,
    database: &str,
    only_tables: Option<&[String]>,
    shapes: &[SharedShape],
) -> Result<RouteProgram, Findings> {
    let mut findings = Findings::new();
    let kind = rules.databases.get(database).map_or(DatabaseKind::Sqlite, |context| context.kind);
    let default_unknown = rules.databases.get(database).and_then(|context| context.unknown_fields).unwrap_or_default();
    let sets = ColumnSets::new();
    let mut tables: Vec<SharedShape> = Vec::new();
    let mut events: IndexMap<&str, (TrieBuilder, EventParts)> = IndexMap::new();
    for (index, rule) in rules.rules.iter().enumerate() {
        if rule.routing && rule.database.as_deref() == Some(database) {
            let (_, parts) = events.entry(&rule.event).or_default();
            for exporter in &rule.exporters {
                let matches = |s: &crate::Subscription| s.exporter == *exporter && s.database == database;
                let found = rules.subscriptions.iter().position(matches).map(|at| at as u16);
                parts.fires.extend(found.filter(|at| !parts.fires.contains(at)));
            }
        }
        let Some(projection) = &rule.projection else { continue };
        if !rule.databases.iter().any(|name| name == database)
            || only_tables.is_some_and(|only| !only.contains(&projection.table))
        {
            continue;
        }
        let Some(shape) = shapes.iter().find(|shape| shape.table == projection.table) else {
            let known: Vec<&str> = shapes.iter().map(|shape| shape.table.as_str()).collect();
            let suggestion = closest(&projection.table, known.iter().copied()).map(|t| format!("did you mean `{t}`?"));
            findings.push(
                Finding::at(
                    codes::UNKNOWN_TABLE,
                    &projection.table_place,
                    format!("database `{database}` has no table `{}`", projection.table),
                )
                .found(&projection.table)
                .suggest(suggestion),
            );
            continue;
        };
        let table = match tables.iter().position(|known| known.table == shape.table) {
            Some(table) => table,
            None => {
                tables.push(shape.clone());
                tables.len() - 1
            }
        };
        let (builder, parts) = events.entry(&rule.event).or_default();
        let mut compiler = RuleCompiler {
            database,
            kind,
            shape,
            projection,
            place: &rule.place,
            builder,
            findings: &mut findings,
            reads: false,
        };
        let park_unknown = projection.unknown_fields.unwrap_or(default_unknown) == UnknownFields::Park;
        if let Some(program) = compiler.rule(index as u16, table as u16, park_unknown, &sets) {
            parts.rules.push(program);
        }
    }
    if findings.has_errors() {
        findings.sort();
        return Err(findings);
    }
    let events = events
        .into_iter()
        .map(|(name, (builder, parts))| {
            let wants_fields = parts.rules.iter().any(|rule| rule.pass_through.is_some());
            (
                Box::from(name),
                EventProgram { trie: builder.build(), wants_fields, rules: parts.rules, fires: parts.fires },
            )
        })
        .collect();
    let places = rules.rules.iter().map(|rule| rule.place.to_string()).collect();
    Ok(RouteProgram { tables, events, places, sets })
}

#[derive(Default)]
struct EventParts {
    rules: Vec<RuleProgram>,
    fires: Vec<u16>,
}
