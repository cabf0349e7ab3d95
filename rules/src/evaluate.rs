//! From an event's raw bytes to changes: the hot path.

use std::sync::Arc;

use bytes::Bytes;
use gravity_model::{Captured, ColumnType, EventKind, Recorded, RowChange, Value};

use crate::capture::{self, Row, Rows};
use crate::codes;
use crate::compile::{
    Action, Cell, ColumnSets, EventProgram, Filter, Input, InternedSet, KeyCell, Label, PassThrough, RouteProgram,
    RuleProgram,
};
use crate::convert::{Converter, Given, Reject};
use crate::evaluation::{Change, ChangeOp, Evaluation, Refusal, Scratch, Verdict};
use crate::expression::{self, Misfit, Program};
use crate::path::Meta;
use crate::scan::{self, Reason, ScanError, Slot};

/// What a rule reads from.
struct Material<'m> {
    recorded: &'m Recorded<'m>,
    /// What the slots are about; `None` is null.
    payload: Option<&'m [u8]>,
    records: &'m Arc<Bytes>,
    captured: Option<Captured>,
    /// The row of a captured change.
    row: Option<&'m Row>,
    /// What it was before, with its own slots and bytes, where the event says so.
    former: Option<(&'m Row, &'m [u8])>,
}

impl<'m> Material<'m> {
    fn payload(&self) -> &'m [u8] {
        self.payload.unwrap_or_default()
    }

    /// A captured change that says neither in itself nor by its key which row it is about: no view can follow it.
    fn names_no_row(&self) -> bool {
        self.captured.is_some() && self.recorded.event.payload.is_some()
    }

    /// A create that says which key the row had: it is there already, under that one.
    fn is_moved(&self) -> bool {
        self.former.is_some() && self.captured.is_some_and(|captured| captured.change == RowChange::Create)
    }
}

impl<'m> Material<'m> {
    fn event(&self, slots: &'m [Slot]) -> expression::Event<'m> {
        expression::Event { recorded: self.recorded, payload: self.payload(), slots }
    }
}

impl RouteProgram {
    /// Appends the changes that `recorded` makes on this route to `out`.
    ///
    /// `records` are the bytes that the event's slices point into: texts of the values share them. An event whose payload is
    /// null makes no change, unless a rule needs no payload. On [`Verdict::Refused`] the changes carry keys but no values.
    pub fn evaluate(&self, recorded: &Recorded<'_>, records: &Arc<Bytes>, out: &mut Evaluation) -> Verdict {
        let event = &recorded.event;
        let Some(program) = self.events.get(event.name).filter(|_| event.kind != EventKind::Undecodable) else {
            return Verdict::Unmatched;
        };
        out.scratch.held.clear();
        if program.rules.is_empty() && !program.conditional {
            return Verdict::Matched;
        }
        if let Some(captured) = capture::captured(event) {
            return self.evaluate_captured(program, recorded, records, captured, out);
        }
        let slots = &mut out.scratch.slots;
        slots.clear();
        slots.resize(program.trie.slots(), Slot::default());
        out.scratch.fields.clear();
        let payload = event.payload.unwrap_or_default();
        if event.payload.is_some()
            && let Err(error) = self.scan(program, payload, &mut out.scratch)
        {
            return Verdict::Refused(self.bad_payload(program, &error));
        }
        let material = Material { recorded, payload: event.payload, records, captured: None, row: None, former: None };
        self.apply_all(program, &material, out)
    }

    /// The same for a captured change, whose row lies inside the message (SEMANTICS 2.3).
    fn evaluate_captured(
        &self,
        program: &EventProgram,
        recorded: &Recorded<'_>,
        records: &Arc<Bytes>,
        captured: Captured,
        out: &mut Evaluation,
    ) -> Verdict {
        let event = &recorded.event;
        if capture::is_left_to_the_create(event, captured) {
            return Verdict::Filtered;
        }
        // Taken out of the scratch for as long as slots point into it.
        let mut rows = std::mem::take(&mut out.scratch.rows);
        let verdict = match self.read_rows(program, recorded, captured, &mut rows, out) {
            Err(error) => Verdict::Refused(self.bad_payload(program, &error)),
            Ok(has_row) => {
                let payload = event.payload.unwrap_or_default();
                let former = rows.has_former().then(|| (&rows.former, rows.former.bytes(payload)));
                let material = Material {
                    recorded,
                    payload: has_row.then(|| rows.row.bytes(payload)),
                    records,
                    captured: Some(captured),
                    row: has_row.then_some(&rows.row),
                    former,
                };
                self.apply_all(program, &material, out)
            }
        };
        out.scratch.rows = rows;
        verdict
    }

    /// Fills the slots of the row, and of the one before. False: the change names no row.
    fn read_rows(
        &self,
        program: &EventProgram,
        recorded: &Recorded<'_>,
        captured: Captured,
        rows: &mut Rows,
        out: &mut Evaluation,
    ) -> Result<bool, ScanError> {
        let payload = recorded.event.payload.unwrap_or_default();
        out.scratch.fields.clear();
        out.scratch.slots.clear();
        out.scratch.slots.resize(program.trie.slots(), Slot::default());
        let has_row = capture::read_rows(&recorded.event, captured, program, rows)?;
        if has_row {
            let fields = program.wants_fields.then_some(&mut out.scratch.fields);
            rows.row.scan(payload, &program.trie, fields)?;
            out.scratch.slots.clone_from(&rows.row.slots);
        }
        if rows.has_former() {
            rows.former.scan(payload, &program.trie, None)?;
        }
        Ok(has_row)
    }

    /// All rules on one event whose slots are filled.
    fn apply_all(&self, program: &EventProgram, material: &Material<'_>, out: &mut Evaluation) -> Verdict {
        let (first_change, first_value) = (out.changes.len(), out.values.len());
        let mut refusal = None;
        let routed = routings(program, material, &mut out.scratch, &mut refusal);
        for rule in &program.rules {
            let Some(action) = capture::action_on(rule.action, material.captured) else { continue };
            let needs_row = rule.reads_payload && action != Action::DeleteAll;
            if rule.routed && !routed {
                continue;
            }
            if needs_row && material.payload.is_none() {
                if material.names_no_row() {
                    refusal.get_or_insert_with(|| self.no_row(rule));
                }
                continue;
            }
            match rule.filter.as_ref().map(|filter| holds(filter, material, &out.scratch.slots)) {
                None | Some(Ok(true)) => {}
                Some(Ok(false)) => continue,
                // The row that it might have written is held back with the event.
                Some(Err(refused)) => {
                    refusal.get_or_insert(refused);
                }
            }
            if let Err(refused) = self.apply(rule, action, material, out, refusal.is_some()) {
                refusal.get_or_insert(refused);
            }
        }
        if let Some(refusal) = refusal {
            out.values.truncate(first_value);
            for change in &mut out.changes[first_change..] {
                change.values = first_value as u32..first_value as u32;
            }
            return Verdict::Refused(refusal);
        }
        let applied = match program.rules.is_empty() {
            true => routed,
            false => out.changes.len() > first_change,
        };
        if applied { Verdict::Matched } else { Verdict::Filtered }
    }

    fn scan(&self, program: &EventProgram, payload: &[u8], scratch: &mut Scratch) -> Result<(), ScanError> {
        let fields = program.wants_fields.then_some(&mut scratch.fields);
        scan::scan(payload, &program.trie, &mut scratch.slots, fields)
    }

    #[cold]
    fn bad_payload(&self, program: &EventProgram, error: &ScanError) -> Refusal {
        let (code, message) = match error.reason {
            Reason::Syntax(reason) => {
                (codes::INVALID_JSON, format!("the payload is no JSON: {reason}, at byte {}", error.at))
            }
            Reason::NotUtf8 => (codes::INVALID_JSON, format!("the payload is not UTF-8, at byte {}", error.at)),
            Reason::TooDeep => {
                let most = scan::MAX_DEPTH;
                (codes::TOO_DEEP, format!("the payload nests deeper than {most} levels, at byte {}", error.at))
            }
            Reason::TooLarge => (codes::INVALID_JSON, "the payload is larger than 4 GiB".to_owned()),
        };
        let of_routing = || program.routings.iter().find_map(|routing| Some(routing.filter.as_ref()?.place.as_str()));
        let rule = program.rules.first().map(|rule| self.rule_place(rule.rule)).or_else(of_routing).unwrap_or_default();
        Refusal { code, stage: "map", rule: rule.to_owned(), message }
    }

    /// One rule on one event. With `keys_only` (an earlier rule refused) just its key is wanted.
    fn apply(
        &self,
        rule: &RuleProgram,
        action: Action,
        material: &Material<'_>,
        out: &mut Evaluation,
        keys_only: bool,
    ) -> Result<(), Refusal> {
        let key_start = out.keys.len();
        let row_start = out.values.len();
        let change = |op, key: std::ops::Range<usize>, row_end: usize| Change {
            table: rule.table,
            op,
            columns: if action == Action::Delete { ColumnSets::EMPTY } else { rule.full.id },
            key: key.start as u32..key.end as u32,
            old_key: None,
            values: row_start as u32..row_end as u32,
            rule: rule.rule,
            park_if_missing: action == Action::Patch { park_if_missing: true },
        };
        if action == Action::DeleteAll {
            out.changes.push(change(ChangeOp::DeleteAll, key_start..key_start, row_start));
            return Ok(());
        }
        if let Err(refusal) = self.key(rule, material, out) {
            out.keys.truncate(key_start);
            out.values.truncate(row_start);
            return Err(refusal);
        }
        let key_end = out.keys.len();
        let at = out.changes.len();
        let op = match action {
            Action::Write => ChangeOp::Upsert,
            Action::Insert { ignore: false } => ChangeOp::Insert,
            Action::Insert { ignore: true } => ChangeOp::InsertIgnore,
            Action::Patch { .. } => ChangeOp::Patch,
            Action::Delete => ChangeOp::Delete,
            Action::DeleteAll => ChangeOp::DeleteAll,
        };
        out.changes.push(change(op, key_start..key_end, out.values.len()));
        if action == Action::Write || (matches!(action, Action::Insert { .. }) && material.is_moved()) {
            self.former_key(rule, material, out, at, row_start)?;
        }
        if keys_only || action == Action::Delete {
            return Ok(());
        }
        if let Some(pass_through) = &rule.pass_through {
            self.unknown_fields(rule, pass_through, material, out)?;
        }
        let interned = self.cells(rule, material, out)?;
        let change = &mut out.changes[at];
        change.columns = interned.id;
        change.values.end = out.values.len() as u32;
        if let Some(column) = interned.uncovered {
            match action {
                Action::Write if change.op == ChangeOp::Upsert => change.op = ChangeOp::UpdateElseInsert,
                Action::Insert { .. } => return Err(self.not_filled(rule, column)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends the key's values and their canonical bytes.
    fn key(&self, rule: &RuleProgram, material: &Material<'_>, out: &mut Evaluation) -> Result<(), Refusal> {
        for cell in &rule.key {
            let value = match key_value(&cell.input, cell, rule.key.len(), &out.scratch.slots, material)? {
                Some(value) => value,
                None => return Err(missing_key(cell)),
            };
            value.write_canonical(&mut out.keys);
            out.values.push(value);
        }
        Ok(())
    }

    /// Turns the change into a move where the event says that the key was another one before.
    fn former_key(
        &self,
        rule: &RuleProgram,
        material: &Material<'_>,
        out: &mut Evaluation,
        at: usize,
        row_start: usize,
    ) -> Result<(), Refusal> {
        if material.former.is_none() && rule.key.iter().all(|cell| cell.previous.is_none()) {
            return Ok(());
        }
        out.scratch.old_key.clear();
        for (part, cell) in rule.key.iter().enumerate() {
            let parts = rule.key.len();
            let former = match (&cell.previous, material.former) {
                (Some(input), _) => key_value(input, cell, parts, &out.scratch.slots, material)?,
                (None, Some((row, bytes))) => {
                    let before = Material { payload: Some(bytes), row: Some(row), former: None, ..*material };
                    key_value(&cell.input, cell, parts, &row.slots, &before)?
                }
                (None, None) => None,
            };
            out.scratch.old_key.push(former.unwrap_or_else(|| out.values[row_start + part].clone()));
        }
        let start = out.keys.len();
        for value in &out.scratch.old_key {
            value.write_canonical(&mut out.keys);
        }
        let change = &mut out.changes[at];
        if out.keys[start..] == out.keys[change.key.start as usize..change.key.end as usize] {
            out.keys.truncate(start);
            return Ok(());
        }
        change.op = ChangeOp::Move;
        change.old_key = Some(start as u32..out.keys.len() as u32);
        out.values.splice(row_start..row_start, out.scratch.old_key.drain(..));
        change.values.end = out.values.len() as u32;
        Ok(())
    }

    fn cells(&self, rule: &RuleProgram, material: &Material<'_>, out: &mut Evaluation) -> Result<InternedSet, Refusal> {
        let Scratch { slots, carried, .. } = &mut out.scratch;
        carried.clear();
        carried.resize(rule.cells.len().div_ceil(64), 0);
        let mut absent = 0;
        for (index, cell) in rule.cells.iter().enumerate() {
            let value = match &cell.input {
                Input::Constant(value) => value.clone(),
                Input::Expression(program) => {
                    match computed(program, (&cell.converter, &cell.label), material, slots)? {
                        Value::Null if cell.must_be_there() => return Err(null(cell)),
                        value => value,
                    }
                }
                input => match given_to(input, &cell.converter, slots, material) {
                    None => {
                        absent += 1;
                        continue;
                    }
                    Some(Given::Null) if cell.must_be_there() => return Err(null(cell)),
                    Some(given) => match cell.converter.convert(given, Some(material.records)) {
                        Ok(value) => value,
                        Err(reject) => return Err(rejected(reject, &cell.label)),
                    },
                },
            };
            let Some(value) = cell.carried(value) else {
                absent += 1;
                continue;
            };
            carried[index / 64] |= 1 << (index % 64);
            out.values.push(value);
        }
        if absent == 0 {
            return Ok(rule.full);
        }
        for (index, cell) in rule.cells.iter().enumerate() {
            if carried[index / 64] >> (index % 64) & 1 == 0
                && let Some(default) = &cell.default
            {
                out.values.push(default.clone());
            }
        }
        Ok(self.sets.of_carried(rule, carried, &self.tables()[rule.table as usize]))
    }

    fn unknown_fields(
        &self,
        rule: &RuleProgram,
        pass_through: &PassThrough,
        material: &Material<'_>,
        out: &mut Evaluation,
    ) -> Result<(), Refusal> {
        for (start, end) in &out.scratch.fields {
            let raw = &material.payload()[*start as usize..*end as usize];
            let name = match memchr::memchr(b'\\', raw) {
                None => String::from_utf8_lossy(raw),
                Some(_) => scan::unescape(raw).into(),
            };
            if pass_through.known.contains(&*name) {
                continue;
            }
            if pass_through.park_unknown {
                let table = &self.tables()[rule.table as usize].table;
                return Err(Refusal {
                    code: codes::UNKNOWN_FIELD,
                    stage: "map",
                    rule: pass_through.place.clone(),
                    message: format!("table `{table}` has no column for the field `{}`", name.escape_default()),
                });
            }
            out.unknown.add(rule.table, &name);
        }
        Ok(())
    }

    #[cold]
    fn no_row(&self, rule: &RuleProgram) -> Refusal {
        Refusal {
            code: codes::MISSING_KEY_PART,
            stage: "map",
            rule: self.rule_place(rule.rule).to_owned(),
            message: "the change names no row: what it has in the row's place is null, and the message has no key"
                .to_owned(),
        }
    }

    #[cold]
    fn not_filled(&self, rule: &RuleProgram, column: u16) -> Refusal {
        let name = &self.tables()[rule.table as usize].columns[column as usize].name;
        Refusal {
            code: codes::NULL_VALUE,
            stage: "map",
            rule: self.rule_place(rule.rule).to_owned(),
            message: format!("column `{name}` is NOT NULL and has no default, and the event carries nothing for it"),
        }
    }
}

/// A part of the key; `None` where the event has none (absent or null).
#[inline]
fn key_value(
    input: &Input,
    cell: &KeyCell,
    parts: usize,
    slots: &[Slot],
    material: &Material<'_>,
) -> Result<Option<Value>, Refusal> {
    let scalar = material.row.and_then(|row| row.scalar.as_deref());
    let given = match (input, scalar) {
        (Input::Constant(value), _) => return Ok((!value.is_null()).then(|| value.clone())),
        (Input::Expression(program), _) => {
            let value = computed(program, (&cell.converter, &cell.label), material, slots)?;
            return Ok((!value.is_null()).then_some(value));
        }
        // A message key that is one value names the row of a view whose key is one column.
        (Input::Slot(_), Some(scalar)) if parts == 1 => Some(of_scalar(scalar, &cell.converter)),
        (input, _) => given_to(input, &cell.converter, slots, material),
    };
    let value = match given {
        None | Some(Given::Null) => return Ok(None),
        Some(given) => match cell.converter.convert(given, Some(material.records)) {
            Ok(value) => value,
            Err(reject) => return Err(rejected(reject, &cell.label)),
        },
    };
    Ok((!value.is_null()).then_some(value))
}

/// The same, but a text that holds a document is that document to a column of JSON.
#[inline]
fn given_to<'g>(input: &Input, converter: &Converter, slots: &[Slot], material: &Material<'g>) -> Option<Given<'g>> {
    if let (Input::Slot(slot), Some(row), ColumnType::Json) = (input, material.row, &converter.read_as)
        && let Some(raw) = row.document(slots[*slot as usize])
    {
        return Some(Given::Composite { raw, array: false });
    }
    given(input, slots, material)
}

/// A whole message key as one value: JSON where it is, else text.
fn of_scalar<'g>(scalar: &'g [u8], converter: &Converter) -> Given<'g> {
    let wants_text = matches!(converter.read_as, ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Uuid);
    if scalar.first() == Some(&b'"') && serde_json::from_slice::<String>(scalar).is_ok() {
        Given::Text { token: scalar, escaped: scalar.contains(&b'\\') }
    } else if !wants_text && scan::is_number(scalar) {
        Given::Number(scalar)
    } else {
        Given::Bytes(scalar)
    }
}

/// `None`: absent.
#[inline]
fn given<'g>(input: &Input, slots: &[Slot], material: &Material<'g>) -> Option<Given<'g>> {
    match input {
        Input::Slot(slot) => Given::of_slot(slots[*slot as usize], material.payload()),
        Input::Meta(meta) => of_meta(meta, material.recorded),
        Input::Constant(_) | Input::Expression(_) => None,
    }
}

/// Which routings hold, into `scratch`; true when rows of rules without database are written. A filter that cannot look at the
/// event refuses it and counts as true, so that the rows it might have let pass are held back with the event.
fn routings(
    program: &EventProgram,
    material: &Material<'_>,
    scratch: &mut Scratch,
    refusal: &mut Option<Refusal>,
) -> bool {
    let Scratch { held, slots, .. } = scratch;
    for routing in &program.routings {
        held.push(match routing.filter.as_ref().map_or(Ok(true), |filter| holds(filter, material, slots)) {
            Ok(holds) => holds,
            Err(refused) => {
                refusal.get_or_insert(refused);
                true
            }
        });
    }
    held.is_empty() || held.contains(&true)
}

fn holds(filter: &Filter, material: &Material<'_>, slots: &[Slot]) -> Result<bool, Refusal> {
    filter.program.holds(&material.event(slots)).map_err(|misfit| filter_misfit(filter, misfit))
}

/// The value of an expression in its column.
fn computed(
    program: &Program,
    (converter, label): (&Converter, &Label),
    material: &Material<'_>,
    slots: &[Slot],
) -> Result<Value, Refusal> {
    let converted = program.value(&material.event(slots), |outcome| converter.convert(outcome.given(), None));
    match converted {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(reject)) => Err(rejected(reject, label)),
        Err(misfit) => {
            let message = format!("field `{}`: {}", misfit.field, misfit.reject.message).into_boxed_str();
            Err(rejected(Reject { code: misfit.reject.code, message }, label))
        }
    }
}

#[cold]
fn filter_misfit(filter: &Filter, misfit: Misfit) -> Refusal {
    Refusal {
        code: misfit.reject.code,
        stage: "map",
        rule: filter.place.clone(),
        message: format!("`{}` in the filter: {}", misfit.field, misfit.reject.message),
    }
}

pub(crate) fn of_meta<'r>(meta: &Meta, recorded: &Recorded<'r>) -> Option<Given<'r>> {
    let event = &recorded.event;
    Some(match meta {
        Meta::Sequence => Given::Count(recorded.sequence.get()),
        Meta::Event => Given::Plain(event.name),
        Meta::Id => Given::Plain(event.id?),
        Meta::Key => Given::Bytes(event.key?),
        Meta::Source => Given::Plain(event.source),
        Meta::Time => Given::Micros(event.time?),
        Meta::Received => Given::Micros(event.received),
        Meta::Traceparent => Given::Plain(event.traceparent?),
        Meta::Header(name) => Given::Bytes(event.headers.get(name)?),
    })
}

#[cold]
fn rejected(reject: Reject, label: &Label) -> Refusal {
    Refusal {
        code: reject.code,
        stage: "map",
        rule: label.place.clone(),
        message: format!("`{}` to column `{}`: {}", label.source, label.target, reject.message),
    }
}

#[cold]
fn missing_key(cell: &KeyCell) -> Refusal {
    Refusal {
        code: codes::MISSING_KEY_PART,
        stage: "map",
        rule: cell.label.place.clone(),
        message: format!(
            "the event carries no value at `{}` for key column `{}`",
            cell.label.source, cell.label.target
        ),
    }
}

#[cold]
fn null(cell: &Cell) -> Refusal {
    Refusal {
        code: codes::NULL_VALUE,
        stage: "map",
        rule: cell.label.place.clone(),
        message: format!("`{}` is null, column `{}` is NOT NULL", cell.label.source, cell.label.target),
    }
}
