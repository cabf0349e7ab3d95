//! docs/types.md from the rows of the matrix.

use super::{Cell, Shown, Target, TypeRow};

const HEAD: &str = "\
# Types: what an event says and what the database shows

Printed from the test `types` of `conformance`, which writes every value below through rules, log and route into a table that
`\"ddl\": \"create\"` made, and reads it back with `psql`, `mariadb`, `sqlite3` or `pymongo`. `GRAVITY_UPDATE=1 cargo test -p
gravity-conformance --test types` prints it again. MySQL is written as MariaDB is, but for the types named below. FerretDB, which stands in
for MongoDB where the tests run, keeps no Decimal128, no NUL in a text, no list in a list and no sign of zero: what the MongoDB column shows of
those was never read back.

- A value comes back exactly, or the event becomes a dead letter with the code shown here; `gravity explain CODE` says more. A
  code without `/` is the database's own.
- **null** writes NULL, in every type and database; a field that is **absent** leaves the column alone. Both are tested for each type.
- What is not JSON at all, such as a bare `NaN`, never becomes an event: see `decode/not-json`.
- `T[]` takes every other type in the place of `T`.
";

/// The whole page.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    for (title, rows) in super::chapters() {
        out.push_str(&format!("\n## {title}\n"));
        rows.iter().for_each(|row| write_row(row, &mut out));
    }
    out
}

fn write_row(row: &TypeRow, out: &mut String) {
    let title = match row.made {
        None => format!("`{}`", row.word),
        Some(_) => format!("Enumerations, declared as `{}`", row.word),
    };
    out.push_str(&format!("\n### {title}\n\n| Event |"));
    for target in Target::ALL {
        let column = row.columns[&target];
        // Of SQLite's the declared type; the storage class is for the test.
        let column = if target == Target::Sqlite { column.rsplit(' ').next().unwrap_or(column) } else { column };
        out.push_str(&format!(" {}: {} |", target.heading(), code(column)));
    }
    out.push_str(&format!("\n|---|{}\n", "---|".repeat(Target::ALL.len())));
    let (taken, refused): (Vec<&Cell>, Vec<&Cell>) = row.cells.iter().partition(|cell| common_refusal(cell).is_none());
    for cell in taken {
        out.push_str(&format!("| {} |", given(cell)));
        for target in Target::ALL {
            out.push_str(&format!(" {} |", shown(cell, target)));
        }
        out.push('\n');
    }
    let mut codes: Vec<&str> = Vec::new();
    for found in refused.iter().filter_map(|cell| common_refusal(cell)) {
        if !codes.contains(&found) {
            codes.push(found);
        }
    }
    if !codes.is_empty() {
        out.push_str("\nRefused everywhere:");
        let lists = codes.iter().map(|found| {
            let values: Vec<String> =
                refused.iter().filter(|cell| common_refusal(cell) == Some(found)).map(|cell| given(cell)).collect();
            format!(" {} (`{found}`)", values.join(", "))
        });
        out.push_str(&format!("{}.\n", lists.collect::<Vec<_>>().join(";")));
    }
    for note in &row.notes {
        out.push_str(&format!("\n{note}\n"));
    }
}

/// The code, where every database refuses the value by the same.
fn common_refusal(cell: &Cell) -> Option<&'static str> {
    let mut codes = cell.shows.values().map(|shown| match shown {
        Shown::Refused(code) => Some(*code),
        Shown::Reads(_) => None,
    });
    let first = codes.next().flatten()?;
    codes.all(|code| code == Some(first)).then_some(first)
}

fn given(cell: &Cell) -> String {
    cell.label.map_or_else(|| code(&cell.given), str::to_owned)
}

fn shown(cell: &Cell, target: Target) -> String {
    match &cell.shows[&target] {
        Shown::Refused(found) => format!("refused, `{found}`"),
        Shown::Reads(_) if cell.label.is_some() => "the same".to_owned(),
        Shown::Reads(text) if text.is_empty() => "empty".to_owned(),
        Shown::Reads(text) => code(text),
    }
}

/// A code span in a cell of a table: no pipes, no line ends, whatever the text holds.
fn code(text: &str) -> String {
    let mut inner = String::new();
    for c in text.chars() {
        match c {
            '\n' => inner.push('␊'),
            '\t' => inner.push('␉'),
            '\0' => inner.push('␀'),
            '|' => inner.push_str("\\|"),
            c => inner.push(c),
        }
    }
    format!("`{inner}`")
}
