//! Compiles one rule against its live table.

use gravity_model::{ColumnOp, ColumnSet, ColumnType, TableShape, Value};

use super::sets::{ColumnSets, InternedSet, first_uncovered, ops};
use super::{Action, Cell, Input, KeyCell, Label, PassThrough, RuleProgram};
use crate::codes;
use crate::convert::{Cast, Converter, Given};
use crate::diagnose::{Finding, Findings, Place, closest};
use crate::file::{Constant, Method, OnConflict, OnMissing};
use crate::load::DatabaseKind;
use crate::path::{Origin, Step};
use crate::ruleset::{MappedValue, Mapping, Projection};
use crate::scan::{self, Slot};
use crate::trie::TrieBuilder;

pub(super) struct RuleCompiler<'c> {
    pub database: &'c str,
    pub kind: DatabaseKind,
    pub shape: &'c TableShape,
    pub projection: &'c Projection,
    pub place: &'c Place,
    pub builder: &'c mut TrieBuilder,
    pub findings: &'c mut Findings,
    /// Some input so far comes from the payload.
    pub reads: bool,
}

impl RuleCompiler<'_> {
    pub fn rule(&mut self, rule: u16, table: u16, park_unknown: bool, sets: &ColumnSets) -> Option<RuleProgram> {
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
            filter: None,
            routed: false,
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
        let set = ColumnSet {
            set: program.cells.iter().map(|cell| cell.column).collect(),
            on_create: Box::default(),
            ops: ops(program.cells.iter().map(|cell| cell.op)),
        };
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
            if !self.joins(mapping, column, &converter) {
                complete = false;
                continue;
            }
            let label = Label {
                place: mapping.place.to_string(),
                source: match &mapping.value {
                    MappedValue::Source(origin) => origin.to_string(),
                    MappedValue::Constant(constant) => constant.text().to_owned(),
                    MappedValue::Expression(formula) => formula.written.normal.clone(),
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
                None => {
                    program.cells.push(Cell { column, input, converter, default, op: mapping.op, not_null, label });
                }
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
                    op: ColumnOp::Set,
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

    /// Whether the column can be written as the mapping's `op` says, or a finding.
    fn joins(&mut self, mapping: &Mapping, column: u16, converter: &Converter) -> bool {
        let column = &self.shape.columns[usize::from(column)];
        // A list is lengthened by a value only where the column knows lists: text behind text would be no JSON.
        let of_lists = |of: &ColumnType| *of == ColumnType::Json;
        let apart = mapping.op == ColumnOp::Append && of_lists(&converter.read_as) && !of_lists(&column.column_type);
        // CHAR gives texts back without the blanks at their end: what was joined would depend on when.
        let text = matches!(column.column_type, ColumnType::Text | ColumnType::Varchar(_));
        let padded = text && self.kind != DatabaseKind::Sqlite && is_padded(&column.database_type);
        if mapping.op == ColumnOp::Set || (mapping.op.fits(&column.column_type) && !apart && !padded) {
            return true;
        }
        let finding = Finding::at(codes::OP_TYPE, &mapping.place, String::new());
        let finding = crate::load::op::unfit(mapping.op, &column.column_type, finding);
        let reason = match (apart, padded) {
            (true, _) => "the mapping's type is json and the column's is not, so it holds no list".to_owned(),
            (_, true) => format!("{} does not keep blanks at the end of a text", column.database_type),
            _ => finding.message.clone(),
        };
        let message = format!("column `{}` of `{}`: {reason}", column.name, self.shape.table);
        self.findings.push(Finding { message, ..finding });
        false
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
            MappedValue::Expression(formula) => {
                let program = super::program_of(formula, self.builder)?;
                if !program.kind().fits(&converter.read_as) {
                    let message = format!(
                        "column `{}` takes {}, and this expression gives {}",
                        mapping.target,
                        converter.read_as,
                        program.kind()
                    );
                    let place = &formula.written.place;
                    self.findings.push(
                        Finding::at(codes::EXPRESSION_TYPE, place, message)
                            .found(&formula.written.normal)
                            .allowed([converter.read_as.to_string()]),
                    );
                    return None;
                }
                self.reads |= program.reads_payload();
                Some(Input::Expression(Box::new(program)))
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

/// `character(3)`, `char(3)`, `bpchar`; not `character varying(3)`.
fn is_padded(database_type: &str) -> bool {
    let name = database_type.split('(').next().unwrap_or_default().trim_end();
    matches!(name, "char" | "character" | "bpchar")
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
