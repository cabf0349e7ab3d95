//! Splits the body of one request into the messages it carries, each with its place for error messages.

use gravity_model::Headers;
use serde_json::value::RawValue;

use crate::ingest::request::IntakeError;

/// The messages of one request.
#[derive(Debug)]
pub struct Items<'r> {
    pub items: Vec<Item<'r>>,
    pub content_type: Option<&'r str>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Item<'r> {
    pub bytes: &'r [u8],
    /// Where the item begins in the body, 1-based.
    pub line: usize,
    pub column: usize,
}

/// One object, a JSON array of them, or one a line; by content type. Empty lines of NDJSON are left out.
pub fn split<'r>(
    content_type: Option<&'r str>,
    headers: Headers<'_>,
    body: &'r [u8],
) -> Result<Items<'r>, IntakeError> {
    let kind = content_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let binary_cloudevent = headers.get("ce-specversion").is_some();
    let items = match kind.as_str() {
        _ if binary_cloudevent && !kind.starts_with("application/cloudevents") => vec![whole(body)],
        "application/json" | "application/cloudevents+json" | "application/cloudevents-batch+json" | "text/json" => {
            match body.trim_ascii_start().first() {
                Some(b'[') => array(body)?,
                _ => vec![whole(body)],
            }
        }
        "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => lines(body),
        _ => return Err(IntakeError::UnsupportedMedia { found: kind }),
    };
    if items.is_empty() {
        return Err(IntakeError::Malformed {
            line: 1,
            column: 1,
            code: "intake/empty",
            detail: "the request carries no event".to_owned(),
        });
    }
    Ok(Items { items, content_type })
}

fn whole(body: &[u8]) -> Item<'_> {
    Item { bytes: body, line: 1, column: 1 }
}

fn array(body: &[u8]) -> Result<Vec<Item<'_>>, IntakeError> {
    let fail = |line, column, detail| IntakeError::Malformed { line, column, code: "decode/not-json", detail };
    let text = std::str::from_utf8(body).map_err(|error| {
        let (line, column) = place(&body[..error.valid_up_to()]);
        IntakeError::Malformed { line, column, code: "decode/not-utf8", detail: "not UTF-8".to_owned() }
    })?;
    let parsed: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|error| fail(error.line(), error.column(), error.to_string()))?;
    let mut places = Places { body, at: 0, line: 1, column: 1 };
    Ok(parsed
        .into_iter()
        .map(|raw| {
            let bytes = raw.get().as_bytes();
            let offset = bytes.as_ptr().addr() - body.as_ptr().addr();
            let (line, column) = places.advance(offset);
            Item { bytes, line, column }
        })
        .collect())
}

fn lines(body: &[u8]) -> Vec<Item<'_>> {
    let numbered = body.split(|byte| *byte == b'\n').enumerate();
    numbered
        .map(|(index, line)| (index + 1, line.strip_suffix(b"\r").unwrap_or(line)))
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(line, bytes)| Item { bytes, line, column: 1 })
        .collect()
}

fn place(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.len() - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) + 1;
    (line, column)
}

/// Walks a body once, forward, to number lines and columns of growing offsets.
struct Places<'b> {
    body: &'b [u8],
    at: usize,
    line: usize,
    column: usize,
}

impl Places<'_> {
    fn advance(&mut self, offset: usize) -> (usize, usize) {
        for byte in &self.body[self.at..offset] {
            if *byte == b'\n' {
                (self.line, self.column) = (self.line + 1, 1);
            } else {
                self.column += 1;
            }
        }
        self.at = offset;
        (self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, body: &str, expect: &[(&str, usize, usize)]) {
        let items = split(Some(kind), Headers::EMPTY, body.as_bytes()).expect("readable").items;
        let got: Vec<_> =
            items.iter().map(|i| (std::str::from_utf8(i.bytes).expect("text"), i.line, i.column)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn items_know_their_place() {
        check("application/json", "{}", &[("{}", 1, 1)]);
        check("application/json", "[{\"a\":1},\n  {}]", &[("{\"a\":1}", 1, 2), ("{}", 2, 3)]);
        check("application/x-ndjson; charset=utf-8", "{}\r\n\n[1]\n", &[("{}", 1, 1), ("[1]", 3, 1)]);
    }

    #[test]
    fn other_media_types_and_empty_bodies_are_refused() {
        let fail = |kind, body: &'static str| split(Some(kind), Headers::EMPTY, body.as_bytes()).expect_err("refused");
        assert_eq!(fail("text/csv", "a").code(), "intake/media-type");
        assert_eq!(fail("application/json", "[]").code(), "intake/empty");
        assert_eq!(fail("application/x-ndjson", "\n").code(), "intake/empty");
        assert_eq!(fail("application/json", "[{},").code(), "decode/not-json");
    }
}
