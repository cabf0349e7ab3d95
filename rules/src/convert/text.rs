//! Text and JSON documents: cut out of the payload, copied only when there is something to unescape.

use std::sync::Arc;

use bytes::Bytes;
use gravity_model::Text;

use super::{Given, Reject, share, time};
use crate::codes;
use crate::scan;

/// `None` when the given value is no text.
pub(super) fn text(
    given: Given<'_>,
    most_chars: Option<u32>,
    refuse_nul: bool,
    records: Option<&Arc<Bytes>>,
) -> Option<Result<Text, Reject>> {
    let text = match given {
        Given::Text { token, escaped: false } => share(&token[1..token.len() - 1], records),
        Given::Text { token, escaped: true } => {
            let text = scan::unescape(&token[1..token.len() - 1]);
            // A raw NUL is no JSON, so only unescaped text can hold one.
            if refuse_nul && text.contains('\0') {
                return Some(Err(nul()));
            }
            Text::from(text)
        }
        Given::Plain(_) | Given::Bytes(_) => {
            let text = given.text()?;
            if refuse_nul && text.contains('\0') {
                return Some(Err(nul()));
            }
            Text::from(&*text)
        }
        Given::Micros(micros) => Text::from(time::timestamp_text(micros, true)),
        Given::Count(count) => Text::from(count.to_string()),
        _ => return None,
    };
    Some(match most_chars {
        Some(most) => check_length(text, most),
        None => Ok(text),
    })
}

/// Length in characters, as databases count it.
pub(super) fn check_length(text: Text, most: u32) -> Result<Text, Reject> {
    if text.len() > most as usize {
        let chars = text.as_str().chars().count();
        if chars > most as usize {
            return Err(Reject::new(
                codes::TOO_LONG,
                format!("the text has {chars} characters, the column takes {most}"),
            ));
        }
    }
    Ok(text)
}

/// The document as received.
pub(super) fn json(given: Given<'_>, refuse_nul: bool, records: Option<&Arc<Bytes>>) -> Result<Text, Reject> {
    Ok(match given {
        Given::Null => Text::from("null"),
        Given::Bool(true) => Text::from("true"),
        Given::Bool(false) => Text::from("false"),
        Given::Number(raw) | Given::Text { token: raw, .. } | Given::Composite { raw, .. } => {
            if refuse_nul && holds_escaped_nul(raw) {
                return Err(nul());
            }
            share(raw, records)
        }
        Given::Plain(text) => Text::from(quote(text)),
        Given::Bytes(_) => match given.text() {
            Some(text) => Text::from(quote(&text)),
            None => {
                let message = format!("no json can be read from {}: it is not UTF-8", given.excerpt());
                return Err(Reject::new(codes::UNREADABLE, message));
            }
        },
        Given::Micros(micros) => Text::from(quote(&time::timestamp_text(micros, true))),
        Given::Count(count) => Text::from(count.to_string()),
    })
}

/// True when a `\u0000` stands in the document that is not itself behind an escaped backslash.
fn holds_escaped_nul(raw: &[u8]) -> bool {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        if rest[at..].starts_with(b"\\u0000") {
            return true;
        }
        rest = rest.get(at + 2..).unwrap_or(&[]);
    }
    false
}

/// A JSON string token.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn nul() -> Reject {
    Reject::new(codes::NUL_IN_TEXT, "the text holds the character NUL, which PostgreSQL cannot store")
}
