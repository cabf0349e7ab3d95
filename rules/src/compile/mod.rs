//! Joins the rules of one route with its live tables: what can be decided before the first event is decided here.

mod rule;
mod sets;

use std::sync::Arc;

use gravity_model::shape::SharedShape;
use gravity_model::{ColumnOp, ColumnSet, Value};
use hashbrown::HashMap;
use indexmap::IndexMap;

use crate::codes;
use crate::convert::Converter;
use crate::diagnose::{Finding, Findings, closest};
use crate::expression::{Program, Source};
use crate::file::UnknownFields;
use crate::load::DatabaseKind;
use crate::path::{Meta, Origin};
use crate::ruleset::{Formula, RuleSet};
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
    pub routings: Vec<Routing>,
    /// A filter stands somewhere: what becomes of the event is not known from its name.
    pub conditional: bool,
}

/// A rule that sends its event to the route.
#[derive(Debug)]
pub(crate) struct Routing {
    pub filter: Option<Filter>,
    /// Indices into [`RuleSet::subscriptions`].
    fires: Vec<u16>,
}

/// A condition and where it stands.
#[derive(Debug)]
pub(crate) struct Filter {
    pub program: Program,
    /// `file:line`.
    pub place: String,
}

/// A filter or an expression over the slots of `builder`. `None` where it was not checked, which loading does not let pass.
pub(crate) fn program_of(formula: &Formula, builder: &mut TrieBuilder) -> Option<Program> {
    let checked = formula.checked.clone()?;
    Some(Program::new(checked, |origin| match origin {
        Origin::Payload(path) => Source::Slot(builder.slot(path)),
        Origin::Meta(meta) => Source::Meta(meta.clone()),
    }))
}

fn filter_of(filter: Option<&Formula>, builder: &mut TrieBuilder) -> Option<Filter> {
    let filter = filter?;
    Some(Filter { program: program_of(filter, builder)?, place: filter.written.place.to_string() })
}

#[derive(Debug)]
pub(crate) struct RuleProgram {
    /// Index into the rule set, for `Change::rule`.
    pub rule: u16,
    pub table: u16,
    pub action: Action,
    pub filter: Option<Filter>,
    /// The rule names no database itself: its rows are written only if a routing of the event holds.
    pub routed: bool,
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
    pub op: ColumnOp,
    pub not_null: bool,
    pub label: Label,
}

impl Cell {
    /// A null cannot be carried into the column. One that joins what is there changes nothing, so it may come.
    #[inline]
    pub fn must_be_there(&self) -> bool {
        self.not_null && self.op == ColumnOp::Set
    }

    /// The value as a change carries it, of which null says nothing (see [`ColumnOp`]); `None`: not at all.
    #[inline]
    pub fn carried(&self, value: Value) -> Option<Value> {
        match (self.op, value) {
            (ColumnOp::Set, value) => Some(value),
            (_, Value::Null) => None,
            (ColumnOp::Append, Value::Json(item)) => Some(Value::Json(format!("[{}]", item.as_str().trim()).into())),
            (_, value) => Some(value),
        }
    }
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
    Expression(Box<Program>),
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
    pub fn fires(&self, event: &str) -> Vec<u16> {
        let mut all: Vec<u16> = Vec::new();
        for fired in self.events.get(event).into_iter().flat_map(|program| &program.routings).flat_map(|r| &r.fires) {
            if !all.contains(fired) {
                all.push(*fired);
            }
        }
        all
    }

    /// True when filters decide what becomes of the event: its name alone does not say whether rows are written or exporters
    /// told.
    pub fn is_conditional(&self, event: &str) -> bool {
        self.events.get(event).is_some_and(|program| program.conditional)
    }

    /// True when a routing of the event tells the subscription, going by the filters that `out` last looked at in
    /// [`RouteProgram::evaluate`].
    pub fn tells(&self, event: &str, subscription: u16, out: &crate::Evaluation) -> bool {
        let Some(program) = self.events.get(event) else { return false };
        let holds = |index: usize| out.scratch.held.get(index).copied().unwrap_or(true);
        program.routings.iter().enumerate().any(|(index, r)| r.fires.contains(&subscription) && holds(index))
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
        self.events.values_mut().flat_map(|program| &mut program.routings).for_each(|routing| routing.fires.clear());
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
            let (builder, parts) = events.entry(&rule.event).or_default();
            let fires = rule.exporters.iter().filter_map(|exporter| rules.subscription(database, exporter)).collect();
            parts.routings.push(Routing { filter: filter_of(rule.filter.as_ref(), builder), fires });
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
        let filter = filter_of(rule.filter.as_ref(), compiler.builder);
        let park_unknown = projection.unknown_fields.unwrap_or(default_unknown) == UnknownFields::Park;
        if let Some(program) = compiler.rule(index as u16, table as u16, park_unknown, &sets) {
            parts.rules.push(RuleProgram { filter, routed: rule.database.is_none(), ..program });
        }
    }
    if findings.has_errors() {
        findings.sort();
        return Err(findings);
    }
    let events = events
        .into_iter()
        .map(|(name, (builder, parts))| {
            let EventParts { rules, routings } = parts;
            let wants_fields = rules.iter().any(|rule| rule.pass_through.is_some());
            let conditional = routings.iter().any(|r| r.filter.is_some()) || rules.iter().any(|r| r.filter.is_some());
            (Box::from(name), EventProgram { trie: builder.build(), wants_fields, rules, routings, conditional })
        })
        .collect();
    let places = rules.rules.iter().map(|rule| rule.place.to_string()).collect();
    Ok(RouteProgram { tables, events, places, sets })
}

#[derive(Default)]
struct EventParts {
    rules: Vec<RuleProgram>,
    routings: Vec<Routing>,
}
