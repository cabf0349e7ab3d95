//! What a peer says is hostile text (T23): control characters never reach a terminal or a log line.

/// `text` with control characters escaped, cut after 500 characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t23_peer_text_is_escaped_and_bounded() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(printable(&"x".repeat(2000)).len(), 500);
    }
}
