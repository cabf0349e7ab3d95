//! A file's text with line numbers, and a range in it that a finding can point at.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A file as the caller read it; the name is what findings print (`rules/1.json`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

impl SourceFile {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> SourceFile {
        SourceFile { name: name.into(), text: text.into() }
    }
}

/// A file's text, without byte order mark, indexed by line.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Byte offset of each line's first byte.
    lines: Vec<usize>,
}

impl Source {
    pub fn new(file: &SourceFile) -> Source {
        let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text).to_owned();
        let lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        Source { name: file.name.clone(), text, lines }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line number of a byte offset, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// Byte offset at which a line (from 1) begins.
    pub fn line_start(&self, line: usize) -> usize {
        self.lines.get(line.max(1) - 1).copied().unwrap_or(self.text.len())
    }

    /// Column of a byte offset in characters, from 1.
    pub fn column(&self, at: usize) -> usize {
        let start = self.lines[self.line(at) - 1];
        self.text.get(start..at.min(self.text.len())).map_or(1, |before| before.chars().count() + 1)
    }

    /// The text of a line (from 1) without its line end.
    pub fn line_text(&self, line: usize) -> &str {
        let start = self.line_start(line);
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        self.text[start..end].trim_end_matches('\r')
    }
}

/// A range of bytes in a file.
#[derive(Clone, Debug)]
pub struct Place {
    source: Arc<Source>,
    range: Range<usize>,
}

impl Place {
    pub fn new(source: Arc<Source>, range: Range<usize>) -> Place {
        // Parsers count bytes: whole characters only.
        let start = source.text.floor_char_boundary(range.start);
        let range = start..source.text.ceil_char_boundary(range.end).max(start);
        Place { source, range }
    }

    /// Only the first character of the place.
    #[must_use]
    pub fn start(&self) -> Place {
        Place::new(self.source.clone(), self.range.start..self.range.start + 1)
    }

    /// A part of the text that this JSON string holds: `range` counts the bytes of the unescaped text. Where the place is no
    /// JSON string, the place itself.
    #[must_use]
    pub fn within_text(&self, range: Range<usize>) -> Place {
        let Some(raw) = self.text().strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
            return self.clone();
        };
        let (mut plain, mut at) = (0, 0);
        let (mut start, mut end) = (raw.len(), raw.len());
        while at < raw.len() {
            if plain >= range.start {
                start = start.min(at);
            }
            if plain >= range.end {
                end = at;
                break;
            }
            let (taken, gives) = piece(&raw[at..]);
            (at, plain) = (at + taken, plain + gives);
        }
        let first = self.range.start + 1;
        // The end of an expression has no character of its own: the closing quote stands for it.
        Place::new(self.source.clone(), first + start..first + end.max(start + 1))
    }

    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// From 1.
    pub fn line(&self) -> usize {
        self.source.line(self.range.start)
    }

    /// In characters, from 1.
    pub fn column(&self) -> usize {
        self.source.column(self.range.start)
    }

    pub fn source_line(&self) -> &str {
        self.source.line_text(self.line())
    }

    /// What stands there.
    pub fn text(&self) -> &str {
        &self.source.text[self.range.clone()]
    }

    /// Columns (characters, from 0) to underline in [`Place::source_line`]; at least one.
    pub fn caret(&self) -> Range<usize> {
        let start = self.column() - 1;
        let first_line = self.text().lines().next().unwrap_or("");
        start..start + first_line.chars().count().max(1)
    }
}

/// One character or escape of a JSON string: its bytes as written, and those of the text.
fn piece(raw: &str) -> (usize, usize) {
    let unit = |at: usize| raw.get(at..at + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    match (raw.chars().next(), raw.as_bytes().get(1)) {
        (Some('\\'), Some(b'u')) => match unit(2) {
            Some(0xd800..0xdc00) => (12.min(raw.len()), 4),
            Some(point) => (6.min(raw.len()), char::from_u32(point).map_or(3, char::len_utf8)),
            None => (2, 1),
        },
        (Some('\\'), Some(_)) => (2, 1),
        (Some(character), _) => (character.len_utf8(), character.len_utf8()),
        (None, _) => (1, 1),
    }
}

/// `file:line`, the form in which refusals and live findings name a rule.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file(), self.line())
    }
}
