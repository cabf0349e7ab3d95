//! `check`: every key of the interface is accepted, every misspelt one refused with its place, and no secret is shown.

use serde_json::{Map, Value, json};

use crate::support::{DATABASES, Dir, Ended, RULES, gravity, run};

/// Every key that INTERFACE 1 names, on the types that take it.
fn sources() -> Value {
    let intake = json!({"envelope": "auto", "start": "earliest", "dedupe_keep": "1GiB", "max_batch": "16MiB", "tombstone": "ignore"});
    let with = |mut entry: Value| {
        let entry_map = entry.as_object_mut().expect("an object");
        for (key, value) in intake.as_object().expect("an object") {
            entry_map.insert(key.clone(), value.clone());
        }
        entry
    };
    let mut core = with(
        json!({"type": "nats", "mode": "core", "hosts": ["127.0.0.1:4222"], "subjects": ["pings.*"], "queue_group": "gravity", "accept_at_most_once": true}),
    );
    core.as_object_mut().expect("an object").remove("start");
    let mut http = with(json!({"type": "http", "key_from": "field:/id"}));
    http.as_object_mut().expect("an object").remove("start");
    json!({"$schema": "sources.schema.json", "sources": {
        "orders": with(json!({"type": "kafka", "hosts": ["127.0.0.1:9092"], "topics": ["orders"], "group": "gravity", "username": "u", "password": "${env:GRAVITY_TEST_SECRET}",
            "saslMechanism": "PLAIN", "secure": true, "caFile": "ca.pem", "certFile": "c.pem", "keyFile": "k.pem", "kafka": {"fetch.wait.max.ms": 50}, "event_from": "topic", "key_from": "message_key"})),
        "bills": with(json!({"type": "nats", "hosts": ["127.0.0.1:4222"], "stream": "BILLS", "subjects": ["bills.>"], "durable": "d", "accept_recreated": true, "accept_gap": true, "username": "u", "password": "${env:GRAVITY_TEST_SECRET}", "secure": true, "event_from": "subject"})),
        "pings": core,
        "token": {"type": "nats", "hosts": ["127.0.0.1:4222"], "stream": "S", "subjects": ["a.*"], "token": "${env:GRAVITY_TEST_SECRET}"},
        "creds": {"type": "nats", "hosts": ["127.0.0.1:4222"], "stream": "S", "subjects": ["b.>"], "creds": "${env:GRAVITY_TEST_SECRET}"},
        "nkey": {"type": "nats", "hosts": ["127.0.0.1:4222"], "stream": "S", "subjects": [">"], "nkey": "${env:GRAVITY_TEST_SECRET}"},
        "stock": with(json!({"type": "rabbitmq", "host": "127.0.0.1", "port": 5672, "username": "guest", "password": "guest", "virtualHost": "/", "queues": ["stock"], "prefetch": 1000, "secure": false, "event_from": "routing_key"})),
        "web": http,
        "named": {"type": "http", "envelope": "plain", "event_name": "orders", "key_from": "header:k"}
    }})
}

fn databases() -> Value {
    let server = |kind: &str, port: u16| {
        json!({"type": kind, "host": "127.0.0.1", "port": port, "secure": true, "username": "u", "password": "${env:GRAVITY_TEST_SECRET}",
        "dbName": "gravity", "caFile": "ca.pem", "certFile": "c.pem", "keyFile": "k.pem", "ddl": "none", "lanes": 2, "existing_rows": "adopt",
        "bookkeeping": "manual", "unknown_fields": "park", "max_parked": 10, "was": "old", "statement_timeout": "90s"})
    };
    json!({"$schema": "databases.schema.json", "databases": {
        "pg": server("postgres", 5432),
        "my": server("mysql", 3306),
        "mongo": {"type": "mongodb", "uri": "${env:GRAVITY_TEST_SECRET}", "dbName": "gravity", "tombstone_keep": "24h", "statement_timeout": "5min", "ddl": "none"},
        "file": {"type": "sqlite", "path": "views.db", "ddl": "create", "lanes": 1, "existing_rows": "adopt", "unknown_fields": "ignore", "max_parked": 5, "was": "before"}
    }})
}

fn exporters() -> Value {
    let common = json!({"format": "cloudevents", "on_refused": "park", "allow_private": true});
    let with = |mut entry: Value| {
        for (key, value) in common.as_object().expect("an object") {
            entry[key] = value.clone();
        }
        entry
    };
    json!({"$schema": "exporter.schema.json", "exporter": {
        "k": with(json!({"type": "kafka", "host": "127.0.0.1", "port": 9092, "secure": true, "username": "u", "password": "${env:GRAVITY_TEST_SECRET}", "topic": "t", "saslMechanism": "SCRAM-SHA-256"})),
        "r": with(json!({"type": "restful_api", "url": "https://example.com/api", "caFile": "ca.pem", "signing": ["${env:GRAVITY_TEST_SIGNING}"]})),
        "n": with(json!({"type": "nats", "host": "127.0.0.1", "port": 4222, "subject": "s", "nkey": "${env:GRAVITY_TEST_SECRET}"})),
        "j": with(json!({"type": "jetstream", "host": "127.0.0.1", "port": 4222, "subject": "s", "stream": "S", "token": "${env:GRAVITY_TEST_SECRET}", "secure": true, "caFile": "ca.pem"})),
        "q": with(json!({"type": "rabbitmq", "host": "127.0.0.1", "port": 5672, "exchange": "e", "routingKey": "r", "virtualHost": "/"}))
    }})
}

const ROUTED: &str = r#"{"rules": [
  {"event": "userCreated", "table": "users", "method": "update", "database": "pg", "exporter": ["k", "r"], "mapping": [
    {"source": "id", "target": "id", "primary": true}, {"source": "name", "target": "name"}]}
]}"#;

fn everything() -> Dir {
    let text = |value: Value| serde_json::to_string_pretty(&value).expect("JSON");
    Dir::new(&[
        ("sources.json", &text(sources())),
        ("databases.json", &text(databases())),
        ("exporter.json", &text(exporters())),
        ("rules.json", ROUTED),
        ("ca.pem", ""),
        ("c.pem", ""),
        ("k.pem", ""),
    ])
}

/// A secret of Standard Webhooks: base64 of 24 bytes.
const SIGNING: &str = "whsec_CANARYCANARYCANARYCANARYCANARYCA";

pub fn check(dir: &Dir) -> Ended {
    let output = gravity()
        .args(["check", "--json", "-c"])
        .arg(dir.path())
        .envs([("GRAVITY_TEST_SECRET", "CANARY-9"), ("GRAVITY_TEST_SIGNING", SIGNING)])
        .output();
    Ended::of(&output.expect("the binary runs"))
}

pub fn errors(ended: &Ended) -> Vec<Value> {
    let findings = ended.json()["findings"].as_array().cloned().expect("findings");
    findings.into_iter().filter(|finding| finding["severity"] == "error").collect()
}

#[test]
fn every_key_of_the_interface_is_accepted() {
    let ended = check(&everything()).expect(0);
    assert_eq!(errors(&ended), Vec::<Value>::new());
    assert!(!ended.out.contains("CANARY"), "{}", ended.out);
}

/// All pointers to keys below the entries, with the key.
fn keys(value: &Value, pointer: &str, out: &mut Vec<String>) {
    if let Some(members) = value.as_object() {
        for (key, below) in members {
            let pointer = format!("{pointer}/{key}");
            out.push(pointer.clone());
            keys(below, &pointer, out);
        }
    }
}

fn with_misspelt(document: &Value, pointer: &str, misspelt: &str) -> Value {
    let (above, key) = pointer.rsplit_once('/').expect("a pointer");
    let mut document = document.clone();
    let members = document.pointer_mut(above).and_then(Value::as_object_mut).expect("an object");
    let renamed: Map<String, Value> =
        members.iter().map(|(k, v)| (if k == key { misspelt.to_owned() } else { k.clone() }, v.clone())).collect();
    *members = renamed;
    document
}

/// P8: each key with two letters exchanged is refused at its line, and the right word is suggested.
#[test]
fn every_misspelt_key_is_refused_with_its_place_and_the_right_word() {
    let mut tried = 0;
    for (file, document, root) in [
        ("sources.json", sources(), "sources"),
        ("databases.json", databases(), "databases"),
        ("exporter.json", exporters(), "exporter"),
    ] {
        let mut pointers = Vec::new();
        keys(&document, "", &mut pointers);
        for pointer in pointers {
            let steps: Vec<&str> = pointer.split('/').skip(1).collect();
            let key = steps[steps.len() - 1];
            // Names are the user's, settings of librdkafka its own; without `type` there is no telling what an entry is.
            let is_name = steps.len() == 2 && steps[0] == root;
            if is_name || key == "type" || key == "$schema" || key.contains('.') {
                continue;
            }
            let mut letters: Vec<char> = key.chars().collect();
            let Some(at) = (1..letters.len()).find(|i| letters[*i] != letters[*i - 1]) else { continue };
            letters.swap(at, at - 1);
            let misspelt: String = letters.into_iter().collect();
            let dir = everything();
            let text = serde_json::to_string_pretty(&with_misspelt(&document, &pointer, &misspelt)).expect("JSON");
            dir.write(file, &text);
            let ended = check(&dir).expect(2);
            let all = errors(&ended);
            let finding =
                all.iter().find(|f| f["code"] == "config/unknown-key").unwrap_or_else(|| panic!("{pointer}: {all:?}"));
            let line =
                text.lines().position(|line| line.contains(&format!("\"{misspelt}\":"))).expect("it is there") + 1;
            assert_eq!(
                (&finding["file"], finding["line"].as_u64()),
                (&json!(file), Some(line as u64)),
                "{pointer}: {finding}"
            );
            let suggestion = finding["suggestion"].as_str().unwrap_or_default();
            // Short keys may be as near to another one; all others must be found again.
            assert!(suggestion.contains(&format!("`{key}`")) || key.len() < 5, "{pointer}: {finding}");
            assert!(!ended.out.contains("CANARY"));
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried}");
}

#[test]
fn everything_is_found_at_once() {
    let dir = Dir::new(&[
        ("sources.json", r#"{"sources": {"a": {"type": "htp"}}}"#),
        ("databases.json", r#"{"databases": {"db1": {"type": "sqlite", "path": "a.db", "dll": "create"}}}"#),
        ("exporter.json", r#"{"exporter": {"e": {"type": "restful_api"}}}"#),
        ("rules.json", r#"{"rules": [{"event": "e", "table": "t", "metod": "update"}]}"#),
        ("gravity.toml", "[log]\nlimger = \"2ms\"\n"),
    ]);
    let ended = check(&dir).expect(2);
    let files: std::collections::BTreeSet<String> =
        errors(&ended).iter().map(|f| f["file"].as_str().unwrap_or_default().to_owned()).collect();
    let want = ["databases.json", "exporter.json", "gravity.toml", "rules.json", "sources.json"];
    assert_eq!(files.iter().map(String::as_str).collect::<Vec<_>>(), want, "{}", ended.out);
}

#[test]
fn a_missing_file_is_named() {
    let ended = check(&Dir::new(&[])).expect(2);
    let codes: Vec<String> = errors(&ended).iter().map(|f| f["file"].to_string()).collect();
    assert_eq!(codes, ["\"databases.json\"", "\"rules.json\""]);
}

#[test]
fn people_see_the_line_with_a_caret_and_no_colours_in_a_pipe() {
    let dir = Dir::new(&[("databases.json", &DATABASES.replace("path", "paht")), ("rules.json", RULES)]);
    let ended = run(["check", "-c", &dir.text()]).expect(2);
    assert_eq!(ended.out, "");
    for part in ["error[config/unknown-key]", "databases.json:1:", "^^^^^^", "did you mean `path`?"] {
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
    assert!(!ended.err.contains('\x1b'));
}

#[test]
fn the_decks_files_check_as_they_stand() {
    let deck = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/deck");
    let ended = run(["check", "-c", deck]).expect(0);
    assert!(!ended.err.contains("config/not-built"), "{}", ended.err);
}

#[test]
fn a_mongodb_entry_is_built_and_names_its_database() {
    let entry = |keys: &str| format!(r#"{{"databases": {{"db1": {{"type": "mongodb", "host": "127.0.0.1"{keys}}}}}}}"#);
    let dir = Dir::new(&[("databases.json", &entry(r#", "dbName": "d""#)), ("rules.json", RULES)]);
    let ended = run(["check", "-c", &dir.text()]).expect(0);
    assert!(!ended.err.contains("config/not-built"), "{}", ended.err);
    let dir = Dir::new(&[("databases.json", &entry("")), ("rules.json", RULES)]);
    let ended = run(["check", "-c", &dir.text()]).expect(2);
    assert!(ended.err.contains("missing-key") && ended.err.contains("dbName"), "{}", ended.err);
}

#[test]
fn live_check_says_what_the_tables_lack_and_touches_nothing() {
    let dir = Dir::new(&[("databases.json", &DATABASES.replace("create", "none")), ("rules.json", RULES)]);
    let ended = Ended::of(&gravity().args(["check", "--live", "--json", "-c"]).arg(dir.path()).output().expect("runs"))
        .expect(2);
    let found = errors(&ended);
    assert_eq!(found[0]["code"], "rules/unknown-table", "{found:?}");
    assert_eq!(found[0]["line"], 2);
    assert!(!dir.path().join("views.db").exists(), "check made the file");
    let sql = run(["check", "--live", "--sql", "-c", &dir.text()]);
    assert!(
        sql.out.contains("CREATE TABLE") && sql.out.contains("users") && sql.out.contains("gravity_checkpoints"),
        "{}",
        sql.out
    );
}

#[test]
fn an_unreachable_database_is_a_warning() {
    let databases = r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "port": 1, "dbName": "d", "username": "u"}}}"#;
    let dir = Dir::new(&[("databases.json", databases), ("rules.json", RULES)]);
    let ended = Ended::of(&gravity().args(["check", "--live", "--json", "-c"]).arg(dir.path()).output().expect("runs"))
        .expect(0);
    assert_eq!(ended.json()["findings"][0]["code"], "config/unreachable", "{}", ended.out);
}

#[test]
fn a_time_without_its_unit_is_told_which_units_there_are() {
    let databases =
        r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "dbName": "d", "statement_timeout": 90}}}"#;
    let dir = Dir::new(&[("databases.json", databases), ("rules.json", RULES)]);
    let found = errors(&check(&dir));
    let about: Vec<&Value> = found.iter().filter(|finding| finding["code"] == "config/wrong-type").collect();
    assert_eq!(about.len(), 1, "{found:?}");
    let help = "write it with its unit: \"90ms\", \"90s\", \"90min\", \"90h\", \"90d\"";
    assert_eq!(about[0]["suggestion"], help, "{}", about[0]);
}
