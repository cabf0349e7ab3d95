//! Plain JSON: the whole message is the payload, the source's settings name the event.

use std::borrow::Cow;

use super::json::{check_json, pointer_text, text_in};
use super::{Decoded, EnvelopeOptions, Message, NameFrom, Undecodable, header_text, undecodable};

pub(super) fn plain<'a>(
    options: &EnvelopeOptions,
    message: &Message<'a>,
    text: &'a str,
) -> Result<Decoded<'a>, Undecodable> {
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

/// `text` is known to be JSON.
pub(super) fn named_plain<'a>(
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
pub(super) fn constant_name<'a>(options: &EnvelopeOptions, message: &Message<'a>) -> Option<Cow<'a, str>> {
    match options.event_from.as_ref()? {
        NameFrom::Constant(name) => Some(Cow::Owned(name.clone())),
        NameFrom::Subject => Some(Cow::Borrowed(message.subject)),
        NameFrom::Header(name) => header_text(message, name).filter(|n| !n.is_empty()).map(Cow::Borrowed),
        NameFrom::Field(_) => None,
    }
}
