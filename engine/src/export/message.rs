//! An exported message: CloudEvents 1.0 in binary mode, or the original's object. The same bytes on every retry (P7).

use bytes::Bytes;
use gravity_model::port::export::{Binding, Message};
use gravity_model::{LogId, Recorded, Sequence};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::control::message_id;
use crate::ingest::letters::readable;
use crate::parts::MessageFormat;

/// What the messages of one subscription have in common.
pub struct Letterhead {
    pub log_id: LogId,
    pub exporter: String,
    pub route: String,
    pub format: MessageFormat,
    pub binding: Binding,
}

impl Letterhead {
    /// The message for one event. `tables` are the views that show it; `effect` is the record of the retry at which it took
    /// effect, for an event that had been parked.
    pub fn write(&self, recorded: &Recorded<'_>, tables: &[&str], effect: Option<Sequence>) -> Message {
        let id = message_id(self.log_id, &self.exporter, &self.route, recorded.sequence).to_string();
        let event = &recorded.event;
        let body = match self.format {
            MessageFormat::CloudEvents => Bytes::copy_from_slice(event.payload.unwrap_or(b"null")),
            MessageFormat::Gravity => self.gravity_body(recorded, tables, effect, &id),
        };
        Message {
            headers: self.headers(recorded, tables, effect, &id),
            id,
            sequence: recorded.sequence,
            event: event.name.to_owned(),
            key: event.key.map(Bytes::copy_from_slice),
            content_type: "application/json",
            body,
        }
    }

    fn headers(
        &self,
        recorded: &Recorded<'_>,
        tables: &[&str],
        effect: Option<Sequence>,
        id: &str,
    ) -> Vec<(String, String)> {
        let event = &recorded.event;
        let prefix = match self.binding {
            Binding::Kafka => "ce_",
            Binding::Http => "ce-",
        };
        let mut headers = Vec::with_capacity(12);
        let mut put = |name: &str, value: &str| headers.push((format!("{prefix}{name}"), self.header_value(value)));
        put("specversion", "1.0");
        put("id", id);
        put("source", &format!("/gravity/{}/{}", self.log_id, self.route));
        put("type", event.name);
        put("time", &crate::clock::rfc3339(event.time.unwrap_or(event.received)));
        put("sequence", &recorded.sequence.to_string());
        if let Some(key) = event.key.and_then(|k| std::str::from_utf8(k).ok()) {
            put("partitionkey", key);
        }
        if !tables.is_empty() {
            put("tables", &tables.join(","));
        }
        if let Some(effect) = effect {
            put("effectsequence", &effect.to_string());
        }
        if let Some(traceparent) = event.traceparent {
            put("traceparent", traceparent);
            headers.push(("traceparent".to_owned(), self.header_value(traceparent)));
        }
        headers
    }

    /// HTTP header values are printable ASCII: everything else, `"` and `%` are percent-encoded, as the CloudEvents HTTP
    /// binding says (section 3.1.3.2). Kafka header values are UTF-8 as they are.
    fn header_value(&self, value: &str) -> String {
        if self.binding == Binding::Kafka {
            return value.to_owned();
        }
        let mut encoded = String::with_capacity(value.len());
        for byte in value.bytes() {
            match byte {
                b'"' | b'%' | b' ' | 0..=0x1f | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
                _ => encoded.push(byte as char),
            }
        }
        encoded
    }

    fn gravity_body(&self, recorded: &Recorded<'_>, tables: &[&str], effect: Option<Sequence>, id: &str) -> Bytes {
        #[derive(Serialize)]
        struct Body<'b> {
            event: &'b str,
            collection: Option<&'b str>,
            payload: &'b RawValue,
            meta: Meta<'b>,
        }
        #[derive(Serialize)]
        struct Meta<'b> {
            id: &'b str,
            sequence: u64,
            key: Option<String>,
            source: &'b str,
            time: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            effectsequence: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            traceparent: Option<&'b str>,
        }
        let event = &recorded.event;
        let text = event.payload.and_then(|p| std::str::from_utf8(p).ok()).unwrap_or("null");
        let payload: &RawValue = serde_json::from_str(text).unwrap_or(RawValue::NULL);
        let body = Body {
            event: event.name,
            collection: tables.first().copied(),
            payload,
            meta: Meta {
                id,
                sequence: recorded.sequence.get(),
                key: event.key.map(readable),
                source: event.source,
                time: crate::clock::rfc3339(event.time.unwrap_or(event.received)),
                effectsequence: effect.map(Sequence::get),
                traceparent: event.traceparent,
            },
        };
        Bytes::from(serde_json::to_vec(&body).expect("text keys and checked JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gravity_model::Event;

    fn letterhead(format: MessageFormat, binding: Binding) -> Letterhead {
        Letterhead { log_id: LogId([1; 16]), exporter: "e".into(), route: "db1".into(), format, binding }
    }

    fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
        message.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    #[test]
    fn a_cloudevent_carries_the_payload_as_received() {
        let event = Event {
            key: Some("k é".as_bytes()),
            time: Some(0),
            ..Event::data("userCreated", "web", b"{ \"n\": 1.10 }")
        };
        let recorded = Recorded { sequence: Sequence(7), event };
        let message = letterhead(MessageFormat::CloudEvents, Binding::Http).write(&recorded, &["users"], None);
        assert_eq!(&message.body[..], b"{ \"n\": 1.10 }");
        assert_eq!(header(&message, "ce-type"), Some("userCreated"));
        assert_eq!(header(&message, "ce-time"), Some("1970-01-01T00:00:00.000000Z"));
        assert_eq!(header(&message, "ce-partitionkey"), Some("k%20%C3%A9"));
        assert_eq!(header(&message, "ce-id"), Some(message.id.as_str()));
        let again =
            letterhead(MessageFormat::CloudEvents, Binding::Kafka).write(&recorded, &["users"], Some(Sequence(9)));
        assert_eq!(again.id, message.id, "the id does not depend on when or how it is sent");
        assert_eq!(header(&again, "ce_partitionkey"), Some("k é"));
        assert_eq!(header(&again, "ce_effectsequence"), Some("9"));
    }

    #[test]
    fn the_originals_object_keeps_digits() {
        let recorded = Recorded { sequence: Sequence(7), event: Event::data("e", "web", b"{\"n\":9007199254740993}") };
        let message = letterhead(MessageFormat::Gravity, Binding::Http).write(&recorded, &["users"], None);
        let text = std::str::from_utf8(&message.body).expect("text");
        assert!(
            text.starts_with(r#"{"event":"e","collection":"users","payload":{"n":9007199254740993},"meta":{"id":""#),
            "{text}"
        );
    }
}
