//! Documents against code: each error code has its page, each example loads, links lead somewhere, named commands exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::none;
use crate::tree::{TextFile, files, root};

/// First halves of `"a/b"` literals that are no error codes.
const NOT_CODES: &[&str] = &["application", "text", "true"];

/// `family/name`, both in lower case: the form of every error code. The page is `docs/errors/family-name.md`.
fn is_code(literal: &str) -> bool {
    let plain = |part: &str, also: fn(char) -> bool| {
        part.starts_with(|c: char| c.is_ascii_lowercase()) && part.chars().all(|c| c.is_ascii_lowercase() || also(c))
    };
    literal.split_once('/').is_some_and(|(family, name)| {
        plain(family, |_| false) && plain(name, |c| c == '-' || c.is_ascii_digit()) && !NOT_CODES.contains(&family)
    })
}

/// Codes in shipped code with the place of their first mention. Names of failpoints look alike and are left out.
fn codes(files: &[TextFile]) -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    let shipped = |file: &&TextFile| file.is_rust() && !file.is_test() && !file.path.starts_with("benches/");
    for file in files.iter().filter(shipped) {
        for (number, line) in file.shipped_lines().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let failpoint = line.contains("hit(\"") || line.contains("sabotaged(\"");
            for literal in line.split('"').skip(1).step_by(2) {
                if is_code(literal) && !failpoint {
                    codes.entry(literal.to_owned()).or_insert_with(|| format!("{}:{number}", file.path));
                }
            }
        }
    }
    codes
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let files = files();
    let codes = codes(&files);
    let mut findings = Vec::new();
    let mut pages = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.starts_with("docs/errors/") && file.path.ends_with(".md")) {
        let name = file.path.trim_start_matches("docs/errors/").trim_end_matches(".md");
        pages.insert(name.to_owned());
        if name == "README" {
            continue;
        }
        if !codes.keys().any(|code| code.replace('/', "-") == name) {
            findings.push(format!("{}: no shipped code names it", file.path));
        }
        let said = file.text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
        if said < 2 {
            findings.push(format!("{}: says too little; what it means, an example, how to mend it", file.path));
        }
    }
    for (code, place) in &codes {
        let page = code.replace('/', "-");
        if !pages.contains(&page) {
            findings.push(format!("{place}: {code} has no docs/errors/{page}.md"));
        }
    }
    assert!(codes.len() > 20, "only {} codes found: the test looks in the wrong place", codes.len());
    none("codes and pages that do not match", findings);
}

/// The binary that the same build made; `None` when only this test was built.
fn gravity() -> Option<PathBuf> {
    let this = std::env::current_exe().expect("a test has a path");
    let binary = this.parent().and_then(Path::parent).expect("target/release/deps").join("gravity");
    binary.is_file().then_some(binary)
}

fn examples() -> Vec<PathBuf> {
    let folder = root().join("deploy/examples");
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .expect("deploy/examples")
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no examples");
    found
}

fn texts_below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of an example") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            found.extend(texts_below(&path));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            found.push((path, text));
        }
    }
    found
}

/// Names in `${env:NAME}` of an example's files, so that a check of it needs no environment of its own.
fn referenced_variables(example: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for (_, text) in texts_below(example) {
        names.extend(text.split("${env:").skip(1).filter_map(|rest| rest.split('}').next()).map(str::to_owned));
    }
    names
}

#[test]
fn every_example_loads() {
    let mut findings = Vec::new();
    let gravity = gravity();
    for example in examples() {
        let name = example.strip_prefix(root()).expect("below the root").display().to_string();
        if !example.join("README.md").is_file() {
            findings.push(format!("{name}: no README.md that says what it shows"));
        }
        for (path, text) in texts_below(&example) {
            if path.extension().is_some_and(|extension| extension == "json")
                && let Err(error) = serde_json::from_str::<Value>(&text)
            {
                findings.push(format!("{}: {error}", path.display()));
            }
        }
        let Some(gravity) = &gravity else { continue };
        let mut check = Command::new(gravity);
        check.arg("check").arg("-c").arg(&example);
        for variable in referenced_variables(&example) {
            check.env(variable, "example");
        }
        let output = check.output().expect("gravity runs");
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            findings.push(format!("{name}: gravity check: {}", String::from_utf8_lossy(&said)));
        }
    }
    none("examples that do not load", findings);
    if gravity.is_none() {
        println!("skipped: the gravity binary was not built, so no example was given to `gravity check`");
    }
}

/// Markdown that people read: the pages of the tree, error pages included.
fn is_page(file: &&TextFile) -> bool {
    file.path.ends_with(".md")
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut findings = Vec::new();
    for file in files().iter().filter(is_page) {
        for (number, line) in file.lines() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let path = target.split('#').next().unwrap_or_default();
                if path.is_empty() || path.contains("://") {
                    continue;
                }
                let from = root().join(&file.path);
                if !from.parent().expect("a page lies in a folder").join(path).exists() {
                    findings.push(format!("{}:{number}: {target}", file.path));
                }
            }
        }
    }
    none("links that lead nowhere", findings);
}

#[test]
fn every_command_that_a_page_names_exists() {
    let Some(gravity) = gravity() else {
        println!("skipped: the gravity binary was not built");
        return;
    };
    let mut findings = Vec::new();
    let mut known = BTreeMap::new();
    for file in files().iter().filter(is_page) {
        let mut in_block = false;
        for (number, line) in file.lines() {
            if line.starts_with("```") {
                in_block = !in_block;
                continue;
            }
            let command = line.trim().trim_start_matches("$ ");
            let Some(word) =
                command.strip_prefix("gravity ").filter(|_| in_block).and_then(|rest| rest.split(' ').next())
            else {
                continue;
            };
            let exists = *known.entry(word.to_owned()).or_insert_with(|| {
                Command::new(&gravity).args([word, "--help"]).output().is_ok_and(|output| output.status.success())
            });
            if !exists {
                findings.push(format!("{}:{number}: gravity {word}", file.path));
            }
        }
    }
    none("commands that pages name and the binary does not have", findings);
}
