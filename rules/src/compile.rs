//! Joins the rules of one route with its live tables: what can be decided before the first event is decided here.

use std::sync::{Arc, PoisonError, RwLock};

use gravity_model::shape::SharedShape;
use gravity_model::{ColumnSet, ColumnType, TableShape, Value};
use hashbrown::HashMap;
use indexmap::IndexMap;

use crate::codes;
use crate::convert::{Cast, Converter, Given};
use crate::diagnose::{Finding, Findings, Place, closest};
use crate::file::{Constant, Method, OnConflict, OnMissing, UnknownFields};
use crate::load::DatabaseKind;
use crate::path::{Meta, Origin, Step};
use crate::ruleset::{MappedValue, Mapping, Projection, RuleSet};
use crate::scan::{self, Slot};
use crate::trie::{Trie, TrieBuilder};

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
    Slot(u16),
    Meta(Meta),
    Constant(Value),
}

#[derive(Debug)]
pub(crate) struct PassThrough {
    pub known: hashbrown::HashSet<Box<str>>,
    pub park_unknown: bool,
    pub place: String,
}

/// A column set by number, and the first column that it leaves without value in a new row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InternedSet {
    pub id: u32,
    /// NOT NULL, without default, and not among key, `set` and `on_create`.
    pub uncovered: Option<u16>,
}

/// Column sets that events have needed so far. Few: one per combination of absent fields that occurs.
#[derive(Debug, Default)]
pub(crate) struct ColumnSets {
    inner: RwLock<SetsInner>,
}

#[derive(Debug, Default)]
struct SetsInner {
    sets: Vec<Arc<ColumnSet>>,
    by_set: HashMap<Arc<ColumnSet>, u32>,
    /// By (rule index, bits of the cells that the event carries).
    by_carried: HashMap<(u16, Box<[u64]>), InternedSet>,
}

impl ColumnSets {
    fn get(&self, id: u32) -> Arc<ColumnSet> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.sets.get(id as usize).cloned().unwrap_or_default()
    }

    fn intern(&self, set: ColumnSet) -> u32 {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = inner.by_set.get(&set) {
            return *id;
        }
        let set = Arc::new(set);
        let id = inner.sets.len() as u32;
        inner.sets.push(set.clone());
        inner.by_set.insert(set, id);
        id
    }

    /// The set for a rule and the cells that an event carries (one bit each).
    pub fn of_carried(&self, rule: &RuleProgram, carried: &[u64], shape: &TableShape) -> InternedSet {
        {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = inner.by_carried.get(&CarriedRef(rule.rule, carried)) {
                return *found;
            }
        }
        let is_carried = |index: usize| carried[index / 64] >> (index % 64) & 1 == 1;
        let pick = |wanted: &dyn Fn(usize, &Cell) -> bool| -> Box<[u16]> {
            rule.cells
                .iter()
                .enumerate()
                .filter(|(index, cell)| wanted(*index, cell))
                .map(|(_, cell)| cell.column)
                .collect()
        };
        let set = ColumnSet {
            set: pick(&|index, _| is_carried(index)),
            on_create: pick(&|index, cell| !is_carried(index) && cell.default.is_some()),
        };
        let uncovered = first_uncovered(shape, &set);
        let interned = InternedSet { id: self.intern(set), uncovered };
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.by_carried.insert((rule.rule, carried.into()), interned);
        interned
    }
}

#[derive(Hash)]
struct CarriedRef<'c>(u16, &'c [u64]);

impl hashbrown::Equivalent<(u16, Box<[u64]>)> for CarriedRef<'_> {
    fn equivalent(&self, key: &(u16, Box<[u64]>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

fn first_uncovered(shape: &TableShape, set: &ColumnSet) -> Option<u16> {
    let needs = |index: u16| {
        let column = &shape.columns[index as usize];
        column.not_null && !column.has_default && !column.generated
    };
    (0..shape.columns.len() as u16).find(|index| {
        needs(*index)
            && !shape.primary_key.contains(index)
            && set.set.binary_search(index).is_err()
            && set.on_create.binary_search(index).is_err()
    })
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
    let sets = ColumnSets::default();
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

struct RuleCompiler<'c> {
    database: &'c str,
    kind: DatabaseKind,
    shape: &'c TableShape,
    projection: &'c Projection,
    place: &'c Place,
    builder: &'c mut TrieBuilder,
    findings: &'c mut Findings,
    /// Some input so far comes from the payload.
    reads: bool,
}

impl RuleCompiler<'_> {
    fn rule(&mut self, rule: u16, table: u16, park_unknown: bool, sets: &ColumnSets) -> Option<RuleProgram> {
        let projection = self.projection;
        let action = match projection.method {
            Method::Insert => Action::Insert { ignore: projection.on_conflict == OnConflict::Ignore },
            Method::Update | Method::Upsert => Action::Write,
            Method::Patch => Action::Patch { park_if_missing: projection.on_missing == OnMissing::Park },
            Method::Delete => Action::Delete,
            Method::Truncate => Action::DeleteAll,
        };
        let mut program = RuleProgram {
            rule,
            table,
            action,
            key: Vec::new(),
            cells: Vec::new(),
            pass_through: None,
            full: InternedSet { id: 0, uncovered: None },
            reads_payload: false,
        };
        if action != Action::DeleteAll {
            self.key_matches_table()?;
            if projection.is_pass_through() {
                self.pass_through(&mut program, park_unknown)?;
            } else {
                self.mapped(&mut program)?;
            }
        }
        program.cells.sort_by_key(|cell| cell.column);
        let set = ColumnSet { set: program.cells.iter().map(|cell| cell.column).collect(), on_create: Box::default() };
        let uncovered = first_uncovered(self.shape, &set);
        program.full = InternedSet { id: sets.intern(set), uncovered };
        program.reads_payload = self.reads;
        if let (Action::Insert { .. }, Some(column)) = (action, uncovered) {
            let name = &self.shape.columns[column as usize].name;
            let message = format!("`insert` never fills column `{name}`, which is NOT NULL and has no default");
            let finding = Finding::at(codes::COLUMN_NOT_FILLED, self.place, message);
            self.findings.push(finding.suggest(Some(format!("map a field to `{name}`, or give it a `value`"))));
            return None;
        }
        Some(program)
    }

    /// The rule's key, if it names one, must be the table's; its order does not matter.
    fn key_matches_table(&mut self) -> Option<()> {
        let live: Vec<&str> =
            self.shape.primary_key.iter().map(|i| self.shape.columns[*i as usize].name.as_str()).collect();
        if live.is_empty() {
            let message = format!("table `{}` has no primary key", self.shape.table);
            self.findings.push(
                Finding::at(codes::NOT_THE_KEY, &self.projection.key_place, message)
                    .suggest(Some("rows are found by their key: give the table a primary key")),
            );
            return None;
        }
        let mut named: Vec<&str> = self.projection.key.iter().map(String::as_str).collect();
        let mut wanted = live.clone();
        named.sort_unstable();
        wanted.sort_unstable();
        if !named.is_empty() && named != wanted {
            let message = format!("the primary key of table `{}` is ({})", self.shape.table, live.join(", "));
            self.findings.push(
                Finding::at(codes::NOT_THE_KEY, &self.projection.key_place, message)
                    .found(self.projection.key.join(", "))
                    .allowed([live.join(", ")]),
            );
            return None;
        }
        Some(())
    }

    fn mapped(&mut self, program: &mut RuleProgram) -> Option<()> {
        let projection = self.projection;
        let mut complete = true;
        let mut key: Vec<Option<KeyCell>> = self.shape.primary_key.iter().map(|_| None).collect();
        for mapping in &projection.mappings {
            let Some((column, converter)) = self.column(mapping) else {
                complete = false;
                continue;
            };
            let label = Label {
                place: mapping.place.to_string(),
                source: match &mapping.value {
                    MappedValue::Source(origin) => origin.to_string(),
                    MappedValue::Constant(constant) => constant.text().to_owned(),
                },
                target: mapping.target.clone(),
            };
            let not_null = self.shape.columns[column as usize].not_null;
            let Some(input) = self.input(mapping, &converter, not_null) else {
                complete = false;
                continue;
            };
            let default = match &mapping.default {
                Some(constant) => match self.constant(mapping, constant, &converter, not_null) {
                    Some(value) => Some(value),
                    None => {
                        complete = false;
                        continue;
                    }
                },
                None => None,
            };
            match self.shape.primary_key.iter().position(|part| *part == column) {
                Some(part) => {
                    let previous = mapping.previous.as_ref().map(|origin| self.origin(origin));
                    key[part] = Some(KeyCell { input, previous, converter, label });
                }
                None if program.action == Action::Delete => {}
                None => program.cells.push(Cell { column, input, converter, default, not_null, label }),
            }
        }
        if !complete {
            return None;
        }
        for (part, cell) in self.shape.primary_key.iter().zip(key) {
            match cell {
                Some(cell) => program.key.push(cell),
                None => {
                    let name = &self.shape.columns[*part as usize].name;
                    let message = format!(
                        "column `{name}` is part of the key of `{}`, but nothing is mapped to it",
                        self.shape.table
                    );
                    self.findings.push(Finding::at(codes::KEY_NOT_MAPPED, &projection.key_place, message));
                    complete = false;
                }
            }
        }
        complete.then_some(())
    }

    fn pass_through(&mut self, program: &mut RuleProgram, park_unknown: bool) -> Option<()> {
        let place = self.place.to_string();
        let mut known = hashbrown::HashSet::new();
        let mut key: Vec<Option<KeyCell>> = self.shape.primary_key.iter().map(|_| None).collect();
        for (index, column) in self.shape.columns.iter().enumerate() {
            known.insert(Box::from(column.name.as_str()));
            let part = self.shape.primary_key.iter().position(|part| usize::from(*part) == index);
            if part.is_none() && (column.generated || program.action == Action::Delete) {
                continue;
            }
            let slot = self.builder.slot(&[Step::Member(column.name.clone())]);
            self.reads = true;
            let converter = self.converter(&column.column_type, &column.database_type, Cast::Same, &column.column_type);
            let label = Label { place: place.clone(), source: column.name.clone(), target: column.name.clone() };
            match part {
                Some(part) => key[part] = Some(KeyCell { input: Input::Slot(slot), previous: None, converter, label }),
                None => program.cells.push(Cell {
                    column: index as u16,
                    input: Input::Slot(slot),
                    converter,
                    default: None,
                    not_null: column.not_null,
                    label,
                }),
            }
        }
        program.key = key.into_iter().flatten().collect();
        if program.action != Action::Delete {
            program.pass_through = Some(PassThrough { known, park_unknown, place });
        }
        Some(())
    }

    /// The live column of a mapping and how values get into it.
    fn column(&mut self, mapping: &Mapping) -> Option<(u16, Converter)> {
        let names: Vec<&str> = self.shape.columns.iter().map(|column| column.name.as_str()).collect();
        let Some(index) = self.shape.column(&mapping.target) else {
            let suggestion = closest(&mapping.target, names.iter().copied()).map(|c| format!("did you mean `{c}`?"));
            let message =
                format!("table `{}` of `{}` has no column `{}`", self.shape.table, self.database, mapping.target);
            self.findings.push(
                Finding::at(codes::UNKNOWN_COLUMN, &mapping.place, message)
                    .found(&mapping.target)
                    .allowed(names)
                    .suggest(suggestion),
            );
            return None;
        };
        let column = &self.shape.columns[index as usize];
        if column.generated {
            let message = format!("column `{}` is computed by the database and cannot be written", column.name);
            self.findings.push(Finding::at(codes::GENERATED_COLUMN, &mapping.place, message).found(&column.name));
            return None;
        }
        let read_as = mapping.column_type.as_ref().unwrap_or(&column.column_type);
        let Some(cast) = Cast::between(read_as, &column.column_type) else {
            let message = format!(
                "type {read_as} does not fit column `{}` of `{}`, which is {} ({})",
                column.name, self.shape.table, column.database_type, column.column_type
            );
            self.findings.push(
                Finding::at(codes::LOSSY_TYPE, &mapping.place, message)
                    .found(read_as.to_string())
                    .allowed([column.column_type.to_string()])
                    .suggest(Some(format!("write \"type\": \"{}\", or widen the column", column.column_type))),
            );
            return None;
        };
        Some((index, self.converter(read_as, &column.database_type, cast, &column.column_type)))
    }

    fn converter(&self, read_as: &ColumnType, database_type: &str, cast: Cast, column: &ColumnType) -> Converter {
        let postgres = self.kind == DatabaseKind::Postgres;
        Converter {
            read_as: read_as.clone(),
            cast,
            refuse_nul: postgres,
            refuse_json_nul: postgres && *column == ColumnType::Json && database_type.eq_ignore_ascii_case("jsonb"),
        }
    }

    fn input(&mut self, mapping: &Mapping, converter: &Converter, not_null: bool) -> Option<Input> {
        match &mapping.value {
            MappedValue::Source(origin) => Some(self.origin(origin)),
            MappedValue::Constant(constant) => {
                self.constant(mapping, constant, converter, not_null).map(Input::Constant)
            }
        }
    }

    fn origin(&mut self, origin: &Origin) -> Input {
        match origin {
            Origin::Payload(path) => {
                self.reads = true;
                Input::Slot(self.builder.slot(path))
            }
            Origin::Meta(meta) => Input::Meta(meta.clone()),
        }
    }

    fn constant(
        &mut self,
        mapping: &Mapping,
        constant: &Constant,
        converter: &Converter,
        not_null: bool,
    ) -> Option<Value> {
        let problem = match convert_constant(constant, converter) {
            Ok(value) if value.is_null() && not_null => "the column is NOT NULL".to_owned(),
            Ok(value) => return Some(value),
            Err(message) => message,
        };
        let message = format!("this constant does not go into column `{}`: {problem}", mapping.target);
        self.findings.push(Finding::at(codes::BAD_CONSTANT, &mapping.place, message).found(constant.text()));
        None
    }
}

/// A constant of the rules as a value of a column; the error is in words.
pub(crate) fn convert_constant(constant: &Constant, converter: &Converter) -> Result<Value, String> {
    let text = constant.text().trim().as_bytes();
    let mut builder = TrieBuilder::default();
    // The whole document is wanted, so it is put where a path leads.
    let slot = builder.slot(&[Step::Index(0)]);
    let trie = builder.build();
    let wrapped = [b"[", text, b"]"].concat();
    let mut slots = vec![Slot::default(); trie.slots()];
    scan::scan(&wrapped, &trie, &mut slots, None).map_err(|error| format!("{:?}", error.reason))?;
    match Given::of_slot(slots[slot as usize], &wrapped) {
        Some(given) => converter.convert(given, None).map_err(|reject| reject.message.into_string()),
        None => Ok(Value::Null),
    }
}
