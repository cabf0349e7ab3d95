//! From the slots of a scan to values of the declared or inferred types, or the reason why an event has to be parked.

use std::borrow::Cow;

use gravity_model::{ColumnType, Value};

use super::kind::Kind;
use super::number::Number;
use super::program::{Event, Misfit};
use super::value::Val;
use crate::codes;
use crate::convert::{Cast, Converter, Given, Reject};
use crate::path::{Meta, Origin};

/// Where the field of a program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Slot(u32),
    Meta(Meta),
}

/// How strictly a field is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// By the rules of a column of this type: digits in text are an i64, base64 is binary.
    Declared(ColumnType),
    /// By its JSON type alone.
    Inferred(Kind),
    /// Only whether it is there.
    Presence,
}

/// One field that a program reads.
#[derive(Debug)]
pub(crate) struct Field {
    pub source: Source,
    pub reading: Reading,
    path: Box<str>,
    converter: Option<Converter>,
}

impl Field {
    pub fn new(origin: &Origin, reading: &Reading, source: Source) -> Field {
        let read_as = match reading {
            Reading::Declared(column) => Some(column.clone()),
            Reading::Inferred(kind) => column_of(kind),
            Reading::Presence => None,
        };
        let converter = read_as.map(|read_as| Converter {
            // A float's digits are exact in the payload, so they are here.
            read_as: exact(read_as),
            cast: Cast::Same,
            refuse_nul: false,
            refuse_json_nul: false,
        });
        Field { source, reading: reading.clone(), path: origin.to_string().into(), converter }
    }

    pub fn read<'e>(&self, event: &Event<'e>) -> Result<Val<'e>, Misfit> {
        let given = match &self.source {
            Source::Slot(slot) => Given::of_slot(event.slots[*slot as usize], event.payload),
            Source::Meta(meta) => crate::evaluate::of_meta(meta, event.recorded),
        };
        let Some(given) = given else { return Ok(Val::Absent) };
        if let Given::Null = given {
            return Ok(Val::Null);
        }
        self.value(given).map_err(|reject| Misfit { reject, field: self.path.clone() })
    }

    fn value<'e>(&self, given: Given<'e>) -> Result<Val<'e>, Reject> {
        let Some(converter) = &self.converter else { return Ok(Val::Present) };
        // Text is borrowed where it stands, without the detour over a value that owns it.
        if let (ColumnType::Text, Given::Text { token, escaped: false }) = (&converter.read_as, given) {
            let text = std::str::from_utf8(&token[1..token.len() - 1]);
            return Ok(text.map_or(Val::Present, |text| Val::Text(Cow::Borrowed(text))));
        }
        if let Reading::Inferred(kind) = &self.reading {
            strict(kind, given)?;
        }
        let value = of_value(converter.convert(given, super::program::NOT_OF_A_BLOCK)?);
        match &self.reading {
            Reading::Inferred(kind) if !is_whole_where_due(kind, &value) => Err(wrong(kind, given)),
            _ => Ok(value),
        }
    }
}

/// A number is no text and a text is no number, where nobody declared that it may be.
fn strict(kind: &Kind, given: Given<'_>) -> Result<(), Reject> {
    match (kind, given) {
        (Kind::Int | Kind::Decimal, Given::Number(_) | Given::Count(_)) => Ok(()),
        (Kind::Int | Kind::Decimal, _) => Err(wrong(kind, given)),
        (Kind::List(of), Given::Composite { raw, array: true }) if of.is_number() => {
            let mut result = Ok(());
            crate::scan::elements(raw, |slot| {
                if let Some(given) = Given::of_slot(slot, raw)
                    && !matches!(given, Given::Null)
                    && result.is_ok()
                {
                    result = strict(of, given);
                }
            });
            result
        }
        _ => Ok(()),
    }
}

fn wrong(kind: &Kind, given: Given<'_>) -> Reject {
    let message = format!("{kind} is needed, and this is {}: {}", given.word(), given.excerpt());
    Reject { code: codes::VALUE_TYPE, message: message.into_boxed_str() }
}

/// A number that is used as a whole one has no digits behind the point.
fn is_whole_where_due(kind: &Kind, value: &Val<'_>) -> bool {
    match (kind, value) {
        (Kind::Int, Val::Number(number)) => number.truncate().compare(number).is_eq(),
        (Kind::List(of), Val::List(items)) => items.iter().all(|item| is_whole_where_due(of, item)),
        _ => true,
    }
}

/// The column type by whose rules an inferred field is read. `None`: nothing of it is read.
fn column_of(kind: &Kind) -> Option<ColumnType> {
    Some(match kind {
        Kind::Bool => ColumnType::Bool,
        Kind::Int | Kind::Decimal => ColumnType::Decimal(None),
        Kind::Text => ColumnType::Text,
        Kind::Uuid => ColumnType::Uuid,
        Kind::Date => ColumnType::Date,
        Kind::Time => ColumnType::Time,
        Kind::Timestamp => ColumnType::TimestampTz,
        Kind::List(of) => ColumnType::Array(Box::new(column_of(of)?)),
        Kind::Null | Kind::Opaque => return None,
    })
}

fn exact(column: ColumnType) -> ColumnType {
    match column {
        ColumnType::F32 | ColumnType::F64 => ColumnType::Decimal(None),
        ColumnType::Array(of) => ColumnType::Array(Box::new(exact(*of))),
        other => other,
    }
}

fn of_value(value: Value) -> Val<'static> {
    match value {
        Value::Null => Val::Null,
        Value::Bool(value) => Val::Bool(value),
        Value::Int(value) => Val::Number(Number::of_int(value)),
        Value::Decimal(digits) => Number::parse(digits.as_str()).map_or(Val::Present, Val::Number),
        Value::Text(text) => Val::Text(Cow::Owned(text.as_str().to_owned())),
        Value::Uuid(uuid) => Val::Uuid(uuid),
        Value::Date(days) => Val::Date(days),
        Value::Time(micros) => Val::Time(micros),
        Value::Timestamp(micros) | Value::TimestampTz(micros) => Val::Timestamp(micros),
        Value::Array(items) => Val::List(items.into_vec().into_iter().map(of_value).collect()),
        Value::Float(_) | Value::Json(_) | Value::Binary(_) => Val::Present,
    }
}
