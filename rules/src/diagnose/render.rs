//! A finding for a person's eyes.

use std::fmt::Write;

use super::finding::{Finding, Severity};

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";

/// Lists longer than this are cut: nobody reads them, and `gravity explain` has the whole.
const MOST_WORDS: usize = 16;

/// Several lines: severity, code and message; place; the line with what is wrong underlined; what is allowed; a suggestion.
/// Ends without line feed. `color` adds ANSI sequences; control characters of the file are shown as escapes either way.
pub fn render(finding: &Finding, color: bool) -> String {
    let paint = |style: &'static str| if color { style } else { "" };
    let (word, style) = match finding.severity {
        Severity::Error => ("error", RED),
        Severity::Warning => ("warning", YELLOW),
    };
    let (reset, bold, blue) = (paint(RESET), paint(BOLD), paint(BLUE));
    let gutter = " ".repeat(finding.line.to_string().len());
    let mut out =
        format!("{}{word}[{}]{reset}{bold}: {}{reset}", paint(style), finding.code, printable(&finding.message));
    // Writing into a String cannot fail.
    let _ = write!(out, "\n{gutter}{blue}-->{reset} {}", finding.file);
    if finding.line > 0 {
        let _ = write!(out, ":{}:{}", finding.line, finding.column);
    }
    if let Some(line) = &finding.source_line {
        let indent = width(line.chars().take(finding.caret.start));
        let marked = width(line.chars().skip(finding.caret.start).take(finding.caret.len())).max(1);
        let _ = write!(out, "\n{gutter} {blue}|{reset}");
        let _ = write!(out, "\n{blue}{}{reset} {blue}|{reset} {}", finding.line, printable(line));
        let _ = write!(
            out,
            "\n{gutter} {blue}|{reset} {}{}{}{reset}",
            " ".repeat(indent),
            paint(style),
            "^".repeat(marked)
        );
    }
    if !finding.allowed.is_empty() {
        let shown = finding.allowed.iter().take(MOST_WORDS).map(|w| printable(w)).collect::<Vec<_>>().join(", ");
        let more = if finding.allowed.len() > MOST_WORDS { ", …" } else { "" };
        let _ = write!(out, "\n{gutter} {blue}={reset} {bold}allowed{reset}: {shown}{more}");
    }
    if let Some(suggestion) = &finding.suggestion {
        let _ = write!(out, "\n{gutter} {blue}={reset} {bold}help{reset}: {}", printable(suggestion));
    }
    out
}

/// Escapes what could steer a terminal; a tab becomes one space, so that carets stay in place.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '\t' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
        out
    })
}

/// Printed width of characters, escapes of [`printable`] counted. Wide scripts are not: a caret may stand a little left.
fn width(chars: impl Iterator<Item = char>) -> usize {
    chars.map(|c| if c.is_control() && c != '\t' { c.escape_default().count() } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Place, Source, SourceFile};
    use super::*;

    #[test]
    fn a_finding_shows_its_line_and_caret() {
        let source = Arc::new(Source::new(&SourceFile::new("rules.json", "{\n\t\"metod\": 1\n}")));
        let place = Place::new(source, 3..10);
        let finding = Finding::at("config/unknown-key", &place, "unknown key `metod`")
            .allowed(["event", "method"])
            .suggest(Some("did you mean `method`?"));
        let want = "error[config/unknown-key]: unknown key `metod`\n --> rules.json:2:2\n  |\n2 |  \"metod\": 1\n  |  ^^^^^^^\n  \
                    = allowed: event, method\n  = help: did you mean `method`?";
        assert_eq!(render(&finding, false), want);
        assert!(render(&finding, true).contains("\x1b[1;31m"));
    }

    #[test]
    fn t23_hostile_text_does_not_steer_the_terminal() {
        let finding = Finding::of_file("config/syntax", "rules.json", "found \u{1b}[2J");
        assert!(!render(&finding, false).contains('\u{1b}'));
    }
}
