//! What a carried value makes of the one that the row has, for each [`ColumnOp`]: the meaning that folds, the memory double and
//! the stores that compute by themselves share, and that statements of the others must agree with.

use std::cmp::Ordering;

use crate::change::ColumnOp;
use crate::decimal;
use crate::shape::ColumnType;
use crate::text::Text;
use crate::value::Value;

/// Why two values cannot be joined in their column. Nothing is ever rounded, cut or wrapped instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    #[error("the sum is outside of what the column holds")]
    OutOfRange,
    #[error("the joined text is longer than the column")]
    TooLong,
    #[error("the column holds a document that is no list")]
    NoList,
    #[error("the column holds a value of another type")]
    OtherType,
}

impl ColumnOp {
    /// The word in rules.json.
    pub fn word(self) -> &'static str {
        match self {
            ColumnOp::Set => "set",
            ColumnOp::Add => "add",
            ColumnOp::Min => "min",
            ColumnOp::Max => "max",
            ColumnOp::Append => "append",
        }
    }

    /// Whether columns of this type can be written so.
    pub fn fits(self, column: &ColumnType) -> bool {
        use ColumnType::{Date, Decimal, F32, F64, Json, Text, Time, Timestamp, TimestampTz, Varchar};
        let number = column.integer_range().is_some() || matches!(column, Decimal(_) | F32 | F64);
        match self {
            ColumnOp::Set => true,
            ColumnOp::Add => number,
            ColumnOp::Min | ColumnOp::Max => {
                number || matches!(column, Text | Varchar(_) | Date | Time | Timestamp | TimestampTz)
            }
            ColumnOp::Append => matches!(column, Text | Varchar(_) | Json),
        }
    }

    /// The types that [`ColumnOp::fits`] lets through, for messages.
    pub fn fitting(self) -> &'static [&'static str] {
        match self {
            ColumnOp::Set => &["any type"],
            ColumnOp::Add => &["i8 … i64", "u8 … u64", "decimal", "f32", "f64"],
            ColumnOp::Min | ColumnOp::Max => &[
                "i8 … i64",
                "u8 … u64",
                "decimal",
                "f32",
                "f64",
                "text",
                "varchar(n)",
                "date",
                "time",
                "timestamp",
                "timestamptz",
            ],
            ColumnOp::Append => &["text", "varchar(n)", "json"],
        }
    }

    /// What a column of `column` holds after `carried` came to `present`. A null on either side leaves the other. Texts are
    /// ordered by their bytes; a carried document of `Append` is the list of what is added (see [`ColumnSet`](crate::ColumnSet)).
    pub fn join(self, column: &ColumnType, present: &Value, carried: &Value) -> Result<Value, JoinRefusal> {
        match (self, present, carried) {
            (ColumnOp::Set, _, carried) => return Ok(carried.clone()),
            (_, present, Value::Null) => return Ok(present.clone()),
            (_, Value::Null, carried) => return Ok(carried.clone()),
            _ => {}
        }
        match self {
            ColumnOp::Set => Ok(carried.clone()),
            ColumnOp::Add => sum(column, present, carried),
            ColumnOp::Min | ColumnOp::Max => {
                let order = order(carried, present).ok_or(JoinRefusal::OtherType)?;
                let wanted = if self == ColumnOp::Min { Ordering::Less } else { Ordering::Greater };
                Ok(if order == wanted { carried } else { present }.clone())
            }
            ColumnOp::Append => appended(column, present, carried),
        }
    }
}

fn sum(column: &ColumnType, present: &Value, carried: &Value) -> Result<Value, JoinRefusal> {
    if let (Value::Float(a), Value::Float(b)) = (present, carried) {
        let sum = match column {
            ColumnType::F32 => f64::from(*a as f32 + *b as f32),
            _ => a + b,
        };
        return if sum.is_finite() { Ok(Value::Float(sum)) } else { Err(JoinRefusal::OutOfRange) };
    }
    if let (Value::Int(a), Value::Int(b), Some((low, high))) = (present, carried, column.integer_range()) {
        let sum = i128::from(*a) + i128::from(*b);
        if (low..=high).contains(&sum)
            && let Ok(sum) = i64::try_from(sum)
        {
            return Ok(Value::Int(sum));
        }
    }
    let digits = decimal::add(&digits(present)?, &digits(carried)?);
    if let Some((low, high)) = column.integer_range() {
        let sum = digits.parse::<i128>().map_err(|_| JoinRefusal::OutOfRange)?;
        if !(low..=high).contains(&sum) {
            return Err(JoinRefusal::OutOfRange);
        }
        return Ok(i64::try_from(sum).map_or_else(|_| Value::Decimal(digits.into()), Value::Int));
    }
    if let ColumnType::Decimal(Some((precision, scale))) = column {
        let (whole, fraction) = decimal::sizes(&digits);
        let significant = if digits.trim_start_matches('-').starts_with('0') { 0 } else { whole };
        if significant > usize::from(precision - scale) || fraction > usize::from(*scale) {
            return Err(JoinRefusal::OutOfRange);
        }
    }
    Ok(Value::Decimal(digits.into()))
}

/// Numbers that are no floats, as canonical digits.
fn digits(value: &Value) -> Result<std::borrow::Cow<'_, str>, JoinRefusal> {
    match value {
        Value::Int(number) => Ok(number.to_string().into()),
        Value::Decimal(digits) => Ok(digits.as_str().into()),
        _ => Err(JoinRefusal::OtherType),
    }
}

/// `None` where the values are of no one type, or have no order.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    Some(match (left, right) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b)?,
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Time(a), Value::Time(b))
        | (Value::Timestamp(a) | Value::TimestampTz(a), Value::Timestamp(b) | Value::TimestampTz(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        _ => decimal::compare(&digits(left).ok()?, &digits(right).ok()?),
    })
}

fn appended(column: &ColumnType, present: &Value, carried: &Value) -> Result<Value, JoinRefusal> {
    match (present, carried) {
        (Value::Text(present), Value::Text(carried)) => {
            let joined = [present.as_str(), carried.as_str()].concat();
            if let ColumnType::Varchar(longest) = column
                && joined.len() > *longest as usize
                && joined.chars().count() > *longest as usize
            {
                return Err(JoinRefusal::TooLong);
            }
            Ok(Value::Text(joined.into()))
        }
        (Value::Json(present), Value::Json(carried)) => {
            let (before, more) = (items(present)?, items(carried)?);
            let comma = if before.is_empty() || more.is_empty() { "" } else { "," };
            Ok(Value::Json(Text::from(["[", before, comma, more, "]"].concat())))
        }
        _ => Err(JoinRefusal::OtherType),
    }
}

/// What stands between the brackets of a list. The text is a JSON document already, so its ends decide.
fn items(document: &Text) -> Result<&str, JoinRefusal> {
    let blank = [' ', '\t', '\n', '\r'];
    let inside = document.as_str().trim_matches(blank).strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.map(|inside| inside.trim_matches(blank)).ok_or(JoinRefusal::NoList)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(word: &str) -> ColumnType {
        word.parse().expect("a type word")
    }

    fn decimal(digits: &str) -> Value {
        Value::Decimal(digits.into())
    }

    #[test]
    fn null_on_one_side_leaves_the_other() {
        for op in [ColumnOp::Add, ColumnOp::Min, ColumnOp::Max] {
            assert_eq!(op.join(&ColumnType::I64, &Value::Null, &Value::Int(3)), Ok(Value::Int(3)), "{op:?}");
            assert_eq!(op.join(&ColumnType::I64, &Value::Int(3), &Value::Null), Ok(Value::Int(3)), "{op:?}");
        }
        assert_eq!(ColumnOp::Set.join(&ColumnType::I64, &Value::Int(3), &Value::Null), Ok(Value::Null));
    }

    #[test]
    fn sums_are_exact_or_refused() {
        for (word, a, b, want) in [
            ("i8", Value::Int(100), Value::Int(27), Ok(Value::Int(127))),
            ("i8", Value::Int(100), Value::Int(28), Err(JoinRefusal::OutOfRange)),
            ("u8", Value::Int(1), Value::Int(-2), Err(JoinRefusal::OutOfRange)),
            ("i64", Value::Int(i64::MAX), Value::Int(1), Err(JoinRefusal::OutOfRange)),
            ("i64", Value::Int(i64::MIN), Value::Int(-1), Err(JoinRefusal::OutOfRange)),
            ("u64", Value::Int(i64::MAX), Value::Int(1), Ok(decimal("9223372036854775808"))),
            ("u64", decimal("18446744073709551614"), Value::Int(1), Ok(decimal("18446744073709551615"))),
            ("u64", decimal("18446744073709551615"), Value::Int(1), Err(JoinRefusal::OutOfRange)),
            ("u64", decimal("9223372036854775808"), Value::Int(-1), Ok(Value::Int(i64::MAX))),
            ("decimal", decimal("0.1"), decimal("0.2"), Ok(decimal("0.3"))),
            ("decimal(3,2)", decimal("9.99"), decimal("0.01"), Err(JoinRefusal::OutOfRange)),
            ("decimal(2,2)", decimal("0.5"), decimal("0.49"), Ok(decimal("0.99"))),
            ("decimal(2,2)", decimal("0.5"), decimal("0.5"), Err(JoinRefusal::OutOfRange)),
            ("f64", Value::Float(0.1), Value::Float(0.2), Ok(Value::Float(0.1 + 0.2))),
            ("f64", Value::Float(f64::MAX), Value::Float(f64::MAX), Err(JoinRefusal::OutOfRange)),
            ("f32", Value::Float(3e38), Value::Float(3e38), Err(JoinRefusal::OutOfRange)),
            ("i64", Value::Text("1".into()), Value::Int(1), Err(JoinRefusal::OtherType)),
        ] {
            assert_eq!(ColumnOp::Add.join(&column(word), &a, &b), want, "{word}: {a:?} + {b:?}");
        }
    }

    #[test]
    fn the_smaller_and_the_larger_by_value() {
        for (word, small, large) in [
            ("i64", Value::Int(-3), Value::Int(2)),
            ("u64", Value::Int(i64::MAX), decimal("9223372036854775808")),
            ("decimal", decimal("9.5"), decimal("10")),
            ("decimal", decimal("-10"), decimal("-9.5")),
            ("text", Value::Text("B".into()), Value::Text("a".into())),
            ("text", Value::Text("\u{ffff}".into()), Value::Text("\u{10000}".into())),
            ("date", Value::Date(-1), Value::Date(0)),
            ("timestamp", Value::Timestamp(-1), Value::TimestampTz(1)),
            ("f64", Value::Float(-1.5), Value::Float(1e-9)),
        ] {
            for (present, carried) in [(&small, &large), (&large, &small)] {
                assert_eq!(ColumnOp::Min.join(&column(word), present, carried).as_ref(), Ok(&small), "{word}");
                assert_eq!(ColumnOp::Max.join(&column(word), present, carried).as_ref(), Ok(&large), "{word}");
            }
        }
    }

    #[test]
    fn texts_are_joined_and_lists_are_lengthened() {
        let json = |text: &str| Value::Json(text.into());
        let text = |text: &str| Value::Text(text.into());
        let varchar = column("varchar(3)");
        assert_eq!(ColumnOp::Append.join(&varchar, &text("éé"), &text("é")), Ok(text("ééé")));
        assert_eq!(ColumnOp::Append.join(&varchar, &text("éé"), &text("  ")), Err(JoinRefusal::TooLong));
        for (present, carried, want) in [
            ("[]", "[1]", Ok("[1]")),
            (" [ 1.10 , {\"a\": [2]} ]\n", "[9007199254740993]", Ok("[1.10 , {\"a\": [2]},9007199254740993]")),
            ("[1]", "[2,3]", Ok("[1,2,3]")),
            ("{\"a\":[1]}", "[2]", Err(JoinRefusal::NoList)),
            ("7", "[2]", Err(JoinRefusal::NoList)),
            ("\"[]\"", "[2]", Err(JoinRefusal::NoList)),
        ] {
            let joined = ColumnOp::Append.join(&ColumnType::Json, &json(present), &json(carried));
            assert_eq!(joined, want.map(json), "{present} and {carried}");
        }
    }
}
