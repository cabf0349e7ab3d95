//! An append under construction: records of a pull source become events, or raw input with its dead letter.

use std::borrow::Cow;

use gravity_log::{Batch, MAX_EVENT_BYTES};
use gravity_model::port::source::{Break, BreakKind, Position, Repeat, Slot, SourceBatch, SourceRecord};
use gravity_model::{CAPTURE_HEADER, Event, EventKind, HeaderBuf, Headers, Micros};

use crate::control::{self, Parked, SourceBreak};
use crate::ingest::envelope::{self, Decoded, EnvelopeOptions, Message, Undecodable};
use crate::ingest::last_delete::LastDeletes;
use crate::ingest::letters::{IngestLetters, TOO_LARGE};
use crate::ingest::repeats::Memory;

/// Above this, payload, key and headers together, a message is kept as its beginning only (fault S12).
const LARGEST_MESSAGE: usize = 32 << 20;
/// What the log adds to an event's own parts: fixed fields and the source's name.
const RECORD_OVERHEAD: usize = 128 << 10;
/// Of a payload, and of a key, that is too large.
const KEPT_OF_TOO_LARGE: usize = 4 << 10;
/// Headers of a message that is too large are kept whole up to this, else left out.
const KEPT_HEADERS: usize = 64 << 10;

/// See the module's comment.
#[derive(Default)]
pub struct Append {
    pub batch: Batch,
    /// When its messages came: the clock is asked once per source batch.
    at: Micros,
    /// Messages in it.
    pub received: u64,
    /// (index in the batch, state key, dead letter).
    pub letters: Vec<(u64, String, Parked)>,
    /// (index in the batch, by what the record there is known when it comes again).
    pub memories: Vec<(u32, Memory)>,
    /// Newest position per slot index of the source batch.
    positions: Vec<(u16, Position)>,
    extra: HeaderBuf,
}

impl Append {
    /// For messages that came at `at`.
    pub fn new(at: Micros) -> Append {
        Append { at, ..Append::default() }
    }

    pub fn moved(&mut self, slot: u16, position: Position) {
        match self.positions.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, newest)) => *newest = position,
            None => self.positions.push((slot, position)),
        }
    }

    /// The positions become durable with the events.
    pub fn set_positions(&mut self, source: &str, slots: &[Slot]) {
        // Several subjects may share one position, and it must not go backwards: the furthest comes last.
        self.positions.sort_unstable_by_key(|(_, position)| position.next);
        for (slot, position) in self.positions.drain(..) {
            if let Some(name) = &slots[usize::from(slot)].position {
                self.batch.set_position(source, name, position);
            }
        }
    }

    /// The next record is known by `memory` when it comes again: durable with it.
    pub fn remember(&mut self, memory: Memory) {
        let index = self.batch.len() as u32;
        self.batch.remember(memory.entry(index));
        self.memories.push((index, memory));
    }

    /// What an operator accepted is told where it happened: here, and for ever in the log.
    pub fn note_break(&mut self, source: &str, batch: &SourceBatch, found: &Break) {
        let slot = &batch.slots[usize::from(found.slot)];
        let (from, to, former) = match &found.kind {
            BreakKind::Gap { from, to } => (*from, *to, None),
            BreakKind::Recreated { former, next } => {
                (found.position.next, found.position.next, Some((former.to_string(), *next)))
            }
        };
        let told = SourceBreak {
            source: source.to_owned(),
            slot: slot.position.as_deref().unwrap_or_default().to_owned(),
            subject: slot.subject.to_string(),
            from,
            to,
            former,
        };
        match &told.former {
            None => tracing::warn!(
                source,
                slot = told.slot,
                from,
                to,
                "accepted gap: these were gone before they were read"
            ),
            Some((former, next)) => {
                tracing::warn!(source, slot = told.slot, former, next, "accepted: made anew, read from its beginning");
            }
        }
        control::tell(&mut self.batch, control::SOURCE_BREAK, source, &told, None);
    }

    /// Takes in one record: it is stored whatever it holds. With `refused` it is kept raw, and that is its dead letter.
    pub fn push(
        &mut self,
        options: &EnvelopeOptions,
        source: &str,
        (batch, record): (&SourceBatch, &SourceRecord),
        deletes: &mut LastDeletes,
        refused: Option<Undecodable>,
    ) {
        let headers = Headers::from_encoded(batch.bytes(record.headers)).unwrap_or_default();
        let payload = record.payload.map(|span| batch.bytes(span));
        let key = record.key.map(|span| batch.bytes(span));
        let slot = &batch.slots[usize::from(record.slot)];
        let subject = &slot.subject;
        let outer_key = options.outer_key(key, headers);
        let after_delete =
            if options.is_null(payload) { deletes.before(slot, outer_key).map(str::to_owned) } else { None };
        let message = Message {
            payload,
            key,
            headers,
            subject,
            time: record.time,
            content_type: None,
            after_delete: after_delete.as_deref(),
        };
        self.received += 1;
        self.extra.clear();
        let bytes = payload.map_or(0, <[u8]>::len) + key.map_or(0, <[u8]>::len) + headers.encoded().len();
        let why = if bytes > LARGEST_MESSAGE {
            too_large(payload, format!("{bytes} bytes are more than {LARGEST_MESSAGE}"))
        } else if let Some(refused) = refused {
            refused
        } else {
            match envelope::decode(options, &message, &mut self.extra) {
                Ok(mut decoded) => {
                    if let (None, Repeat::ById(id)) = (&decoded.id, record.repeat) {
                        decoded.id = std::str::from_utf8(batch.bytes(id)).ok().map(Cow::Borrowed);
                    }
                    deletes.note(slot, outer_key, Some(&decoded));
                    let joined = join_headers(headers, &self.extra);
                    let headers = joined.as_ref().map_or(headers, HeaderBuf::as_headers);
                    let event = event_of(&decoded, source, headers, self.at);
                    let bytes = size_of(&event);
                    if bytes <= MAX_EVENT_BYTES - RECORD_OVERHEAD {
                        return self.batch.push(&event);
                    }
                    too_large(payload, format!("name, key and payload make an event of {bytes} bytes"))
                }
                Err(why) => why,
            }
        };
        deletes.note(slot, outer_key, None);
        let is_cut = why.code == TOO_LARGE;
        let keep = |part: &'_ [u8]| if is_cut { part.len().min(KEPT_OF_TOO_LARGE) } else { part.len() };
        let key = key.map(|key| &key[..keep(key)]);
        let index = self.batch.len() as u64;
        self.batch.push(&Event {
            kind: EventKind::Undecodable,
            key,
            time: record.time,
            received: self.at,
            headers: if is_cut && headers.encoded().len() > KEPT_HEADERS { Headers::EMPTY } else { headers },
            payload: payload.map(|payload| &payload[..keep(payload)]),
            ..Event::data("", source, b"")
        });
        let (state_key, parked) = IngestLetters::write(&mut self.batch, &why, key, subject);
        self.letters.push((index, state_key, parked));
    }
}

fn too_large(payload: Option<&[u8]>, what: String) -> Undecodable {
    let digest = blake3::hash(payload.unwrap_or_default()).to_hex();
    let detail = format!("{what}; kept: the first {KEPT_OF_TOO_LARGE} of the payload, whose BLAKE3 is {digest}");
    Undecodable { code: TOO_LARGE, detail, at: None }
}

/// Bytes of what the producer gave.
fn size_of(event: &Event<'_>) -> usize {
    event.name.len()
        + event.id.map_or(0, str::len)
        + event.key.map_or(0, <[u8]>::len)
        + event.traceparent.map_or(0, str::len)
        + event.headers.encoded().len()
        + event.payload.map_or(0, <[u8]>::len)
}

/// The event that a message says, as it goes into the log.
pub fn event_of<'e>(decoded: &'e Decoded<'_>, source: &'e str, headers: Headers<'e>, received: Micros) -> Event<'e> {
    Event {
        id: decoded.id.as_deref(),
        key: decoded.key.as_deref(),
        time: decoded.time,
        received,
        traceparent: decoded.traceparent.as_deref(),
        headers,
        payload: decoded.payload.as_deref(),
        ..Event::data(&decoded.name, source, b"")
    }
}

/// The message's headers followed by the envelope's own attributes; `None` where there are none to add. The mark of a
/// captured change is ours to give: one that a producer sent is left out.
pub fn join_headers(headers: Headers<'_>, extra: &HeaderBuf) -> Option<HeaderBuf> {
    let is_mark = |name: &str| name.eq_ignore_ascii_case(CAPTURE_HEADER);
    if extra.as_encoded().is_empty() && headers.get(CAPTURE_HEADER).is_none() {
        return None;
    }
    let mut joined = HeaderBuf::new();
    let own = headers.iter().filter(|(name, _)| !is_mark(name));
    own.chain(extra.as_headers().iter()).for_each(|(name, value)| joined.push(name, value));
    Some(joined)
}
