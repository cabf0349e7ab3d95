//! Which declared types go into which column types without loss, and how.

use base64::Engine;
use gravity_model::Text;
use gravity_model::{ColumnType, Value};

use super::{Reject, text, time};

/// The step from a value of the declared type to a value of the column's type. Never loses anything that
/// [`Cast::between`] allowed; what depends on the value (length) is refused per event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    Same,
    BoolToInteger,
    IntegerToDecimal,
    IntegerToFloat,
    /// Written as text; `Some` is the column's longest length in characters.
    ToText(Option<u32>),
    /// A decimal as text, with every digit of its scale.
    ScaledToText(u16, Option<u32>),
    ToJson,
    /// Both are µs in UTC; only the variant differs.
    ToTimestamp,
    ToTimestampTz,
    Elements(Box<Cast>),
}

impl Cast {
    /// `None` where values could be lost or have no meaning in the column.
    pub fn between(declared: &ColumnType, column: &ColumnType) -> Option<Cast> {
        use ColumnType::{
            Array, Binary, Bool, Date, Decimal, F32, F64, Json, Text, Time, Timestamp, TimestampTz, Uuid, Varchar,
        };
        if declared == column {
            return Some(Cast::Same);
        }
        match (declared.integer_range(), column.integer_range()) {
            (Some(from), Some(to)) => return (to.0 <= from.0 && from.1 <= to.1).then_some(Cast::Same),
            (Some(from), None) => match column {
                Decimal(None) => return Some(Cast::IntegerToDecimal),
                Decimal(Some((precision, scale))) => {
                    let digits = from.0.unsigned_abs().max(from.1.unsigned_abs()).to_string().len();
                    return (digits <= usize::from(precision - scale)).then_some(Cast::IntegerToDecimal);
                }
                // Every integer up to 32 bits is exact in an f64, up to 16 bits in an f32.
                F64 => return (from.1 <= i128::from(u32::MAX)).then_some(Cast::IntegerToFloat),
                F32 => return (from.1 <= i128::from(u16::MAX)).then_some(Cast::IntegerToFloat),
                _ => {}
            },
            (None, Some(_)) => return (*declared == Bool).then_some(Cast::BoolToInteger),
            (None, None) => {}
        }
        match (declared, column) {
            (F32, F64) | (Decimal(Some(_)), Decimal(None)) | (Varchar(_), Text) => Some(Cast::Same),
            (Decimal(Some((p1, s1))), Decimal(Some((p2, s2)))) => {
                (s1 <= s2 && p1 - s1 <= p2 - s2).then_some(Cast::Same)
            }
            (Varchar(from), Varchar(to)) => (from <= to).then_some(Cast::Same),
            (Text, Varchar(_)) => None,
            (Timestamp, TimestampTz) => Some(Cast::ToTimestampTz),
            (TimestampTz, Timestamp) => Some(Cast::ToTimestamp),
            (Decimal(Some((_, scale))), Text) => Some(Cast::ScaledToText(*scale, None)),
            (Decimal(Some((_, scale))), Varchar(most)) => Some(Cast::ScaledToText(*scale, Some(*most))),
            (_, Text) => Some(Cast::ToText(None)),
            (Json | Array(_) | Binary, Varchar(_)) => None,
            (_, Varchar(most)) => Some(Cast::ToText(Some(*most))),
            (Bool | F32 | F64 | Decimal(_) | Array(_), Json) => Some(Cast::ToJson),
            (Text | Varchar(_) | Uuid | Date | Time | Timestamp | TimestampTz, Json) => Some(Cast::ToJson),
            (_, Json) if declared.integer_range().is_some() => Some(Cast::ToJson),
            (Array(from), Array(to)) => Cast::between(from, to).map(|cast| Cast::Elements(Box::new(cast))),
            _ => None,
        }
    }

    pub fn apply(&self, value: Value) -> Result<Value, Reject> {
        if value.is_null() {
            return Ok(value);
        }
        Ok(match (self, value) {
            (Cast::Same, value) => value,
            (Cast::BoolToInteger, Value::Bool(value)) => Value::Int(i64::from(value)),
            (Cast::IntegerToDecimal, Value::Int(value)) => Value::Decimal(Text::from(value.to_string())),
            (Cast::IntegerToFloat, Value::Int(value)) => Value::Float(value as f64),
            (Cast::ToTimestamp, Value::TimestampTz(micros)) => Value::Timestamp(micros),
            (Cast::ToTimestampTz, Value::Timestamp(micros)) => Value::TimestampTz(micros),
            (Cast::ToText(most), value) => Value::Text(within(plain_text(&value), *most)?),
            (Cast::ScaledToText(scale, most), Value::Decimal(digits)) => {
                Value::Text(within(scaled(digits, usize::from(*scale)), *most)?)
            }
            (Cast::ToJson, value) => Value::Json(Text::from(json_text(&value))),
            (Cast::Elements(cast), Value::Array(items)) => {
                let items: Result<Vec<Value>, Reject> =
                    items.into_vec().into_iter().map(|item| cast.apply(item)).collect();
                Value::Array(items?.into_boxed_slice())
            }
            // `between` gives each cast only to the variants above.
            (_, value) => value,
        })
    }
}

fn within(text: Text, most: Option<u32>) -> Result<Text, Reject> {
    match most {
        Some(most) => text::check_length(text, most),
        None => Ok(text),
    }
}

/// Canonical digits end with one that counts: what the scale has beyond it are zeros.
fn scaled(digits: Text, scale: usize) -> Text {
    let (point, known) = match digits.as_str().split_once('.') {
        Some((_, fraction)) => ("", fraction.len()),
        None => (".", 0),
    };
    match scale.saturating_sub(known) {
        0 => digits,
        lacking => Text::from(format!("{digits}{point}{}", "0".repeat(lacking))),
    }
}

fn plain_text(value: &Value) -> Text {
    match value {
        Value::Text(text) | Value::Decimal(text) | Value::Json(text) => text.clone(),
        Value::Array(_) => Text::from(json_text(value)),
        Value::Null => Text::from(""),
        Value::Bool(b) => Text::from(b.to_string()),
        Value::Int(i) => Text::from(i.to_string()),
        Value::Float(x) => Text::from(x.to_string()),
        Value::Uuid(uuid) => Text::from(uuid::Uuid::from_bytes(*uuid).to_string()),
        Value::Date(days) => Text::from(time::date_text(i64::from(*days))),
        Value::Time(micros) => Text::from(time::time_text(*micros)),
        Value::Timestamp(micros) => Text::from(time::timestamp_text(*micros, false)),
        Value::TimestampTz(micros) => Text::from(time::timestamp_text(*micros, true)),
        Value::Binary(bytes) => Text::from(super::BASE64.encode(bytes)),
    }
}

/// A value as JSON: numbers by their digits, dates and times in ISO 8601, bytes in base64.
pub fn json_text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Decimal(_) | Value::Json(_) => {
            plain_text(value).as_str().to_owned()
        }
        Value::Array(items) => format!("[{}]", items.iter().map(json_text).collect::<Vec<_>>().join(",")),
        _ => text::quote(plain_text(value).as_str()),
    }
}
