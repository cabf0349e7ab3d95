//! What a table looks like: the part of a live schema that decides types, keys and refusals without the database.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The `type` words of rules.json (INTERFACE 4), and what a live column is resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
    /// `None`: any precision and scale.
    Decimal(Option<(u16, u16)>),
    Text,
    /// Longest length in characters.
    Varchar(u32),
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Json,
    Binary,
    Array(Box<ColumnType>),
}

impl ColumnType {
    /// The words a user may write, for messages; `T[]` makes an array of any of them.
    pub const WORDS: &'static [&'static str] = &[
        "bool",
        "i8",
        "i16",
        "i32",
        "i64",
        "u8",
        "u16",
        "u32",
        "u64",
        "f32",
        "f64",
        "decimal",
        "decimal(p,s)",
        "text",
        "varchar(n)",
        "uuid",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "json",
        "binary",
    ];

    /// Smallest and largest value of an integer type.
    pub fn integer_range(&self) -> Option<(i128, i128)> {
        Some(match self {
            ColumnType::I8 => (i8::MIN.into(), i8::MAX.into()),
            ColumnType::I16 => (i16::MIN.into(), i16::MAX.into()),
            ColumnType::I32 => (i32::MIN.into(), i32::MAX.into()),
            ColumnType::I64 => (i64::MIN.into(), i64::MAX.into()),
            ColumnType::U8 => (0, u8::MAX.into()),
            ColumnType::U16 => (0, u16::MAX.into()),
            ColumnType::U32 => (0, u32::MAX.into()),
            ColumnType::U64 => (0, u64::MAX.into()),
            _ => return None,
        })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnType::Bool => "bool",
            ColumnType::I8 => "i8",
            ColumnType::I16 => "i16",
            ColumnType::I32 => "i32",
            ColumnType::I64 => "i64",
            ColumnType::U8 => "u8",
            ColumnType::U16 => "u16",
            ColumnType::U32 => "u32",
            ColumnType::U64 => "u64",
            ColumnType::F32 => "f32",
            ColumnType::F64 => "f64",
            ColumnType::Decimal(None) => "decimal",
            ColumnType::Decimal(Some((p, s))) => return write!(f, "decimal({p},{s})"),
            ColumnType::Text => "text",
            ColumnType::Varchar(n) => return write!(f, "varchar({n})"),
            ColumnType::Uuid => "uuid",
            ColumnType::Date => "date",
            ColumnType::Time => "time",
            ColumnType::Timestamp => "timestamp",
            ColumnType::TimestampTz => "timestamptz",
            ColumnType::Json => "json",
            ColumnType::Binary => "binary",
            ColumnType::Array(of) => return write!(f, "{of}[]"),
        })
    }
}

/// A word that names no column type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no type")]
pub struct UnknownType(pub String);

impl FromStr for ColumnType {
    type Err = UnknownType;

    fn from_str(word: &str) -> Result<ColumnType, UnknownType> {
        let unknown = || UnknownType(word.to_owned());
        if let Some(of) = word.strip_suffix("[]") {
            return match of.parse()? {
                ColumnType::Array(_) => Err(unknown()),
                of => Ok(ColumnType::Array(Box::new(of))),
            };
        }
        let (name, arguments) = match word.split_once('(') {
            Some((name, rest)) => (name, Some(rest.strip_suffix(')').ok_or_else(unknown)?)),
            None => (word, None),
        };
        Ok(match (name, arguments) {
            ("bool", None) => ColumnType::Bool,
            ("i8", None) => ColumnType::I8,
            ("i16", None) => ColumnType::I16,
            ("i32", None) => ColumnType::I32,
            ("i64", None) => ColumnType::I64,
            ("u8", None) => ColumnType::U8,
            ("u16", None) => ColumnType::U16,
            ("u32", None) => ColumnType::U32,
            ("u64", None) => ColumnType::U64,
            ("f32", None) => ColumnType::F32,
            ("f64", None) => ColumnType::F64,
            ("decimal", None) => ColumnType::Decimal(None),
            ("decimal", Some(arguments)) => {
                let (precision, scale) = arguments.split_once(',').ok_or_else(unknown)?;
                let precision: u16 = precision.trim().parse().map_err(|_| unknown())?;
                let scale: u16 = scale.trim().parse().map_err(|_| unknown())?;
                if precision == 0 || scale > precision {
                    return Err(unknown());
                }
                ColumnType::Decimal(Some((precision, scale)))
            }
            ("text", None) => ColumnType::Text,
            ("varchar", Some(n)) => match n.trim().parse() {
                Ok(n) if n > 0 => ColumnType::Varchar(n),
                _ => return Err(unknown()),
            },
            ("uuid", None) => ColumnType::Uuid,
            ("date", None) => ColumnType::Date,
            ("time", None) => ColumnType::Time,
            ("timestamp", None) => ColumnType::Timestamp,
            ("timestamptz", None) => ColumnType::TimestampTz,
            ("json", None) => ColumnType::Json,
            ("binary", None) => ColumnType::Binary,
            _ => return Err(unknown()),
        })
    }
}

impl Serialize for ColumnType {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One column as the live catalogue shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnShape {
    pub name: String,
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// The database's own word for the type, used in casts and messages (`numeric(12,2)`, `jsonb`).
    pub database_type: String,
    pub not_null: bool,
    /// A default, identity or generated value fills it when an INSERT leaves it out.
    pub has_default: bool,
    /// Computed by the database: never written.
    pub generated: bool,
}

/// A table as the live catalogue shows it. Serialised into `gravity.types_resolved`, so that folds need no database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableShape {
    /// As written in rules.json: `users` or `schema.users`.
    pub table: String,
    pub columns: Vec<ColumnShape>,
    /// Indices into `columns`, in key order.
    pub primary_key: Vec<u16>,
    /// Other unique keys, as indices into `columns`.
    #[serde(default)]
    pub unique: Vec<Vec<u16>>,
}

impl TableShape {
    pub fn column(&self, name: &str) -> Option<u16> {
        self.columns.iter().position(|c| c.name == name).map(|i| i as u16)
    }
}

/// Shapes are shared between the compiled rules, the folded batches and the connector.
pub type SharedShape = Arc<TableShape>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_words_round_trip() {
        for word in ["bool", "i8", "u64", "decimal", "decimal(12,2)", "varchar(40)", "timestamptz", "i64[]"] {
            assert_eq!(word.parse::<ColumnType>().map(|t| t.to_string()), Ok(word.to_owned()));
        }
        for word in ["int", "decimal(2,3)", "varchar(0)", "varchar", "i64[][]", "decimal(", "text(3)", ""] {
            assert!(word.parse::<ColumnType>().is_err(), "{word}");
        }
    }
}
