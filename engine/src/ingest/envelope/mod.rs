//! From a message as a protocol delivered it to an event: name, id, key, time and the payload's own bytes.
//!
//! Pure. A payload is never re-serialised: what is stored is the slice of the input that held it.

mod cloudevents;
mod debezium;
mod gravity;
mod json;
mod plain;

use std::borrow::Cow;
use std::fmt;

use gravity_model::{CAPTURE_HEADER, Captured, HeaderBuf, Headers, Micros, RowChange};

use json::{key_at, top_level};

/// How a source's messages are read (INTERFACE 1).
#[derive(Clone, Debug, Default)]
pub struct EnvelopeOptions {
    pub envelope: Envelope,
    pub event_from: Option<NameFrom>,
    pub key_from: Option<KeyFrom>,
    pub tombstone: Tombstone,
}

impl EnvelopeOptions {
    /// True where the message has no value. A protocol that knows no null value sends an empty one in its place.
    pub fn is_null(&self, payload: Option<&[u8]>) -> bool {
        payload.is_none_or(|bytes| bytes.is_empty() && self.envelope == Envelope::Debezium)
    }

    /// The key that a message has whatever its value holds: its own, or that of a header. It tells which delete a null value
    /// belongs to.
    pub fn outer_key<'a>(&self, key: Option<&'a [u8]>, headers: Headers<'a>) -> Option<&'a [u8]> {
        match (key, &self.key_from) {
            (None, Some(KeyFrom::Header(name))) => headers.get(name),
            _ => key,
        }
    }
}

/// What a message with a key and no value means, where it does not follow the delete of a captured change (SEMANTICS 1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tombstone {
    /// An event with null payload, which writes nothing.
    #[default]
    Ignore,
    /// The row that the key names is gone.
    Delete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Envelope {
    /// Recognised by headers and shape; plain is what is left.
    #[default]
    Auto,
    Gravity,
    CloudEvents,
    Debezium,
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
    /// Name of the delete of the same key that came right before, where one did: Debezium sends a null value behind it.
    pub after_delete: Option<&'a str>,
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
    /// Bytes as received; `None` is null. Of a captured change the whole message, schema included.
    pub payload: Option<Cow<'a, [u8]>>,
    pub captured: Option<Captured>,
    /// The row in a captured change: what a pointer of `key_from` is about.
    pub row: Option<&'a [u8]>,
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

/// Decodes one message. Attributes of a structured CloudEvent that have no field of their own, and what
/// a captured change did, are added to `extra`.
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
            decoded.key = match (decoded.row, &decoded.payload) {
                (Some(row), _) => key_at(row, pointer),
                (None, Some(Cow::Borrowed(payload))) => key_at(payload, pointer),
                (None, Some(Cow::Owned(payload))) => key_at(payload, pointer).map(|key| Cow::Owned(key.into_owned())),
                (None, None) => message.key.map(Cow::Borrowed),
            }
        }
    }
    if let Some(captured) = decoded.captured {
        extra.push(CAPTURE_HEADER, captured.to_string().as_bytes());
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
        && cloudevents::attribute(message, "specversion").is_some();
    if binary_cloudevent {
        return cloudevents::binary(message);
    }
    let Some(bytes) = message.payload.filter(|bytes| !options.is_null(Some(bytes))) else {
        return Ok(null_value(options, message));
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        undecodable("decode/not-utf8", format!("not UTF-8: the first bad byte is at offset {}", error.valid_up_to()))
    })?;
    match options.envelope {
        Envelope::Plain => plain::plain(options, message, text),
        Envelope::Gravity => {
            let fields = top_level(text)?;
            gravity::gravity(&fields)
        }
        Envelope::Debezium => {
            let fields = top_level(text)?;
            debezium::declared(options, message, text, &fields)
        }
        Envelope::CloudEvents => {
            let fields = top_level(text)?;
            cloudevents::structured(&fields, extra)
        }
        Envelope::Auto => {
            // Only an object can be an envelope; anything else is plain, and plain checks the syntax itself.
            if !text.trim_ascii_start().starts_with('{') {
                return plain::plain(options, message, text);
            }
            let fields = top_level(text)?;
            if fields.specversion.is_some() {
                cloudevents::structured(&fields, extra)
            } else if fields.event.is_some() && (fields.payload.is_some() || options.event_from.is_none()) {
                gravity::gravity(&fields)
            } else if let Some(found) = debezium::recognise(message, &fields) {
                debezium::decode(options, message, text, &found)
            } else {
                plain::named_plain(options, message, text)
            }
        }
    }
}

/// A message without a value.
fn null_value<'a>(options: &EnvelopeOptions, message: &Message<'a>) -> Decoded<'a> {
    if let Some(delete) = message.after_delete {
        return Decoded::plain(Cow::Borrowed(delete), None);
    }
    let deletes = options.tombstone == Tombstone::Delete;
    let (name, method_follows) = match plain::constant_name(options, message) {
        Some(name) => (name, true),
        None if deletes || options.envelope == Envelope::Debezium => {
            (debezium::tombstone_name(options, message), false)
        }
        None => (Cow::Borrowed(""), false),
    };
    let captured = deletes.then_some(Captured { change: RowChange::Tombstone, method_follows });
    Decoded { captured, ..Decoded::plain(name, None) }
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
            captured: None,
            row: None,
        }
    }
}

fn header_text<'a>(message: &Message<'a>, name: &str) -> Option<&'a str> {
    message.headers.get(name).and_then(|value| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests;
