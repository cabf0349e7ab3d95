//! How figures and tables look to a person: thousands separators, right-aligned columns, ages, colours only on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use super::exit::Failure;

/// Colours, or none: only on a terminal, never with `NO_COLOR` or a dumb terminal.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    pub fn stdout() -> Paint {
        Paint { on: std::io::stdout().is_terminal() && wanted() }
    }

    pub fn stderr() -> Paint {
        Paint { on: std::io::stderr().is_terminal() && wanted() }
    }

    pub fn is_on(self) -> bool {
        self.on
    }

    fn wrap(self, style: &str, text: &str) -> String {
        if self.on { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub fn blue(self, text: &str) -> String {
        self.wrap("1;34", text)
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A column's name, and whether it holds figures.
pub struct Column(pub &'static str, pub bool);

/// Text column.
pub const fn text(name: &'static str) -> Column {
    Column(name, false)
}

/// Right-aligned column.
pub const fn figure(name: &'static str) -> Column {
    Column(name, true)
}

/// Rows under column names, two blanks between columns, no lines.
pub struct Rows {
    table: Table,
    figures: Vec<bool>,
}

impl Rows {
    pub fn new(columns: &[Column]) -> Rows {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(columns.iter().map(|Column(name, is_figure)| {
            let alignment = if *is_figure { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(name).set_alignment(alignment)
        }));
        Rows { table, figures: columns.iter().map(|column| column.1).collect() }
    }

    pub fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().zip(&self.figures).map(|(cell, is_figure)| {
            let alignment = if *is_figure { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(printable(&cell)).set_alignment(alignment)
        });
        self.table.add_row(cells);
    }

    /// Lines without blanks at their ends.
    pub fn render(&mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> = self.table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Text from elsewhere (event names, keys, a peer's words) without the characters that would move a terminal's cursor (T24).
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| -> Box<dyn Iterator<Item = char>> {
            if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
        })
        .collect()
}

/// `4,711`
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.5 MiB`
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `0.0 s`, `42 s`, `3 min`, `2.5 h`, `4.0 d`
pub fn age(time: Duration) -> String {
    let s = time.as_secs_f64();
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

/// Seconds that came from elsewhere; never negative, never endless.
pub fn age_of(seconds: f64) -> String {
    age(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// `1,250/s`
pub fn rate(events: u64, over: Duration) -> String {
    if over.is_zero() {
        return "-".to_owned();
    }
    format!("{}/s", count((events as f64 / over.as_secs_f64()).round() as u64))
}

/// Prints one JSON document on stdout.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::failed("cannot write JSON").because(&error))?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Prints one JSON line on stdout.
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let mut text =
        serde_json::to_string(value).map_err(|error| Failure::failed("cannot write JSON").because(&error))?;
    text.push('\n');
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints data for people on stdout.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Talk: to stderr, and nobody minds when it is closed.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!([0, 999, 1_000, 4_711, 1_234_567].map(count), ["0", "999", "1,000", "4,711", "1,234,567"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        let ages = [0.04, 42.0, 300.0, 9_000.0, 400_000.0];
        assert_eq!(ages.map(age_of), ["0.0 s", "42 s", "5 min", "2.5 h", "4.6 d"]);
        assert_eq!(age_of(f64::NAN), "0.0 s");
        assert_eq!(rate(1_250, Duration::from_secs(1)), "1,250/s");
        assert_eq!(rate(5, Duration::ZERO), "-");
    }

    #[test]
    fn o53_text_from_elsewhere_moves_no_cursor() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn columns_line_up() {
        let mut rows = Rows::new(&[text("NAME"), figure("N")]);
        rows.add(["a".to_owned(), "1,000".to_owned()]);
        rows.add(["long".to_owned(), "7".to_owned()]);
        assert_eq!(rows.render(), "NAME      N\na     1,000\nlong      7");
    }
}
