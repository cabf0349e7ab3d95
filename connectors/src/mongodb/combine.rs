//! How a carried value joins the one that a document has (SEMANTICS 2.7): exact, or refused.
//!
//! The server's own `$inc`, `$min`, `$max` and `$push` are not used: null is no operand of `$inc`, `$min` takes null for the
//! smallest value, and a write that is done again after a crash must come to the same document.

use std::cmp::Ordering;
use std::str::FromStr;

use gravity_model::{ColumnOp, ColumnType, decimal};
use mongodb::bson::{Bson, Decimal128};
use num_bigint::BigInt;

/// What the column holds afterwards; `Err` says why the two do not go together.
pub(super) fn combine(
    op: ColumnOp,
    column_type: &ColumnType,
    present: Option<&Bson>,
    given: Bson,
) -> Result<Bson, (&'static str, String)> {
    let present = present.filter(|value| **value != Bson::Null);
    if given == Bson::Null && op != ColumnOp::Set {
        return Ok(match (present, op) {
            (Some(present), _) => present.clone(),
            (None, ColumnOp::Add) => zero(column_type),
            (None, _) => Bson::Null,
        });
    }
    match (op, present) {
        (ColumnOp::Set, _) => Ok(given),
        (ColumnOp::Add | ColumnOp::Min | ColumnOp::Max, None) => Ok(given),
        (ColumnOp::Add, Some(present)) => within(column_type, add(present, &given)?),
        (ColumnOp::Min | ColumnOp::Max, Some(present)) => {
            let order = compare(present, &given).ok_or_else(|| mismatch(present, &given))?;
            let keeps = if op == ColumnOp::Min { order != Ordering::Greater } else { order != Ordering::Less };
            Ok(if keeps { present.clone() } else { given })
        }
        (ColumnOp::Append, present) => append(column_type, present, given),
    }
}

fn zero(column_type: &ColumnType) -> Bson {
    match column_type {
        ColumnType::F32 | ColumnType::F64 => Bson::Double(0.0),
        ColumnType::Decimal(_) => Decimal128::from_str("0").map_or(Bson::Int64(0), Bson::Decimal128),
        _ => Bson::Int64(0),
    }
}

fn append(column_type: &ColumnType, present: Option<&Bson>, given: Bson) -> Result<Bson, (&'static str, String)> {
    match (column_type, present, given) {
        (_, None, given) => Ok(given),
        // What is carried for a list is the list of what is added.
        (ColumnType::Json, Some(Bson::Array(present)), Bson::Array(given)) => {
            Ok(Bson::Array(present.iter().cloned().chain(given).collect()))
        }
        (_, Some(Bson::String(present)), Bson::String(given)) => {
            let joined = format!("{present}{given}");
            match column_type {
                ColumnType::Varchar(longest) if joined.chars().count() > *longest as usize => {
                    Err(("map/too-long", format!("the joined text has more than {longest} characters")))
                }
                _ => Ok(Bson::String(joined)),
            }
        }
        (_, Some(present), given) => Err(mismatch(present, &given)),
    }
}

/// The sum as the column's type holds it: the server itself knows no such bounds.
fn within(column_type: &ColumnType, sum: Bson) -> Result<Bson, (&'static str, String)> {
    let fits = match (&sum, column_type) {
        (Bson::Int64(sum), of) => of.integer_range().is_none_or(|(low, high)| (low..=high).contains(&i128::from(*sum))),
        (Bson::Double(sum), ColumnType::F32) => return single(*sum),
        (Bson::Decimal128(sum), ColumnType::Decimal(Some((precision, scale)))) => decimal::canonical(&sum.to_string())
            .is_none_or(|digits| {
                let (whole, fraction) = decimal::sizes(&digits);
                let significant = if digits.trim_start_matches('-').starts_with('0') { 0 } else { whole };
                significant <= usize::from(precision - scale) && fraction <= usize::from(*scale)
            }),
        _ => true,
    };
    if fits { Ok(sum) } else { Err(("map/out-of-range", format!("the sum {sum} is outside of {column_type}"))) }
}

fn single(sum: f64) -> Result<Bson, (&'static str, String)> {
    let sum = sum as f32;
    if sum.is_finite() {
        Ok(Bson::Double(f64::from(sum)))
    } else {
        Err(("map/out-of-range", format!("the sum {sum} is outside of f32")))
    }
}

fn mismatch(present: &Bson, given: &Bson) -> (&'static str, String) {
    let detail = format!(
        "the document holds a value of type {:?}, the event one of {:?}",
        present.element_type(),
        given.element_type()
    );
    ("map/wrong-type", detail)
}

fn add(present: &Bson, given: &Bson) -> Result<Bson, (&'static str, String)> {
    let overflow = || ("map/out-of-range", format!("{present} and {given} add up to more than the type holds"));
    if let (Some(present), Some(given)) = (whole(present), whole(given)) {
        return present.checked_add(given).map(Bson::Int64).ok_or_else(overflow);
    }
    if let (Bson::Double(present), Bson::Double(given)) = (present, given) {
        let sum = present + given;
        return if sum.is_finite() { Ok(Bson::Double(sum)) } else { Err(overflow()) };
    }
    let (left, right) = exact(present).zip(exact(given)).ok_or_else(|| mismatch(present, given))?;
    let scale = left.scale.max(right.scale);
    let (left, right) = left.at(scale).zip(right.at(scale)).ok_or_else(overflow)?;
    let text = Exact { digits: left + right, scale }.text();
    let significant = text.bytes().filter(u8::is_ascii_digit).count();
    if significant > 34 + 1 {
        return Err(overflow());
    }
    Decimal128::from_str(&text).map(Bson::Decimal128).map_err(|_| overflow())
}

fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}

/// Digits as a whole number, and how many of them stand after the point.
struct Exact {
    digits: BigInt,
    scale: i64,
}

/// Far beyond what columns hold; what needs more is refused instead of computed.
const WIDEST: i64 = 512;

impl Exact {
    fn at(&self, scale: i64) -> Option<BigInt> {
        let shift = u32::try_from(scale.checked_sub(self.scale)?).ok()?;
        (i64::from(shift) <= WIDEST).then(|| &self.digits * BigInt::from(10).pow(shift))
    }

    /// Plain digits without trailing zeros after the point.
    fn text(&self) -> String {
        let sign = if self.digits.sign() == num_bigint::Sign::Minus { "-" } else { "" };
        let digits = self.digits.magnitude().to_string();
        let Ok(scale) = usize::try_from(self.scale) else {
            return format!("{sign}{digits}{}", "0".repeat(self.scale.unsigned_abs() as usize));
        };
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }
}

fn exact(value: &Bson) -> Option<Exact> {
    match value {
        Bson::Decimal128(decimal) => {
            let text = decimal.to_string();
            let (mantissa, exponent) = match text.split_once(['e', 'E']) {
                Some((mantissa, exponent)) => (mantissa.to_owned(), exponent.parse::<i64>().ok()?),
                None => (text, 0),
            };
            let (whole, fraction) = mantissa.split_once('.').unwrap_or((&mantissa, ""));
            let digits = BigInt::from_str(&format!("{whole}{fraction}")).ok()?;
            let exact = Exact { digits, scale: fraction.len() as i64 - exponent };
            (exact.scale.abs() <= WIDEST).then_some(exact)
        }
        other => whole(other).map(|number| Exact { digits: number.into(), scale: 0 }),
    }
}

/// The order of two values of one type; `None` where there is none.
fn compare(left: &Bson, right: &Bson) -> Option<Ordering> {
    match (left, right) {
        (Bson::Double(left), Bson::Double(right)) => left.partial_cmp(right),
        (Bson::String(left), Bson::String(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Bson::DateTime(left), Bson::DateTime(right)) => Some(left.cmp(right)),
        (Bson::Boolean(left), Bson::Boolean(right)) => Some(left.cmp(right)),
        (Bson::Binary(left), Bson::Binary(right)) if left.subtype == right.subtype => {
            Some(left.bytes.cmp(&right.bytes))
        }
        _ => {
            let (left, right) = exact(left).zip(exact(right))?;
            let scale = left.scale.max(right.scale);
            Some(left.at(scale)?.cmp(&right.at(scale)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(Decimal128::from_str(text).expect("a decimal"))
    }

    fn joined(op: ColumnOp, of: &str, present: Option<Bson>, given: Bson) -> Result<Bson, &'static str> {
        combine(op, &of.parse().expect("a type"), present.as_ref(), given).map_err(|(code, _)| code)
    }

    #[test]
    fn add_starts_from_zero_and_is_exact() {
        use ColumnOp::Add;
        assert_eq!(joined(Add, "i64", None, Bson::Int64(3)), Ok(Bson::Int64(3)));
        assert_eq!(joined(Add, "i64", Some(Bson::Null), Bson::Int64(3)), Ok(Bson::Int64(3)));
        assert_eq!(joined(Add, "i64", Some(Bson::Int32(4)), Bson::Int64(3)), Ok(Bson::Int64(7)));
        assert_eq!(joined(Add, "i64", Some(Bson::Int64(4)), Bson::Null), Ok(Bson::Int64(4)));
        assert_eq!(joined(Add, "i64", None, Bson::Null), Ok(Bson::Int64(0)));
        assert_eq!(joined(Add, "i64", Some(Bson::Int64(i64::MAX)), Bson::Int64(1)), Err("map/out-of-range"));
        assert_eq!(joined(Add, "i64", Some(Bson::String("1".to_owned())), Bson::Int64(1)), Err("map/wrong-type"));
        for (left, right, sum) in
            [("0.1", "0.2", "0.3"), ("-1.05", "1", "-0.05"), ("99", "0.01", "99.01"), ("1.5", "-1.5", "0")]
        {
            assert_eq!(joined(Add, "decimal", Some(decimal(left)), decimal(right)), Ok(decimal(sum)), "{left} {right}");
        }
        assert_eq!(joined(Add, "i8", Some(Bson::Int64(100)), Bson::Int64(28)), Err("map/out-of-range"));
        assert_eq!(joined(Add, "u8", Some(Bson::Int64(1)), Bson::Int64(-2)), Err("map/out-of-range"));
        assert_eq!(joined(Add, "decimal(3,2)", Some(decimal("9.99")), decimal("0.01")), Err("map/out-of-range"));
        assert_eq!(joined(Add, "decimal(3,2)", Some(decimal("9.98")), decimal("0.01")), Ok(decimal("9.99")));
        let most = decimal("9999999999999999999999999999999999");
        assert_eq!(joined(Add, "decimal", Some(most), decimal("1.5")), Err("map/out-of-range"));
    }

    #[test]
    fn min_and_max_take_null_for_no_value() {
        use ColumnOp::{Max, Min};
        assert_eq!(joined(Min, "i64", Some(Bson::Null), Bson::Int64(3)), Ok(Bson::Int64(3)));
        assert_eq!(joined(Min, "i64", Some(Bson::Int64(2)), Bson::Null), Ok(Bson::Int64(2)));
        assert_eq!(joined(Min, "i64", Some(Bson::Int64(2)), Bson::Int64(3)), Ok(Bson::Int64(2)));
        assert_eq!(joined(Max, "i64", Some(Bson::Int64(2)), Bson::Int64(3)), Ok(Bson::Int64(3)));
        assert_eq!(joined(Max, "decimal", Some(decimal("10")), decimal("9.99")), Ok(decimal("10")));
        assert_eq!(joined(Max, "text", Some(Bson::from("a")), Bson::from("b")), Ok(Bson::from("b")));
        assert_eq!(joined(Max, "text", Some(Bson::from("a")), Bson::Int64(1)), Err("map/wrong-type"));
    }

    #[test]
    fn append_starts_from_empty() {
        use ColumnOp::Append;
        assert_eq!(joined(Append, "text", None, Bson::from("a")), Ok(Bson::from("a")));
        assert_eq!(joined(Append, "text", Some(Bson::from("a")), Bson::from("b")), Ok(Bson::from("ab")));
        let list = |items: &[i64]| Bson::Array(items.iter().map(|i| Bson::Int64(*i)).collect());
        assert_eq!(joined(Append, "json", None, list(&[1])), Ok(list(&[1])));
        assert_eq!(joined(Append, "json", Some(list(&[1])), list(&[2, 3])), Ok(list(&[1, 2, 3])));
        assert_eq!(joined(Append, "json", Some(Bson::Int64(1)), list(&[2])), Err("map/wrong-type"));
        assert_eq!(joined(Append, "varchar(3)", Some(Bson::from("éé")), Bson::from("é")), Ok(Bson::from("ééé")));
        assert_eq!(joined(Append, "varchar(3)", Some(Bson::from("éé")), Bson::from("éé")), Err("map/too-long"));
    }
}
