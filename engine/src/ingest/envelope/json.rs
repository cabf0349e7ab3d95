//! The JSON that envelopes are made of: members and pointers as slices of the input, never decoded further than needed.

use std::borrow::Cow;
use std::fmt;

use gravity_model::Micros;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{LONGEST_EXCERPT, Undecodable, excerpt, undecodable};

/// Fields at the top of a JSON object that some envelope gives a meaning to; values undecoded.
#[derive(Clone, Default)]
pub(super) struct TopLevel<'a> {
    pub event: Option<&'a RawValue>,
    pub payload: Option<&'a RawValue>,
    pub id: Option<&'a RawValue>,
    pub key: Option<&'a RawValue>,
    pub time: Option<&'a RawValue>,
    pub traceparent: Option<&'a RawValue>,
    pub specversion: Option<&'a RawValue>,
    pub type_: Option<&'a RawValue>,
    pub source: Option<&'a RawValue>,
    pub data: Option<&'a RawValue>,
    pub data_base64: Option<&'a RawValue>,
    pub others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> TopLevel<'a> {
    /// A field that has no place of its own here; of duplicates the last.
    pub(super) fn other(&self, name: &str) -> Option<&'a RawValue> {
        self.others.iter().rev().find(|(other, _)| other == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for TopLevel<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = TopLevel<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TopLevel<'de>, A::Error> {
                let mut fields = TopLevel::default();
                while let Some(Name(name)) = map.next_key()? {
                    let value: &RawValue = map.next_value()?;
                    match &*name {
                        "event" => fields.event = Some(value),
                        "payload" => fields.payload = Some(value),
                        "id" => fields.id = Some(value),
                        "key" => fields.key = Some(value),
                        "time" => fields.time = Some(value),
                        "traceparent" => fields.traceparent = Some(value),
                        "specversion" => fields.specversion = Some(value),
                        "type" => fields.type_ = Some(value),
                        "source" => fields.source = Some(value),
                        "data" => fields.data = Some(value),
                        "data_base64" => fields.data_base64 = Some(value),
                        _ => fields.others.push((name, value)),
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A key that borrows unless it holds escapes.
pub(super) struct Name<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

pub(super) fn top_level(text: &str) -> Result<TopLevel<'_>, Undecodable> {
    serde_json::from_str(text).map_err(not_json)
}

pub(super) fn not_json(error: serde_json::Error) -> Undecodable {
    let code = if error.is_data() { "decode/not-an-object" } else { "decode/not-json" };
    let (line, column) = (error.line(), error.column());
    let mut detail = error.to_string();
    // It may repeat the value it found.
    if detail.len() > 2 * LONGEST_EXCERPT {
        detail = format!("{} at line {line} column {column}", excerpt(&detail));
    }
    Undecodable { code, detail, at: Some((line, column)) }
}

/// Our own scan is fast and strict; what it refuses, `serde_json` judges, and says where and why.
pub(super) fn check_json(bytes: &[u8]) -> Result<(), Undecodable> {
    if std::str::from_utf8(bytes).is_ok_and(|text| gravity_rules::look(text, "").is_some()) {
        return Ok(());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde::de::IgnoredAny::deserialize(&mut reader).and_then(|_| reader.end()).map_err(not_json)
}

pub(super) fn json_payload(raw: &RawValue) -> Option<Cow<'_, [u8]>> {
    let text = raw.get();
    (text != "null").then_some(Cow::Borrowed(text.as_bytes()))
}

pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    text_in(raw.get())
}

/// The characters of a JSON text; `None` for any other value.
pub(super) fn text_in(json: &str) -> Option<Cow<'_, str>> {
    let Name(text) = serde_json::from_str(json).ok()?;
    Some(text)
}

pub(super) fn text_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

pub(super) fn optional_text<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, Undecodable> {
    match raw {
        None => Ok(None),
        Some(raw) if raw.get() == "null" => Ok(None),
        Some(raw) => match text_of(raw) {
            Some(text) => Ok(Some(text)),
            None => Err(undecodable(
                "decode/bad-envelope",
                format!("`{name}` must be a text, found {}", excerpt(raw.get())),
            )),
        },
    }
}

pub(super) fn optional_time(raw: Option<&RawValue>) -> Result<Option<Micros>, Undecodable> {
    optional_text("time", raw)?.map(|text| parse_time(&text)).transpose()
}

pub(super) fn parse_time(text: &str) -> Result<Micros, Undecodable> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_micros())
        .map_err(|_| undecodable("decode/bad-envelope", format!("`time` must be RFC 3339, found {:?}", excerpt(text))))
}

/// The raw value at a JSON pointer.
pub(super) fn at_pointer<'a>(text: &'a str, pointer: &str) -> Option<&'a str> {
    if let Some(found) = gravity_rules::look(text, pointer) {
        return found;
    }
    let Some(rest) = pointer.strip_prefix('/') else { return pointer.is_empty().then_some(text) };
    let (segment, rest) = match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, ""),
    };
    let segment = segment.replace("~1", "/").replace("~0", "~");
    if text.trim_ascii_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let index: usize = segment.parse().ok()?;
        return at_pointer(items.get(index)?.get(), rest);
    }
    let Members(members) = serde_json::from_str(text).ok()?;
    let value = members.into_iter().rev().find(|(name, _)| *name == segment)?.1;
    at_pointer(value.get(), rest)
}

pub(super) fn pointer_text<'a>(text: &'a str, pointer: &str) -> Option<Cow<'a, str>> {
    text_in(at_pointer(text, pointer)?)
}

/// The key at a pointer: a text's characters, any other scalar as written, nothing for null.
pub(super) fn key_at<'a>(payload: &'a [u8], pointer: &str) -> Option<Cow<'a, [u8]>> {
    let raw = at_pointer(std::str::from_utf8(payload).ok()?, pointer)?;
    match raw.as_bytes().first()? {
        b'n' => None,
        b'"' => serde_json::from_str(raw).ok().map(|Name(text)| text_bytes(text)),
        _ => Some(Cow::Borrowed(raw.as_bytes())),
    }
}

pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}
