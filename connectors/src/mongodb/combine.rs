//! How a carried value joins the one that a document has (SEMANTICS 2.7): what [`ColumnOp::join`] says, as on every database.
//!
//! The server's own `$inc`, `$min`, `$max` and `$push` are not used: null is no operand of `$inc`, `$min` takes null for the
//! smallest value, and a write that is done again after a crash must come to the same document.

use gravity_model::join::JoinRefusal;
use gravity_model::{ColumnOp, ColumnType, Value};
use mongodb::bson::Bson;

use super::codec::{OUT_OF_RANGE, Refusal, TOO_LONG, WRONG_TYPE, bson, plain_digits};
use crate::sql::join::read_text;

/// What the field holds afterwards. `given` is `carried` as a field.
pub(super) fn combine(
    op: ColumnOp,
    column_type: &ColumnType,
    present: Option<&Bson>,
    (carried, given): (&Value, Bson),
) -> Result<Bson, Refusal> {
    let present = match present {
        None | Some(Bson::Null) => return Ok(given),
        Some(_) if op == ColumnOp::Set => return Ok(given),
        Some(present) if given == Bson::Null => return Ok(present.clone()),
        Some(present) => present,
    };
    if *column_type == ColumnType::Json {
        // What is carried is the list of what is added; its elements stay as they are stored.
        return match (present, given) {
            (Bson::Array(present), Bson::Array(given)) => {
                Ok(Bson::Array(present.iter().cloned().chain(given).collect()))
            }
            _ => Err(refusal(JoinRefusal::NoList)),
        };
    }
    let Some(value) = read(column_type, present) else {
        let detail =
            format!("the document holds a value of type {:?} where {column_type} stands", present.element_type());
        return Err((WRONG_TYPE, detail));
    };
    bson(column_type, &op.join(column_type, &value, carried).map_err(refusal)?)
}

fn refusal(why: JoinRefusal) -> Refusal {
    let code = match why {
        JoinRefusal::OutOfRange => OUT_OF_RANGE,
        JoinRefusal::TooLong => TOO_LONG,
        JoinRefusal::NoList | JoinRefusal::OtherType => WRONG_TYPE,
    };
    (code, why.to_string())
}

/// A field as a value of its column; `None` where it holds something else. A DBA's own number may be of 32 bits.
fn read(column_type: &ColumnType, field: &Bson) -> Option<Value> {
    let whole = match field {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        _ => None,
    };
    Some(match (column_type, field) {
        (ColumnType::F32 | ColumnType::F64, Bson::Double(number)) => Value::Float(*number),
        (ColumnType::F32 | ColumnType::F64, Bson::Int32(number)) => Value::Float(f64::from(*number)),
        (ColumnType::Decimal(_), Bson::Decimal128(number)) => Value::Decimal(plain_digits(&number.to_string())?.into()),
        (ColumnType::Decimal(_), _) => Value::Decimal(whole?.to_string().into()),
        (ColumnType::Text | ColumnType::Varchar(_), Bson::String(text)) => Value::Text(text.as_str().into()),
        (ColumnType::Time, Bson::String(text)) => read_text(column_type, text)?,
        (ColumnType::Date, Bson::DateTime(at)) => {
            Value::Date(i32::try_from(at.timestamp_millis().div_euclid(86_400_000)).ok()?)
        }
        (ColumnType::Timestamp, Bson::DateTime(at)) => Value::Timestamp(at.timestamp_millis().checked_mul(1_000)?),
        (ColumnType::TimestampTz, Bson::DateTime(at)) => Value::TimestampTz(at.timestamp_millis().checked_mul(1_000)?),
        (integer, _) => {
            integer.integer_range()?;
            Value::Int(whole?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use mongodb::bson::{DateTime, Decimal128};

    use super::*;

    fn digits(text: &str) -> Bson {
        Bson::Decimal128(Decimal128::from_str(text).expect("a decimal"))
    }

    fn joined(op: ColumnOp, of: &str, present: Option<Bson>, carried: Value) -> Result<Bson, &'static str> {
        let of = of.parse().expect("a type");
        let given = bson(&of, &carried).expect("a field");
        combine(op, &of, present.as_ref(), (&carried, given)).map_err(|(code, _)| code)
    }

    fn decimal(text: &str) -> Value {
        Value::Decimal(text.into())
    }

    #[test]
    fn sums_are_exact_or_refused() {
        use ColumnOp::Add;
        let (three, null) = (|| Value::Int(3), || Value::Null);
        assert_eq!(joined(Add, "i64", None, three()), Ok(Bson::Int64(3)));
        assert_eq!(joined(Add, "i64", Some(Bson::Null), three()), Ok(Bson::Int64(3)));
        assert_eq!(joined(Add, "i64", Some(Bson::Int32(4)), three()), Ok(Bson::Int64(7)));
        assert_eq!(joined(Add, "i64", Some(Bson::Int64(4)), null()), Ok(Bson::Int64(4)));
        assert_eq!(joined(Add, "i64", Some(Bson::Int64(i64::MAX)), Value::Int(1)), Err(OUT_OF_RANGE));
        assert_eq!(
            joined(Add, "u64", Some(Bson::Int64(i64::MAX)), Value::Int(1)),
            Err(OUT_OF_RANGE),
            "BSON has 63 bits"
        );
        assert_eq!(joined(Add, "i8", Some(Bson::Int64(100)), Value::Int(28)), Err(OUT_OF_RANGE));
        assert_eq!(joined(Add, "i64", Some(Bson::from("1")), Value::Int(1)), Err(WRONG_TYPE));
        assert_eq!(joined(Add, "f64", Some(Bson::Double(1.5)), Value::Float(1.0)), Ok(Bson::Double(2.5)));
        for (left, right, sum) in [
            ("0.1", "0.2", "0.3"),
            ("-1.05", "1", "-0.05"),
            ("99", "0.01", "99.01"),
            ("1.5", "-1.5", "0"),
            ("1E+2", "1", "101"),
        ] {
            assert_eq!(joined(Add, "decimal", Some(digits(left)), decimal(right)), Ok(digits(sum)), "{left} {right}");
        }
        assert_eq!(joined(Add, "decimal(3,2)", Some(digits("9.99")), decimal("0.01")), Err(OUT_OF_RANGE));
        let most = digits("9999999999999999999999999999999999");
        assert_eq!(joined(Add, "decimal", Some(most), decimal("1.5")), Err(OUT_OF_RANGE));
        assert_eq!(joined(Add, "decimal", Some(digits("NaN")), decimal("1")), Err(WRONG_TYPE));
    }

    #[test]
    fn min_and_max_take_null_for_no_value() {
        use ColumnOp::{Max, Min};
        assert_eq!(joined(Min, "i64", Some(Bson::Null), Value::Int(3)), Ok(Bson::Int64(3)));
        assert_eq!(joined(Min, "i64", Some(Bson::Int64(2)), Value::Null), Ok(Bson::Int64(2)));
        assert_eq!(joined(Min, "i64", Some(Bson::Int64(2)), Value::Int(3)), Ok(Bson::Int64(2)));
        assert_eq!(joined(Max, "i64", Some(Bson::Int64(2)), Value::Int(3)), Ok(Bson::Int64(3)));
        assert_eq!(joined(Max, "decimal", Some(digits("10")), decimal("9.99")), Ok(digits("10")));
        assert_eq!(joined(Max, "text", Some(Bson::from("a")), Value::Text("b".into())), Ok(Bson::from("b")));
        let day = |days: i64| Bson::DateTime(DateTime::from_millis(days * 86_400_000));
        assert_eq!(joined(Max, "date", Some(day(-1)), Value::Date(1)), Ok(day(1)));
        assert_eq!(joined(Min, "timestamp", Some(day(2)), Value::Timestamp(0)), Ok(day(0)));
        let noon = Bson::from("12:00:00.000000");
        assert_eq!(joined(Min, "time", Some(noon.clone()), Value::Time(86_399_000_000)), Ok(noon));
    }

    #[test]
    fn texts_are_joined_and_lists_are_lengthened() {
        use ColumnOp::Append;
        let (text, json) = (|text: &str| Value::Text(text.into()), |text: &str| Value::Json(text.into()));
        assert_eq!(joined(Append, "text", None, text("a")), Ok(Bson::from("a")));
        assert_eq!(joined(Append, "text", Some(Bson::from("a")), text("b")), Ok(Bson::from("ab")));
        assert_eq!(joined(Append, "varchar(3)", Some(Bson::from("éé")), text("é")), Ok(Bson::from("ééé")));
        assert_eq!(joined(Append, "varchar(3)", Some(Bson::from("éé")), text("éé")), Err(TOO_LONG));
        let list = |items: &[i64]| Bson::Array(items.iter().map(|i| Bson::Int64(*i)).collect());
        assert_eq!(joined(Append, "json", None, json("[1]")), Ok(list(&[1])));
        assert_eq!(joined(Append, "json", Some(list(&[1])), json("[2,3]")), Ok(list(&[1, 2, 3])));
        assert_eq!(joined(Append, "json", Some(Bson::Int64(1)), json("[2]")), Err(WRONG_TYPE));
    }
}
