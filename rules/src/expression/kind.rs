//! The types of the language, and how they meet the types of columns.

use std::fmt;

use gravity_model::ColumnType;

/// What a part of an expression is. Absent and null belong to every type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only `null` itself.
    Null,
    Bool,
    /// Any whole number.
    Int,
    /// Any number; whole numbers are numbers.
    Decimal,
    Text,
    Uuid,
    Date,
    Time,
    Timestamp,
    /// A value of which only the presence can be asked: json, binary.
    Opaque,
    List(Box<Kind>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Bool => "bool",
            Kind::Int => "a whole number",
            Kind::Decimal => "a number",
            Kind::Text => "text",
            Kind::Uuid => "uuid",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Timestamp => "timestamp",
            Kind::Opaque => "json",
            Kind::List(of) => return write!(f, "a list of {of}"),
        })
    }
}

/// Bounds of a number, for the cost of arithmetic: digits before and behind the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digits {
    pub whole: u32,
    pub scale: u32,
}

/// What any number of a payload stays within: `convert` refuses longer ones.
pub(super) const MOST_DIGITS: u32 = 1_000;

impl Kind {
    /// The type of a field that is declared as `column`.
    pub fn of(column: &ColumnType) -> Kind {
        match column {
            ColumnType::Bool => Kind::Bool,
            whole if whole.integer_range().is_some() => Kind::Int,
            ColumnType::F32 | ColumnType::F64 | ColumnType::Decimal(_) => Kind::Decimal,
            ColumnType::Text | ColumnType::Varchar(_) => Kind::Text,
            ColumnType::Uuid => Kind::Uuid,
            ColumnType::Date => Kind::Date,
            ColumnType::Time => Kind::Time,
            ColumnType::Timestamp | ColumnType::TimestampTz => Kind::Timestamp,
            ColumnType::Array(of) => Kind::List(Box::new(Kind::of(of))),
            _ => Kind::Opaque,
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Kind::Int | Kind::Decimal)
    }

    /// One type for both, if there is one: whole numbers are numbers, null is anything.
    pub fn join(&self, other: &Kind) -> Option<Kind> {
        match (self, other) {
            (a, b) if a == b => Some(a.clone()),
            (Kind::Null, kind) | (kind, Kind::Null) => Some(kind.clone()),
            (Kind::Int, Kind::Decimal) | (Kind::Decimal, Kind::Int) => Some(Kind::Decimal),
            (Kind::List(a), Kind::List(b)) => a.join(b).map(|kind| Kind::List(Box::new(kind))),
            _ => None,
        }
    }

    /// True when a value of this type goes into `column` for its type; whether its digits or length fit is asked per event.
    pub fn fits(&self, column: &ColumnType) -> bool {
        let texts = matches!(column, ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Json);
        match self {
            Kind::Null => true,
            Kind::Bool => matches!(column, ColumnType::Bool | ColumnType::Json),
            Kind::Int | Kind::Decimal => {
                column.integer_range().is_some()
                    || matches!(column, ColumnType::F32 | ColumnType::F64 | ColumnType::Decimal(_) | ColumnType::Json)
            }
            Kind::Text => texts,
            Kind::Uuid => texts || *column == ColumnType::Uuid,
            Kind::Date => texts || *column == ColumnType::Date,
            Kind::Time => texts || *column == ColumnType::Time,
            Kind::Timestamp => texts || matches!(column, ColumnType::Timestamp | ColumnType::TimestampTz),
            Kind::Opaque | Kind::List(_) => false,
        }
    }
}

impl Digits {
    pub fn of(column: &ColumnType) -> Digits {
        match column {
            ColumnType::I8 | ColumnType::U8 => Digits { whole: 3, scale: 0 },
            ColumnType::I16 | ColumnType::U16 => Digits { whole: 5, scale: 0 },
            ColumnType::I32 | ColumnType::U32 => Digits { whole: 10, scale: 0 },
            ColumnType::I64 | ColumnType::U64 => Digits { whole: 20, scale: 0 },
            ColumnType::Decimal(Some((precision, scale))) => {
                Digits { whole: u32::from(*precision - *scale).max(1), scale: u32::from(*scale) }
            }
            ColumnType::Array(of) => Digits::of(of),
            _ => Digits::ANY,
        }
    }

    pub const ANY: Digits = Digits { whole: MOST_DIGITS, scale: MOST_DIGITS };

    pub fn both(self) -> u32 {
        self.whole + self.scale
    }

    pub fn join(self, other: Digits) -> Digits {
        Digits { whole: self.whole.max(other.whole), scale: self.scale.max(other.scale) }
    }
}
