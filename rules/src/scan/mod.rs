//! One pass over the raw bytes of a payload: checks all of it, keeps where the wanted paths stand, builds nothing.
//!
//! The whole text is validated (UTF-8, grammar, surrogates, depth), also behind the last wanted path: what is refused must
//! not depend on where in the payload it stands. Of duplicate keys the last counts, as in serde_json.

mod look;

pub use look::look;

use crate::trie::{Node, Trie};

/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 64;

/// What stands at a wanted path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// The payload has no such path. Not the same as null.
    #[default]
    Absent,
    Null,
    True,
    False,
    Number,
    /// Text without `\`: its bytes are its characters.
    Text,
    /// Text that has to be unescaped.
    EscapedText,
    Object,
    Array,
}

/// A token or a whole composite value: bytes `start..end` of the payload, quotes and brackets included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Slot {
    pub start: u32,
    pub end: u32,
    pub kind: Kind,
}

/// Why a payload is no JSON that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanError {
    /// Byte offset.
    pub at: usize,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Syntax(&'static str),
    NotUtf8,
    TooDeep,
    /// 4 GiB or more.
    TooLarge,
}

/// Fills `slots` (one per wanted path, all absent before) and, where `fields` is given, appends the byte range of every
/// top-level key, without quotes.
pub fn scan(
    payload: &[u8],
    trie: &Trie,
    slots: &mut [Slot],
    fields: Option<&mut Vec<(u32, u32)>>,
) -> Result<(), ScanError> {
    if u32::try_from(payload.len()).is_err() {
        return Err(ScanError { at: 0, reason: Reason::TooLarge });
    }
    if let Err(error) = std::str::from_utf8(payload) {
        return Err(ScanError { at: error.valid_up_to(), reason: Reason::NotUtf8 });
    }
    let mut scanner = Scanner::new(payload, 0);
    match scanner.document(trie, slots, fields) {
        Ok(()) => Ok(()),
        Err(Failed) => Err(scanner.error.unwrap_or(ScanError { at: scanner.at, reason: Reason::Syntax("no JSON") })),
    }
}

/// True when the bytes are exactly one number of JSON's grammar.
pub(crate) fn is_number(bytes: &[u8]) -> bool {
    let mut scanner = Scanner::new(bytes, 0);
    scanner.number().is_ok() && scanner.at == bytes.len()
}

/// The elements of a JSON array that was scanned before; each is given as its slot relative to `array`.
pub(crate) fn elements(array: &[u8], mut each: impl FnMut(Slot)) {
    let mut scanner = Scanner::new(array, 1);
    scanner.space();
    loop {
        let start = scanner.at;
        // The closing bracket of an empty array is no value.
        let Ok(kind) = scanner.skip(0) else { return };
        each(Slot { start: start as u32, end: scanner.at as u32, kind });
        scanner.space();
        if scanner.peek() != b',' {
            return;
        }
        scanner.at += 1;
        scanner.space();
    }
}

/// Where a key stands, without its quotes.
#[derive(Clone, Copy)]
struct Key {
    start: usize,
    end: usize,
    escaped: bool,
}

struct Scanner<'p> {
    bytes: &'p [u8],
    at: usize,
    /// Set where a method answers [`Failed`]: results are then one byte and stay in registers.
    error: Option<ScanError>,
}

struct Failed;

impl<'p> Scanner<'p> {
    fn new(bytes: &'p [u8], at: usize) -> Scanner<'p> {
        Scanner { bytes, at, error: None }
    }

    /// The next byte; NUL at the end, which is allowed nowhere outside of text.
    #[inline(always)]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn space(&mut self) {
        // Compact payloads have no white space: one comparison each.
        if self.peek() <= b' ' {
            while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
                self.at += 1;
            }
        }
    }

    #[cold]
    fn error(&mut self, reason: &'static str) -> Failed {
        self.fail(Reason::Syntax(reason))
    }

    #[cold]
    fn fail(&mut self, reason: Reason) -> Failed {
        self.error = Some(ScanError { at: self.at, reason });
        Failed
    }

    fn document(
        &mut self,
        trie: &Trie,
        slots: &mut [Slot],
        fields: Option<&mut Vec<(u32, u32)>>,
    ) -> Result<(), Failed> {
        self.space();
        match fields {
            Some(fields) if self.peek() == b'{' => self.top_level(trie, slots, fields)?,
            _ => self.read(trie, trie.root(), slots, 0)?,
        }
        self.space();
        if self.at < self.bytes.len() {
            return Err(self.error("text after the end of the document"));
        }
        Ok(())
    }

    /// Reads the value at the cursor, which belongs to `node`.
    fn read(&mut self, trie: &Trie, node: &Node, slots: &mut [Slot], depth: usize) -> Result<(), Failed> {
        let start = self.at as u32;
        let kind = match self.peek() {
            b'{' if !node.names.is_empty() => {
                self.object(trie, node, slots, depth)?;
                Kind::Object
            }
            b'[' if !node.indices.is_empty() => {
                self.array(trie, node, slots, depth)?;
                Kind::Array
            }
            _ => self.skip(depth)?,
        };
        for slot in &node.slots {
            slots[*slot as usize] = Slot { start, end: self.at as u32, kind };
        }
        Ok(())
    }

    fn object(&mut self, trie: &Trie, node: &Node, slots: &mut [Slot], depth: usize) -> Result<(), Failed> {
        self.enter(depth)?;
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let name = self.key()?;
            self.member(trie, node, name, slots, depth)?;
            self.space();
            match self.peek() {
                b',' => {
                    self.at += 1;
                    self.space();
                }
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error("`,` or `}` was expected")),
            }
        }
    }

    /// The payload's own object, when someone wants to know of every field.
    fn top_level(&mut self, trie: &Trie, slots: &mut [Slot], fields: &mut Vec<(u32, u32)>) -> Result<(), Failed> {
        self.enter(0)?;
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let name = self.key()?;
            fields.push((name.start as u32, name.end as u32));
            self.member(trie, trie.root(), name, slots, 0)?;
            self.space();
            match self.peek() {
                b',' => {
                    self.at += 1;
                    self.space();
                }
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error("`,` or `}` was expected")),
            }
        }
    }

    #[inline]
    fn member(&mut self, trie: &Trie, node: &Node, name: Key, slots: &mut [Slot], depth: usize) -> Result<(), Failed> {
        let child = match name.escaped {
            true => node.named(unescape(&self.bytes[name.start..name.end]).as_bytes()),
            false => node.named_at(self.bytes, name.start, name.end),
        };
        match child {
            Some(child) => {
                let child = trie.node(child);
                for slot in &child.below {
                    slots[*slot as usize] = Slot::default();
                }
                self.read(trie, child, slots, depth + 1)
            }
            None => self.skip(depth + 1).map(drop),
        }
    }

    fn array(&mut self, trie: &Trie, node: &Node, slots: &mut [Slot], depth: usize) -> Result<(), Failed> {
        self.enter(depth)?;
        if self.peek() == b']' {
            self.at += 1;
            return Ok(());
        }
        let mut index = 0u32;
        loop {
            match node.indexed(index) {
                Some(child) => self.read(trie, trie.node(child), slots, depth + 1)?,
                None => drop(self.skip(depth + 1)?),
            }
            index = index.saturating_add(1);
            self.space();
            match self.peek() {
                b',' => {
                    self.at += 1;
                    self.space();
                }
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error("`,` or `]` was expected")),
            }
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), Failed> {
        if depth >= MAX_DEPTH {
            return Err(self.fail(Reason::TooDeep));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Steps over a value of any kind without recursion: the open brackets are the bits of one word.
    fn skip(&mut self, depth_above: usize) -> Result<Kind, Failed> {
        let mut first = None;
        let mut objects: u64 = 0;
        let mut depth = 0;
        loop {
            let kind = match self.peek() {
                b'"' => {
                    self.at += 1;
                    if self.string()? { Kind::EscapedText } else { Kind::Text }
                }
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                    Kind::Number
                }
                open @ (b'{' | b'[') => {
                    self.enter(depth_above + depth)?;
                    depth += 1;
                    let object = open == b'{';
                    objects = objects << 1 | u64::from(object);
                    let kind = if object { Kind::Object } else { Kind::Array };
                    first.get_or_insert(kind);
                    let empty = self.peek() == if object { b'}' } else { b']' };
                    if !empty {
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                    kind
                }
                b't' => self.literal(b"true", Kind::True)?,
                b'f' => self.literal(b"false", Kind::False)?,
                b'n' => self.literal(b"null", Kind::Null)?,
                _ => return Err(self.error("a value was expected")),
            };
            loop {
                if depth == 0 {
                    return Ok(first.unwrap_or(kind));
                }
                self.space();
                match self.peek() {
                    b',' => {
                        self.at += 1;
                        self.space();
                        if objects & 1 == 1 {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if objects & 1 == 1 => {}
                    b']' if objects & 1 == 0 => {}
                    _ => return Err(self.error("`,` or the closing bracket was expected")),
                }
                self.at += 1;
                objects >>= 1;
                depth -= 1;
            }
        }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Result<Kind, Failed> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(kind)
        } else {
            Err(self.error("a value was expected"))
        }
    }

    /// A key with its colon; the cursor ends on the value.
    #[inline(always)]
    fn key(&mut self) -> Result<Key, Failed> {
        if self.peek() != b'"' {
            return Err(self.error("a key in double quotes was expected"));
        }
        self.at += 1;
        let start = self.at;
        let escaped = self.string()?;
        let end = self.at - 1;
        self.space();
        if self.peek() != b':' {
            return Err(self.error("`:` was expected"));
        }
        self.at += 1;
        self.space();
        Ok(Key { start, end, escaped })
    }

    /// From behind the opening quote to behind the closing one; true when there was an escape.
    #[inline(always)]
    fn string(&mut self) -> Result<bool, Failed> {
        let bytes = self.bytes;
        let mut at = self.at;
        while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let special = special_bytes(u64::from_le_bytes(*chunk));
            if special != 0 {
                at += (special.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        if bytes.get(at) == Some(&b'"') {
            self.at = at + 1;
            return Ok(false);
        }
        self.at = at;
        self.rest_of_string()
    }

    /// The rare rest: escapes, the last bytes of the payload, errors.
    #[inline(never)]
    fn rest_of_string(&mut self) -> Result<bool, Failed> {
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..0x20) => return Err(self.error("a control character in text must be escaped")),
                Some(_) => self.at += 1,
                None => return Err(self.error("text without closing quote")),
            }
            while let Some(chunk) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
                let special = special_bytes(u64::from_le_bytes(*chunk));
                if special != 0 {
                    self.at += (special.trailing_zeros() / 8) as usize;
                    break;
                }
                self.at += 8;
            }
        }
    }

    fn escape(&mut self) -> Result<(), Failed> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.code_unit()?;
                if (0xdc00..0xe000).contains(&unit) {
                    return Err(self.error("the second half of a surrogate pair without the first"));
                }
                if (0xd800..0xdc00).contains(&unit) {
                    let pair =
                        self.bytes[self.at..].starts_with(b"\\u") && (0xdc00..0xe000).contains(&self.code_unit()?);
                    if !pair {
                        return Err(self.error("the first half of a surrogate pair without the second"));
                    }
                }
                Ok(())
            }
            _ => Err(self.error("unknown escape in text")),
        }
    }

    /// The four digits of `\uXXXX` at the cursor.
    fn code_unit(&mut self) -> Result<u16, Failed> {
        let digits = self.bytes.get(self.at + 2..self.at + 6);
        let unit = digits.and_then(|digits| {
            digits.iter().try_fold(0u16, |unit, digit| Some(unit << 4 | (*digit as char).to_digit(16)? as u16))
        });
        match unit {
            Some(unit) => {
                self.at += 6;
                Ok(unit)
            }
            None => Err(self.error("`\\u` is followed by four hexadecimal digits")),
        }
    }

    #[inline]
    fn number(&mut self) -> Result<(), Failed> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return Err(self.error("a digit was expected")),
        }
        if self.peek() == b'.' {
            self.at += 1;
            if !self.peek().is_ascii_digit() {
                return Err(self.error("a digit was expected"));
            }
            self.digits();
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            if !self.peek().is_ascii_digit() {
                return Err(self.error("a digit was expected"));
            }
            self.digits();
        }
        Ok(())
    }

    #[inline(always)]
    fn digits(&mut self) {
        let mut at = self.at;
        while self.bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        self.at = at;
    }
}

/// High bit of every byte that ends a run of plain text: `"`, `\`, below 0x20. Exact up to the lowest one set, which is all
/// that is used (borrows only travel upwards).
#[inline(always)]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    zero_byte(word ^ (ONES * b'"' as u64)) | zero_byte(word ^ (ONES * b'\\' as u64)) | control
}

/// Text between quotes that was scanned before, with its escapes resolved.
pub(crate) fn unescape(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (plain, used) = match rest.get(at + 1) {
            Some(b'u') => code_point(&rest[at..]),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(other) => (*other as char, 2),
            None => ('\\', 1),
        };
        out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
        rest = rest.get(at + used..).unwrap_or(&[]);
    }
    out.extend_from_slice(rest);
    // The scan made sure of it; should a caller not have scanned, the damage is visible instead of a panic.
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// `\uXXXX` or a surrogate pair of them, and how many bytes it took.
fn code_point(raw: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = raw.get(at + 2..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    match (unit(0), unit(6)) {
        (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) => {
            let point = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            (char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
        (Some(point), _) => (char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        (None, _) => (char::REPLACEMENT_CHARACTER, 6),
    }
}

#[cfg(test)]
mod tests;
