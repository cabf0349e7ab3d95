//! CSV by RFC 4180: a header, quoted fields with commas and line breaks in them. Each row becomes one event.

use std::io::BufRead;

use serde_json::Value;
use serde_json::value::RawValue;

/// Rows of a file, after its header.
pub struct Csv<R> {
    content: R,
    columns: Vec<String>,
    is_json: Vec<bool>,
    event: String,
    /// Index of the column that holds the event key.
    key: Option<usize>,
    line: u64,
}

/// One row as the event it makes, or why it makes none.
pub struct Row {
    /// Where it begins.
    pub line: u64,
    pub bytes: u64,
    pub json: Result<Vec<u8>, String>,
}

/// A field, and whether it stood in quotes: an empty one without them is null.
type Field = (String, bool);

/// Longest row: a quote that is never closed must not gather the rest of the file.
const LONGEST_ROW: usize = 16 << 20;

impl<R: BufRead> Csv<R> {
    /// Reads the header. The error is in words, about line 1.
    pub fn open(content: R, event: &str, key: Option<&str>, json_columns: &[String]) -> Result<Csv<R>, String> {
        let mut csv =
            Csv { content, columns: Vec::new(), is_json: Vec::new(), event: event.to_owned(), key: None, line: 0 };
        let header =
            csv.fields().map_err(|error| error.to_string())?.ok_or("the file is empty: a header is missing")?;
        let header = header.2?;
        csv.columns = header.into_iter().map(|(name, _)| name.trim_start_matches('\u{feff}').to_owned()).collect();
        let index = |wanted: &str, flag: &str| {
            csv.columns
                .iter()
                .position(|column| column == wanted)
                .ok_or_else(|| format!("{flag} names column {wanted:?}; the header has: {}", csv.columns.join(", ")))
        };
        if let Some(twice) = csv.columns.iter().enumerate().find(|(at, name)| csv.columns[..*at].contains(name)) {
            return Err(format!("column {:?} stands twice in the header", twice.1));
        }
        let key = key.map(|key| index(key, "--key")).transpose()?;
        let mut is_json = vec![false; csv.columns.len()];
        for column in json_columns {
            is_json[index(column, "--json-columns")?] = true;
        }
        (csv.key, csv.is_json) = (key, is_json);
        Ok(csv)
    }

    /// The next row; empty lines are passed.
    pub fn next(&mut self) -> std::io::Result<Option<Row>> {
        let mut passed = 0;
        loop {
            let Some((line, bytes, fields)) = self.fields()? else { return Ok(None) };
            if let Ok(fields) = &fields
                && matches!(&fields[..], [(text, false)] if text.is_empty())
            {
                passed += bytes;
                continue;
            }
            let json = fields.and_then(|fields| self.event(fields));
            return Ok(Some(Row { line, bytes: passed + bytes, json }));
        }
    }

    fn event(&self, fields: Vec<Field>) -> Result<Vec<u8>, String> {
        let (found, wanted) = (fields.len(), self.columns.len());
        if found != wanted {
            return Err(format!("{found} fields, the header has {wanted}"));
        }
        let key = match self.key.map(|at| &fields[at]) {
            Some((text, is_quoted)) if !text.is_empty() || *is_quoted => {
                format!(",\"key\":{}", Value::from(text.as_str()))
            }
            _ => String::new(),
        };
        let mut out = format!("{{\"event\":{}{key},\"payload\":{{", Value::from(self.event.as_str()));
        for (at, (text, is_quoted)) in fields.iter().enumerate() {
            let name = &self.columns[at];
            if at > 0 {
                out.push(',');
            }
            out.push_str(&Value::from(name.as_str()).to_string());
            out.push(':');
            if text.is_empty() && !is_quoted {
                out.push_str("null");
            } else if self.is_json[at] {
                let raw: &RawValue = serde_json::from_str(text).map_err(|_| {
                    format!("column {name:?} holds no JSON: {:?}", text.chars().take(40).collect::<String>())
                })?;
                // A line break inside would end the line of the batch.
                out.push_str(&raw.get().replace(['\n', '\r'], " "));
            } else {
                out.push_str(&Value::from(text.as_str()).to_string());
            }
        }
        out.push_str("}}");
        Ok(out.into_bytes())
    }

    /// Line, bytes and fields of the next row.
    #[expect(clippy::type_complexity, reason = "named parts of one private answer")]
    fn fields(&mut self) -> std::io::Result<Option<(u64, u64, Result<Vec<Field>, String>)>> {
        let mut raw = Vec::new();
        let first_line = self.line + 1;
        loop {
            let before = raw.len();
            if self.content.read_until(b'\n', &mut raw)? == 0 {
                if before == 0 {
                    return Ok(None);
                }
                return Ok(Some((first_line, before as u64, Err("a quoted field is not closed".to_owned()))));
            }
            self.line += 1;
            let row = std::str::from_utf8(&raw).map_err(|_| "not UTF-8".to_owned());
            let fields = match row {
                Err(why) => Err(why),
                Ok(text) => match split(text) {
                    Ok(Some(fields)) => Ok(fields),
                    Ok(None) if raw.len() < LONGEST_ROW => continue,
                    Ok(None) => {
                        Err(format!("the row is longer than {} MiB: is a quote not closed?", LONGEST_ROW >> 20))
                    }
                    Err(why) => Err(why.to_owned()),
                },
            };
            return Ok(Some((first_line, raw.len() as u64, fields)));
        }
    }
}

/// The fields of a row; `None` where a quoted field goes on in the next line.
fn split(row: &str) -> Result<Option<Vec<Field>>, &'static str> {
    let row = row.strip_suffix('\n').map_or(row, |row| row.strip_suffix('\r').unwrap_or(row));
    let mut fields = Vec::new();
    let mut rest = row;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut text = String::new();
                let mut inner = quoted;
                loop {
                    let Some(at) = inner.find('"') else { return Ok(None) };
                    text.push_str(&inner[..at]);
                    inner = &inner[at + 1..];
                    match inner.strip_prefix('"') {
                        Some(after) => {
                            text.push('"');
                            inner = after;
                        }
                        None => break,
                    }
                }
                ((text, true), inner)
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let text = &rest[..end];
                if text.contains('"') {
                    return Err("a quote inside a field that does not begin with one");
                }
                ((text.to_owned(), false), &rest[end..])
            }
        };
        fields.push(field);
        match behind.strip_prefix(',') {
            Some(after) => rest = after,
            None if behind.is_empty() => return Ok(Some(fields)),
            None => return Err("text behind a closing quote"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let json = ["n".to_owned()];
        let mut csv = Csv::open(text.as_bytes(), "e", Some("id"), &json).expect("a header");
        let mut got = Vec::new();
        while let Some(row) = csv.next().expect("memory") {
            got.push(match row.json {
                Ok(json) => format!("{} {}", row.line, String::from_utf8_lossy(&json).replace("{\"event\":\"e\",", "")),
                Err(why) => format!("{} {why}", row.line),
            });
        }
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn rows_become_events() {
        check("id,n\n1,2\n", &[r#"2 "key":"1","payload":{"id":"1","n":2}}"#]);
        check(
            "id,n\r\n\"a,\"\"b\"\"\r\nc\",\r\n",
            &["2 \"key\":\"a,\\\"b\\\"\\r\\nc\",\"payload\":{\"id\":\"a,\\\"b\\\"\\r\\nc\",\"n\":null}}"],
        );
        check("id,n\n\n,\"[1,\n2]\"", &[r#"3 "payload":{"id":null,"n":[1, 2]}}"#]);
        check("\u{feff}id,n\n\"\",true", &[r#"2 "key":"","payload":{"id":"","n":true}}"#]);
    }

    #[test]
    fn bad_rows_have_their_line_and_the_rest_goes_on() {
        check(
            "id,n\n1\nx\"y,1\n\"a\"b,1\n7,x\n8,1\n\"open,1\n",
            &[
                "2 1 fields, the header has 2",
                "3 a quote inside a field that does not begin with one",
                "4 text behind a closing quote",
                "5 column \"n\" holds no JSON: \"x\"",
                r#"6 "key":"8","payload":{"id":"8","n":1}}"#,
                "7 a quoted field is not closed",
            ],
        );
    }

    #[test]
    fn bad_headers_are_refused() {
        let open = |text: &'static str, json: &[String]| Csv::open(text.as_bytes(), "e", Some("id"), json).err();
        assert!(open("", &[]).is_some_and(|why| why.contains("header is missing")));
        assert!(open("a,b\n", &[]).is_some_and(|why| why.contains("--key") && why.contains("a, b")));
        assert!(open("id,id\n", &[]).is_some_and(|why| why.contains("twice")));
        assert!(open("id,b\n", &["c".to_owned()]).is_some_and(|why| why.contains("--json-columns")));
    }
}
