//! Bad config directories over all five files: `check` names code, file and line of each, `run` refuses it, and nothing is changed.

use gravity_conformance::blackbox::command::{Ended, gravity, run};
use gravity_conformance::blackbox::engine::Engine;
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::server::Database;
use serde_json::Value;

#[path = "bad_config/cases.rs"]
mod cases;
use cases::{BAD, Bad, Edit, GOOD};

fn good(database: &Database) -> Folder {
    let folder = Folder::new(&[]);
    for (name, text) in GOOD {
        folder.write(name, filled(text, database));
    }
    folder
}

fn filled(text: &str, database: &Database) -> String {
    let port = database.port.to_string();
    text.replace("PORT", &port).replace("USER", &database.user).replace("NAME", &database.name)
}

fn spoiled(bad: &Bad, database: &Database) -> Folder {
    let folder = good(database);
    let path = folder.path().join(bad.file);
    match &bad.edit {
        Edit::Change(from, to) => {
            let (_, text) = GOOD.iter().find(|(name, _)| *name == bad.file).expect("a file of the good directory");
            assert_eq!(text.matches(from).count(), 1, "{}: {from:?} in {}", bad.what, bad.file);
            folder.write(bad.file, filled(&text.replacen(from, to, 1), database));
        }
        Edit::Whole(text) => folder.write(bad.file, text),
        Edit::Bytes(bytes) => folder.write(bad.file, bytes),
        Edit::Gone => std::fs::remove_file(path).expect("it was there"),
    }
    folder
}

/// What is wrong with how this directory was treated; nothing when all is as it must be.
fn treat(bad: &Bad, database: &Database) -> Vec<String> {
    let folder = spoiled(bad, database);
    let before = folder.fingerprint();
    let mut wrong = Vec::new();
    let checked = Ended::run(gravity().args(["check", "--json", "-c"]).arg(folder.path()));
    if checked.code != 2 {
        wrong.push(format!("check ends with {}", checked.code));
    }
    let findings: Value = serde_json::from_str(&checked.out).unwrap_or_default();
    let errors: Vec<&Value> =
        findings["findings"].as_array().into_iter().flatten().filter(|f| f["severity"] == "error").collect();
    let named = |f: &&&Value| f["code"] == bad.code && f["file"] == bad.file && f["line"] == bad.line;
    match errors.iter().find(named) {
        None => wrong.push(format!("no {} at {}:{}: {errors:#?}", bad.code, bad.file, bad.line)),
        Some(finding) => {
            let explained = run(&["explain", bad.code]);
            if explained.code != 0 || finding["message"].as_str().is_none_or(str::is_empty) {
                wrong.push(format!("{} is not explained", bad.code));
            }
        }
    }
    // Refused at once, so that `--stop-at-end` has nothing to end; a run that were let through would end too.
    let started = Ended::run(gravity().args(["run", "--stop-at-end", "-c"]).arg(folder.path()));
    if started.code != 2 {
        wrong.push(format!("run ends with {}: {}", started.code, started.err));
    }
    if !started.err.contains(bad.code) {
        wrong.push(format!("run does not say {}: {}", bad.code, started.err));
    }
    if folder.fingerprint() != before {
        wrong.push("the directory was changed".to_owned());
    }
    wrong
}

#[test]
fn bad_config_directories_are_refused_and_nothing_is_changed() {
    let Some(database) = Database::create() else { return };
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    let (mut refused, mut wrong) = (0, Vec::new());
    for bad in BAD {
        let faults = treat(bad, &database);
        if faults.is_empty() {
            refused += 1;
        } else {
            wrong.push(format!("{}: {}", bad.what, faults.join("\n  ")));
        }
    }
    let changed = database.psql(tables);
    println!("{} bad configs, {refused} refused, {changed} changed", BAD.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(changed, "0", "the database was touched");
    assert!(BAD.len() >= 80);
    for (name, _) in GOOD {
        assert!(BAD.iter().filter(|bad| bad.file == *name).count() >= 5, "{name}");
    }

    // The control: the directory without the fault is accepted, runs, and does make all that a refused one did not.
    let folder = good(&database);
    run(&["check", "-c", &folder.text()]).expect(0);
    let engine = Engine::start_with(&folder, &[], &[("GRAVITY_TOKEN", "0123456789abcdef")]);
    eventually(|| database.psql(tables), |count| count != "0");
    assert!(folder.path().join("data").is_dir());
    engine.stop();
}
