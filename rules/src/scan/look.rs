//! One place of a payload, found while all of it is checked: what decoding a message asks before any rule is known.

use std::ops::Range;

use super::{Failed, Scanner, unescape};

/// What stands at a JSON pointer, and that all of `json` is JSON: the outer `None` says that the scan refuses it (broken, or
/// nested deeper than [`super::MAX_DEPTH`]), the inner one that nothing stands there. The pointer `""` is the whole
/// document. Of duplicate keys the last counts.
pub fn look<'p>(json: &'p str, pointer: &str) -> Option<Option<&'p str>> {
    let Some(path) = pointer.strip_prefix('/') else {
        let whole = child(json, None).ok()?;
        return Some(whole.filter(|_| pointer.is_empty()));
    };
    let mut found = Some(json);
    for segment in path.split('/') {
        let Some(value) = found else { return Some(None) };
        found = match segment.contains('~') {
            false => child(value, Some(segment)).ok()?,
            true => child(value, Some(&segment.replace("~1", "/").replace("~0", "~"))).ok()?,
        };
    }
    Some(found)
}

/// What stands under `segment` in the object or array that `json` is; without a segment `json` itself. Reads to the end.
fn child<'p>(json: &'p str, segment: Option<&str>) -> Result<Option<&'p str>, Failed> {
    let mut scanner = Scanner::new(json.as_bytes(), 0);
    let mut found = None;
    scanner.space();
    match (scanner.peek(), segment) {
        (b'{', Some(name)) => {
            scanner.enter(0)?;
            while !scanner.closes(b'}') {
                let key = scanner.key()?;
                let value = &json[scanner.value()?];
                let raw = &json[key.start..key.end];
                if raw == name || (key.escaped && unescape(raw.as_bytes()) == name) {
                    found = Some(value);
                }
            }
        }
        (b'[', Some(index)) => {
            // Written as JSON pointers write them: neither sign nor leading zero.
            let wanted = index.parse::<usize>().ok().filter(|wanted| wanted.to_string() == index);
            let mut at = 0;
            scanner.enter(0)?;
            while !scanner.closes(b']') {
                let value = &json[scanner.value()?];
                if wanted == Some(at) {
                    found = Some(value);
                }
                at += 1;
            }
        }
        (_, segment) => {
            scanner.skip(0)?;
            found = segment.is_none().then_some(json);
        }
    }
    scanner.space();
    if scanner.at < json.len() { Err(Failed) } else { Ok(found) }
}

impl Scanner<'_> {
    /// Where a member's or element's value stands; the cursor ends behind it and what separates it from the next.
    fn value(&mut self) -> Result<Range<usize>, Failed> {
        let start = self.at;
        self.skip(1)?;
        let value = start..self.at;
        self.space();
        if self.peek() == b',' {
            self.at += 1;
            self.space();
            // A comma is followed by another one of its kind.
            if matches!(self.peek(), b'}' | b']') {
                return Err(Failed);
            }
        } else if !matches!(self.peek(), b'}' | b']') {
            return Err(Failed);
        }
        Ok(value)
    }

    /// Steps over the closing bracket, when it comes next.
    fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.peek() == bracket;
        self.at += usize::from(closes);
        closes
    }
}
