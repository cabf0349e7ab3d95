//! The API with tokens and TLS, from the command line.

use std::process::Command;

use crate::support::{Dir, Ended, Engine, gravity, plain};

const TOKENS: &str = r#"[api]
tokens = [
  {name = "reader", role = "viewer", token = "reader-0123456789"},
  {name = "app", role = "ingest", token = "${file:APP}"},
  {name = "ops", role = "operator", token = "${env:OPS}"},
]
"#;

fn with_tokens() -> (Dir, Engine) {
    let dir = plain();
    let file = dir.path().join("app-token");
    dir.write("app-token", "app-0123456789abc\n");
    dir.write("gravity.toml", &TOKENS.replace("APP", &file.display().to_string()));
    let engine = Engine::start_with(&dir, &[], &[("OPS", "ops-0123456789abc")]);
    (dir, engine)
}

fn as_caller(engine: &Engine, token: &str, args: &[&str]) -> Ended {
    Ended::of(&gravity().args(args).args(["--url", &engine.url]).env("GRAVITY_TOKEN", token).output().expect("runs"))
}

#[test]
fn o51_roles_decide_what_commands_may_do() {
    let (dir, engine) = with_tokens();
    let without = engine.ask(["status"]).expect(4);
    assert!(without.err.contains("api/unauthorized") && without.err.contains("GRAVITY_TOKEN"), "{}", without.err);
    as_caller(&engine, "wrong", &["status"]).expect(4);
    as_caller(&engine, "reader-0123456789", &["status"]).expect(0);
    let beyond = as_caller(&engine, "reader-0123456789", &["send", "e", "{}"]).expect(4);
    assert!(beyond.err.contains("api/forbidden") && beyond.err.contains("ingest"), "{}", beyond.err);
    as_caller(&engine, "app-0123456789abc", &["send", "userCreated", r#"{"id": 1}"#]).expect(0);
    as_caller(&engine, "app-0123456789abc", &["status"]).expect(4);
    as_caller(&engine, "app-0123456789abc", &["dlq", "retry", "--route", "db1"]).expect(4);
    as_caller(&engine, "ops-0123456789abc", &["route", "pause", "db1"]).expect(0);
    let events = as_caller(&engine, "ops-0123456789abc", &["log", "export"]).expect(0).out;
    assert!(events.contains(r#""actor":"ops""#), "who did it is on the log: {events}");
    let file = dir.path().join("app-token");
    let by_file = gravity()
        .args(["send", "userCreated", r#"{"id": 2}"#, "--url", &engine.url, "--token-file"])
        .arg(file)
        .output();
    Ended::of(&by_file.expect("runs")).expect(0);
}

/// The certificate is made here: the tree holds no key.
#[test]
fn tls_is_verified() {
    let dir = plain();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args([
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ])
        .current_dir(dir.path())
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs openssl to make a certificate");
        return;
    }
    dir.write("gravity.toml", "[api]\ntls = {certFile = \"cert.pem\", keyFile = \"key.pem\"}\n");
    let engine = Engine::start(&dir, &[]);
    assert!(engine.url.starts_with("https://"), "{}", engine.url);
    let certificate = dir.path().join("cert.pem").display().to_string();
    engine.ask(["status", "--ca-file", &certificate]).expect(0);
    let unknown = engine.ask(["status"]).expect(1);
    assert!(unknown.err.to_lowercase().contains("certificate"), "{}", unknown.err);
    let plain = engine.url.replace("https", "http");
    Ended::of(&gravity().args(["status", "--url", &plain]).output().expect("runs")).expect(1);
    assert_eq!(engine.stop(), 0);
}
