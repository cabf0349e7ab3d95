//! One column of a row group as a binary PostgreSQL array: exact, and one pass over the cells.

use std::ops::Range;

use gravity_model::{ColumnShape, ColumnType, Fault, FaultKind, RowGroup, Value};
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo};
use sqlx::{Postgres, Type};

use crate::sql::text::{civil, write_text};

/// Longest single value, far below what the protocol's lengths could carry.
pub(super) const VALUE_LIMIT: usize = 64 << 20;

/// PostgreSQL counts from 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;
/// 4714-11-24 BC, before which PostgreSQL has no days.
const FIRST_DAY: i64 = -2_451_545;
const FIRST_MICROS: i64 = -211_813_488_000_000_000;
/// First of what PostgreSQL no longer has: 5874898-01-01, and 294277-01-01.
const END_DAY: i64 = 2_145_031_949;
const END_MICROS: i64 = 9_223_371_331_200_000_000;

/// How a column's values travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Json,
    Jsonb,
    Bytea,
    /// The type's own text form, cast by the server: enums, arrays, types we do not know better.
    Literal,
}

impl Wire {
    pub fn of(column: &ColumnShape) -> Wire {
        match &column.column_type {
            ColumnType::Bool => Wire::Bool,
            ColumnType::I8 | ColumnType::U8 | ColumnType::I16 => Wire::Int2,
            ColumnType::U16 | ColumnType::I32 => Wire::Int4,
            ColumnType::U32 | ColumnType::I64 => Wire::Int8,
            ColumnType::F32 => Wire::Float4,
            ColumnType::F64 => Wire::Float8,
            ColumnType::U64 | ColumnType::Decimal(_) => Wire::Numeric,
            ColumnType::Uuid => Wire::Uuid,
            ColumnType::Date => Wire::Date,
            ColumnType::Time => Wire::Time,
            ColumnType::Timestamp => Wire::Timestamp,
            ColumnType::TimestampTz => Wire::TimestampTz,
            ColumnType::Json if column.database_type == "json" => Wire::Json,
            ColumnType::Json => Wire::Jsonb,
            ColumnType::Binary => Wire::Bytea,
            ColumnType::Text | ColumnType::Varchar(_) => match column.database_type.as_str() {
                "text" | "character varying" => Wire::Text,
                word if word.starts_with("character") => Wire::Text,
                _ => Wire::Literal,
            },
            ColumnType::Array(_) => Wire::Literal,
        }
    }

    /// The element type as SQL writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Wire::Bool => "bool",
            Wire::Int2 => "int2",
            Wire::Int4 => "int4",
            Wire::Int8 => "int8",
            Wire::Float4 => "float4",
            Wire::Float8 => "float8",
            Wire::Numeric => "numeric",
            Wire::Text | Wire::Literal => "text",
            Wire::Uuid => "uuid",
            Wire::Date => "date",
            Wire::Time => "time",
            Wire::Timestamp => "timestamp",
            Wire::TimestampTz => "timestamptz",
            Wire::Json => "json",
            Wire::Jsonb => "jsonb",
            Wire::Bytea => "bytea",
        }
    }

    /// OIDs of the element and of its array, fixed in every PostgreSQL (`pg_type.dat`).
    fn oids(self) -> (u32, u32) {
        match self {
            Wire::Bool => (16, 1000),
            Wire::Bytea => (17, 1001),
            Wire::Int8 => (20, 1016),
            Wire::Int2 => (21, 1005),
            Wire::Int4 => (23, 1007),
            Wire::Text | Wire::Literal => (25, 1009),
            Wire::Json => (114, 199),
            Wire::Float4 => (700, 1021),
            Wire::Float8 => (701, 1022),
            Wire::Date => (1082, 1182),
            Wire::Time => (1083, 1183),
            Wire::Timestamp => (1114, 1115),
            Wire::TimestampTz => (1184, 1185),
            Wire::Numeric => (1700, 1231),
            Wire::Uuid => (2950, 2951),
            Wire::Jsonb => (3802, 3807),
        }
    }
}

/// The cells at `offset` of the rows `rows`, as one array parameter.
pub(super) struct Cells<'a> {
    pub group: &'a RowGroup,
    pub rows: Range<usize>,
    pub offset: usize,
    pub wire: Wire,
    pub column: &'a ColumnShape,
}

impl Type<Postgres> for Cells<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(Wire::Text.oids().1))
    }
}

impl Encode<'_, Postgres> for Cells<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.wire.oids().1)))
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let out: &mut Vec<u8> = buffer;
        let start = out.len();
        // One dimension, no nulls so far, element type, length, first index.
        out.extend_from_slice(&1i32.to_be_bytes());
        out.extend_from_slice(&0i32.to_be_bytes());
        out.extend_from_slice(&self.wire.oids().0.to_be_bytes());
        out.extend_from_slice(&i32::try_from(self.rows.len())?.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
        let mut nulls = false;
        for row in self.rows.clone() {
            let value = &self.group.values[row * self.group.width + self.offset];
            if value.is_null() {
                nulls = true;
                out.extend_from_slice(&(-1i32).to_be_bytes());
                continue;
            }
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            if let Err(refusal) =
                kept_whole(&self.column.column_type, value).and_then(|()| write_element(self.wire, value, out))
            {
                return Err(Box::new(CellRefused { column: self.column.name.clone(), row, refusal }));
            }
            let length = out.len() - at - 4;
            if length > VALUE_LIMIT {
                let refusal = Refusal::new("54000", format!("a value of {length} bytes is beyond {VALUE_LIMIT}"));
                return Err(Box::new(CellRefused { column: self.column.name.clone(), row, refusal }));
            }
            out[at..at + 4].copy_from_slice(&(length as i32).to_be_bytes());
        }
        if nulls {
            out[start + 4..start + 8].copy_from_slice(&1i32.to_be_bytes());
        }
        Ok(IsNull::No)
    }
}

/// Why a value cannot stand in its column; the codes are SQLSTATEs, so that a dead letter reads the same wherever the
/// refusal happened.
#[derive(Debug)]
pub(super) struct Refusal {
    pub code: &'static str,
    pub why: String,
}

impl Refusal {
    fn new(code: &'static str, why: impl Into<String>) -> Refusal {
        Refusal { code, why: why.into() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("column {column}: {}", refusal.why)]
pub(super) struct CellRefused {
    pub column: String,
    /// Index of the row in its group.
    pub row: usize,
    pub refusal: Refusal,
}

/// A failed `add` as a fault.
pub(super) fn refused(error: BoxDynError, doing: &str) -> Fault {
    match error.downcast::<CellRefused>() {
        Ok(cell) => Fault::new(FaultKind::RefusedEvent, cell.refusal.code, doing, cell.to_string()).with_source(cell),
        Err(other) => Fault::new(FaultKind::RefusedEvent, "22000", doing, other.to_string()).with_source(other),
    }
}

/// What PostgreSQL would shorten without a word is refused: digits behind a numeric's scale, blanks behind a varchar's length.
fn kept_whole(column_type: &ColumnType, value: &Value) -> Result<(), Refusal> {
    match (column_type, value) {
        (ColumnType::Decimal(Some((_, scale))), Value::Decimal(digits)) => {
            // Canonical digits end with a digit that counts.
            let fraction =
                digits.as_bytes().iter().position(|b| *b == b'.').map_or(0, |point| digits.len() - point - 1);
            if fraction > usize::from(*scale) {
                return Err(Refusal::new("22003", format!("{digits} has more than {scale} digits after the point")));
            }
        }
        (ColumnType::Varchar(longest), Value::Text(text)) if text.len() > *longest as usize => {
            let length = text.as_str().chars().count();
            if length > *longest as usize {
                return Err(Refusal::new(
                    "22001",
                    format!("a text of {length} characters where {longest} are allowed"),
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Appends one non-null value in binary form.
fn write_element(wire: Wire, value: &Value, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mismatch = || Err(Refusal::new("42804", format!("{} where {} is needed", word_of(value), wire.sql())));
    let range =
        |number: &dyn std::fmt::Display| Refusal::new("22003", format!("{number} is out of range for {}", wire.sql()));
    match wire {
        Wire::Bool => match value {
            Value::Bool(b) => out.push(u8::from(*b)),
            _ => return mismatch(),
        },
        Wire::Int2 | Wire::Int4 | Wire::Int8 => {
            let number = match value {
                Value::Int(number) => *number,
                Value::Decimal(digits) => digits.as_str().parse().map_err(|_| range(&digits))?,
                _ => return mismatch(),
            };
            match wire {
                Wire::Int2 => out.extend_from_slice(&i16::try_from(number).map_err(|_| range(&number))?.to_be_bytes()),
                Wire::Int4 => out.extend_from_slice(&i32::try_from(number).map_err(|_| range(&number))?.to_be_bytes()),
                _ => out.extend_from_slice(&number.to_be_bytes()),
            }
        }
        Wire::Float4 | Wire::Float8 => {
            let Value::Float(number) = value else { return mismatch() };
            if wire == Wire::Float8 {
                out.extend_from_slice(&number.to_be_bytes());
            } else {
                let narrow = *number as f32;
                if narrow.is_infinite() && number.is_finite() {
                    return Err(range(number));
                }
                out.extend_from_slice(&narrow.to_be_bytes());
            }
        }
        Wire::Numeric => match value {
            Value::Decimal(digits) => write_numeric(digits.as_str(), out)?,
            Value::Int(number) => write_numeric(&number.to_string(), out)?,
            _ => return mismatch(),
        },
        Wire::Text | Wire::Literal => write_text_form(wire, value, out)?,
        Wire::Uuid => match value {
            Value::Uuid(bytes) => out.extend_from_slice(bytes),
            _ => return mismatch(),
        },
        Wire::Date => {
            let Value::Date(days) = value else { return mismatch() };
            out.extend_from_slice(&days_since_2000(i64::from(*days))?.to_be_bytes());
        }
        Wire::Time => match value {
            Value::Time(micros) => out.extend_from_slice(&micros.to_be_bytes()),
            _ => return mismatch(),
        },
        Wire::Timestamp | Wire::TimestampTz => match value {
            Value::Timestamp(micros) | Value::TimestampTz(micros) => {
                out.extend_from_slice(&micros_since_2000(*micros)?.to_be_bytes());
            }
            _ => return mismatch(),
        },
        Wire::Json | Wire::Jsonb => {
            if wire == Wire::Jsonb {
                // Version of jsonb's binary input.
                out.push(1);
            }
            match value {
                Value::Json(text) => out.extend_from_slice(text.as_bytes()),
                _ => return mismatch(),
            }
        }
        Wire::Bytea => match value {
            Value::Binary(bytes) => out.extend_from_slice(bytes),
            _ => return mismatch(),
        },
    }
    Ok(())
}

fn days_since_2000(days: i64) -> Result<i32, Refusal> {
    let days = days - EPOCH_DAYS;
    match i32::try_from(days) {
        Ok(wire) if (FIRST_DAY..END_DAY).contains(&days) => Ok(wire),
        _ => Err(Refusal::new("22008", "the date is outside of what PostgreSQL holds")),
    }
}

fn micros_since_2000(micros: i64) -> Result<i64, Refusal> {
    match micros.checked_sub(EPOCH_MICROS) {
        Some(wire) if (FIRST_MICROS..END_MICROS).contains(&wire) => Ok(wire),
        _ => Err(Refusal::new("22008", "the time is outside of what PostgreSQL holds")),
    }
}

/// Canonical decimal digits as `numeric`: base-10,000 digits, exponent of the first, sign, digits after the point.
fn write_numeric(digits: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
    const BASE_DIGITS: usize = 4;
    let bad = || Refusal::new("22P02", format!("{digits:?} is no decimal number"));
    let (negative, unsigned) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    if whole.len() > 131_072 || fraction.len() > 16_383 {
        return Err(Refusal::new("22003", "the number has more digits than numeric holds"));
    }
    // Zeros that fill the first and last group of four.
    let lead = whole.len().next_multiple_of(BASE_DIGITS) - whole.len();
    let digit = |i: usize| -> u16 {
        let text = match i.checked_sub(lead) {
            None => return 0,
            Some(i) if i < whole.len() => whole.as_bytes()[i],
            Some(i) => fraction.as_bytes().get(i - whole.len()).copied().unwrap_or(b'0'),
        };
        u16::from(text - b'0')
    };
    let whole_groups = (whole.len() + lead) / BASE_DIGITS;
    let groups = whole_groups + fraction.len().div_ceil(BASE_DIGITS);
    let group = |g: usize| (0..BASE_DIGITS).fold(0, |sum, i| sum * 10 + digit(g * BASE_DIGITS + i));
    let first = (0..groups).find(|g| group(*g) != 0).unwrap_or(groups);
    let end = (first..groups).rev().find(|g| group(*g) != 0).map_or(first, |g| g + 1);
    let weight = if first == end { 0 } else { whole_groups as i32 - 1 - first as i32 };
    let sign: u16 = if negative && first != end { 0x4000 } else { 0 };
    out.extend_from_slice(&((end - first) as u16).to_be_bytes());
    out.extend_from_slice(&(weight as i16).to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&(fraction.len() as u16).to_be_bytes());
    for g in first..end {
        out.extend_from_slice(&group(g).to_be_bytes());
    }
    Ok(())
}

fn write_text_form(wire: Wire, value: &Value, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match value {
        Value::Text(text) | Value::Decimal(text) | Value::Json(text) => out.extend_from_slice(text.as_bytes()),
        Value::Array(items) if wire == Wire::Literal => write_array_literal(items, out)?,
        other => {
            let mut text = String::new();
            if !write_text(other, &mut text) {
                return Err(Refusal::new("42804", format!("{} where text is needed", word_of(value))));
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    Ok(())
}

/// `{"a","b\"c",NULL}`; every element quoted, so that none can be taken for the word NULL or for structure.
fn write_array_literal(items: &[Value], out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.push(b'{');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match item {
            Value::Null => out.extend_from_slice(b"NULL"),
            Value::Array(items) => write_array_literal(items, out)?,
            Value::Binary(bytes) => {
                out.extend_from_slice(b"\"\\\\x");
                for byte in bytes {
                    let hex = |n: u8| char::from_digit(u32::from(n), 16).map_or(b'0', |c| c as u8);
                    out.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
                }
                out.push(b'"');
            }
            other => {
                if !expressible(other) {
                    return Err(Refusal::new("22008", "a time before year 1 or after 9999 cannot stand in an array"));
                }
                let mut text = String::new();
                write_text(other, &mut text);
                out.push(b'"');
                for byte in text.bytes() {
                    if matches!(byte, b'"' | b'\\') {
                        out.push(b'\\');
                    }
                    out.push(byte);
                }
                out.push(b'"');
            }
        }
    }
    out.push(b'}');
    Ok(())
}

/// False for dates whose ISO form PostgreSQL does not read.
fn expressible(value: &Value) -> bool {
    let year = match value {
        Value::Date(days) => civil(i64::from(*days)).0,
        Value::Timestamp(micros) | Value::TimestampTz(micros) => civil(micros.div_euclid(86_400_000_000)).0,
        _ => return true,
    };
    (1..=9999).contains(&year)
}

fn word_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Decimal(_) => "a decimal",
        Value::Text(_) => "a text",
        Value::Json(_) => "a JSON document",
        Value::Uuid(_) => "a uuid",
        Value::Date(_) => "a date",
        Value::Time(_) => "a time",
        Value::Timestamp(_) => "a timestamp",
        Value::TimestampTz(_) => "a timestamp with zone",
        Value::Binary(_) => "binary data",
        Value::Array(_) => "an array",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(digits: &str) -> Vec<i32> {
        let mut out = Vec::new();
        write_numeric(digits, &mut out).expect("valid digits");
        out.chunks(2).map(|pair| i32::from(i16::from_be_bytes([pair[0], pair[1]]))).collect()
    }

    #[test]
    fn numeric_groups_digits_by_four() {
        // Count of groups, weight, sign, digits after the point, groups.
        assert_eq!(numeric("0"), [0, 0, 0, 0]);
        assert_eq!(numeric("1"), [1, 0, 0, 0, 1]);
        assert_eq!(numeric("-1"), [1, 0, 0x4000, 0, 1]);
        assert_eq!(numeric("10000"), [1, 1, 0, 0, 1]);
        assert_eq!(numeric("12345.678"), [3, 1, 0, 3, 1, 2345, 6780]);
        assert_eq!(numeric("0.0001"), [1, -1, 0, 4, 1]);
        assert_eq!(numeric("0.00001"), [1, -2, 0, 5, 1000]);
        assert_eq!(numeric("18446744073709551615"), [5, 4, 0, 0, 1844, 6744, 737, 955, 1615]);
        for bad in ["", "-", ".5", "1e5", "NaN", "1.2.3", "+1"] {
            assert!(write_numeric(bad, &mut Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn v11_out_of_range_is_refused_by_code() {
        let code = |wire, value: Value| write_element(wire, &value, &mut Vec::new()).expect_err("refused").code;
        assert_eq!(code(Wire::Int2, Value::Int(40_000)), "22003");
        assert_eq!(code(Wire::Int8, Value::Decimal("18446744073709551615".into())), "22003");
        assert_eq!(code(Wire::Float4, Value::Float(1e300)), "22003");
        assert_eq!(code(Wire::Timestamp, Value::Timestamp(i64::MIN)), "22008");
        assert_eq!(code(Wire::Date, Value::Date(i32::MIN)), "22008");
        assert_eq!(code(Wire::Bool, Value::Int(1)), "42804");
    }
}
