//! Plain comparisons without values: `a.b == 'x'`, `n > 5`, `kind in ['a', 'b']`, and conjunctions of them, straight on the
//! bytes of the payload.

use std::cmp::Ordering;

use super::bind::{Field, Reading, Source};
use super::evaluate::Op;
use super::kind::Kind;
use super::number::Number;
use super::parse::Comparison;
use super::program::Event;
use super::value::Val;
use crate::scan::{Kind as Token, Slot};

/// All must hold.
#[derive(Debug)]
pub(super) struct Native(Vec<Test>);

#[derive(Debug)]
struct Test {
    slot: u32,
    comparison: Comparison,
    /// Any of them, with `==`; one, with the others.
    with: With,
}

#[derive(Debug)]
enum With {
    Texts(Vec<Box<str>>),
    Integer(i64),
    Bool(bool),
}

impl Native {
    /// `None` where some part is more than a comparison of a field with what is written out.
    pub fn of(root: &Op, fields: &[Field]) -> Option<Native> {
        let tests: Option<Vec<Test>> = match root {
            Op::And(parts) => parts.iter().map(|part| test(part, fields)).collect(),
            other => test(other, fields).map(|test| vec![test]),
        };
        tests.map(Native)
    }

    /// `None`: something unusual stands there (an escape, a fraction, another type), which the long way decides.
    #[inline]
    pub fn holds(&self, event: &Event<'_>) -> Option<bool> {
        let mut all = true;
        // Also behind the first that does not hold: a value of another type must be found wherever it stands.
        for test in &self.0 {
            all &= test.holds(event.slots[test.slot as usize], event.payload)?;
        }
        Some(all)
    }
}

impl Test {
    #[inline]
    fn holds(&self, slot: Slot, payload: &[u8]) -> Option<bool> {
        let raw = || &payload[slot.start as usize..slot.end as usize];
        match (slot.kind, &self.with) {
            (Token::Absent | Token::Null, _) => Some(false),
            (Token::Text, With::Texts(texts)) => {
                let raw = raw();
                let text = &raw[1..raw.len() - 1];
                match &texts[..] {
                    [one] => Some(self.comparison.holds(text.cmp(one.as_bytes()))),
                    several => Some(several.iter().any(|one| text == one.as_bytes())),
                }
            }
            (Token::Number, With::Integer(with)) => {
                let value = crate::convert::plain::short_integer(raw())?;
                Some(self.comparison.holds(value.cmp(with)))
            }
            (Token::True | Token::False, With::Bool(with)) => {
                let order = (slot.kind == Token::True).cmp(with);
                Some(self.comparison.holds(order))
            }
            _ => None,
        }
    }
}

fn test(op: &Op, fields: &[Field]) -> Option<Test> {
    let field = |op: &Op| match op {
        Op::Field(index) => fields.get(*index),
        _ => None,
    };
    let (comparison, field, value) = match op {
        Op::Compare(comparison, left, right) => match (field(left), &**right, &**left, field(right)) {
            (Some(field), Op::Constant(value), ..) => (*comparison, field, std::slice::from_ref(value)),
            (_, _, Op::Constant(value), Some(field)) => (comparison.turned(), field, std::slice::from_ref(value)),
            _ => return None,
        },
        Op::In(needle, list) => match (field(needle), &**list) {
            (Some(field), Op::Constant(Val::List(values))) => (Comparison::Equal, field, &values[..]),
            _ => return None,
        },
        // The field itself is a condition.
        Op::Field(index) => (Comparison::Equal, fields.get(*index)?, &[Val::Bool(true)][..]),
        _ => return None,
    };
    let Source::Slot(slot) = field.source else { return None };
    let with = match (&field.reading, value) {
        (reading, values) if is_text(reading) => {
            let texts = values.iter().map(|value| match value {
                Val::Text(text) => Some(Box::from(&**text)),
                _ => None,
            });
            With::Texts(texts.collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty())?)
        }
        (reading, [Val::Number(number)]) if is_number(reading) => With::Integer(as_i64(number)?),
        (Reading::Inferred(Kind::Bool) | Reading::Declared(gravity_model::ColumnType::Bool), [Val::Bool(value)]) => {
            With::Bool(*value)
        }
        _ => return None,
    };
    Some(Test { slot, comparison, with })
}

/// Only where no length is declared that a longer text would break.
fn is_text(reading: &Reading) -> bool {
    matches!(reading, Reading::Inferred(Kind::Text) | Reading::Declared(gravity_model::ColumnType::Text))
}

/// Only where every short whole number is a value of the type.
fn is_number(reading: &Reading) -> bool {
    use gravity_model::ColumnType::{Decimal, F64, I64};
    matches!(reading, Reading::Inferred(Kind::Int | Kind::Decimal) | Reading::Declared(I64 | F64 | Decimal(None)))
}

fn as_i64(number: &Number) -> Option<i64> {
    let whole = number.truncate();
    (whole.compare(number) == Ordering::Equal).then(|| whole.to_string().parse().ok())?
}

impl Comparison {
    /// The same with its sides exchanged.
    fn turned(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessEqual => Comparison::GreaterEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterEqual => Comparison::LessEqual,
            same => same,
        }
    }
}
