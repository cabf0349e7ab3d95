//! Declared types to ours, and cells to SQLite's five storage classes so that no digit changes.

use gravity_model::{ColumnShape, ColumnType, Fault, FaultKind, Value};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Row};

use crate::sql::join::read_text;
use crate::sql::text::{decimal_text, write_json_array, write_text};

/// Longest single value, far below SQLite's own limit.
pub(super) const VALUE_LIMIT: usize = 64 << 20;

/// What SQLite does to a value that is stored in a column (<https://www.sqlite.org/datatype3.html>, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Affinity {
    Text,
    Numeric,
    Integer,
    Real,
    Blob,
}

impl Affinity {
    /// SQLite's own rules, in their order.
    pub fn of(declared: &str) -> Affinity {
        let word = declared.to_ascii_uppercase();
        let has = |part: &str| word.contains(part);
        if has("INT") {
            Affinity::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Affinity::Text
        } else if has("BLOB") || word.is_empty() {
            Affinity::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

/// The type that a declared word means by itself; `None` where it means nothing that we know.
pub(super) fn type_of_word(declared: &str) -> Option<ColumnType> {
    let upper = declared.trim().to_ascii_uppercase();
    let (name, arguments) = match upper.split_once('(') {
        Some((name, rest)) => (name.trim_end(), Some(rest.trim_end().trim_end_matches(')'))),
        None => (upper.as_str(), None),
    };
    Some(match name {
        "INTEGER" | "INT" | "BIGINT" | "INT8" => ColumnType::I64,
        "MEDIUMINT" | "INT4" => ColumnType::I32,
        "SMALLINT" | "INT2" => ColumnType::I16,
        "TINYINT" => ColumnType::I8,
        "BOOLEAN" | "BOOL" => ColumnType::Bool,
        "REAL" | "DOUBLE" | "DOUBLE PRECISION" | "FLOAT" => ColumnType::F64,
        "DECIMAL" | "NUMERIC" => match arguments {
            None => ColumnType::Decimal(None),
            Some(arguments) => {
                let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
                ColumnType::Decimal(Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?)))
            }
        },
        "TEXT" | "CLOB" => ColumnType::Text,
        "VARCHAR" | "CHARACTER" | "CHAR" | "NVARCHAR" | "NCHAR" | "VARYING CHARACTER" | "CHARACTER VARYING" => {
            match arguments {
                None => ColumnType::Text,
                Some(length) => ColumnType::Varchar(length.trim().parse().ok()?),
            }
        }
        "UUID" => ColumnType::Uuid,
        "DATE" => ColumnType::Date,
        "TIME" => ColumnType::Time,
        "DATETIME" | "TIMESTAMP" => ColumnType::Timestamp,
        "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" => ColumnType::TimestampTz,
        "JSON" => ColumnType::Json,
        "BLOB" => ColumnType::Binary,
        "" => ColumnType::Text,
        _ => return None,
    })
}

/// The type of a column for our purposes: what the mapping declares, where the column keeps such values as they are;
/// otherwise what the column itself declares.
pub(super) fn resolve(declared: &str, wanted: Option<&ColumnType>) -> Option<ColumnType> {
    match wanted {
        Some(wanted) if keeps(Affinity::of(declared), wanted) => Some(wanted.clone()),
        _ => type_of_word(declared),
    }
}

/// True when a value of this type comes back from a column of this affinity as it was written.
pub(super) fn keeps(affinity: Affinity, of: &ColumnType) -> bool {
    use ColumnType::*;
    match of {
        Bool | I8 | I16 | I32 | I64 | U8 | U16 | U32 => {
            matches!(affinity, Affinity::Integer | Affinity::Numeric | Affinity::Blob)
        }
        // Beyond i64 only a text keeps all digits.
        U64 | Decimal(_) | Text | Varchar(_) | Json | Array(_) => matches!(affinity, Affinity::Text | Affinity::Blob),
        F32 | F64 => matches!(affinity, Affinity::Real | Affinity::Numeric | Affinity::Blob),
        // No text with hyphens or colons reads as a number, so NUMERIC leaves these alone.
        Uuid | Date | Time | Timestamp | TimestampTz => {
            matches!(affinity, Affinity::Text | Affinity::Numeric | Affinity::Blob)
        }
        Binary => affinity == Affinity::Blob,
    }
}

/// How a column's values are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    Integer,
    Real,
    Text,
    Blob,
}

impl Storage {
    pub fn of(column: &ColumnShape) -> Storage {
        use ColumnType::*;
        match column.column_type {
            Bool | I8 | I16 | I32 | I64 | U8 | U16 | U32 => Storage::Integer,
            F32 | F64 => Storage::Real,
            Binary => Storage::Blob,
            U64 if Affinity::of(&column.database_type) == Affinity::Integer => Storage::Integer,
            _ => Storage::Text,
        }
    }
}

/// Adds one cell to the parameters.
pub(super) fn bind(
    arguments: &mut SqliteArguments,
    column: &ColumnShape,
    storage: Storage,
    value: &Value,
    doing: &str,
) -> Result<(), Fault> {
    let refuse = |code: &'static str, why: String| {
        Err(Fault::new(FaultKind::RefusedEvent, code, doing, format!("column {}: {why}", column.name)))
    };
    let added = match (storage, value) {
        (_, Value::Null) => arguments.add(None::<i64>),
        (Storage::Integer, Value::Int(number)) => arguments.add(*number),
        (Storage::Integer, Value::Bool(b)) => arguments.add(i64::from(*b)),
        (Storage::Integer, Value::Decimal(digits)) => match digits.as_str().parse::<i64>() {
            Ok(number) => arguments.add(number),
            Err(_) => return refuse("SQLITE_MISMATCH", format!("{digits} does not fit an INTEGER")),
        },
        (Storage::Real, Value::Float(number)) => arguments.add(*number),
        (Storage::Blob, Value::Binary(bytes)) if bytes.len() <= VALUE_LIMIT => arguments.add(bytes.to_vec()),
        (Storage::Text, Value::Decimal(digits)) if digits.len() <= VALUE_LIMIT => {
            arguments.add(decimal_text(digits.as_str(), &column.column_type).into_owned())
        }
        (Storage::Text, Value::Text(text) | Value::Json(text)) if text.len() <= VALUE_LIMIT => {
            arguments.add(text.as_str().to_owned())
        }
        (Storage::Text, Value::Array(items)) => {
            let mut text = String::new();
            write_json_array(items, &column.column_type, &mut text);
            arguments.add(text)
        }
        (Storage::Text, Value::Text(_) | Value::Json(_) | Value::Decimal(_)) | (Storage::Blob, Value::Binary(_)) => {
            return refuse("SQLITE_TOOBIG", format!("a value is beyond {VALUE_LIMIT} bytes"));
        }
        (Storage::Text, other) => {
            let mut text = String::new();
            if !write_text(other, &mut text) {
                return refuse("SQLITE_MISMATCH", "binary data where text is needed".to_owned());
            }
            arguments.add(text)
        }
        (_, other) => {
            let shown = crate::sql::text::shown(other);
            return refuse("SQLITE_MISMATCH", format!("{shown} is no {}", column.column_type));
        }
    };
    added.map_err(|e| Fault::new(FaultKind::RefusedEvent, "SQLITE_MISMATCH", doing, e.to_string()).with_source(e))
}

/// A cell as its class and its value, beginning at `at`; `None` where the value is none of the column's type.
pub(super) fn read(row: &SqliteRow, at: usize, column: &ColumnShape) -> Result<Option<Value>, sqlx::Error> {
    let class: String = row.try_get(at)?;
    // Unchecked, because the class is known and the driver goes by the column's declared type.
    Ok(match (class.as_str(), &column.column_type) {
        ("null", _) => Some(Value::Null),
        // A NUMERIC column keeps whole floats as integers.
        ("integer", ColumnType::F32 | ColumnType::F64) => Some(Value::Float(row.try_get_unchecked::<f64, _>(at + 1)?)),
        ("integer", ColumnType::Decimal(_)) => {
            Some(Value::Decimal(row.try_get_unchecked::<i64, _>(at + 1)?.to_string().into()))
        }
        ("integer", of) if of.integer_range().is_some() => Some(Value::Int(row.try_get_unchecked(at + 1)?)),
        ("real", ColumnType::F32 | ColumnType::F64) => Some(Value::Float(row.try_get_unchecked(at + 1)?)),
        ("text", of) => read_text(of, &row.try_get_unchecked::<String, _>(at + 1)?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_that_change_digits_are_known() {
        for (declared, of, kept) in [
            ("TEXT", ColumnType::Decimal(None), true),
            ("DECIMAL(12,2)", ColumnType::Decimal(None), false),
            ("NUMERIC", ColumnType::I64, true),
            ("JSON", ColumnType::Json, false),
            ("INTEGER", ColumnType::U64, false),
            ("FLOATING POINT", ColumnType::F64, false), // contains INT
            ("DATE", ColumnType::Date, true),
            ("UUID", ColumnType::Uuid, true),
            ("VARCHAR(5)", ColumnType::Text, true),
            ("BLOB", ColumnType::Binary, true),
        ] {
            assert_eq!(keeps(Affinity::of(declared), &of), kept, "{declared} {of}");
        }
        assert_eq!(resolve("TEXT", Some(&ColumnType::Json)), Some(ColumnType::Json));
        assert_eq!(resolve("NUMERIC", Some(&ColumnType::Decimal(None))), Some(ColumnType::Decimal(None)));
        assert_eq!(resolve("VARCHAR(40)", None), Some(ColumnType::Varchar(40)));
        assert_eq!(resolve("GEOMETRY", None), None);
    }
}
