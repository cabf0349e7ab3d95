//! `gravity test`: what holds, what differs, what an update writes, and what no case uses.

use serde_json::{Value, json};

use crate::support::{Dir, plain, run};

const RULES: &str = r#"{"rules": [
  {"event": "userCreated", "table": "users", "method": "update", "mapping": [
    {"source": "id", "target": "id", "type": "i64", "primary": true},
    {"source": "name", "target": "name", "type": "text"},
    {"source": "balance", "target": "balance", "type": "decimal(20,2)"}]},
  {"event": "userDeleted", "table": "users", "method": "delete", "mapping": [
    {"source": "id", "target": "id", "type": "i64", "primary": true}]},
  {"event": "userCreated", "database": "db1", "exporter": ["hook"]},
  {"event": "userDeleted", "database": "db1"}
]}"#;

const EXPORTER: &str = r#"{"exporter": {"hook": {"type": "restful_api", "url": "http://127.0.0.1:1/hook"}}}"#;

fn shop(cases: &str) -> Dir {
    let dir = plain();
    dir.write("rules.json", RULES);
    dir.write("exporter.json", EXPORTER);
    dir.write("tests/users.json", cases);
    dir
}

fn created(id: u64, name: &str) -> String {
    format!(r#"{{"event": "userCreated", "key": "{id}", "payload": {{"id": {id}, "name": "{name}"}}}}"#)
}

fn text(dir: &Dir) -> String {
    std::fs::read_to_string(dir.path().join("tests/users.json")).expect("the file")
}

#[test]
fn cases_that_hold_end_with_zero_and_the_starter_does() {
    let (first, again) = (created(1, "Fred"), created(1, "Freda"));
    let dir = shop(&format!(
        r#"{{"cases": [{{"name": "renamed", "events": [{first}, {again},
            {{"event": "userCreated", "payload": {{"id": 2, "balance": 12345678901234567.10}}}},
            {{"event": "userCreated", "payload": {{"id": "x"}}}}, {{"event": "other", "payload": 1}}, {{"event": 7, "payload": {{}}}}],
          "rows": {{"db1": {{"users": [{{"id": 2, "name": null, "balance": 12345678901234567.1}}, {{"balance": null, "name": "Freda", "id": 1}}]}}}},
          "messages": {{"hook": [{{"event": "userCreated", "key": "1", "payload": {{"id": 1, "name": "Fred"}}}},
            {{"event": "userCreated", "key": "1", "payload": {{"id": 1, "name": "Freda"}}}},
            {{"event": "userCreated", "key": "2", "payload": {{"id": 2, "balance": 12345678901234567.10}}}}]}},
          "dead_letters": [{{"route": "db1", "event": 4, "code": "map/wrong-type"}}, {{"route": "ingest", "event": 6, "code": "decode/bad-event-name"}}]}}]}}"#
    ));
    let ended = run(["test", "-c", &dir.text(), "--json"]);
    let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{}", ended.err));
    assert_eq!(report["cases"][0]["differences"], json!([]), "{}", ended.err);
    let ended = ended.expect(0);
    // The delete never came, and says so.
    assert_eq!(report["unused"]["rules"].as_array().map(Vec::len), Some(2), "{report}");
    assert!(ended.err.contains("no case uses the rule rules.json:6: userDeleted → users"), "{}", ended.err);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new").display().to_string();
    run(["init", &path]).expect(0);
    let ended = run(["test", "-c", &path]).expect(0);
    assert!(ended.err.contains("1 of 1 cases hold"), "{}", ended.err);
    assert!(!folder.path().join("new/views.db").exists(), "no database is touched");
}

#[test]
fn a_difference_is_shown_and_ends_with_three() {
    let one = created(1, "Fred");
    let dir = shop(&format!(
        r#"{{"cases": [{{"name": "wrong", "events": [{one}], "rows": {{"db1": {{"users": [{{"id": 1, "name": "Frad", "balance": null}}]}}}}}}]}}"#
    ));
    let ended = run(["test", "-c", &dir.text()]).expect(3);
    for line in [
        "differs tests/users.json: wrong",
        "rows db1.users",
        r#"- {"balance": null, "id": 1, "name": "Frad"}"#,
        r#"+ {"balance": null, "id": 1, "name": "Fred"}"#,
        "messages hook",
        "no case uses the mapping rules.json:5: userCreated → users.balance",
        "0 of 1 cases hold",
    ] {
        assert!(ended.err.contains(line), "{line:?} in {}", ended.err);
    }
}

#[test]
fn an_update_writes_what_came_out_and_keeps_the_rest() {
    let (one, two) = (created(1, "Fred"), created(2, "Anne"));
    let written = format!(
        "{{\n    \"cases\": [\n        {{\n            \"name\":   \"kept as it is\",\n            \"events\": [\n                {one}\n            ],\n            \
         \"rows\": {{ \"db1\": {{ \"users\": [ {{\"id\": 1, \"name\": \"Fred\", \"balance\": null}} ] }} }},\n            \
         \"messages\": {{\"hook\": []}}\n        }},\n        {{\"name\": \"new\",\n            \"events\": [{two}]\n        }}\n    ]\n}}\n"
    );
    let dir = shop(&written);
    run(["test", "-c", &dir.text()]).expect(3);
    assert_eq!(text(&dir), written, "without --update nothing is written");
    let ended = run(["test", "-c", &dir.text(), "--update"]).expect(0);
    assert!(ended.err.contains("wrote tests/users.json"), "{}", ended.err);
    let after = text(&dir);
    assert!(after.contains("\"name\":   \"kept as it is\""), "{after}");
    assert!(
        after.contains(r#""rows": { "db1": { "users": [ {"id": 1, "name": "Fred", "balance": null} ] } },"#),
        "{after}"
    );
    let message = r#"                    {"event": "userCreated", "key": "1", "payload": {"id": 1, "name": "Fred"}}"#;
    assert!(after.contains(message), "{after}");
    run(["test", "-c", &dir.text()]).expect(0);
    run(["test", "-c", &dir.text(), "--update"]).expect(0);
    assert_eq!(text(&dir), after, "a second update has nothing to write");
}

#[test]
fn messages_of_a_source_are_read_by_its_settings() {
    let change = |op: &str, before: &str, after: &str| {
        format!(r#"{{"before": {before}, "after": {after}, "source": {{"table": "users"}}, "op": "{op}", "ts_ms": 1}}"#)
    };
    let dir = shop(&format!(
        r#"{{"cases": [{{"name": "captured", "source": "changes", "topic": "shop.public.users", "events": [
            {{"key": {{"id": 1}}, "value": {}}}, {{"key": {{"id": 2}}, "value": {}}}, {{"key": {{"id": 1}}, "value": {}}},
            {{"key": {{"id": 1}}, "value": null}}],
          "rows": {{"db1": {{"users": [{{"id": 2, "name": "Anne", "balance": 1.5}}]}}}}}}]}}"#,
        change("c", "null", r#"{"id": 1, "name": "Fred"}"#),
        change("r", "null", r#"{"id": 2, "name": "Anne", "balance": "1.50"}"#),
        change("d", r#"{"id": 1}"#, "null"),
    ));
    dir.write("rules.json", &RULES.replace("userCreated", "users").replace(r#", "exporter": ["hook"]"#, ""));
    let kafka = r#"{"sources": {"changes": {"type": "kafka", "hosts": ["127.0.0.1:1"], "topics": ["shop.public.users"],
        "group": "g", "envelope": "debezium", "event_name": "users"}}}"#;
    dir.write("sources.json", kafka);
    run(["test", "-c", &dir.text()]).expect(0);
}

#[test]
fn what_cannot_be_read_or_played_is_said_with_its_place() {
    let said = |cases: &str, code: i32, text: &str| {
        let ended = run(["test", "-c", &shop(cases).text()]).expect(code);
        assert!(ended.err.contains(text), "{text:?} in {}", ended.err);
    };
    said("{\"cases\": [\n {\"name\": \"a\", \"event\": []}]}", 2, "tests/users.json:2:22: unknown field `event`");
    said(r#"{"cases": [{"name": "a", "events": []}, {"name": "a", "events": []}]}"#, 2, "two cases are named \"a\"");
    said(r#"{"cases": [{"name": "a", "events": [], "rows": []}]}"#, 2, "`rows` is {DATABASE");
    said(r#"{"cases": [{"name": "a", "source": "b", "events": []}]}"#, 1, "no source is named \"b\"");
    let ended = run(["test", "-c", &plain().text()]).expect(2);
    assert!(ended.err.contains("holds no cases"), "{}", ended.err);
    let dir = shop(r#"{"cases": [{"name": "a", "events": []}]}"#);
    dir.write("rules.json", r#"{"rules": [{"event": "e", "table": "t", "mothod": "insert"}]}"#);
    run(["test", "-c", &dir.text()]).expect(2);
    dir.write("rules.json", r#"{"rules": [{"event": "e", "table": "t", "method": "insert", "mapping": [{"source": "id", "target": "id", "type": "i64"}]}]}"#);
    run(["test", "-c", &dir.text()]).expect(2);
}

/// SEMANTICS 2.7: sums of a case are those of the databases, with their refusals.
#[test]
fn s2_7_ops_are_played() {
    let rules = |typed: &str| {
        format!(
            r#"{{"rules": [{{"event": "paid", "table": "totals", "method": "upsert", "mapping": [
                {{"source": "id", "target": "id", "type": "i64", "primary": true}},
                {{"source": "amount", "target": "total"{typed}, "op": "add"}},
                {{"source": "note", "target": "notes", "type": "json", "op": "append"}}]}}]}}"#
        )
    };
    let paid =
        |amount: &str| format!(r#"{{"event": "paid", "payload": {{"id": 1, "amount": {amount}, "note": "x"}}}}"#);
    let dir = shop(&format!(
        r#"{{"cases": [{{"name": "sums", "events": [{}, {}, {}],
          "rows": {{"db1": {{"totals": [{{"id": 1, "total": 0.3, "notes": ["x", "x"]}}]}}}},
          "dead_letters": [{{"route": "db1", "event": 3, "code": "22003"}}]}}]}}"#,
        paid("0.10"),
        paid("0.20"),
        paid("9.99")
    ));
    dir.write("rules.json", &rules(r#", "type": "decimal(3,2)""#));
    run(["test", "-c", &dir.text()]).expect(0);
    // Without a type there is no number to add to, and that is said with the rule's place.
    dir.write("databases.json", r#"{"databases": {"db1": {"type": "sqlite", "path": "views.db"}}}"#);
    dir.write("rules.json", &rules(""));
    let ended = run(["test", "-c", &dir.text()]).expect(1);
    assert!(ended.err.contains("rules.json:3") && ended.err.contains("`add` does not work on json"), "{}", ended.err);
}
