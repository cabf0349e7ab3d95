//! CloudEvents 1.0: structured in the payload, binary in the headers.

use std::borrow::Cow;

use gravity_model::HeaderBuf;
use serde_json::value::RawValue;

use super::json::{TopLevel, check_json, json_payload, optional_text, optional_time, parse_time, text_bytes, text_of};
use super::{Decoded, Message, Undecodable, excerpt, header_text, undecodable};

pub(super) fn structured<'a>(fields: &TopLevel<'a>, extra: &mut HeaderBuf) -> Result<Decoded<'a>, Undecodable> {
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
        captured: None,
        row: None,
    })
}

pub(super) fn binary<'a>(message: &Message<'a>) -> Result<Decoded<'a>, Undecodable> {
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
        captured: None,
        row: None,
    })
}

/// A CloudEvents attribute in any binding's spelling: `ce-`, `ce_`, `cloudEvents_`.
pub(super) fn attribute<'a>(message: &Message<'a>, name: &str) -> Option<&'a str> {
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
