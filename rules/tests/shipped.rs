//! What is generated from this package and shipped must be what the code says: the JSON Schema and the error pages.
//! `GRAVITY_UPDATE=1 cargo test` rewrites the schema.

use std::collections::BTreeSet;
use std::path::PathBuf;

use gravity_rules::{codes, schema};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_shipped_schema_is_up_to_date() {
    let path = root().join("deploy/schemas/rules.schema.json");
    let want = serde_json::to_string_pretty(&schema::rules()).expect("plain data") + "\n";
    if std::env::var_os("GRAVITY_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("the folder can be made");
        std::fs::write(&path, &want).expect("the schema can be written");
    }
    let got = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "{} is out of date: run GRAVITY_UPDATE=1 cargo test -p gravity-rules", path.display());
}

#[test]
fn every_key_of_the_schema_is_explained() {
    fn walk(value: &serde_json::Value, bare: &mut Vec<String>) {
        for (name, property) in value["properties"].as_object().into_iter().flatten() {
            if property["description"].as_str().is_none_or(str::is_empty) {
                bare.push(name.clone());
            }
        }
        for (_, definition) in value["$defs"].as_object().into_iter().flatten() {
            walk(definition, bare);
        }
    }
    let mut bare = Vec::new();
    walk(&schema::rules(), &mut bare);
    assert!(bare.is_empty(), "{bare:?}");
    for (path, part) in [
        ("mapping.previous", "former value"),
        ("rules.mapping.previous", "former value"),
        ("primaryKey", "Key column"),
        ("method", "\"patch\": Change the row if it exists"),
        ("rules[].mapping[].source", "$meta.headers.NAME"),
        ("events", "Types of event fields"),
    ] {
        let text = schema::explain(path).unwrap_or_default();
        assert!(text.contains(part), "{path}: {text}");
    }
    assert_eq!(schema::explain("nonsense"), None);
    assert_eq!(schema::explain(""), None);
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let mut seen = BTreeSet::new();
    for entry in codes::ALL {
        assert!(seen.insert(entry.code), "{} twice", entry.code);
        assert_eq!(codes::page(entry.code), Some(entry.page));
        let lines: Vec<&str> = entry.page.lines().collect();
        assert_eq!(lines.first().copied(), Some(format!("# {}", entry.code).as_str()));
        for section in ["## Example", "## What to do"] {
            assert!(lines.contains(&section), "{}: no {section}", entry.code);
        }
        assert!(entry.page.len() > 200, "{}: says too little", entry.code);
        let file = format!("docs/errors/{}.md", entry.code.replace('/', "-"));
        let stored = std::fs::read_to_string(root().join(&file)).expect(&file);
        assert_eq!(stored, entry.page, "{file} is another code's page");
    }
    // Other packages have codes of their own about config and rules; about mapping an event only this one speaks.
    let ours = |name: &str| name.starts_with("map-");
    for file in std::fs::read_dir(root().join("docs/errors")).expect("the pages").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let code = name.trim_end_matches(".md").replacen('-', "/", 1);
        assert!(!ours(&name) || seen.contains(code.as_str()), "{name} belongs to no code");
    }
}

/// Complete rules files in the pages: what a page shows as wrong provokes its code.
#[test]
fn the_examples_of_the_pages_provoke_their_codes() {
    use gravity_rules::diagnose::SourceFile;
    use gravity_rules::{Context, DatabaseContext, DatabaseKind, Ddl, load};

    let database = |ddl| DatabaseContext { kind: DatabaseKind::Postgres, ddl, unknown_fields: None };
    let databases = [("db1", Ddl::None), ("db2", Ddl::None), ("created", Ddl::Create)];
    let context = Context {
        databases: databases.into_iter().map(|(name, ddl)| (name.to_owned(), database(ddl))).collect(),
        exporters: vec!["exporter1".to_owned()],
    };
    let mut shown = 0;
    for entry in codes::ALL {
        for example in entry.page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if !example.trim_start().starts_with("{ \"rules\"") {
                continue;
            }
            shown += 1;
            let findings = match load(&[SourceFile::new("rules.json", example)], &context) {
                Ok(set) => set.warnings().clone(),
                Err(findings) => findings,
            };
            let found: Vec<&str> = findings.iter().map(|f| f.code).collect();
            assert_eq!(found, [entry.code], "{example}");
        }
    }
    assert!(shown >= 20, "{shown} examples");
}
