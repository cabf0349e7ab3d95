//! Values into BSON, exactly: what BSON would round, or read as something else, is a refusal of content.
//!
//! Integers are 64 bits wide whatever their type word; fractions of untyped JSON are doubles where the double reads back as
//! the same digits; Decimal128 comes from a declared `decimal` only.

use std::str::FromStr;

use gravity_model::{ColumnShape, ColumnType, Fault, FaultKind, TableShape, Value};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document};
use serde_json::value::RawValue;

/// Largest document that is written, in bytes: the server's limit is 16 MiB, and a journal carries documents inside its own.
pub(super) const LARGEST: usize = 15 << 20;

const MILLIS_PER_DAY: i64 = 86_400_000;
/// Digits of a Decimal128, and its smallest exponent.
const DECIMAL_DIGITS: usize = 34;
const DECIMAL_SCALE: usize = 6_176;

const LOSSY: &str = "map/lossy";
pub(super) const OUT_OF_RANGE: &str = "map/out-of-range";
pub(super) const TOO_LONG: &str = "map/too-long";
pub(super) const WRONG_TYPE: &str = "map/wrong-type";
const UNREADABLE: &str = "map/unreadable";

/// Why a value is refused: code and detail.
pub(super) type Refusal = (&'static str, String);

/// The value as a field of a document.
pub(super) fn field(shape: &TableShape, column: u16, value: &Value) -> Result<Bson, Fault> {
    let column = &shape.columns[usize::from(column)];
    if value.is_null() && column.not_null {
        return Err(refused(shape, column, ("map/null", "null where the column takes none".to_owned())));
    }
    bson(&column.column_type, value).map_err(|refusal| refused(shape, column, refusal))
}

fn refused(shape: &TableShape, column: &ColumnShape, (code, detail): Refusal) -> Fault {
    let doing = format!("write a row of {}", shape.table);
    Fault::new(FaultKind::RefusedEvent, code, doing, format!("column {}: {detail}", column.name))
}

/// The `_id` of a key: the value itself where it is one column, else a document of the parts in key order.
pub(super) fn identity(shape: &TableShape, key: &[Value]) -> Result<Bson, Fault> {
    let part = |column: u16, value: &Value| {
        let shape_column = &shape.columns[usize::from(column)];
        if let Value::Json(text) = value
            && !is_plain(text.as_str())
        {
            let detail =
                "a key without declared `type` must be a whole number or a text without escapes; declare its type";
            return Err(refused(shape, shape_column, (UNREADABLE, detail.to_owned())));
        }
        field(shape, column, value)
    };
    if let ([column], [value]) = (&shape.primary_key[..], key) {
        return part(*column, value);
    }
    let mut parts = Document::new();
    for (column, value) in shape.primary_key.iter().zip(key) {
        parts.insert(shape.columns[usize::from(*column)].name.as_str(), part(*column, value)?);
    }
    Ok(Bson::Document(parts))
}

/// One way only to write it: then equal keys have equal bytes, as the lanes and the folding of events need.
fn is_plain(json: &str) -> bool {
    if json == "true" || json == "false" {
        return true;
    }
    if let Some(digits) = json.strip_prefix('-').or(Some(json)).filter(|d| d.bytes().all(|b| b.is_ascii_digit())) {
        return !digits.is_empty() && json != "-0";
    }
    json.starts_with('"') && !json.contains('\\')
}

pub(super) fn bson(column_type: &ColumnType, value: &Value) -> Result<Bson, Refusal> {
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(bool) => Bson::Boolean(*bool),
        Value::Int(number) => Bson::Int64(*number),
        Value::Float(number) => Bson::Double(*number),
        Value::Decimal(digits) => decimal(column_type, digits.as_str())?,
        Value::Text(text) => {
            if let ColumnType::Varchar(longest) = column_type
                && text.as_str().chars().count() > *longest as usize
            {
                return Err((TOO_LONG, format!("longer than {longest} characters")));
            }
            Bson::String(text.as_str().to_owned())
        }
        Value::Json(text) => json(text.as_str(), 0)?,
        Value::Uuid(bytes) => Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() }),
        Value::Date(days) => Bson::DateTime(DateTime::from_millis(i64::from(*days) * MILLIS_PER_DAY)),
        // BSON has no time of day.
        Value::Time(micros) => Bson::String(time_of_day(*micros)),
        Value::Timestamp(micros) | Value::TimestampTz(micros) => {
            if micros % 1_000 != 0 {
                let detail =
                    "a date of BSON counts milliseconds, this time has microseconds; declare `text` to keep them";
                return Err((LOSSY, detail.to_owned()));
            }
            Bson::DateTime(DateTime::from_millis(micros / 1_000))
        }
        Value::Binary(bytes) => Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }),
        Value::Array(items) => {
            let of = match column_type {
                ColumnType::Array(of) => of,
                other => return Err((WRONG_TYPE, format!("a list is no {other}"))),
            };
            Bson::Array(items.iter().map(|item| bson(of, item)).collect::<Result<_, _>>()?)
        }
    })
}

fn time_of_day(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    format!("{:02}:{:02}:{:02}.{fraction:06}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn decimal(column_type: &ColumnType, digits: &str) -> Result<Bson, Refusal> {
    if let ColumnType::U64 = column_type {
        return Err((OUT_OF_RANGE, format!("{digits} is beyond the 64 signed bits of BSON; declare `decimal`")));
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if let ColumnType::Decimal(Some((precision, scale))) = column_type {
        let whole = whole.trim_start_matches('-').trim_start_matches('0');
        if fraction.len() > usize::from(*scale) {
            return Err((LOSSY, format!("{digits} has more than {scale} digits after the point")));
        }
        if whole.len() > usize::from(precision - scale) {
            return Err((OUT_OF_RANGE, format!("{digits} has more digits than decimal({precision},{scale}) takes")));
        }
    }
    let significant = format!("{whole}{fraction}");
    let significant = significant.trim_start_matches('-').trim_start_matches('0');
    if significant.len() > DECIMAL_DIGITS || fraction.len() > DECIMAL_SCALE {
        return Err((OUT_OF_RANGE, format!("{digits} has more than the {DECIMAL_DIGITS} digits of Decimal128")));
    }
    match Decimal128::from_str(digits) {
        Ok(decimal) => Ok(Bson::Decimal128(decimal)),
        Err(error) => Err((OUT_OF_RANGE, format!("{digits} is no Decimal128: {error}"))),
    }
}

/// How deep documents may nest: the server's own limit is 100.
const DEEPEST: usize = 90;

/// A JSON document as BSON: objects keep the order of their fields.
fn json(text: &str, depth: usize) -> Result<Bson, Refusal> {
    if depth > DEEPEST {
        return Err((OUT_OF_RANGE, format!("nested deeper than {DEEPEST}")));
    }
    let broken = |error: serde_json::Error| (UNREADABLE, format!("no JSON: {error}"));
    let text = text.trim();
    Ok(match text.as_bytes().first() {
        Some(b'n') => Bson::Null,
        Some(b't') => Bson::Boolean(true),
        Some(b'f') => Bson::Boolean(false),
        Some(b'"') => Bson::String(serde_json::from_str(text).map_err(broken)?),
        Some(b'{') => {
            let fields: Fields<'_> = serde_json::from_str(text).map_err(broken)?;
            let mut document = Document::new();
            for (name, value) in fields.0 {
                // An operator, a path, or the end of a name: never stored as one, so never read as one.
                if name.starts_with('$') || name.contains(['.', '\0']) || name.is_empty() {
                    return Err((
                        WRONG_TYPE,
                        format!("the field name {name:?} is empty, begins with `$`, or holds a dot or NUL"),
                    ));
                }
                if document.contains_key(&name) {
                    return Err((UNREADABLE, format!("the field {name:?} is there twice")));
                }
                document.insert(name, json(value.get(), depth + 1)?);
            }
            Bson::Document(document)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(broken)?;
            Bson::Array(items.into_iter().map(|item| json(item.get(), depth + 1)).collect::<Result<_, _>>()?)
        }
        _ => number(text)?,
    })
}

/// 64 bits, else the double that has these digits, else nothing.
fn number(text: &str) -> Result<Bson, Refusal> {
    if let Ok(whole) = text.parse::<i64>()
        && text != "-0"
    {
        return Ok(Bson::Int64(whole));
    }
    let lossy = || (LOSSY, format!("{text} is no number that a double keeps whole; declare `decimal`"));
    let double: f64 = text.parse().map_err(|_| (UNREADABLE, format!("no number: {text}")))?;
    if !double.is_finite()
        || digits_of(text).ok_or_else(lossy)? != digits_of(&format!("{double:e}")).ok_or_else(lossy)?
    {
        return Err(lossy());
    }
    Ok(Bson::Double(double))
}

/// A number with or without exponent in plain digits, without zeros that count for nothing; `None` for what is no number.
/// Its length is bounded by the exponents of Decimal128.
pub(super) fn plain_digits(text: &str) -> Option<String> {
    let (negative, digits, power) =
        digits_of(text).filter(|(_, digits, _)| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let digits = if digits.is_empty() { "0".to_owned() } else { digits };
    let plain = match usize::try_from(power) {
        Ok(zeros) => format!("{digits}{}", "0".repeat(zeros)),
        Err(_) => {
            let behind = usize::try_from(power.unsigned_abs()).ok()?;
            let digits = format!("{digits:0>width$}", width = behind + 1);
            let (whole, fraction) = digits.split_at(digits.len() - behind);
            format!("{whole}.{fraction}")
        }
    };
    gravity_model::decimal::canonical(&format!("{}{plain}", if negative { "-" } else { "" }))
}

/// A number's significant digits and the power of ten of the last one.
fn digits_of(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let power = exponent.checked_sub(fraction.len() as i64)?.checked_add((digits.len() - kept.len()) as i64)?;
    let kept = kept.trim_start_matches('0');
    Some(if kept.is_empty() { (negative, String::new(), 0) } else { (negative, kept.to_owned(), power) })
}

/// Fields of an object in their order, values as they were written.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Visitor).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers_keep_every_digit_or_are_refused() {
        for (text, want) in [
            ("0", Bson::Int64(0)),
            ("9223372036854775807", Bson::Int64(i64::MAX)),
            ("-9223372036854775808", Bson::Int64(i64::MIN)),
            ("1.5", Bson::Double(1.5)),
            ("0.1", Bson::Double(0.1)),
            ("1.10", Bson::Double(1.1)),
            ("1e3", Bson::Double(1000.0)),
            ("-0.0", Bson::Double(-0.0)),
            ("9223372036854775808", Bson::Double(9_223_372_036_854_775_808.0)),
        ] {
            match (number(text), text) {
                // Its shortest form as a double has fewer digits.
                (Err((LOSSY, _)), "9223372036854775808") => {}
                (found, _) => assert_eq!(found, Ok(want), "{text}"),
            }
        }
        for text in ["18446744073709551615", "0.1000000000000000055511151231257827", "1e400", "123456789012345678.9"] {
            assert_eq!(number(text).map_err(|(code, _)| code), Err(LOSSY), "{text}");
        }
    }

    #[test]
    fn t4_names_that_could_be_operators_or_paths_are_refused() {
        for text in [
            r#"{"$where": "sleep(1)"}"#,
            r#"{"a": {"$ne": 1}}"#,
            r#"{"a.b": 1}"#,
            r#"[{"$set": {}}]"#,
            r#"{"a\u0000b": 1}"#,
            r#"{"\u0024gt": 1}"#,
            r#"{"": 1}"#,
        ] {
            assert_eq!(json(text, 0).map_err(|(code, _)| code), Err(WRONG_TYPE), "{text}");
        }
        // As a value it is a text like any other.
        assert_eq!(json(r#""$where""#, 0), Ok(Bson::String("$where".to_owned())));
    }

    #[test]
    fn untyped_keys_have_one_spelling() {
        for text in ["1", "-7", "\"a\"", "true", "\"\u{e9}\""] {
            assert!(is_plain(text), "{text}");
        }
        for text in ["1.0", "1e0", "-0", "-", "\"\\u0041\"", "{}", "[1]", "null"] {
            assert!(!is_plain(text), "{text}");
        }
    }

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        let decimal = |text| decimal(&ColumnType::Decimal(None), text).map_err(|(code, _)| code);
        for text in ["0", "-1", "1.1", "10000", "1234567890123456789012345678901234", "-0.00000000000000000000001"] {
            assert!(matches!(decimal(text), Ok(Bson::Decimal128(_))), "{text}");
        }
        assert_eq!(decimal("12345678901234567890123456789012345"), Err(OUT_OF_RANGE));
    }

    #[test]
    fn hostile_nesting_is_refused() {
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        assert!(json(&deep, 0).is_err());
    }
}
