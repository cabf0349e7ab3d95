//! From what a payload says to what a column holds: exactly, or not at all.

mod cast;
mod number;
pub(crate) mod plain;
mod text;
mod time;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::sync::Arc;

use bytes::Bytes;
use gravity_model::Text;
use gravity_model::{ColumnType, Value};

use crate::codes;
use crate::scan::{self, Kind, Slot};

pub(crate) use cast::Cast;
pub use cast::json_text;
pub(crate) use time::{date_text, time_text, timestamp_text};

/// A value as the event gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given<'a> {
    Null,
    Bool(bool),
    /// A token of JSON's number grammar.
    Number(&'a [u8]),
    /// A JSON string, quotes included.
    Text {
        token: &'a [u8],
        escaped: bool,
    },
    /// A JSON object or array.
    Composite {
        raw: &'a [u8],
        array: bool,
    },
    /// Text from the event's metadata.
    Plain(&'a str),
    /// Bytes from the event's metadata (key, header): text where they are UTF-8.
    Bytes(&'a [u8]),
    /// A time from the event's metadata, µs since 1970 UTC.
    Micros(i64),
    /// A number from the event's metadata.
    Count(u64),
}

impl<'a> Given<'a> {
    /// `None`: absent.
    pub fn of_slot(slot: Slot, payload: &'a [u8]) -> Option<Given<'a>> {
        let raw = &payload[slot.start as usize..slot.end as usize];
        Some(match slot.kind {
            Kind::Absent => return None,
            Kind::Null => Given::Null,
            Kind::True => Given::Bool(true),
            Kind::False => Given::Bool(false),
            Kind::Number => Given::Number(raw),
            Kind::Text => Given::Text { token: raw, escaped: false },
            Kind::EscapedText => Given::Text { token: raw, escaped: true },
            Kind::Object => Given::Composite { raw, array: false },
            Kind::Array => Given::Composite { raw, array: true },
        })
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Given::Null => "null",
            Given::Bool(_) => "true/false",
            Given::Number(_) | Given::Count(_) => "a number",
            Given::Text { .. } | Given::Plain(_) => "text",
            Given::Bytes(_) => "a string of bytes",
            Given::Composite { array: true, .. } => "a list",
            Given::Composite { array: false, .. } => "an object",
            Given::Micros(_) => "a time",
        }
    }

    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Given::Text { token, escaped } => {
                let inner = &token[1..token.len() - 1];
                Some(if escaped { Cow::Owned(scan::unescape(inner)) } else { String::from_utf8_lossy(inner) })
            }
            Given::Plain(text) => Some(Cow::Borrowed(text)),
            Given::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            _ => None,
        }
    }

    /// The same as bytes, where it only has to be compared with digits and signs: no second UTF-8 check.
    fn text_bytes(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Given::Text { token, escaped: false } => Some(Cow::Borrowed(&token[1..token.len() - 1])),
            Given::Text { token, escaped: true } => {
                Some(Cow::Owned(scan::unescape(&token[1..token.len() - 1]).into_bytes()))
            }
            Given::Plain(text) => Some(Cow::Borrowed(text.as_bytes())),
            Given::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            _ => None,
        }
    }

    /// A short form for messages.
    pub(crate) fn excerpt(self) -> String {
        const LONGEST: usize = 40;
        let whole = match self {
            Given::Number(raw) | Given::Text { token: raw, .. } | Given::Composite { raw, .. } | Given::Bytes(raw) => {
                String::from_utf8_lossy(raw)
            }
            Given::Plain(text) => Cow::Borrowed(text),
            Given::Bool(b) => Cow::Owned(b.to_string()),
            Given::Null => Cow::Borrowed("null"),
            Given::Micros(micros) => Cow::Owned(time::timestamp_text(micros, true)),
            Given::Count(count) => Cow::Owned(count.to_string()),
        };
        match whole.char_indices().nth(LONGEST) {
            Some((cut, _)) => format!("{}…", &whole[..cut]),
            None => whole.into_owned(),
        }
    }
}

/// Why a value does not go into its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    pub code: &'static str,
    /// Boxed: the error must not make the result of every cell larger.
    pub message: Box<str>,
}

impl Reject {
    fn new(code: &'static str, message: impl Into<String>) -> Reject {
        Reject { code, message: message.into().into_boxed_str() }
    }
}

/// How values of one mapping become values of one column.
#[derive(Clone, Debug)]
pub(crate) struct Converter {
    /// The mapping's `type`, else the column's.
    pub read_as: ColumnType,
    pub cast: Cast,
    /// PostgreSQL has no NUL in text.
    pub refuse_nul: bool,
    /// The column is binary JSON, which has no `\u0000` either.
    pub refuse_json_nul: bool,
}

impl Converter {
    /// A value of the column, or why it is none. `records` holds the bytes that `given` was cut from, where there are such:
    /// text is then shared, not copied. Null is no matter of type: answers [`Value::Null`].
    #[inline]
    pub fn convert(&self, given: Given<'_>, records: Option<&Arc<Bytes>>) -> Result<Value, Reject> {
        // Most cells are text that goes into text.
        if let (Given::Text { token, escaped: false }, ColumnType::Text, Cast::Same) =
            (given, &self.read_as, &self.cast)
        {
            return Ok(Value::Text(share(&token[1..token.len() - 1], records)));
        }
        self.convert_any(given, records)
    }

    fn convert_any(&self, given: Given<'_>, records: Option<&Arc<Bytes>>) -> Result<Value, Reject> {
        let value = read(&self.read_as, given, records, self);
        match self.cast {
            Cast::Same => value,
            _ => self.cast.apply(value?),
        }
    }
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn read(
    column_type: &ColumnType,
    given: Given<'_>,
    records: Option<&Arc<Bytes>>,
    converter: &Converter,
) -> Result<Value, Reject> {
    if let Given::Null = given {
        return Ok(Value::Null);
    }
    let wrong = || Reject::new(codes::VALUE_TYPE, format!("{} is no {column_type}: {}", given.word(), given.excerpt()));
    let unreadable = |why: &str| {
        Reject::new(codes::UNREADABLE, format!("no {column_type} can be read from {}: {why}", given.excerpt()))
    };
    match column_type {
        ColumnType::Bool => match given {
            Given::Bool(value) => Ok(Value::Bool(value)),
            _ => Err(wrong()),
        },
        ColumnType::I8
        | ColumnType::I16
        | ColumnType::I32
        | ColumnType::I64
        | ColumnType::U8
        | ColumnType::U16
        | ColumnType::U32
        | ColumnType::U64 => {
            let range = column_type.integer_range().ok_or_else(wrong)?;
            match given {
                Given::Number(token) => number::integer(token, range, column_type),
                // Producers that cannot write 64 bits as a JSON number write them as text.
                Given::Text { token, escaped: false }
                    if matches!(column_type, ColumnType::I64 | ColumnType::U64)
                        && scan::is_number(&token[1..token.len() - 1]) =>
                {
                    number::integer(&token[1..token.len() - 1], range, column_type)
                }
                Given::Count(count) => number::integer(count.to_string().as_bytes(), range, column_type),
                _ => Err(wrong()),
            }
        }
        ColumnType::F32 | ColumnType::F64 => match given {
            Given::Number(token) => number::float(token, *column_type == ColumnType::F32, column_type),
            _ => Err(wrong()),
        },
        ColumnType::Decimal(bounds) => match given {
            Given::Number(token) => number::decimal(token, *bounds, records),
            Given::Text { token, escaped: false } if scan::is_number(&token[1..token.len() - 1]) => {
                number::decimal(&token[1..token.len() - 1], *bounds, records)
            }
            Given::Count(count) => number::decimal(count.to_string().as_bytes(), *bounds, None),
            _ => Err(wrong()),
        },
        ColumnType::Text => {
            text::text(given, None, converter.refuse_nul, records).unwrap_or_else(|| Err(wrong())).map(Value::Text)
        }
        ColumnType::Varchar(most) => text::text(given, Some(*most), converter.refuse_nul, records)
            .unwrap_or_else(|| Err(wrong()))
            .map(Value::Text),
        ColumnType::Uuid => {
            let text = given.text_bytes().ok_or_else(wrong)?;
            match uuid::Uuid::try_parse_ascii(&text) {
                Ok(uuid) => Ok(Value::Uuid(uuid.into_bytes())),
                Err(_) => Err(unreadable("a uuid has 32 hexadecimal digits in groups of 8-4-4-4-12")),
            }
        }
        ColumnType::Date => {
            let text = given.text_bytes().ok_or_else(wrong)?;
            time::date(&text).map(Value::Date).map_err(|e| e.reject(given, column_type))
        }
        ColumnType::Time => {
            let text = given.text_bytes().ok_or_else(wrong)?;
            time::time(&text).map(Value::Time).map_err(|e| e.reject(given, column_type))
        }
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            let zoned = *column_type == ColumnType::TimestampTz;
            let micros = match given {
                Given::Micros(micros) => micros,
                _ => {
                    let text = given.text_bytes().ok_or_else(wrong)?;
                    time::timestamp(&text, zoned).map_err(|e| e.reject(given, column_type))?
                }
            };
            Ok(if zoned { Value::TimestampTz(micros) } else { Value::Timestamp(micros) })
        }
        ColumnType::Json => text::json(given, converter.refuse_json_nul, records).map(Value::Json),
        ColumnType::Binary => {
            if let Given::Bytes(bytes) = given {
                return Ok(Value::Binary(bytes.into()));
            }
            let text = given.text_bytes().ok_or_else(wrong)?;
            match BASE64.decode(&*text) {
                Ok(bytes) => Ok(Value::Binary(bytes.into())),
                Err(error) => Err(unreadable(&format!("it is not base64, {}", error.to_string().to_lowercase()))),
            }
        }
        ColumnType::Array(of) => {
            let Given::Composite { raw, array: true } = given else { return Err(wrong()) };
            let mut items = Vec::new();
            let mut failed = None;
            scan::elements(raw, |slot| {
                if failed.is_some() {
                    return;
                }
                let Some(given) = Given::of_slot(slot, raw) else { return };
                match read(of, given, records, converter) {
                    Ok(value) => items.push(value),
                    Err(reject) => failed = Some((items.len(), reject)),
                }
            });
            if let Some((index, reject)) = failed {
                return Err(Reject::new(reject.code, format!("element {index}: {}", reject.message)));
            }
            Ok(Value::Array(items.into_boxed_slice()))
        }
    }
}

/// The text of a piece of the payload: shares the block's bytes where the piece lies in them.
fn share(piece: &[u8], records: Option<&Arc<Bytes>>) -> Text {
    let shared = records.and_then(|records| {
        let start = (piece.as_ptr() as usize).checked_sub(records.as_ptr() as usize)?;
        Text::cut(records, start..start.checked_add(piece.len())?)
    });
    // Pieces are cut from text that was checked; what is no text here would be a cut inside a character.
    shared.unwrap_or_else(|| Text::from(&*String::from_utf8_lossy(piece)))
}
