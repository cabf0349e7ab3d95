//! A message's properties and header table as the headers of an event, and an event's as properties. Pure.

use gravity_model::port::export::Message;
use gravity_model::{HeaderBuf, Micros};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value};

/// The broker's own count of deliveries in a quorum queue: it differs where the message is the same.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Marks every delivery of a stream.
const STREAM_OFFSET: &str = "x-stream-offset";
/// Survives a restart of the broker in a durable queue.
const PERSISTENT: u8 = 2;

/// Adds the header table, names in its order, and then those properties that speak of the event.
pub(super) fn write_headers(properties: &BasicProperties, headers: &mut HeaderBuf) {
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if name.as_str() != DELIVERY_COUNT {
            headers.push(name.as_str(), &header_value(value));
        }
    }
    let named = [
        ("content-type", properties.content_type()),
        ("content-encoding", properties.content_encoding()),
        ("correlation-id", properties.correlation_id()),
        ("reply-to", properties.reply_to()),
        ("message-id", properties.message_id()),
        ("type", properties.kind()),
        ("user-id", properties.user_id()),
        ("app-id", properties.app_id()),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            headers.push(name, value.as_str().as_bytes());
        }
    }
}

/// The publisher's time, which AMQP carries in seconds.
pub(super) fn time(properties: &BasicProperties) -> Option<Micros> {
    properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1_000_000))
}

/// The publisher's id; an empty one is none.
pub(super) fn message_id(properties: &BasicProperties) -> Option<&str> {
    properties.message_id().as_ref().map(|id| id.as_str()).filter(|id| !id.is_empty())
}

/// A stream forgets nothing and acknowledges nothing: read as a queue it would begin anew at every connection.
pub(super) fn is_of_stream(properties: &BasicProperties) -> bool {
    properties.headers().as_ref().is_some_and(|table| table.inner().keys().any(|name| name.as_str() == STREAM_OFFSET))
}

/// Text and bytes as they are, numbers in decimal, tables and lists in JSON.
fn header_value(value: &AMQPValue) -> Vec<u8> {
    match value {
        AMQPValue::LongString(text) => text.as_bytes().to_vec(),
        AMQPValue::ShortString(text) => text.as_str().as_bytes().to_vec(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().to_vec(),
        AMQPValue::Void => Vec::new(),
        other => match json(other) {
            Value::String(text) => text.into_bytes(),
            other => other.to_string().into_bytes(),
        },
    }
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(on) => Value::from(*on),
        AMQPValue::ShortShortInt(n) => Value::from(*n),
        AMQPValue::ShortShortUInt(n) => Value::from(*n),
        AMQPValue::ShortInt(n) => Value::from(*n),
        AMQPValue::ShortUInt(n) => Value::from(*n),
        AMQPValue::LongInt(n) => Value::from(*n),
        AMQPValue::LongUInt(n) => Value::from(*n),
        AMQPValue::LongLongInt(n) => Value::from(*n),
        AMQPValue::Timestamp(seconds) => Value::from(*seconds),
        // Through its shortest text: 0.1 stays 0.1.
        AMQPValue::Float(n) => n.to_string().parse().map_or(Value::Null, |n: f64| Value::from(n)),
        AMQPValue::Double(n) => Value::from(*n),
        AMQPValue::DecimalValue(n) => Value::String(decimal(n.value, n.scale)),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::LongString(text) => Value::from(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ByteArray(bytes) => Value::from(String::from_utf8_lossy(bytes.as_slice())),
        AMQPValue::FieldArray(list) => Value::from(list.as_slice().iter().map(json).collect::<Vec<_>>()),
        AMQPValue::FieldTable(table) => {
            let fields = table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), json(value)));
            Value::from(fields.collect::<Map<_, _>>())
        }
        AMQPValue::Void => Value::Null,
    }
}

/// `value` with `scale` digits behind the point.
fn decimal(value: u32, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{value:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

/// A message as it is sent: the id that is the same on every retry, kept by durable queues.
pub(super) fn of_message(message: &Message) -> BasicProperties {
    let mut table = FieldTable::default();
    let mut content_type = message.content_type;
    for (name, value) in &message.headers {
        if name.eq_ignore_ascii_case("content-type") {
            content_type = value;
        } else {
            table.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
        }
    }
    BasicProperties::default()
        .with_message_id(message.id.as_str().into())
        .with_content_type(content_type.into())
        .with_type(message.event.as_str().into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(table)
}

/// Bytes of the properties of a message on the wire, at most: they must fit one frame.
pub(super) fn size(message: &Message) -> usize {
    // Per header its name's length, its value's type and length; around them all the fixed properties.
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    headers + message.id.len() + message.event.len() + message.content_type.len() + 128
}

/// AMQP's short strings.
pub(super) const LONGEST_SHORT: usize = 255;

/// What of the message is too long for AMQP.
pub(super) fn too_long(message: &Message) -> Option<&'static str> {
    let named = [("id", message.id.len()), ("event name", message.event.len())];
    let header = message.headers.iter().map(|(name, _)| ("header name", name.len()));
    named.into_iter().chain(header).find(|(_, len)| *len > LONGEST_SHORT).map(|(what, _)| what)
}

#[cfg(test)]
mod tests {
    use gravity_model::Headers;
    use lapin::types::{DecimalValue, FieldArray};

    use super::*;

    #[test]
    fn every_kind_of_header_has_a_text() {
        let mut inner = FieldTable::default();
        inner.insert("n".into(), AMQPValue::LongLongInt(i64::MIN));
        let cases: [(&str, AMQPValue, &[u8]); 9] = [
            ("text", AMQPValue::LongString("é\u{0}".into()), "é\u{0}".as_bytes()),
            ("raw", AMQPValue::LongString(vec![0_u8, 255].into()), &[0, 255]),
            ("yes", AMQPValue::Boolean(true), b"true"),
            ("float", AMQPValue::Float(0.1), b"0.1"),
            ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 3, value: 45 }), b"0.045"),
            ("time", AMQPValue::Timestamp(u64::MAX), b"18446744073709551615"),
            ("void", AMQPValue::Void, b""),
            ("table", AMQPValue::FieldTable(inner), b"{\"n\":-9223372036854775808}"),
            (
                "list",
                AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongInt(1), AMQPValue::Void])),
                b"[1,null]",
            ),
        ];
        for (name, value, text) in cases {
            assert_eq!(header_value(&value), text, "{name}");
        }
    }

    #[test]
    fn the_brokers_count_is_left_out_and_properties_stand_behind_headers() {
        let mut table = FieldTable::default();
        table.insert("a".into(), AMQPValue::LongString("1".into()));
        table.insert(DELIVERY_COUNT.into(), AMQPValue::LongLongInt(3));
        let properties = BasicProperties::default()
            .with_headers(table)
            .with_content_type("application/json".into())
            .with_message_id("m".into())
            .with_timestamp(7);
        let mut headers = HeaderBuf::new();
        write_headers(&properties, &mut headers);
        let headers = Headers::from_encoded(headers.as_encoded()).expect("encoded by us");
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("a", b"1".as_slice()), ("content-type", b"application/json"), ("message-id", b"m")]);
        assert_eq!((time(&properties), message_id(&properties)), (Some(7_000_000), Some("m")));
        assert_eq!(message_id(&BasicProperties::default().with_message_id("".into())), None);
        assert!(!is_of_stream(&properties));
    }

    #[test]
    fn decimals_keep_their_digits() {
        for (value, scale, text) in [(5, 0, "5"), (5, 1, "0.5"), (12345, 2, "123.45"), (0, 2, "0.00")] {
            assert_eq!(decimal(value, scale), text);
        }
    }
}
