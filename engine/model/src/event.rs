//! What the log keeps: an event, borrowed from the bytes that hold it.

use crate::ident::Sequence;

/// Microseconds since 1970-01-01T00:00:00Z, may be negative.
pub type Micros = i64;

/// What an entry of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A fact that a producer published.
    Data = 0,
    /// A fact about Gravity itself: opening, config, types, park, retry, skip, cursor. Names begin with `gravity.` or `twist.`.
    Control = 1,
    /// Input that could not be decoded, kept as received; the name is empty.
    Undecodable = 2,
}

impl EventKind {
    pub fn from_code(code: u8) -> Option<EventKind> {
        match code {
            0 => Some(EventKind::Data),
            1 => Some(EventKind::Control),
            2 => Some(EventKind::Undecodable),
            _ => None,
        }
    }
}

/// An immutable fact. All slices borrow; nothing is decoded until asked for.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub kind: EventKind,
    /// Control events only: this entry replaces the live state of (`name`, `key`); a null payload removes it. The log
    /// carries live state forward into every new hot generation.
    pub state: bool,
    pub name: &'a str,
    /// Name of the entry in sources.json, `gravity` for control events.
    pub source: &'a str,
    /// The producer's id, as given.
    pub id: Option<&'a str>,
    pub key: Option<&'a [u8]>,
    /// The producer's time.
    pub time: Option<Micros>,
    /// When we took it in.
    pub received: Micros,
    pub traceparent: Option<&'a str>,
    pub headers: Headers<'a>,
    /// Sequence of the entry that this one follows from.
    pub causation: Option<Sequence>,
    /// Who did it, for operator actions.
    pub actor: Option<&'a str>,
    /// Bytes as received; `None` is a null payload (a Kafka tombstone).
    pub payload: Option<&'a [u8]>,
}

impl<'a> Event<'a> {
    /// A data event with nothing but a name, a source and a payload.
    pub fn data(name: &'a str, source: &'a str, payload: &'a [u8]) -> Event<'a> {
        Event {
            kind: EventKind::Data,
            state: false,
            name,
            source,
            id: None,
            key: None,
            time: None,
            received: 0,
            traceparent: None,
            headers: Headers::EMPTY,
            causation: None,
            actor: None,
            payload: Some(payload),
        }
    }

    /// A control event that replaces the live state of (`name`, `key`); without payload it removes it.
    pub fn state(name: &'a str, key: &'a str, payload: Option<&'a [u8]>) -> Event<'a> {
        Event {
            kind: EventKind::Control,
            state: true,
            key: Some(key.as_bytes()),
            payload,
            ..Event::data(name, "gravity", b"")
        }
    }
}

/// An event with its place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub sequence: Sequence,
    pub event: Event<'a>,
}

/// Headers in the order of arrival, duplicates kept. Encoded as, per header, name length (u16 LE), value length (u32 LE),
/// name, value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    pub const EMPTY: Headers<'static> = Headers(&[]);

    /// Takes bytes that a [`HeaderBuf`] wrote. `None` when they are not whole.
    pub fn from_encoded(bytes: &'a [u8]) -> Option<Headers<'a>> {
        let headers = Headers(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split_header(rest)?.2;
        }
        Some(headers)
    }

    pub fn encoded(self) -> &'a [u8] {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, value, after) = split_header(rest)?;
            rest = after;
            Some((name, value))
        })
    }

    /// The first value under `name`, compared without regard to ASCII case.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn split_header(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let (name_len, rest) = bytes.split_first_chunk::<2>()?;
    let (value_len, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_len) as usize)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
    Some((std::str::from_utf8(name).ok()?, value, rest))
}

/// Collects headers into their encoded form.
#[derive(Clone, Debug, Default)]
pub struct HeaderBuf(Vec<u8>);

impl HeaderBuf {
    pub fn new() -> HeaderBuf {
        HeaderBuf::default()
    }

    /// Adds one header. A name beyond 65,535 bytes is cut there at a character boundary.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let name = &name[..name.floor_char_boundary(u16::MAX as usize)];
        self.0.extend_from_slice(&(name.len() as u16).to_le_bytes());
        self.0.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(value);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn as_headers(&self) -> Headers<'_> {
        Headers(&self.0)
    }

    pub fn as_encoded(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_and_duplicates() {
        let mut buf = HeaderBuf::new();
        buf.push("a", b"1");
        buf.push("A", b"2");
        buf.push("empty", b"");
        let headers = Headers::from_encoded(buf.as_encoded()).expect("just written");
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("a", b"1".as_slice()), ("A", b"2"), ("empty", b"")]);
        assert_eq!(headers.get("A"), Some(b"1".as_slice()));
        assert!(Headers::from_encoded(&buf.as_encoded()[..5]).is_none());
    }
}
