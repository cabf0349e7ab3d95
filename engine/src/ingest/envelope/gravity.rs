//! The original's envelope: `{"event": NAME, "payload": …}`, with optional id, key, time and trace context.

use super::json::{TopLevel, json_payload, optional_text, optional_time, text_bytes, text_of};
use super::{Decoded, Undecodable, undecodable};

pub(super) fn gravity<'a>(fields: &TopLevel<'a>) -> Result<Decoded<'a>, Undecodable> {
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
        captured: None,
        row: None,
    })
}
