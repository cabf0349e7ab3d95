//! Live types to ours, and cells to parameters so that no digit, byte or blank changes.

use std::borrow::Cow;

use gravity_model::{ColumnShape, ColumnType, Fault, FaultKind, Value};
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::{Arguments, Row};

use super::error::{INCORRECT_TIME, INCORRECT_VALUE, NOT_NULL, OUT_OF_RANGE, PACKET, TOO_LONG, TRUNCATED};
use crate::sql::join::read_text;
use crate::sql::name::Name;
use crate::sql::statement::StatementBuilder;
use crate::sql::text::{decimal_text, shown, write_json_array, write_text};

/// Longest single value, whatever the server would take.
pub(super) const VALUE_LIMIT: usize = 64 << 20;

/// Precision and scale of the widest DECIMAL.
const WIDEST_DECIMAL: (u16, u16) = (65, 30);

/// 0001-01-01 and 9999-12-31: what DATE and DATETIME hold.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// How a column's values travel, and how they are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Signed,
    Unsigned,
    Float,
    Double,
    Decimal(u16, u16),
    Text,
    /// The labels: MySQL would take a text of digits that is none of them for a label's number.
    Label(Vec<String>),
    /// MySQL's own JSON, which compares documents; MariaDB's is a text.
    Json,
    /// Text with hyphens into MariaDB's own type.
    Uuid,
    /// Sixteen bytes.
    UuidBytes,
    Date,
    Time,
    DateTime,
    Bytes,
}

impl Wire {
    pub fn of(column: &ColumnShape) -> Wire {
        use ColumnType::*;
        let word = column.database_type.as_str();
        if word.starts_with("enum(") {
            return Wire::Label(labels(word));
        }
        if holds_text(word) {
            return Wire::Text;
        }
        if word == "json" {
            return Wire::Json;
        }
        match &column.column_type {
            Bool | I8 | I16 | I32 | I64 | U8 | U16 | U32 => Wire::Signed,
            U64 => Wire::Unsigned,
            F32 => Wire::Float,
            F64 => Wire::Double,
            Decimal(size) => {
                let (precision, scale) = size.unwrap_or(WIDEST_DECIMAL);
                Wire::Decimal(precision, scale)
            }
            Uuid if word == "uuid" => Wire::Uuid,
            Uuid => Wire::UuidBytes,
            Date => Wire::Date,
            Time => Wire::Time,
            Timestamp | TimestampTz => Wire::DateTime,
            Binary => Wire::Bytes,
            Text | Varchar(_) | Json | Array(_) => Wire::Text,
        }
    }

    /// A parameter of the column's type, for comparisons: a text beside a number would be compared as a float.
    pub fn typed(&self, b: &mut StatementBuilder) {
        match self {
            Wire::Decimal(precision, scale) => {
                b.add("CAST(? AS DECIMAL(").number(usize::from(*precision)).add(",");
                b.number(usize::from(*scale)).add("))");
            }
            Wire::Date => _ = b.add("CAST(? AS DATE)"),
            Wire::Time => _ = b.add("CAST(? AS TIME(6))"),
            Wire::Json => _ = b.add("CAST(? AS JSON)"),
            Wire::DateTime => _ = b.add("CAST(? AS DATETIME(6))"),
            _ => _ = b.add("?"),
        }
    }

    /// What is selected so that [`read`] has every digit: numbers and times as text, floats as they are. Texts too: a CAST would
    /// make null of one that is longer than a message.
    pub fn readable(&self, b: &mut StatementBuilder, name: &Name) {
        match self {
            Wire::Float | Wire::Double | Wire::Text | Wire::Label(_) => _ = b.name(name),
            _ => _ = b.add("CAST(").name(name).add(" AS CHAR)"),
        }
    }

    /// Compared by its bytes where the column's own equality may be looser.
    pub fn is_text(&self) -> bool {
        matches!(self, Wire::Text | Wire::Label(_))
    }
}

/// True for columns that keep characters as they are.
pub(super) fn holds_text(word: &str) -> bool {
    let name = word.split(['(', ' ']).next().unwrap_or_default();
    matches!(name, "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext")
}

/// The type that a live column means by itself; `None` where no value of ours can be written to it. `word` is the catalogue's
/// `COLUMN_TYPE` (`decimal(12,2)`, `tinyint(3) unsigned`), `json` a check that the text is JSON.
pub(super) fn type_of_word(word: &str, json: bool) -> Option<ColumnType> {
    let name = word.split(['(', ' ']).next().unwrap_or_default();
    let unsigned = word.contains(" unsigned");
    let arguments = word.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
    let pick = |signed, other| Some(if unsigned { other } else { signed });
    match name {
        "tinyint" if arguments == Some("1") && !unsigned => Some(ColumnType::Bool),
        "tinyint" => pick(ColumnType::I8, ColumnType::U8),
        "smallint" => pick(ColumnType::I16, ColumnType::U16),
        "mediumint" | "int" => pick(ColumnType::I32, ColumnType::U32),
        "bigint" => pick(ColumnType::I64, ColumnType::U64),
        "decimal" => {
            let (precision, scale) = arguments?.split_once(',')?;
            Some(ColumnType::Decimal(Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))))
        }
        "float" => Some(ColumnType::F32),
        "double" => Some(ColumnType::F64),
        "bit" if arguments == Some("1") => Some(ColumnType::Bool),
        "char" | "varchar" if !json => Some(ColumnType::Varchar(arguments?.parse().ok()?)),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" if json => Some(ColumnType::Json),
        "tinytext" | "text" | "mediumtext" | "longtext" | "enum" => Some(ColumnType::Text),
        "json" => Some(ColumnType::Json),
        "date" => Some(ColumnType::Date),
        "time" => Some(ColumnType::Time),
        "datetime" => Some(ColumnType::Timestamp),
        "timestamp" => Some(ColumnType::TimestampTz),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Some(ColumnType::Binary),
        "uuid" => Some(ColumnType::Uuid),
        _ => None,
    }
}

/// The type of a column for our purposes: what the mapping declares, where the column keeps such values as they are; otherwise
/// what the column itself means.
pub(super) fn resolve(word: &str, json: bool, declared: Option<&ColumnType>) -> Option<ColumnType> {
    use ColumnType::*;
    let own = type_of_word(word, json)?;
    let Some(declared) = declared else { return Some(own) };
    let takes = match (&own, declared) {
        // `tinyint(1)` is what MySQL makes of BOOLEAN, and holds any byte.
        (Bool, I8) => word.starts_with("tinyint"),
        (I8 | U8, Bool) => true,
        // Text keeps every digit, and every moment as ISO 8601 writes it.
        (Text | Varchar(_), Decimal(_) | U64 | Json | Array(_) | Uuid | Date | Time | Timestamp | TimestampTz) => {
            holds_text(word)
        }
        // The widest that MySQL has: what does not fit even that is refused by itself.
        (Decimal(Some(WIDEST_DECIMAL)), Decimal(None)) => true,
        (Json, Array(_)) => true,
        (Binary, Uuid) => word == "binary(16)",
        // Both are UTC here: the session's time zone is.
        (Timestamp, TimestampTz) | (TimestampTz, Timestamp) => true,
        _ => false,
    };
    Some(if takes { declared.clone() } else { own })
}

/// Labels of `enum('a','it''s')`.
fn labels(word: &str) -> Vec<String> {
    let inside = word.strip_prefix("enum('").and_then(|rest| rest.strip_suffix("')")).unwrap_or_default();
    inside.split("','").map(|label| label.replace("''", "'")).collect()
}

/// The number in `char(3)`, `binary(16)`.
fn length_of(word: &str, name: &str) -> Option<usize> {
    word.strip_prefix(name)?.strip_prefix('(')?.split_once(')')?.0.parse().ok()
}

/// Why a value cannot stand in its column; the codes are the server's own for the loud case, so that a dead letter reads the
/// same wherever the refusal happened.
struct Refusal {
    code: &'static str,
    why: String,
}

fn refuse(code: &'static str, why: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal { code, why: why.into() })
}

/// Adds one cell to the parameters.
pub(super) fn bind(
    arguments: &mut MySqlArguments,
    column: &ColumnShape,
    wire: &Wire,
    value: &Value,
    doing: &str,
) -> Result<(), Fault> {
    let parameter =
        kept_whole(column, wire, value).and_then(|()| parameter(column, wire, value)).map_err(|refusal| {
            let detail = format!("column {}: {}", column.name, refusal.why);
            Fault::new(FaultKind::RefusedEvent, refusal.code, doing, detail)
        })?;
    let added = match (parameter, wire) {
        // Typed all the same: the type of an expression over several rows follows from its parts.
        (Parameter::Null, Wire::Signed) => arguments.add(None::<i64>),
        (Parameter::Null, Wire::Unsigned) => arguments.add(None::<u64>),
        (Parameter::Null, Wire::Float | Wire::Double) => arguments.add(None::<f64>),
        (Parameter::Null, Wire::Bytes | Wire::UuidBytes) => arguments.add(None::<Vec<u8>>),
        (Parameter::Null, _) => arguments.add(None::<String>),
        (Parameter::Signed(number), _) => arguments.add(number),
        (Parameter::Unsigned(number), _) => arguments.add(number),
        (Parameter::Double(number), _) => arguments.add(number),
        (Parameter::Borrowed(text), _) => arguments.add(text),
        (Parameter::Owned(text), _) => arguments.add(text),
        (Parameter::Bytes(bytes), _) => arguments.add(bytes),
    };
    added.map_err(|e| Fault::new(FaultKind::RefusedEvent, INCORRECT_VALUE, doing, e.to_string()).with_source(e))
}

/// A cell selected as [`Wire::readable`] says; `None` where the value is none of the column's type.
pub(super) fn read(row: &MySqlRow, at: usize, column: &ColumnShape, wire: &Wire) -> Result<Option<Value>, sqlx::Error> {
    // Unchecked: to the driver a text with a binary collation is no text.
    Ok(match wire {
        Wire::Float => row.try_get::<Option<f32>, _>(at)?.map_or(Some(Value::Null), |x| Some(Value::Float(x.into()))),
        Wire::Double => row.try_get::<Option<f64>, _>(at)?.map_or(Some(Value::Null), |x| Some(Value::Float(x))),
        _ => match row.try_get_unchecked::<Option<String>, _>(at)? {
            None => Some(Value::Null),
            Some(text) => read_text(&column.column_type, &text),
        },
    })
}

enum Parameter<'a> {
    Null,
    Signed(i64),
    Unsigned(u64),
    Double(f64),
    Borrowed(&'a str),
    Owned(String),
    Bytes(&'a [u8]),
}

/// What the server would shorten, pad or replace without an error is refused.
fn kept_whole(column: &ColumnShape, wire: &Wire, value: &Value) -> Result<(), Refusal> {
    let word = column.database_type.as_str();
    match value {
        // A TIMESTAMP, or a column with AUTO_INCREMENT, would take NULL for "now" or "next".
        Value::Null if column.not_null => refuse(NOT_NULL, "it cannot be null"),
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) if text.len() > VALUE_LIMIT => {
            refuse(PACKET, format!("a value of {} bytes is beyond {VALUE_LIMIT}", text.len()))
        }
        Value::Binary(bytes) if bytes.len() > VALUE_LIMIT => {
            refuse(PACKET, format!("a value of {} bytes is beyond {VALUE_LIMIT}", bytes.len()))
        }
        Value::Decimal(digits) if matches!(wire, Wire::Decimal(..)) => {
            let Wire::Decimal(_, scale) = wire else { return Ok(()) };
            // Canonical digits end with a digit that counts.
            let fraction =
                digits.as_bytes().iter().position(|b| *b == b'.').map_or(0, |point| digits.len() - point - 1);
            if fraction > usize::from(*scale) {
                return refuse(TRUNCATED, format!("{digits} has more than {scale} digits after the point"));
            }
            Ok(())
        }
        Value::Text(text) => match wire {
            Wire::Label(labels) if labels.iter().all(|label| label != text.as_str()) => {
                refuse(TRUNCATED, format!("{:?} is none of its labels", shown(value)))
            }
            // Blanks at the end of a CHAR never come back.
            Wire::Text if word.starts_with("char") && text.as_str().ends_with(' ') => {
                refuse(TRUNCATED, "blanks at the end of a text that the column does not keep")
            }
            _ => match &column.column_type {
                ColumnType::Varchar(longest) if text.len() > *longest as usize => {
                    let length = text.as_str().chars().count();
                    if length > *longest as usize {
                        return refuse(TOO_LONG, format!("a text of {length} characters where {longest} are allowed"));
                    }
                    Ok(())
                }
                _ => Ok(()),
            },
        },
        Value::Binary(bytes) => match length_of(word, "binary") {
            Some(length) if bytes.len() > length => {
                refuse(TOO_LONG, format!("{} bytes where {length} are allowed", bytes.len()))
            }
            Some(length) if bytes.len() < length => {
                refuse(TRUNCATED, format!("{} bytes where the column fills up to {length} with zeros", bytes.len()))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn parameter<'a>(column: &ColumnShape, wire: &Wire, value: &'a Value) -> Result<Parameter<'a>, Refusal> {
    let out_of_range = |number: &dyn std::fmt::Display| Refusal {
        code: OUT_OF_RANGE,
        why: format!("{number} is out of range for {}", column.database_type),
    };
    let mismatch = || Refusal { code: INCORRECT_VALUE, why: format!("{} is no {}", shown(value), column.column_type) };
    let beyond =
        || Refusal { code: INCORRECT_TIME, why: format!("{} is outside of the years 1 to 9999", shown(value)) };
    let text = |value: &Value| {
        let mut text = String::new();
        if write_text(value, &mut text) { Ok(Parameter::Owned(text)) } else { Err(mismatch()) }
    };
    Ok(match (wire, value) {
        (_, Value::Null) => Parameter::Null,
        (Wire::Signed, Value::Int(number)) => Parameter::Signed(*number),
        (Wire::Signed, Value::Bool(b)) => Parameter::Signed(i64::from(*b)),
        (Wire::Signed, Value::Decimal(digits)) => {
            Parameter::Signed(digits.as_str().parse().map_err(|_| out_of_range(digits))?)
        }
        (Wire::Unsigned, Value::Int(number)) => {
            Parameter::Unsigned(u64::try_from(*number).map_err(|_| out_of_range(number))?)
        }
        (Wire::Unsigned, Value::Decimal(digits)) => {
            Parameter::Unsigned(digits.as_str().parse().map_err(|_| out_of_range(digits))?)
        }
        (Wire::Float, Value::Float(number)) => {
            let narrow = *number as f32;
            if narrow.is_infinite() && number.is_finite() {
                return Err(out_of_range(number));
            }
            // As a double, so that comparisons meet what the column gives back.
            Parameter::Double(f64::from(narrow))
        }
        (Wire::Double, Value::Float(number)) => Parameter::Double(*number),
        (Wire::Decimal(..), Value::Decimal(digits)) => Parameter::Borrowed(digits.as_str()),
        (Wire::Decimal(..), Value::Int(_)) => text(value)?,
        (Wire::Text, Value::Decimal(digits)) => match decimal_text(digits.as_str(), &column.column_type) {
            Cow::Borrowed(digits) => Parameter::Borrowed(digits),
            Cow::Owned(digits) => Parameter::Owned(digits),
        },
        (Wire::Text | Wire::Json | Wire::Label(_), Value::Text(t) | Value::Json(t) | Value::Decimal(t)) => {
            Parameter::Borrowed(t.as_str())
        }
        (Wire::Text | Wire::Json, Value::Array(items)) => {
            let mut text = String::new();
            write_json_array(items, &column.column_type, &mut text);
            Parameter::Owned(text)
        }
        (Wire::Text, other) => text(other)?,
        (Wire::Uuid, Value::Uuid(_)) => text(value)?,
        (Wire::UuidBytes, Value::Uuid(bytes)) => Parameter::Bytes(bytes),
        (Wire::Date, Value::Date(days)) => {
            if !(FIRST_DAY..=LAST_DAY).contains(&i64::from(*days)) {
                return Err(beyond());
            }
            text(value)?
        }
        (Wire::Time, Value::Time(_)) => text(value)?,
        (Wire::DateTime, Value::Timestamp(micros) | Value::TimestampTz(micros)) => {
            if !(FIRST_DAY..=LAST_DAY).contains(&micros.div_euclid(MICROS_PER_DAY)) {
                return Err(beyond());
            }
            // Without the zone's letter, which MySQL does not take: the session is in UTC.
            text(&Value::Timestamp(*micros))?
        }
        (Wire::Bytes, Value::Binary(bytes)) => Parameter::Bytes(bytes),
        _ => return Err(mismatch()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_from_the_catalogues_words() {
        for (word, want) in [
            ("tinyint(1)", Some("bool")),
            ("tinyint(4)", Some("i8")),
            ("tinyint(3) unsigned", Some("u8")),
            ("int(10) unsigned zerofill", Some("u32")),
            ("bigint", Some("i64")),
            ("bigint unsigned", Some("u64")),
            ("decimal(12,2)", Some("decimal(12,2)")),
            ("varchar(40)", Some("varchar(40)")),
            ("longtext", Some("text")),
            ("enum('a','b')", Some("text")),
            ("datetime(6)", Some("timestamp")),
            ("timestamp", Some("timestamptz")),
            ("bit(1)", Some("bool")),
            ("bit(8)", None),
            ("set('a')", None),
            ("year(4)", None),
            ("point", None),
        ] {
            assert_eq!(type_of_word(word, false).map(|t| t.to_string()).as_deref(), want, "{word}");
        }
        assert_eq!(type_of_word("longtext", true), Some(ColumnType::Json));
    }

    #[test]
    fn declared_types_hold_where_the_column_keeps_them() {
        let declared = |word: &str, of: &str| {
            let of = of.parse::<ColumnType>().expect("a type word");
            resolve(word, false, Some(&of)) == Some(of)
        };
        for (word, of, kept) in [
            ("longtext", "decimal", true),
            ("longtext", "i64[]", true),
            ("enum('1')", "decimal", false),
            ("binary(16)", "uuid", true),
            ("varbinary(16)", "uuid", false),
            ("datetime(6)", "timestamptz", true),
            ("tinyint(1)", "i8", true),
            ("tinyint(4)", "bool", true),
            ("decimal(65,30)", "decimal", true),
            ("decimal(60,30)", "decimal", false),
        ] {
            assert_eq!(declared(word, of), kept, "{word} {of}");
        }
    }

    #[test]
    fn labels_are_read_with_their_quotes() {
        assert_eq!(labels("enum('a','it''s','x,y')"), ["a", "it's", "x,y"]);
    }
}
