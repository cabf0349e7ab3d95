//! Runs a checked expression. Nothing here can fail: what has no value is null.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::function::Function;
use super::number::Number;
use super::parse::{Arithmetic, Comparison};
use super::value::Val;
use crate::convert::plain;

/// A part of a checked expression.
#[derive(Debug)]
pub(super) enum Op {
    Constant(Val<'static>),
    /// By number of the field.
    Field(usize),
    /// What `exists` or `all` stands at, 0 the outermost.
    Local(usize),
    Has(usize),
    /// `== null`, or `!= null` where `negated`.
    IsNull {
        of: Box<Op>,
        negated: bool,
    },
    Not(Box<Op>),
    And(Vec<Op>),
    Or(Vec<Op>),
    If(Box<Op>, Box<Op>, Box<Op>),
    Compare(Comparison, Box<Op>, Box<Op>),
    In(Box<Op>, Box<Op>),
    Number(Arithmetic, Box<Op>, Box<Op>),
    Negate(Box<Op>),
    Concatenate(Box<Op>, Box<Op>),
    List(Vec<Op>),
    /// `exists`, or `all` where `every`.
    Walk {
        list: Box<Op>,
        body: Box<Op>,
        every: bool,
    },
    Call(Function, Vec<Op>),
    Round(Box<Op>, u32),
    Divide(Box<Op>, Box<Op>, u32),
}

impl Op {
    pub fn eval<'v>(&'v self, fields: &'v [Val<'v>], locals: &mut Vec<Val<'v>>) -> Val<'v> {
        match self {
            Op::Constant(value) => value.borrowed(),
            Op::Field(index) => fields[*index].borrowed(),
            Op::Local(index) => locals[*index].clone(),
            Op::Has(index) => Val::Bool(!matches!(fields[*index], Val::Absent)),
            Op::IsNull { of, negated } => Val::Bool(of.eval(fields, locals).is_null() != *negated),
            Op::Not(of) => match of.eval(fields, locals) {
                Val::Bool(value) => Val::Bool(!value),
                _ => Val::Null,
            },
            Op::And(parts) => every(parts.iter().map(|part| part.eval(fields, locals)), false),
            Op::Or(parts) => every(parts.iter().map(|part| part.eval(fields, locals)), true),
            Op::If(condition, then, otherwise) => {
                let chosen = if condition.eval(fields, locals).is_true() { then } else { otherwise };
                chosen.eval(fields, locals)
            }
            Op::Compare(comparison, left, right) => {
                let (left, right) = (left.eval(fields, locals), right.eval(fields, locals));
                Val::Bool(left.compare(&right).is_some_and(|order| comparison.holds(order)))
            }
            Op::In(needle, list) => {
                let (needle, list) = (needle.eval(fields, locals), list.eval(fields, locals));
                let Val::List(items) = list else { return Val::Bool(false) };
                Val::Bool(items.iter().any(|item| needle.compare(item).is_some_and(Ordering::is_eq)))
            }
            Op::Number(arithmetic, left, right) => {
                let (left, right) = (left.eval(fields, locals), right.eval(fields, locals));
                let (Val::Number(left), Val::Number(right)) = (left, right) else { return Val::Null };
                let result = match arithmetic {
                    Arithmetic::Add => Some(left.add(&right)),
                    Arithmetic::Subtract => Some(left.add(&right.negate())),
                    Arithmetic::Multiply => Some(left.multiply(&right)),
                    Arithmetic::Divide => left.divide_whole(&right).map(|(quotient, _)| quotient),
                    Arithmetic::Remainder => left.divide_whole(&right).map(|(_, remainder)| remainder),
                };
                result.map_or(Val::Null, Val::Number)
            }
            Op::Negate(of) => number(of.eval(fields, locals), |number| Some(number.negate())),
            Op::Concatenate(left, right) => {
                let (left, right) = (left.eval(fields, locals), right.eval(fields, locals));
                match (left, right) {
                    (Val::Text(left), Val::Text(right)) => Val::Text(left + right),
                    _ => Val::Null,
                }
            }
            Op::List(items) => Val::List(items.iter().map(|item| item.eval(fields, locals)).collect()),
            Op::Walk { list, body, every } => {
                let made = match list.standing(fields) {
                    Some(_) => Val::Null,
                    None => list.eval(fields, locals),
                };
                let mut holds = |item: Val<'v>| {
                    locals.push(item);
                    let outcome = body.eval(fields, locals).is_true();
                    locals.pop();
                    outcome
                };
                // The elements of a field are borrowed; those of a list that is made here are few.
                Val::Bool(match (list.standing(fields), made) {
                    (Some(items), _) if *every => items.iter().map(Val::borrowed).all(holds),
                    (Some(items), _) => items.iter().map(Val::borrowed).any(holds),
                    (None, Val::List(items)) if *every => items.iter().cloned().all(&mut holds),
                    (None, Val::List(items)) => items.iter().cloned().any(&mut holds),
                    _ => false,
                })
            }
            Op::Round(of, digits) => number(of.eval(fields, locals), |number| Some(number.round(*digits))),
            Op::Divide(left, right, digits) => {
                let (left, right) = (left.eval(fields, locals), right.eval(fields, locals));
                match (left, right) {
                    (Val::Number(left), Val::Number(right)) => {
                        left.divide(&right, *digits).map_or(Val::Null, Val::Number)
                    }
                    _ => Val::Null,
                }
            }
            Op::Call(Function::Coalesce, parts) => {
                let mut values = parts.iter().map(|part| part.eval(fields, locals));
                values.find(|value| !value.is_null()).unwrap_or(Val::Null)
            }
            Op::Call(function, parts) => {
                let mut values = parts.iter().map(|part| part.eval(fields, locals));
                let (first, second) = (values.next().unwrap_or(Val::Null), values.next());
                call(*function, first, second)
            }
        }
    }
}

impl Op {
    /// The elements of a list that is there already: a field's, or one that is written out.
    fn standing<'v>(&'v self, fields: &'v [Val<'v>]) -> Option<&'v [Val<'v>]> {
        match self {
            Op::Field(index) => match &fields[*index] {
                Val::List(items) => Some(items),
                _ => None,
            },
            Op::Constant(Val::List(items)) => Some(items),
            _ => None,
        }
    }
}

impl Comparison {
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterEqual => order.is_ge(),
        }
    }
}

/// `&&` (`decides` false) or `||` (`decides` true) of any number: the deciding value wins, else null if there is one.
fn every<'v>(parts: impl Iterator<Item = Val<'v>>, decides: bool) -> Val<'v> {
    let mut null = false;
    for part in parts {
        match part {
            Val::Bool(value) if value == decides => return Val::Bool(decides),
            Val::Bool(_) => {}
            _ => null = true,
        }
    }
    if null { Val::Null } else { Val::Bool(!decides) }
}

fn number<'v>(value: Val<'v>, map: impl FnOnce(Number) -> Option<Number>) -> Val<'v> {
    match value {
        Val::Number(number) => map(number).map_or(Val::Null, Val::Number),
        _ => Val::Null,
    }
}

fn call<'v>(function: Function, value: Val<'v>, second: Option<Val<'v>>) -> Val<'v> {
    match (function, value, second) {
        // Conditions, so false where there is nothing to look at.
        (Function::Contains, Val::Text(text), Some(Val::Text(part))) => {
            Val::Bool(memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some())
        }
        (Function::StartsWith, Val::Text(text), Some(Val::Text(part))) => Val::Bool(text.starts_with(&*part)),
        (Function::EndsWith, Val::Text(text), Some(Val::Text(part))) => Val::Bool(text.ends_with(&*part)),
        (Function::Contains | Function::StartsWith | Function::EndsWith, ..) => Val::Bool(false),
        (Function::Size, Val::Text(text), _) => Val::Number(Number::of_int(text.chars().count() as i64)),
        (Function::Size, Val::List(items), _) => Val::Number(Number::of_int(items.len() as i64)),
        (Function::LowerAscii, Val::Text(text), _) => Val::Text(Cow::Owned(text.to_ascii_lowercase())),
        (Function::UpperAscii, Val::Text(text), _) => Val::Text(Cow::Owned(text.to_ascii_uppercase())),
        (Function::Trim, Val::Text(text), _) => Val::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        }),
        (Function::Int, Val::Number(number), _) => Val::Number(number.truncate()),
        (Function::Date, Val::Timestamp(micros), _) => Val::Date(plain::day_of(micros)),
        (Function::String, value, _) => {
            text_of(&value).map_or(Val::Null, |text| Val::Text(Cow::Owned(text.into_owned())))
        }
        _ => Val::Null,
    }
}

/// The value in words, as a text column would show it. `None`: null, a list.
pub(super) fn text_of<'v>(value: &Val<'v>) -> Option<Cow<'v, str>> {
    Some(match value {
        Val::Absent | Val::Null | Val::Present | Val::List(_) => return None,
        Val::Text(text) => text.clone(),
        Val::Bool(value) => Cow::Owned(value.to_string()),
        Val::Number(number) => Cow::Owned(number.to_string()),
        Val::Uuid(uuid) => Cow::Owned(uuid::Uuid::from_bytes(*uuid).to_string()),
        Val::Date(days) => Cow::Owned(plain::date(*days)),
        Val::Time(micros) => Cow::Owned(plain::time(*micros)),
        Val::Timestamp(micros) => Cow::Owned(plain::timestamp(*micros)),
    })
}
