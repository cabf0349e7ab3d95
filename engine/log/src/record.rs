//! The bytes of one event: canonical, so that columns can give back exactly what was written, and readable in place.
//!
//! ```text
//!  0  u32  bytes of the whole record, this field included      16  u32  traceparent
//!  4  u8   kind                                                20  u32  key
//!  5  u8   flags                                               24  u32  headers
//!  6  u16  length of the source's name                         28  u32  actor
//!  8  u32  length of the event's name                          32  i64  received
//! 12  u32  length of the id                                    40  [i64 time] [u64 causation]
//! then name, source, id, traceparent, actor, key, headers, payload (what is left). Little endian.
//! ```

use gravity_model::event::Headers;
use gravity_model::{Event, EventKind, Recorded, Sequence};

use crate::api::MAX_EVENT_BYTES;

const FIXED: usize = 40;

const STATE: u8 = 1;
const ID: u8 = 1 << 1;
const KEY: u8 = 1 << 2;
const TIME: u8 = 1 << 3;
const TRACEPARENT: u8 = 1 << 4;
const CAUSATION: u8 = 1 << 5;
const ACTOR: u8 = 1 << 6;
const PAYLOAD: u8 = 1 << 7;

/// Appends `event` to `out`. Errors with (bytes, limit) where it is larger than the log takes; `out` is then as before.
pub(crate) fn write(event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), (usize, usize)> {
    let Event { kind, state, name, source, id, key, time, received, traceparent, headers, causation, actor, payload } =
        *event;
    let length = |slice: Option<usize>| slice.unwrap_or(0);
    let id_len = length(id.map(str::len));
    let trace_len = length(traceparent.map(str::len));
    let actor_len = length(actor.map(str::len));
    let key_len = length(key.map(<[u8]>::len));
    let payload_len = length(payload.map(<[u8]>::len));
    let optional = 8 * (usize::from(time.is_some()) + usize::from(causation.is_some()));
    let total = FIXED
        + optional
        + name.len()
        + source.len()
        + id_len
        + trace_len
        + actor_len
        + key_len
        + headers.encoded().len()
        + payload_len;
    if total > MAX_EVENT_BYTES {
        return Err((total, MAX_EVENT_BYTES));
    }
    if source.len() > usize::from(u16::MAX) {
        return Err((source.len(), usize::from(u16::MAX)));
    }
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let flags = flag(state, STATE)
        | flag(id.is_some(), ID)
        | flag(key.is_some(), KEY)
        | flag(time.is_some(), TIME)
        | flag(traceparent.is_some(), TRACEPARENT)
        | flag(causation.is_some(), CAUSATION)
        | flag(actor.is_some(), ACTOR)
        | flag(payload.is_some(), PAYLOAD);

    let mut fixed = [0u8; FIXED];
    fixed[0..4].copy_from_slice(&(total as u32).to_le_bytes());
    fixed[4] = kind as u8;
    fixed[5] = flags;
    fixed[6..8].copy_from_slice(&(source.len() as u16).to_le_bytes());
    fixed[8..12].copy_from_slice(&(name.len() as u32).to_le_bytes());
    fixed[12..16].copy_from_slice(&(id_len as u32).to_le_bytes());
    fixed[16..20].copy_from_slice(&(trace_len as u32).to_le_bytes());
    fixed[20..24].copy_from_slice(&(key_len as u32).to_le_bytes());
    fixed[24..28].copy_from_slice(&(headers.encoded().len() as u32).to_le_bytes());
    fixed[28..32].copy_from_slice(&(actor_len as u32).to_le_bytes());
    fixed[32..40].copy_from_slice(&received.to_le_bytes());

    out.reserve(total);
    out.extend_from_slice(&fixed);
    if let Some(time) = time {
        out.extend_from_slice(&time.to_le_bytes());
    }
    if let Some(causation) = causation {
        out.extend_from_slice(&causation.get().to_le_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(source.as_bytes());
    out.extend_from_slice(id.unwrap_or("").as_bytes());
    out.extend_from_slice(traceparent.unwrap_or("").as_bytes());
    out.extend_from_slice(actor.unwrap_or("").as_bytes());
    out.extend_from_slice(key.unwrap_or(b""));
    out.extend_from_slice(headers.encoded());
    out.extend_from_slice(payload.unwrap_or(b""));
    Ok(())
}

/// Length of the record that begins at `bytes`; `None` where there is none.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (FIXED..=bytes.len()).contains(&length).then_some(length)
}

/// Whether the record that begins at `bytes` is a state event.
pub(crate) fn is_state(bytes: &[u8]) -> bool {
    bytes.get(5).is_some_and(|flags| flags & STATE != 0)
}

/// Reads one whole record. `None` where it is not well formed.
pub(crate) fn parse(record: &[u8]) -> Option<Event<'_>> {
    let (fixed, mut rest) = record.split_first_chunk::<FIXED>()?;
    let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
    let flags = fixed[5];
    let mut take = |n: usize| -> Option<&[u8]> {
        let (taken, after) = rest.split_at_checked(n)?;
        rest = after;
        Some(taken)
    };
    let eight = |bytes: &[u8]| bytes.first_chunk::<8>().copied();
    let time = if flags & TIME != 0 { Some(i64::from_le_bytes(eight(take(8)?)?)) } else { None };
    let causation = if flags & CAUSATION != 0 { Some(Sequence(u64::from_le_bytes(eight(take(8)?)?))) } else { None };
    let name = std::str::from_utf8(take(u32_at(8))?).ok()?;
    let source = std::str::from_utf8(take(usize::from(u16::from_le_bytes([fixed[6], fixed[7]])))?).ok()?;
    let id = std::str::from_utf8(take(u32_at(12))?).ok()?;
    let traceparent = std::str::from_utf8(take(u32_at(16))?).ok()?;
    let actor = std::str::from_utf8(take(u32_at(28))?).ok()?;
    let key = take(u32_at(20))?;
    let headers = Headers::from_encoded(take(u32_at(24))?)?;
    let received =
        i64::from_le_bytes([fixed[32], fixed[33], fixed[34], fixed[35], fixed[36], fixed[37], fixed[38], fixed[39]]);
    Some(Event {
        kind: EventKind::from_code(fixed[4])?,
        state: flags & STATE != 0,
        name,
        source,
        id: (flags & ID != 0).then_some(id),
        key: (flags & KEY != 0).then_some(key),
        time,
        received,
        traceparent: (flags & TRACEPARENT != 0).then_some(traceparent),
        headers,
        causation,
        actor: (flags & ACTOR != 0).then_some(actor),
        payload: (flags & PAYLOAD != 0).then_some(rest),
    })
}

/// Checks that `bytes` are exactly `count` well-formed records.
pub(crate) fn validate(bytes: &[u8], count: u32) -> Result<(), String> {
    let mut rest = bytes;
    for index in 0..count {
        let record = length(rest).and_then(|n| rest.split_at_checked(n));
        let Some((record, after)) = record else {
            return Err(format!("record {index} of {count} is cut short"));
        };
        if parse(record).is_none() {
            return Err(format!("record {index} of {count} is malformed"));
        }
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes follow the last of {count} records", rest.len())) }
}

/// Iterates the records of a block without allocating.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    next: Sequence,
}

impl<'a> Records<'a> {
    /// `bytes` are whole records that this process wrote or has validated.
    pub(crate) fn new(bytes: &'a [u8], first: Sequence) -> Records<'a> {
        Records { rest: bytes, next: first }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Recorded<'a>;

    fn next(&mut self) -> Option<Recorded<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let length = length(self.rest).expect("records are validated when a block is decoded");
        let (record, rest) = self.rest.split_at(length);
        self.rest = rest;
        let sequence = self.next;
        self.next = sequence.next();
        let event = parse(record).expect("records are validated when a block is decoded");
        Some(Recorded { sequence, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gravity_model::HeaderBuf;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("\\PC{0,24}")
    }

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64))
    }

    proptest! {
        #[test]
        fn every_event_comes_back_and_is_written_the_same_again(
            (kind, state, name, source) in (0u8..3, any::<bool>(), "\\PC{0,24}", "\\PC{0,12}"),
            (id, key, time, received) in (text(), bytes(), any::<Option<i64>>(), any::<i64>()),
            (traceparent, causation, actor, payload) in (text(), any::<Option<u64>>(), text(), bytes()),
            headers in proptest::collection::vec(("\\PC{0,8}", proptest::collection::vec(any::<u8>(), 0..16)), 0..4),
        ) {
            let mut buf = HeaderBuf::new();
            for (name, value) in &headers {
                buf.push(name, value);
            }
            let event = Event {
                kind: EventKind::from_code(kind).expect("in range"),
                state,
                name: &name,
                source: &source,
                id: id.as_deref(),
                key: key.as_deref(),
                time,
                received,
                traceparent: traceparent.as_deref(),
                headers: buf.as_headers(),
                causation: causation.map(Sequence),
                actor: actor.as_deref(),
                payload: payload.as_deref(),
            };
            let mut first = Vec::new();
            write(&event, &mut first).expect("small");
            prop_assert_eq!(validate(&first, 1), Ok(()));
            let back = parse(&first).expect("just written");
            prop_assert_eq!(format!("{:?}", event), format!("{:?}", back));
            prop_assert_eq!(is_state(&first), state);
            let mut again = Vec::new();
            write(&back, &mut again).expect("small");
            prop_assert_eq!(&first, &again);
            // No cut of it is taken for a record.
            for end in 0..first.len() {
                prop_assert!(validate(&first[..end], 1).is_err());
            }
        }
    }

    #[test]
    fn an_event_above_the_limit_is_refused_and_leaves_nothing() {
        let payload = vec![0u8; MAX_EVENT_BYTES];
        let mut out = Vec::new();
        assert!(write(&Event::data("a", "s", &payload), &mut out).is_err());
        assert!(out.is_empty());
    }
}
