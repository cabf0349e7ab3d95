//! `docs/traps.md` against the tests: each trap and defect has its row, each test that a row names exists, and each test with a
//! number in its name stands in the row of that number.

use std::collections::BTreeSet;

use crate::none;
use crate::tree::{TextFile, files};

const PAGE: &str = "docs/traps.md";

/// A line of one of the two tables.
struct Row<'a> {
    number: u32,
    line: usize,
    cells: Vec<&'a str>,
}

/// Rows whose first cell is `prefix` and a number.
fn rows<'a>(page: &'a TextFile, prefix: &str) -> Vec<Row<'a>> {
    let row = |(line, text): (usize, &'a str)| {
        let cells: Vec<&str> = text.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let number = cells.first()?.strip_prefix(prefix)?.parse().ok()?;
        Some(Row { number, line, cells })
    };
    page.lines().filter_map(row).collect()
}

/// What stands between backticks.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Names of functions, over all sources.
fn functions(files: &[TextFile]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (_, line) in file.lines() {
            let Some((_, rest)) = line.split_once("fn ") else { continue };
            names.extend(rest.split(['(', '<']).next().filter(|name| !name.contains(' ')));
        }
    }
    names
}

/// `part::name` of the lists that run over every database.
fn everywhere(files: &[TextFile]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (path, begin, end) in [
        ("conformance/tests/view.rs", "macro_rules! everywhere", "$($part::$more,)*"),
        ("conformance/tests/traps/main.rs", "over!({", "}; sqlite, postgres, mariadb, mongodb);"),
    ] {
        let file = files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}"));
        let list = file.text.split(begin).nth(1).and_then(|rest| rest.split(end).next());
        let list =
            list.filter(|list| list.len() < file.text.len() - 100).unwrap_or_else(|| panic!("no list in {path}"));
        let lines = list.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once("::"));
        names.extend(lines.map(|(_, name)| name));
    }
    names
}

/// `PowerCut` of `power-cut`.
fn variant(gate: &str) -> String {
    let part = |part: &str| part[..1].to_uppercase() + &part[1..];
    gate.split('-').filter(|word| !word.is_empty()).map(part).collect()
}

/// The numbers behind `prefix` at the beginnings of a name's words: 14 and 19 of `trap14_trap19_poison`.
fn numbers(name: &str, prefix: &str) -> Vec<u32> {
    name.split('_')
        .map_while(|word| {
            let known =
                ["trap", "o", "s", "t", "v", "l", "e"].iter().any(|p| word.strip_prefix(p).is_some_and(is_number));
            known.then(|| word.strip_prefix(prefix).filter(|rest| is_number(rest)).and_then(|rest| rest.parse().ok()))
        })
        .flatten()
        .collect()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[test]
fn every_trap_and_defect_has_its_row_and_every_row_its_tests() {
    let files = files();
    let page = files.iter().find(|file| file.path == PAGE).expect(PAGE);
    let gates = files.iter().find(|file| file.path == "conformance/src/bin/torture.rs").expect("the gates");
    let (functions, everywhere) = (functions(&files), everywhere(&files));
    let mut findings = Vec::new();
    // (first cell, last number, prefix in names, cells with tests, the cell "not yet")
    for (prefix, last, of_names, tests, later) in [("", 25, "trap", 2..4, 4), ("O", 55, "o", 2..3, 3)] {
        let rows = rows(page, prefix);
        let found: Vec<u32> = rows.iter().map(|row| row.number).collect();
        if found != (1..=last).collect::<Vec<u32>>() {
            findings.push(format!("{PAGE}: rows {prefix}1 to {prefix}{last}, once each and in order; found {found:?}"));
        }
        for row in &rows {
            let place = format!("{PAGE}:{}", row.line);
            if row.cells.len() != later + 1 {
                findings.push(format!("{place}: {} cells instead of {}", row.cells.len(), later + 1));
                continue;
            }
            let all: Vec<&str> = row.cells[tests.clone()].iter().flat_map(|cell| named(cell)).collect();
            for name in &all {
                match name.strip_prefix("gate ") {
                    Some(gate) if !gates.text.contains(&format!("\n    {} {{", variant(gate))) => {
                        findings.push(format!("{place}: no gate {gate}"));
                    }
                    None if !functions.contains(name) => findings.push(format!("{place}: no test {name}")),
                    _ => {}
                }
            }
            if all.is_empty() && !row.cells[later].starts_with("later: ") {
                findings.push(format!("{place}: a test, or `later: why`"));
            }
            let missing = functions.iter().filter(|name| numbers(name, of_names).contains(&row.number));
            for name in missing.filter(|name| !all.contains(name)) {
                findings.push(format!("{place}: {name} has the number and does not stand here"));
            }
        }
    }
    for row in rows(page, "") {
        for name in named(row.cells[2]).filter(|name| !everywhere.contains(name)) {
            findings.push(format!("{PAGE}:{}: {name} does not run over every database", row.line));
        }
    }
    assert!(everywhere.len() > 40, "only {} tests over every database found", everywhere.len());
    none("traps whose tests are not what the page says", findings);
}
