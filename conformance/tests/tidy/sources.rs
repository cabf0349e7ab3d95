//! Rules for source text: headers, words that must not stand, length, purity of the rules package, scripts that parse.

use std::process::Command;

use crate::none;
use crate::tree::{TextFile, files, root};

/// A file longer than this has more than one reason to change. A ratchet: lower it when the longest file got shorter.
const MAX_LINES: usize = 800;

/// (what, instead). Spelt in parts so that this file does not find itself.
const BANNED: &[(&str, &str)] = &[
    (concat!("todo", "!("), "finish it, or refuse by name"),
    (concat!("unimpl", "emented!("), "finish it, or refuse by name"),
    (concat!("db", "g!("), "tracing with fields"),
    (concat!("FIX", "ME"), "mend it, or file an issue"),
    (concat!("TO", "DO"), "do it, or file an issue"),
    (concat!("#[ig", "nore"), "print `skipped: WHY` and return"),
    (concat!("#[should_", "panic"), "assert the error"),
    (concat!("/wo", "rk/"), "no machine's own path"),
    (concat!("/ro", "ot/"), "no machine's own path"),
    (concat!("/ho", "me/"), "no machine's own path"),
];

/// Banned in what ships, where they lose events, block or grow without bound.
const BANNED_IN_SHIPPED_CODE: &[(&str, &str)] = &[
    ("unbounded_channel(", "a bounded channel: memory must not grow behind a slow peer (P6)"),
    ("unbounded()", "a bounded channel: memory must not grow behind a slow peer (P6)"),
    ("tokio::spawn(", "supervise::Tasks: a name, an owner, and a panic that surfaces"),
    (".unwrap()", "return the error, or `expect(\"why it cannot be\")`"),
];

/// `view = fold(rules, log)` holds only without clock, chance and I/O (P9).
const BANNED_IN_RULES: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "Local::now",
    "Uuid::new_v4",
    "Uuid::now_v7",
    "RandomState",
];

/// Machine-made files: nobody reads them, their generators have tests.
fn is_generated(file: &TextFile) -> bool {
    file.path == "Cargo.lock" || file.path.starts_with("deploy/schemas/")
}

#[test]
fn every_source_begins_with_the_reason_why_it_exists() {
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        let first = file.text.lines().find(|line| !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//! ") && line.len() > 20) {
            findings.push(format!("{}: begin with `//! ` and one sentence", file.path));
        }
    }
    none("sources without a first line that says why they exist", findings);
}

#[test]
fn no_banned_word_stands_anywhere() {
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| !is_generated(file)) {
        for (number, line) in file.lines() {
            for (word, instead) in BANNED {
                if line.contains(word) {
                    findings.push(format!("{}:{number}: {word}: {instead}", file.path));
                }
            }
        }
    }
    none("words that must not stand in the tree", findings);
}

/// Talk about who made a change, and when, belongs into no file. The header `User-Agent` is no such talk.
#[test]
fn files_speak_of_the_product_only() {
    let makers = [concat!("age", "nt"), concat!("age", "nts")];
    let moments = [concat!("this ses", "sion"), concat!("last ses", "sion"), concat!("next ses", "sion")];
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| !is_generated(file)) {
        for (number, line) in file.lines() {
            let line = line.to_lowercase().replace("user-", "user_");
            let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            if words.into_iter().any(|word| makers.contains(&word)) || moments.iter().any(|talk| line.contains(talk)) {
                findings.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    none("talk about the making", findings);
}

#[test]
fn shipped_code_is_bounded_and_returns_its_errors() {
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| file.is_rust() && !file.is_test() && !file.path.starts_with("benches/")) {
        for (number, line) in file.shipped_lines() {
            let code = line.split("//").next().unwrap_or_default();
            for (word, instead) in BANNED_IN_SHIPPED_CODE {
                if code.contains(word) {
                    findings.push(format!("{}:{number}: {word}: {instead}", file.path));
                }
            }
        }
    }
    none("calls that shipped code must not make", findings);
}

#[test]
fn rules_are_pure() {
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| file.path.starts_with("rules/src/") && !file.is_test()) {
        for (number, line) in file.shipped_lines() {
            let code = line.split("//").next().unwrap_or_default();
            for word in BANNED_IN_RULES {
                if code.contains(word) {
                    findings.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    none("clock, chance or I/O in the rules", findings);
}

#[test]
fn no_source_grows_past_the_line() {
    let mut findings = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            findings.push(format!("{}: {lines} lines; split it by its reasons to change, then add", file.path));
        }
    }
    none("sources that grew past the line", findings);
}

#[test]
fn every_script_parses() {
    let mut findings = Vec::new();
    let mut seen = 0;
    for file in files() {
        if !(file.path.ends_with(".sh") || file.text.starts_with("#!/usr/bin/env bash")) {
            continue;
        }
        seen += 1;
        let output = Command::new("bash").arg("-n").arg(root().join(&file.path)).output().expect("bash runs");
        if !output.status.success() {
            findings.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
    }
    assert!(seen >= 4, "the scripts of conformance/ were not found");
    none("scripts that bash cannot parse", findings);
}
