//! The program's own messages: structured, on stderr, one line each whatever they quote (T24).

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

/// Begins to write messages of `level` and above. Other crates speak up only when something is wrong; `RUST_LOG`, where it is
/// set, decides alone.
pub fn start(level: &str, as_json: bool) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| {
        format!("warn,gravity={level},gravity_engine={level},gravity_log={level},gravity_connectors={level}")
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(|| OneLine(io::stderr()))
        // Colours are escape sequences, which the writer takes out wherever they come from.
        .with_ansi(false);
    let started = if as_json { builder.json().try_init() } else { builder.compact().try_init() };
    if let Err(error) = started {
        eprintln!("messages go nowhere: {error}");
    }
}

/// Writes each message, which arrives whole, as one line: control characters in names, keys and a peer's words become
/// escapes.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(message);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = String::with_capacity(text.len() + 1);
        for c in text.chars() {
            if c.is_control() && c != '\t' { line.extend(c.escape_default()) } else { line.push(c) }
        }
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// T24: whatever a broker, database or producer says, a message stays one line and moves no cursor.
    #[test]
    fn t24_no_message_breaks_its_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || OneLine(writer.clone())).finish();
        let hostile = "topic\n2026-01-01 ERROR forged\r\x1b[2J\u{9b}31m\0end";
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(topic = %hostile, key = ?hostile, "seen {hostile}");
            tracing::warn!("{hostile}");
        });
        let text = String::from_utf8(kept.0.lock().expect("nobody panics").clone()).expect("UTF-8");
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("forged"), "nothing is left out");
    }
}
