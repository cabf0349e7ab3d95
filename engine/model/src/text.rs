//! Text that shares the bytes it was cut from, in two words: a batch holds hundreds of thousands of them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// In place of a length: the text is all of what it holds on to.
const WHOLE: u32 = u32::MAX;

/// Immutable UTF-8 text, usually a piece of the block that its event came from.
#[derive(Clone)]
pub struct Text {
    held: Arc<Bytes>,
    start: u32,
    len: u32,
}

impl Text {
    /// The piece `range` of `held`. `None` where there is no such piece, or it is not UTF-8, or lies beyond 4 GiB.
    #[inline]
    pub fn cut(held: &Arc<Bytes>, range: Range<usize>) -> Option<Text> {
        std::str::from_utf8(held.get(range.clone())?).ok()?;
        let (start, len) = (u32::try_from(range.start).ok()?, u32::try_from(range.len()).ok()?);
        (len != WHOLE).then(|| Text { held: Arc::clone(held), start, len })
    }

    #[inline]
    pub fn as_str(&self) -> &str {
        // Checked at construction, the bytes never change; `from_utf8_unchecked` would need `unsafe` for about 1 ns a cell.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        if self.len == WHOLE {
            return &self.held;
        }
        let start = self.start as usize;
        &self.held[start..start + self.len as usize]
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    fn whole(bytes: Bytes) -> Text {
        Text { held: Arc::new(bytes), start: 0, len: WHOLE }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text::whole(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text::whole(Bytes::from(text))
    }
}

// By what it says, wherever that is held.
impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Text) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Text) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_the_text_that_it_says() {
        let held = Arc::new(Bytes::from_static("{\"a\":\"grün\"}".as_bytes()));
        let piece = Text::cut(&held, 6..11).expect("a piece");
        assert_eq!((piece.as_str(), piece.len()), ("grün", 5));
        assert_eq!(piece, Text::from("grün"));
        assert_eq!(piece.cmp(&Text::from("grüo")), Ordering::Less);
        assert!(Text::cut(&held, 6..6).expect("nothing, in its place").is_empty());
        assert!(Text::from("").is_empty());
    }

    #[test]
    fn what_is_no_piece_of_text_is_none() {
        let held = Arc::new(Bytes::from_static("grün".as_bytes()));
        assert_eq!(Text::cut(&held, 0..3), None, "a character in two");
        assert_eq!(Text::cut(&held, 3..6), None, "behind the end");
        assert_eq!(Text::cut(&held, 6..9), None, "far behind the end");
    }
}
