//! An event of the log as people and scripts see it.

use base64::Engine;
use gravity_model::Recorded;
use serde_json::value::RawValue;

use crate::ingest::letters::readable;
use crate::status::EventView;

impl EventView {
    pub fn of(recorded: &Recorded<'_>) -> EventView {
        let event = &recorded.event;
        let json = event.payload.map(|p| std::str::from_utf8(p).ok().and_then(|t| serde_json::from_str(t).ok()));
        let (payload, raw): (Option<&RawValue>, _) = match (event.payload, json) {
            (None, _) => (Some(RawValue::NULL), None),
            (Some(_), Some(Some(json))) => (Some(json), None),
            (Some(bytes), _) => (None, Some(base64::engine::general_purpose::STANDARD.encode(bytes))),
        };
        EventView {
            sequence: recorded.sequence.get(),
            source: event.source.to_owned(),
            event: event.name.to_owned(),
            key: event.key.map(readable),
            id: event.id.map(str::to_owned),
            time: event.time.map(crate::clock::rfc3339),
            received: crate::clock::rfc3339(event.received),
            payload: payload.map(ToOwned::to_owned),
            raw,
            causation: event.causation.map(gravity_model::Sequence::get),
            actor: event.actor.map(str::to_owned),
            traceparent: event.traceparent.map(str::to_owned),
            headers: event.headers.iter().map(|(name, value)| (name.to_owned(), readable(value))).collect(),
        }
    }
}
