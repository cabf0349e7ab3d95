//! Refuses at load whatever could fail or run long at an event: types of every part, and a bound on the steps.
//!
//! The bound is linear in the payload: a step looks at each byte of it at most once, and the number of steps is fixed here. What
//! would look at the payload again for each of its own parts (a list field walked inside of another one) is refused.

mod call;

use std::ops::Range;
use std::sync::Arc;

use super::Trouble;
use super::bind::Reading;
use super::evaluate::Op;
use super::infer::{FieldTypes, Known, Says, meta_type};
use super::kind::{Digits, Kind};
use super::parse::{Arithmetic, Ast, Comparison, Node};
use super::value::Val;
use crate::codes;
use crate::convert::plain;
use crate::diagnose::closest;
use crate::path::{Origin, Step};

/// Most steps of one expression, counted as below.
pub(crate) const MOST_STEPS: u64 = 1_000;

/// What one look at all bytes of a text or all elements of a list counts.
const SWEEP: u64 = 16;

/// Most digits that any intermediate number may come to have.
const MOST_DIGITS: u32 = 4_000;

/// Most digits behind the point that `round` and `div` may be asked for.
const MOST_PLACES: u32 = 100;

/// An expression that cannot fail, with the fields that it reads.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(super) root: Op,
    pub kind: Kind,
    pub fields: Vec<(Origin, Reading)>,
}

pub(crate) struct Checker<'c> {
    types: &'c FieldTypes,
    fields: Vec<(Origin, Reading)>,
    locals: Vec<Local>,
    /// Walks over list fields around here.
    sweeps: usize,
}

struct Local {
    name: String,
    kind: Kind,
    digits: Digits,
}

/// A checked part.
struct Part {
    op: Op,
    kind: Kind,
    /// Of numbers only.
    digits: Digits,
    cost: u64,
    /// Holds a text or list of the payload that is not one element of a list that is being walked.
    wide: bool,
    range: Range<usize>,
}

const NO_DIGITS: Digits = Digits { whole: 1, scale: 0 };

impl<'c> Checker<'c> {
    pub fn check(types: &'c FieldTypes, ast: &Ast) -> Result<Checked, Trouble> {
        let mut checker = Checker { types, fields: Vec::new(), locals: Vec::new(), sweeps: 0 };
        let part = checker.part(ast)?;
        if part.cost > MOST_STEPS {
            let message = format!("this may take {} steps at one event; the most is {MOST_STEPS}", part.cost);
            let suggestion = "compare with `in [...]`, or filter in several rules";
            return Err(Trouble::new(codes::EXPRESSION_COST, ast.range.clone(), message).suggest(Some(suggestion)));
        }
        Ok(Checked { root: part.op, kind: part.kind, fields: checker.fields })
    }

    /// A filter: it has to be a condition.
    pub fn condition(types: &'c FieldTypes, ast: &Ast) -> Result<Arc<Checked>, Trouble> {
        let checked = Checker::check(types, ast)?;
        if !matches!(checked.kind, Kind::Bool | Kind::Null) {
            return Err(mismatch(ast.range.clone(), "a filter is a condition", &checked.kind, &Kind::Bool));
        }
        Ok(Arc::new(checked))
    }

    /// An expression: one value for one column.
    pub fn value(types: &'c FieldTypes, ast: &Ast) -> Result<Arc<Checked>, Trouble> {
        let checked = Checker::check(types, ast)?;
        if matches!(checked.kind, Kind::List(_)) {
            return Err(mismatch(ast.range.clone(), "an expression gives one value", &checked.kind, &Kind::Text));
        }
        Ok(Arc::new(checked))
    }

    fn part(&mut self, ast: &Ast) -> Result<Part, Trouble> {
        let range = ast.range.clone();
        let plain = |op: Op, kind: Kind, cost: u64| Part {
            op,
            kind,
            digits: NO_DIGITS,
            cost,
            wide: false,
            range: range.clone(),
        };
        Ok(match &ast.node {
            Node::Null => plain(Op::Constant(Val::Null), Kind::Null, 0),
            Node::Bool(value) => plain(Op::Constant(Val::Bool(*value)), Kind::Bool, 0),
            Node::Number { value, whole } => {
                let digits = Digits { whole: 100, scale: if *whole { 0 } else { 100 } };
                let kind = if *whole { Kind::Int } else { Kind::Decimal };
                Part { digits, ..plain(Op::Constant(Val::Number(value.clone())), kind, 0) }
            }
            Node::Text(text) => plain(Op::Constant(Val::Text(text.clone().into())), Kind::Text, 0),
            Node::List(items) => self.list(items, &range)?,
            Node::Path(origin) => self.path(ast, origin)?,
            Node::Not(inner) => {
                let inner = self.condition_part(inner)?;
                plain(Op::Not(Box::new(inner.op)), Kind::Bool, inner.cost + 1)
            }
            Node::And(parts) => {
                let (ops, cost) = self.conditions(parts)?;
                plain(Op::And(ops), Kind::Bool, cost)
            }
            Node::Or(parts) => {
                let (ops, cost) = self.conditions(parts)?;
                plain(Op::Or(ops), Kind::Bool, cost)
            }
            Node::Negate(inner) => {
                let inner = self.number(inner)?;
                let (kind, digits, cost) = (inner.kind, inner.digits, inner.cost + 1);
                Part { digits, ..plain(Op::Negate(Box::new(inner.op)), kind, cost) }
            }
            Node::Compare(comparison, left, right) => self.compare(*comparison, left, right, &range)?,
            Node::In(needle, list) => self.is_in(needle, list, &range)?,
            Node::Arithmetic(arithmetic, left, right) => self.arithmetic(*arithmetic, left, right, &range)?,
            Node::If(condition, then, otherwise) => {
                let condition = self.condition_part(condition)?;
                let (then, otherwise) = (self.part(then)?, self.part(otherwise)?);
                let cost = condition.cost + then.cost + otherwise.cost + 1;
                let kind = self.one_kind(&then, &otherwise)?;
                let (digits, wide) = (then.digits.join(otherwise.digits), then.wide || otherwise.wide);
                let op = Op::If(Box::new(condition.op), Box::new(then.op), Box::new(otherwise.op));
                Part { digits, wide, ..plain(op, kind, cost) }
            }
            Node::Call { name, name_at, target, arguments } => {
                self.call(name, name_at, target.as_deref(), arguments, &range)?
            }
        })
    }

    fn path(&mut self, ast: &Ast, origin: &Origin) -> Result<Part, Trouble> {
        let range = ast.range.clone();
        if let Some((index, local)) = self.local(origin) {
            let (kind, digits) = (local.kind.clone(), local.digits);
            return Ok(Part { op: Op::Local(index), kind, digits, cost: 1, wide: false, range });
        }
        let reading = match origin {
            Origin::Meta(meta) => Reading::Declared(meta_type(meta)),
            Origin::Payload(_) => match self.types.find(origin) {
                Some(Known { says: Says::Declared(column), .. }) => Reading::Declared(column.clone()),
                Some(Known { says: Says::Inferred(kind), .. }) => Reading::Inferred(kind.clone()),
                None => return Err(self.untyped(origin, range)),
            },
        };
        let (kind, digits) = match &reading {
            Reading::Declared(column) => (Kind::of(column), Digits::of(column)),
            Reading::Inferred(kind) => {
                let scale = if *kind == Kind::Int { 0 } else { Digits::ANY.scale };
                (kind.clone(), Digits { scale, ..Digits::ANY })
            }
            Reading::Presence => (Kind::Opaque, NO_DIGITS),
        };
        if kind == Kind::Opaque {
            let message = format!("`{origin}` is declared as a document: only `has` and `== null` can ask for it");
            return Err(Trouble::new(codes::EXPRESSION_TYPE, range, message)
                .suggest(Some("name a field inside of it, or declare another type")));
        }
        let wide = matches!(kind, Kind::Text | Kind::List(_));
        Ok(Part { op: Op::Field(self.field(origin, reading)), kind, digits, cost: 1, wide, range })
    }

    fn local(&self, origin: &Origin) -> Option<(usize, &Local)> {
        let Origin::Payload(steps) = origin else { return None };
        let [Step::Member(name)] = &steps[..] else { return None };
        let index = self.locals.iter().rposition(|local| local.name == *name)?;
        Some((index, &self.locals[index]))
    }

    fn untyped(&self, origin: &Origin, range: Range<usize>) -> Trouble {
        let path = origin.to_string();
        let declared: Vec<String> = self.types.declared().collect();
        let near = closest(&path, declared.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        let declare =
            format!("declare it at the top of the file: \"events\": {{EVENT: {{\"fields\": {{\"{path}\": TYPE}}}}}}");
        Trouble::new(codes::EXPRESSION_UNTYPED, range, format!("nothing says which type the field `{path}` has"))
            .allowed(gravity_model::ColumnType::WORDS.iter().copied().chain(["T[]"]))
            .suggest(Some(near.unwrap_or(declare)))
    }

    /// The number of a field; its presence alone needs no type and gives way to a reading that has one.
    fn field(&mut self, origin: &Origin, reading: Reading) -> usize {
        match self.fields.iter().position(|(known, _)| known == origin) {
            Some(index) => {
                if self.fields[index].1 == Reading::Presence {
                    self.fields[index].1 = reading;
                }
                index
            }
            None => {
                self.fields.push((origin.clone(), reading));
                self.fields.len() - 1
            }
        }
    }

    /// A field of which only the presence is asked. One that has a type is read by it, so that a value of another type is
    /// refused wherever the field is used.
    fn presence(&mut self, origin: &Origin) -> usize {
        self.field(origin, Reading::Presence)
    }

    fn conditions(&mut self, parts: &[Ast]) -> Result<(Vec<Op>, u64), Trouble> {
        let mut ops = Vec::with_capacity(parts.len());
        let mut cost = 1;
        for part in parts {
            let part = self.condition_part(part)?;
            cost += part.cost;
            ops.push(part.op);
        }
        Ok((ops, cost))
    }

    fn condition_part(&mut self, ast: &Ast) -> Result<Part, Trouble> {
        let part = self.part(ast)?;
        match part.kind {
            Kind::Bool | Kind::Null => Ok(part),
            _ => Err(self.wrong(&part, "a condition is needed here", &Kind::Bool)),
        }
    }

    fn number(&mut self, ast: &Ast) -> Result<Part, Trouble> {
        let part = self.part(ast)?;
        match part.kind {
            Kind::Int | Kind::Decimal => Ok(part),
            Kind::Null => Ok(Part { kind: Kind::Int, ..part }),
            _ => Err(self.wrong(&part, "a number is needed here", &Kind::Decimal)),
        }
    }

    fn text(&mut self, ast: &Ast) -> Result<Part, Trouble> {
        let part = self.part(ast)?;
        match part.kind {
            Kind::Text | Kind::Null => Ok(part),
            _ => Err(self.wrong(&part, "text is needed here", &Kind::Text)),
        }
    }

    /// A part of a type that its surroundings do not take; says where a field got its type from.
    fn wrong(&self, part: &Part, why: &str, wanted: &Kind) -> Trouble {
        let trouble = mismatch(part.range.clone(), why, &part.kind, wanted);
        let known = match &part.op {
            Op::Field(index) => self.types.find(&self.fields[*index].0),
            _ => None,
        };
        let suggestion = match known {
            Some(Known { origin, says: Says::Declared(column), place }) => {
                format!("`{origin}` is declared as {column} at {place}")
            }
            Some(Known { origin, says: Says::Inferred(kind), place }) => {
                format!("`{origin}` is used as {kind} at {place}; declare its type under `events`")
            }
            None if *wanted == Kind::Text => "string(…) makes a text of it".to_owned(),
            None => return trouble,
        };
        trouble.suggest(Some(suggestion))
    }

    fn one_kind(&self, left: &Part, right: &Part) -> Result<Kind, Trouble> {
        left.kind.join(&right.kind).ok_or_else(|| {
            let blamed =
                if matches!(left.op, Op::Field(_)) && !matches!(right.op, Op::Field(_)) { left } else { right };
            let wanted = if std::ptr::eq(blamed, left) { &right.kind } else { &left.kind };
            self.wrong(blamed, "both sides need one type", wanted)
        })
    }

    fn list(&mut self, items: &[Ast], range: &Range<usize>) -> Result<Part, Trouble> {
        let mut kind = Kind::Null;
        let mut digits = NO_DIGITS;
        let (mut ops, mut cost, mut wide) = (Vec::with_capacity(items.len()), 1, false);
        for item in items {
            let item = self.part(item)?;
            if matches!(item.kind, Kind::List(_)) {
                return Err(mismatch(item.range, "a list of lists is no type", &item.kind, &Kind::Text));
            }
            kind = match kind.join(&item.kind) {
                Some(kind) => kind,
                None => return Err(self.wrong(&item, "the elements of a list have one type", &kind)),
            };
            (digits, cost, wide) = (digits.join(item.digits), cost + item.cost, wide || item.wide);
            ops.push(item.op);
        }
        let constants = ops.iter().map(|op| match op {
            Op::Constant(value) => Some(value.clone()),
            _ => None,
        });
        // Made once, not for every event.
        let op = match constants.collect::<Option<Vec<_>>>() {
            Some(values) => Op::Constant(Val::List(values.into())),
            None => Op::List(ops),
        };
        Ok(Part { op, kind: Kind::List(Box::new(kind)), digits, cost, wide, range: range.clone() })
    }

    fn compare(
        &mut self,
        comparison: Comparison,
        left: &Ast,
        right: &Ast,
        range: &Range<usize>,
    ) -> Result<Part, Trouble> {
        let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        let made = |op, cost| Part { op, kind: Kind::Bool, digits: NO_DIGITS, cost, wide: false, range: range.clone() };
        if equality && (matches!(left.node, Node::Null) || matches!(right.node, Node::Null)) {
            let asked = if matches!(left.node, Node::Null) { right } else { left };
            let (of, cost) = match &asked.node {
                // The presence of a field needs no type.
                Node::Path(origin) if self.local(origin).is_none() => (Op::Field(self.presence_typed(origin)), 1),
                _ => {
                    let part = self.part(asked)?;
                    (part.op, part.cost)
                }
            };
            let negated = comparison == Comparison::NotEqual;
            return Ok(made(Op::IsNull { of: Box::new(of), negated }, cost + 1));
        }
        let (left, right) = (self.part(left)?, self.part(right)?);
        let (left, right) = self.written_out(left, right)?;
        let kind = self.one_kind(&left, &right)?;
        if matches!(kind, Kind::List(_)) {
            return Err(mismatch(range.clone(), "lists are not compared", &kind, &Kind::Text)
                .suggest(Some("`x in list`, `list.exists(x, …)`, `list.all(x, …)` and `size(list)` look into lists")));
        }
        if kind == Kind::Bool && !equality {
            return Err(mismatch(range.clone(), "true and false have no order", &kind, &Kind::Decimal));
        }
        let digits = if kind.is_number() { align_cost(left.digits, right.digits) } else { 0 };
        let cost = left.cost + right.cost + 1 + digits;
        Ok(made(Op::Compare(comparison, Box::new(left.op), Box::new(right.op)), cost))
    }

    /// The field of a presence test, read by its type where it has one.
    fn presence_typed(&mut self, origin: &Origin) -> usize {
        let reading = match (origin, self.types.find(origin)) {
            (Origin::Meta(meta), _) => Reading::Declared(meta_type(meta)),
            (_, Some(Known { says: Says::Declared(column), .. })) if Kind::of(column) != Kind::Opaque => {
                Reading::Declared(column.clone())
            }
            (_, Some(Known { says: Says::Inferred(kind), .. })) => Reading::Inferred(kind.clone()),
            _ => return self.presence(origin),
        };
        self.field(origin, reading)
    }

    /// Text written out beside a timestamp, date, time or uuid is one of these.
    fn written_out(&self, left: Part, right: Part) -> Result<(Part, Part), Trouble> {
        let (wanted_left, wanted_right) = (right.kind.clone(), left.kind.clone());
        Ok((read_as(left, &wanted_left)?, read_as(right, &wanted_right)?))
    }

    fn is_in(&mut self, needle: &Ast, list: &Ast, range: &Range<usize>) -> Result<Part, Trouble> {
        let needle = self.part(needle)?;
        let written_out = match &list.node {
            Node::List(items) => Some(items.len() as u64),
            _ => None,
        };
        let mut list = self.part(list)?;
        let Kind::List(of) = list.kind.clone() else {
            return Err(self.wrong(&list, "behind `in` stands a list", &Kind::List(Box::new(needle.kind))));
        };
        if let (Op::Constant(Val::List(items)), Kind::Text, false) = (&list.op, &*of, needle.kind == Kind::Text) {
            let read = items.iter().map(|item| constant_as(item, &needle.kind)).collect::<Option<Vec<_>>>();
            if let Some(read) = read.filter(|_| needle.kind.join(&of).is_none()) {
                list.op = Op::Constant(Val::List(read.into()));
                list.kind = Kind::List(Box::new(needle.kind.clone()));
            }
        }
        let Kind::List(of) = &list.kind else { return Err(self.wrong(&list, "a list is needed", &Kind::Text)) };
        if needle.kind.join(of).is_none() {
            return Err(self.wrong(&needle, "the list has another type", of));
        }
        let digits = if of.is_number() { align_cost(needle.digits, list.digits) } else { 0 };
        let each = 1 + digits;
        let walk = match written_out {
            Some(items) => items * each,
            None => {
                self.no_sweep_inside(&list)?;
                SWEEP * each
            }
        };
        let cost = needle.cost + list.cost + walk;
        let op = Op::In(Box::new(needle.op), Box::new(list.op));
        Ok(Part { op, kind: Kind::Bool, digits: NO_DIGITS, cost, wide: false, range: range.clone() })
    }

    fn arithmetic(
        &mut self,
        arithmetic: Arithmetic,
        left: &Ast,
        right: &Ast,
        range: &Range<usize>,
    ) -> Result<Part, Trouble> {
        if arithmetic == Arithmetic::Add {
            let (left, right) = (self.part(left)?, self.part(right)?);
            if left.kind == Kind::Text || right.kind == Kind::Text {
                for part in [&left, &right] {
                    if !matches!(part.kind, Kind::Text | Kind::Null) {
                        return Err(self.wrong(part, "text is added to text only", &Kind::Text));
                    }
                    self.no_sweep_inside(part)?;
                }
                let (cost, wide) = (left.cost + right.cost + SWEEP, left.wide || right.wide);
                let op = Op::Concatenate(Box::new(left.op), Box::new(right.op));
                return Ok(Part { op, kind: Kind::Text, digits: NO_DIGITS, cost, wide, range: range.clone() });
            }
            return self.calculated(arithmetic, self.as_number(left)?, self.as_number(right)?, range);
        }
        let (left, right) = (self.number(left)?, self.number(right)?);
        if matches!(arithmetic, Arithmetic::Divide | Arithmetic::Remainder) {
            for part in [&left, &right] {
                if part.kind != Kind::Int {
                    let why = "`/` and `%` are for whole numbers";
                    let suggestion = "div(a, b, 2) rounds to 2 digits; int(a) cuts them off";
                    return Err(self.wrong(part, why, &Kind::Int).suggest(Some(suggestion)));
                }
            }
        }
        self.calculated(arithmetic, left, right, range)
    }

    fn as_number(&self, part: Part) -> Result<Part, Trouble> {
        match part.kind {
            Kind::Int | Kind::Decimal => Ok(part),
            Kind::Null => Ok(Part { kind: Kind::Int, ..part }),
            _ => Err(self.wrong(&part, "numbers and texts can be added", &Kind::Decimal)),
        }
    }

    fn calculated(
        &self,
        arithmetic: Arithmetic,
        left: Part,
        right: Part,
        range: &Range<usize>,
    ) -> Result<Part, Trouble> {
        let kind = if left.kind == Kind::Int && right.kind == Kind::Int { Kind::Int } else { Kind::Decimal };
        let (a, b) = (left.digits, right.digits);
        let (digits, work) = match arithmetic {
            Arithmetic::Add | Arithmetic::Subtract => {
                let joined = a.join(b);
                (Digits { whole: joined.whole + 1, ..joined }, align_cost(a, b))
            }
            Arithmetic::Multiply => {
                (Digits { whole: a.whole + b.whole, scale: a.scale + b.scale }, product_cost(a.both(), b.both()))
            }
            Arithmetic::Divide => (a, product_cost(a.both(), b.both())),
            Arithmetic::Remainder => (b, product_cost(a.both(), b.both())),
        };
        bounded(digits, range)?;
        let cost = left.cost + right.cost + 1 + work;
        let op = Op::Number(arithmetic, Box::new(left.op), Box::new(right.op));
        Ok(Part { op, kind, digits, cost, wide: false, range: range.clone() })
    }

    /// Inside a walk over a list of the payload nothing else of the payload is looked at byte by byte: that would be the square
    /// of its length.
    fn no_sweep_inside(&self, part: &Part) -> Result<(), Trouble> {
        if self.sweeps == 0 || !part.wide {
            return Ok(());
        }
        let message = "inside of `exists` or `all` over a list of the event this is done for every element";
        Err(Trouble::new(codes::EXPRESSION_COST, part.range.clone(), message)
            .suggest(Some("do it outside, or with the element itself")))
    }
}

fn mismatch(range: Range<usize>, why: &str, found: &Kind, wanted: &Kind) -> Trouble {
    Trouble::new(codes::EXPRESSION_TYPE, range, format!("{why}, and this is {found}")).allowed([wanted.to_string()])
}

fn bounded(digits: Digits, range: &Range<usize>) -> Result<(), Trouble> {
    if digits.both() <= MOST_DIGITS {
        return Ok(());
    }
    let message = format!("this number may come to have {} digits; the most is {MOST_DIGITS}", digits.both());
    Err(Trouble::new(codes::EXPRESSION_COST, range.clone(), message)
        .suggest(Some("declare the fields' types, `decimal(p,s)`, or round in between")))
}

/// Steps for bringing two numbers to one scale: ordinary numbers cost nothing beyond the operation itself.
fn align_cost(a: Digits, b: Digits) -> u64 {
    u64::from(a.join(b).both() / 100)
}

/// A step is about 50 ns, in which 50 pairs of machine words of 19 digits are multiplied.
fn product_cost(a: u32, b: u32) -> u64 {
    u64::from(a) * u64::from(b) / (19 * 19 * 50)
}

/// A text that is written out as a value of `wanted`, where it is one of the types that are written as text.
fn read_as(part: Part, wanted: &Kind) -> Result<Part, Trouble> {
    let Op::Constant(value @ Val::Text(text)) = &part.op else { return Ok(part) };
    if !matches!(wanted, Kind::Uuid | Kind::Date | Kind::Time | Kind::Timestamp) {
        return Ok(part);
    }
    match constant_as(value, wanted) {
        Some(value) => Ok(Part { op: Op::Constant(value), kind: wanted.clone(), ..part }),
        None => {
            let message = format!("`{text}` is no {wanted}");
            let allowed = match wanted {
                Kind::Uuid => "8-4-4-4-12 hexadecimal digits",
                Kind::Date => "YYYY-MM-DD",
                Kind::Time => "HH:MM:SS",
                _ => "YYYY-MM-DDTHH:MM:SSZ, or with +HH:MM",
            };
            Err(Trouble::new(codes::EXPRESSION_TYPE, part.range, message).allowed([allowed]))
        }
    }
}

fn constant_as(value: &Val<'static>, wanted: &Kind) -> Option<Val<'static>> {
    let Val::Text(text) = value else { return None };
    Some(match wanted {
        Kind::Uuid => Val::Uuid(uuid::Uuid::try_parse(text).ok()?.into_bytes()),
        Kind::Date => Val::Date(plain::read_date(text)?),
        Kind::Time => Val::Time(plain::read_time(text)?),
        Kind::Timestamp => Val::Timestamp(plain::read_timestamp(text)?),
        _ => return None,
    })
}
