//! From a message as a protocol delivered it to an event: name, id, key, time and the payload's own bytes.
//!
//! Pure. A payload is never re-serialised: what is stored is the slice of the input that held it.

use std::borrow::Cow;
use std::fmt;

use gravity_model::{HeaderBuf, Headers, Micros};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How a source's messages are read (INTERFACE 1).
#[derive(Clone, Debug, Default)]
pub struct EnvelopeOptions {
    pub envelope: Envelope,
    pub event_from: Option<NameFrom>,
    pub key_from: Option<KeyFrom>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Envelope {
    /// Recognised by headers and shape; plain is what is left.
    #[default]
    Auto,
    Gravity,
    CloudEvents,
    Plain,
}

/// Where a plain message's event name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFrom {
    Constant(String),
    /// JSON pointer into the message.
    Field(String),
    Header(String),
    /// Topic, subject or routing key.
    Subject,
}

/// Where the event key stands; the message's own key without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFrom {
    MessageKey,
    /// JSON pointer into the payload.
    Field(String),
    Header(String),
}

/// A message before it is decoded.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub payload: Option<&'a [u8]>,
    pub key: Option<&'a [u8]>,
    pub headers: Headers<'a>,
    pub subject: &'a str,
    /// The broker's time.
    pub time: Option<Micros>,
    /// `Content-Type`, where the protocol has one beside the headers.
    pub content_type: Option<&'a str>,
}

/// What a message says.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Empty only for a null payload that no configured name covers.
    pub name: Cow<'a, str>,
    pub id: Option<Cow<'a, str>>,
    /// CloudEvents `source`: part of the id's scope.
    pub id_scope: Option<Cow<'a, str>>,
    pub key: Option<Cow<'a, [u8]>>,
    pub time: Option<Micros>,
    pub traceparent: Option<Cow<'a, str>>,
    /// Bytes as received; `None` is null.
    pub payload: Option<Cow<'a, [u8]>>,
}

/// Why a message is no event. The code is stable and has a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    pub code: &'static str,
    pub detail: String,
    /// Place in the payload, 1-based, where JSON broke.
    pub at: Option<(usize, usize)>,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Characters of an input that an error repeats.
const LONGEST_EXCERPT: usize = 120;

/// A text for an error or a list: of a long one the beginning and its size, because input may be as large as a message.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_EXCERPT) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len())),
    }
}

fn undecodable(code: &'static str, detail: impl Into<String>) -> Undecodable {
    Undecodable { code, detail: detail.into(), at: None }
}

/// Decodes one message. Attributes of a structured CloudEvent that have no field of their own are added to `extra`.
pub fn decode<'a>(
    options: &EnvelopeOptions,
    message: &Message<'a>,
    extra: &mut HeaderBuf,
) -> Result<Decoded<'a>, Undecodable> {
    let mut decoded = decode_envelope(options, message, extra)?;
    if is_reserved(&decoded.name) {
        return Err(undecodable(
            "decode/reserved-name",
            format!(
                "event names that begin with `gravity.` or `twist.` are reserved, found {:?}",
                excerpt(&decoded.name)
            ),
        ));
    }
    if decoded.traceparent.is_none() {
        decoded.traceparent = header_text(message, "traceparent").map(Cow::Borrowed);
    }
    if decoded.time.is_none() {
        decoded.time = message.time;
    }
    match &options.key_from {
        None => {
            if let Some(key) = message.key {
                decoded.key = Some(Cow::Borrowed(key));
            }
        }
        Some(KeyFrom::MessageKey) => decoded.key = message.key.map(Cow::Borrowed),
        Some(KeyFrom::Header(name)) => decoded.key = message.headers.get(name).map(Cow::Borrowed),
        Some(KeyFrom::Field(pointer)) => {
            decoded.key = match &decoded.payload {
                Some(Cow::Borrowed(payload)) => key_at(payload, pointer),
                Some(Cow::Owned(payload)) => key_at(payload, pointer).map(|key| Cow::Owned(key.into_owned())),
                None => message.key.map(Cow::Borrowed),
            }
        }
    }
    Ok(decoded)
}

/// Names that producers may not use (SEMANTICS 1.2).
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("gravity.") || name.starts_with("twist.")
}

fn decode_envelope<'a>(
    options: &EnvelopeOptions,
    message: &Message<'a>,
    extra: &mut HeaderBuf,
) -> Result<Decoded<'a>, Undecodable> {
    let binary_cloudevent = matches!(options.envelope, Envelope::Auto | Envelope::CloudEvents)
        && attribute(message, "specversion").is_some();
    if binary_cloudevent {
        return binary(message);
    }
    let Some(bytes) = message.payload else {
        let name = constant_name(options, message).unwrap_or_default();
        return Ok(Decoded::plain(name, None));
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        undecodable("decode/not-utf8", format!("not UTF-8: the first bad byte is at offset {}", error.valid_up_to()))
    })?;
    match options.envelope {
        Envelope::Plain => plain(options, message, text),
        Envelope::Gravity => {
            let fields = top_level(text)?;
            gravity(&fields)
        }
        Envelope::CloudEvents => {
            let fields = top_level(text)?;
            structured(&fields, extra)
        }
        Envelope::Auto => {
            // Only an object can be an envelope; anything else is plain, and plain checks the syntax itself.
            if !text.trim_ascii_start().starts_with('{') {
                return plain(options, message, text);
            }
            let fields = top_level(text)?;
            if fields.specversion.is_some() {
                structured(&fields, extra)
            } else if fields.event.is_some() && (fields.payload.is_some() || options.event_from.is_none()) {
                gravity(&fields)
            } else {
                named_plain(options, message, text)
            }
        }
    }
}

impl<'a> Decoded<'a> {
    fn plain(name: Cow<'a, str>, payload: Option<&'a str>) -> Decoded<'a> {
        Decoded {
            name,
            id: None,
            id_scope: None,
            key: None,
            time: None,
            traceparent: None,
            payload: payload.map(|p| Cow::Borrowed(p.as_bytes())),
        }
    }
}

/// Fields at the top of a JSON object that some envelope gives a meaning to; values undecoded.
#[derive(Default)]
struct TopLevel<'a> {
    event: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    time: Option<&'a RawValue>,
    traceparent: Option<&'a RawValue>,
    specversion: Option<&'a RawValue>,
    type_: Option<&'a RawValue>,
    source: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    data_base64: Option<&'a RawValue>,
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
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
struct Name<'a>(Cow<'a, str>);

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

fn top_level(text: &str) -> Result<TopLevel<'_>, Undecodable> {
    serde_json::from_str(text).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> Undecodable {
    let code = if error.is_data() { "decode/not-an-object" } else { "decode/not-json" };
    let (line, column) = (error.line(), error.column());
    let mut detail = error.to_string();
    // It may repeat the value it found.
    if detail.len() > 2 * LONGEST_EXCERPT {
        detail = format!("{} at line {line} column {column}", excerpt(&detail));
    }
    Undecodable { code, detail, at: Some((line, column)) }
}

fn gravity<'a>(fields: &TopLevel<'a>) -> Result<Decoded<'a>, Undecodable> {
    let name = match fields.event.map(text_of) {
        Some(Some(name)) if !name.is_empty() => name,
        Some(_) => return Err(undecodable("decode/bad-event-name", "`event` must be a text that is not empty")),
        None => {
            return Err(undecodable("decode/no-event-name", "no `event` in the envelope `{\"event\", \"payload\"}`"));
        }
    };
    let Some(payload) = fields.payload else {
        return Err(undecodable("decode/no-payload", "no `payload` in the envelope `{\"event\", \"payload\"}`"));
    };
    Ok(Decoded {
        name,
        id: optional_text("id", fields.id)?,
        id_scope: None,
        key: optional_text("key", fields.key)?.map(text_bytes),
        time: optional_time(fields.time)?,
        traceparent: optional_text("traceparent", fields.traceparent)?,
        payload: json_payload(payload),
    })
}

fn structured<'a>(fields: &TopLevel<'a>, extra: &mut HeaderBuf) -> Result<Decoded<'a>, Undecodable> {
    let required = |name: &'static str, value: Option<&'a RawValue>| match value.map(text_of) {
        Some(Some(text)) if !text.is_empty() => Ok(text),
        _ => {
            Err(undecodable("decode/bad-cloudevent", format!("CloudEvents needs `{name}` as a text that is not empty")))
        }
    };
    let version = required("specversion", fields.specversion)?;
    if version != "1.0" {
        return Err(undecodable(
            "decode/bad-cloudevent",
            format!("CloudEvents specversion 1.0 is read, found {:?}", excerpt(&version)),
        ));
    }
    let source = required("source", fields.source)?;
    extra.push("ce-source", source.as_bytes());
    for (name, value) in &fields.others {
        let text = text_of(value).unwrap_or(Cow::Borrowed(value.get()));
        extra.push(&format!("ce-{name}"), text.as_bytes());
    }
    let payload = match (fields.data, fields.data_base64) {
        (Some(_), Some(_)) => {
            return Err(undecodable("decode/bad-cloudevent", "a CloudEvent has `data` or `data_base64`, not both"));
        }
        (Some(data), None) => json_payload(data),
        (None, Some(encoded)) => {
            use base64::Engine;
            let text = text_of(encoded).unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_bytes());
            Some(Cow::Owned(bytes.map_err(|e| undecodable("decode/bad-cloudevent", format!("data_base64: {e}")))?))
        }
        (None, None) => None,
    };
    Ok(Decoded {
        name: required("type", fields.type_)?,
        id: Some(required("id", fields.id)?),
        id_scope: Some(source),
        key: fields
            .others
            .iter()
            .find(|(name, _)| name == "partitionkey")
            .and_then(|(_, value)| text_of(value))
            .map(text_bytes),
        time: optional_time(fields.time)?,
        traceparent: optional_text("traceparent", fields.traceparent)?,
        payload,
    })
}

fn binary<'a>(message: &Message<'a>) -> Result<Decoded<'a>, Undecodable> {
    let required = |name: &'static str| match attribute(message, name) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(undecodable("decode/bad-cloudevent", format!("CloudEvents needs the header `ce-{name}`"))),
    };
    let version = required("specversion")?;
    if version != "1.0" {
        return Err(undecodable(
            "decode/bad-cloudevent",
            format!("CloudEvents specversion 1.0 is read, found {:?}", excerpt(version)),
        ));
    }
    let content_type = message.content_type.or_else(|| header_text(message, "content-type"));
    let is_json = content_type.is_none_or(|t| {
        let kind = t.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")
    });
    if let (true, Some(payload)) = (is_json, message.payload) {
        check_json(payload)?;
    }
    Ok(Decoded {
        name: Cow::Borrowed(required("type")?),
        id: Some(Cow::Borrowed(required("id")?)),
        id_scope: Some(Cow::Borrowed(required("source")?)),
        key: attribute(message, "partitionkey").map(|k| Cow::Borrowed(k.as_bytes())),
        time: attribute(message, "time").map(parse_time).transpose()?,
        traceparent: attribute(message, "traceparent").map(Cow::Borrowed),
        payload: message.payload.map(Cow::Borrowed),
    })
}

fn plain<'a>(options: &EnvelopeOptions, message: &Message<'a>, text: &'a str) -> Result<Decoded<'a>, Undecodable> {
    if let Some(NameFrom::Field(pointer)) = &options.event_from {
        // The common way: one pass that checks the message and finds its name.
        if let Some(named) = gravity_rules::look(text, pointer) {
            let name = named.and_then(text_in).filter(|name| !name.is_empty()).ok_or_else(|| nameless(pointer))?;
            return Ok(Decoded::plain(name, Some(text)));
        }
    }
    check_json(text.as_bytes())?;
    named_plain(options, message, text)
}

fn nameless(pointer: &str) -> Undecodable {
    undecodable("decode/no-event-name", format!("no text at {pointer} to name the event"))
}

/// The characters of a JSON text; `None` for any other value.
fn text_in(json: &str) -> Option<Cow<'_, str>> {
    let Name(text) = serde_json::from_str(json).ok()?;
    Some(text)
}

/// `text` is known to be JSON.
fn named_plain<'a>(
    options: &EnvelopeOptions,
    message: &Message<'a>,
    text: &'a str,
) -> Result<Decoded<'a>, Undecodable> {
    let name = match &options.event_from {
        Some(NameFrom::Field(pointer)) => match pointer_text(text, pointer) {
            Some(name) if !name.is_empty() => name,
            _ => return Err(nameless(pointer)),
        },
        _ => constant_name(options, message).ok_or_else(|| {
            undecodable(
                "decode/no-event-name",
                "neither an envelope nor plain JSON with a name: set `event_name` or `event_from` on the source",
            )
        })?,
    };
    Ok(Decoded::plain(name, Some(text)))
}

/// The event name that does not depend on the payload.
fn constant_name<'a>(options: &EnvelopeOptions, message: &Message<'a>) -> Option<Cow<'a, str>> {
    match options.event_from.as_ref()? {
        NameFrom::Constant(name) => Some(Cow::Owned(name.clone())),
        NameFrom::Subject => Some(Cow::Borrowed(message.subject)),
        NameFrom::Header(name) => header_text(message, name).filter(|n| !n.is_empty()).map(Cow::Borrowed),
        NameFrom::Field(_) => None,
    }
}

/// A CloudEvents attribute in any binding's spelling: `ce-`, `ce_`, `cloudEvents_`.
fn attribute<'a>(message: &Message<'a>, name: &str) -> Option<&'a str> {
    let value = message.headers.iter().find_map(|(header, value)| {
        let bare = ["ce-", "ce_", "cloudEvents_", "cloudevents_"].iter().find_map(|prefix| strip(header, prefix))?;
        bare.eq_ignore_ascii_case(name).then_some(value)
    })?;
    std::str::from_utf8(value).ok()
}

fn strip<'h>(header: &'h str, prefix: &str) -> Option<&'h str> {
    let head = header.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &header[prefix.len()..])
}

fn header_text<'a>(message: &Message<'a>, name: &str) -> Option<&'a str> {
    message.headers.get(name).and_then(|value| std::str::from_utf8(value).ok())
}

/// Our own scan is fast and strict; what it refuses, `serde_json` judges, and says where and why.
fn check_json(bytes: &[u8]) -> Result<(), Undecodable> {
    if std::str::from_utf8(bytes).is_ok_and(|text| gravity_rules::look(text, "").is_some()) {
        return Ok(());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde::de::IgnoredAny::deserialize(&mut reader).and_then(|_| reader.end()).map_err(not_json)
}

fn json_payload(raw: &RawValue) -> Option<Cow<'_, [u8]>> {
    let text = raw.get();
    (text != "null").then_some(Cow::Borrowed(text.as_bytes()))
}

fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    text_in(raw.get())
}

fn text_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn optional_text<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, Undecodable> {
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

fn optional_time(raw: Option<&RawValue>) -> Result<Option<Micros>, Undecodable> {
    optional_text("time", raw)?.map(|text| parse_time(&text)).transpose()
}

fn parse_time(text: &str) -> Result<Micros, Undecodable> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_micros())
        .map_err(|_| undecodable("decode/bad-envelope", format!("`time` must be RFC 3339, found {:?}", excerpt(text))))
}

/// The raw value at a JSON pointer.
fn at_pointer<'a>(text: &'a str, pointer: &str) -> Option<&'a str> {
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

fn pointer_text<'a>(text: &'a str, pointer: &str) -> Option<Cow<'a, str>> {
    text_in(at_pointer(text, pointer)?)
}

/// The key at a pointer: a text's characters, any other scalar as written, nothing for null.
fn key_at<'a>(payload: &'a [u8], pointer: &str) -> Option<Cow<'a, [u8]>> {
    let raw = at_pointer(std::str::from_utf8(payload).ok()?, pointer)?;
    match raw.as_bytes().first()? {
        b'n' => None,
        b'"' => serde_json::from_str(raw).ok().map(|Name(text)| text_bytes(text)),
        _ => Some(Cow::Borrowed(raw.as_bytes())),
    }
}

struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

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

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
