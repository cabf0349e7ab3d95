//! The arrow of knowledge points one way: which package may know which, and which clients each must never link.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::none;
use crate::tree::{files, root};

/// Who may know whom. A new package gets its line here first.
const ARROWS: &[(&str, &[&str])] = &[
    ("gravity-model", &[]),
    ("gravity-log", &["gravity-model"]),
    ("gravity-rules", &["gravity-model"]),
    ("gravity-connectors", &["gravity-model"]),
    ("gravity-engine", &["gravity-model", "gravity-log", "gravity-rules"]),
    ("gravity", &["gravity-model", "gravity-log", "gravity-rules", "gravity-connectors", "gravity-engine"]),
    ("gravity-conformance", &["gravity-model", "gravity-log", "gravity-rules", "gravity-connectors", "gravity-engine"]),
    ("gravity-benches", &["gravity-model", "gravity-log", "gravity-rules", "gravity-connectors", "gravity-engine"]),
];

/// Beyond [`ARROWS`], for tests only: the engine is tested with the connectors' in-memory doubles.
const TEST_ARROWS: &[(&str, &str)] = &[("gravity-engine", "gravity-connectors")];

/// What must not be reachable by normal dependencies, directly or not.
const NEVER: &[(&str, &[&str])] = &[
    ("gravity-model", &["tokio", "rdkafka", "sqlx", "sled", "reqwest", "axum", "rustls", "serde_json", "chrono"]),
    ("gravity-rules", &["tokio", "rdkafka", "sqlx", "sled", "reqwest", "axum", "rustls", "rand", "gravity-log"]),
    ("gravity-log", &["rdkafka", "sqlx", "reqwest", "axum", "rustls"]),
    ("gravity-engine", &["rdkafka", "sqlx", "reqwest", "axum", "gravity-connectors"]),
    ("gravity-connectors", &["sled", "axum", "arrow", "gravity-log", "gravity-rules", "gravity-engine"]),
    // One TLS provider, and none that needs a header package or cmake.
    ("gravity", &["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "fuser", "proptest"]),
];

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo speaks UTF-8")
}

#[test]
fn packages_know_only_whom_they_may() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]))
            .expect("cargo metadata is JSON");
    let mut findings = Vec::new();
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let packages = metadata["packages"].as_array().expect("packages");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let Some(allowed) = arrows.get(name) else {
            findings.push(format!("{name}: give it a line in ARROWS (conformance/tests/tidy/arrows.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let target = dependency["name"].as_str().expect("a name");
            let ours = target == "gravity" || target.starts_with("gravity-");
            let test_only = dependency["kind"] == "dev" && TEST_ARROWS.contains(&(name, target));
            if ours && !allowed.contains(&target) && !test_only {
                findings.push(format!("{name} -> {target} ({})", dependency["kind"].as_str().unwrap_or("normal")));
            }
        }
    }
    none("arrows that the design does not have", findings);
}

#[test]
fn clients_stay_out_of_the_packages_that_must_not_link_them() {
    let mut findings = Vec::new();
    for (package, never) in NEVER {
        let tree = cargo(&["tree", "--offline", "-e", "normal", "-p", package, "--prefix", "none", "-f", "{p}"]);
        let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(linked.contains(package), "cargo tree -p {package} does not show the package itself");
        for client in *never {
            if linked.contains(client) {
                findings.push(format!(
                    "{package} links {client}: `cargo tree -e normal -p {package} -i {client}` shows how"
                ));
            }
        }
    }
    none("clients where they must not be", findings);
}

#[test]
fn only_the_log_names_sled() {
    let mut findings = Vec::new();
    // Spelt in two parts so that this file does not find itself.
    let (path, import) = (concat!("sled", "::"), concat!("use ", "sled"));
    for file in files() {
        if file.path.starts_with("engine/log/") {
            continue;
        }
        if file.is_rust() {
            for (number, line) in file.lines() {
                let code = line.split("//").next().unwrap_or_default();
                if code.contains(path) || code.contains(import) {
                    findings.push(format!("{}:{number}: go through gravity_log::EventLog", file.path));
                }
            }
        }
        let is_member = file.path.ends_with("Cargo.toml") && file.path != "Cargo.toml";
        if is_member && file.lines().any(|(_, line)| line.starts_with(concat!("sled", "."))) {
            findings.push(format!("{}: depends on sled", file.path));
        }
    }
    none("sled outside engine/log", findings);
}
