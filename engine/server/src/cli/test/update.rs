//! Rewrites the expectations of a file, and nothing else of it: what holds stays as it was typed.

use serde_json::value::RawValue;

use super::case::{Case, Groups, Outcome};
use super::node::Node;

/// A stretch of the text, and what takes its place.
pub struct Edit {
    at: std::ops::Range<usize>,
    text: String,
}

/// The edits that make a case expect what it left behind.
pub fn edits(text: &str, case: &Case<'_>, expected: &Outcome, got: &Outcome) -> Vec<Edit> {
    let style = Style::of(text);
    let offset = |raw: &RawValue| raw.get().as_ptr().addr() - text.as_ptr().addr();
    let depth = case.events.first().map_or(0, |event| style.depth_at(text, offset(event)).saturating_sub(1));
    let parts = [
        ("rows", case.rows, expected.rows != got.rows, style.rows(&got.rows, depth)),
        ("messages", case.messages, expected.messages != got.messages, style.lists(&got.messages, depth)),
        (
            "dead_letters",
            case.dead_letters,
            expected.dead_letters != got.dead_letters,
            style.list(&got.dead_letters, depth),
        ),
    ];
    let mut edits = Vec::new();
    let mut missing = String::new();
    for (name, written, differs, new) in parts {
        match written {
            _ if !differs => {}
            Some(raw) => edits.push(Edit { at: offset(raw)..offset(raw) + raw.get().len(), text: new }),
            None => missing.push_str(&format!(",{}\"{name}\": {new}", style.line(depth))),
        }
    }
    if let (false, Some(end)) = (missing.is_empty(), end_of_events(text, case)) {
        edits.push(Edit { at: end..end, text: missing });
    }
    edits
}

/// Applies edits that do not overlap.
pub fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.at.start);
    let mut out = text.to_owned();
    for edit in edits.into_iter().rev() {
        out.replace_range(edit.at, &edit.text);
    }
    out
}

/// Behind the list of events; `None` where it is empty.
fn end_of_events(text: &str, case: &Case<'_>) -> Option<usize> {
    let last = case.events.last()?;
    let end = last.get().as_ptr().addr() - text.as_ptr().addr() + last.get().len();
    text[end..].find(']').map(|at| end + at + 1)
}

/// How the file is laid out.
struct Style {
    indent: String,
}

impl Style {
    fn of(text: &str) -> Style {
        let indented = text.lines().find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
        let indent = indented.map(|line| line[..line.len() - line.trim_start().len()].to_owned());
        Style { indent: indent.unwrap_or_else(|| "  ".to_owned()) }
    }

    /// Indents of the line that holds `at`.
    fn depth_at(&self, text: &str, at: usize) -> usize {
        let line = &text[text[..at].rfind('\n').map_or(0, |newline| newline + 1)..];
        let blank = line.len() - line.trim_start_matches([' ', '\t']).len();
        let depth = blank / self.indent.len();
        // An event on the line of its list is as deep as the list.
        if line.trim_start().starts_with("\"events\"") { depth + 1 } else { depth }
    }

    fn line(&self, depth: usize) -> String {
        format!("\n{}", self.indent.repeat(depth))
    }

    fn list(&self, items: &[Node], depth: usize) -> String {
        if items.is_empty() {
            return "[]".to_owned();
        }
        let lines: Vec<String> = items.iter().map(|item| format!("{}{item}", self.line(depth + 1))).collect();
        format!("[{}{}]", lines.join(","), self.line(depth))
    }

    fn object(&self, members: Vec<(&str, String)>, depth: usize) -> String {
        if members.is_empty() {
            return "{}".to_owned();
        }
        let quoted = |name: &str| serde_json::Value::from(name).to_string();
        let lines: Vec<String> =
            members.iter().map(|(name, value)| format!("{}{}: {value}", self.line(depth + 1), quoted(name))).collect();
        format!("{{{}{}}}", lines.join(","), self.line(depth))
    }

    fn lists(&self, groups: &Groups, depth: usize) -> String {
        let members = groups.iter().map(|(name, items)| (name.as_str(), self.list(items, depth + 1)));
        self.object(members.collect(), depth)
    }

    /// Groups are named `DATABASE.TABLE`; a table's own name may hold a dot.
    fn rows(&self, groups: &Groups, depth: usize) -> String {
        let mut databases: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
        for (name, rows) in groups {
            let (database, table) = name.split_once('.').unwrap_or((name, ""));
            let rows = (table, self.list(rows, depth + 2));
            match databases.last_mut() {
                Some((last, tables)) if *last == database => tables.push(rows),
                _ => databases.push((database, vec![rows])),
            }
        }
        let members = databases.into_iter().map(|(name, tables)| (name, self.object(tables, depth + 1)));
        self.object(members.collect(), depth)
    }
}
