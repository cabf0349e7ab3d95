//! `gravity import`: every record exactly once, whatever happens in between, and bad lines by their place.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Dir, Ended, Engine, eventually, gravity, plain, run};

/// Events of the log, by the id in the payload, or in the row of a captured change.
fn ids(engine: &Engine) -> Vec<u64> {
    let exported = engine.ask(["log", "export"]).expect(0);
    let events = exported.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    let places = ["/payload/id", "/payload/after/id", "/payload/payload/after/id"];
    let id = |event: Value| places.iter().find_map(|place| event.pointer(place)?.as_u64());
    let mut ids: Vec<u64> = events.filter_map(id).collect();
    ids.sort_unstable();
    ids
}

fn lines(ids: std::ops::Range<u64>) -> String {
    ids.map(|id| format!("{{\"event\":\"userCreated\",\"payload\":{{\"id\":{id},\"name\":\"n{id}\"}}}}\n")).collect()
}

fn path(dir: &Dir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

/// A file of each form, and the flags that it needs.
fn forms(records: u64) -> [(&'static str, String, Vec<&'static str>); 3] {
    let mut csv = "id,name\n".to_owned();
    (0..records).for_each(|id| csv += &format!("{id},\"n, {id}\"\n"));
    // With and without schema by turns, as they came.
    let change = |id: u64| {
        let (op, row) = (if id.is_multiple_of(3) { "r" } else { "c" }, format!(r#"{{"id":{id},"name":"n{id}"}}"#));
        let bare = format!(
            r#"{{"before":null,"after":{row},"source":{{"table":"users"}},"op":"{op}","ts_ms":1710505845200}}"#
        );
        if id.is_multiple_of(2) { bare } else { format!(r#"{{"schema":{{"type":"struct"}},"payload":{bare}}}"#) }
    };
    let dump: String = (0..records).map(|id| change(id) + "\n").collect();
    let of_csv = vec!["--event", "userCreated", "--key", "id", "--json-columns", "id"];
    [("users.jsonl", lines(0..records), Vec::new()), ("users.csv", csv, of_csv), ("dump.jsonl", dump, Vec::new())]
}

const EVERY_FORM: &str = r#"{"rules": [
  {"event": "userCreated", "table": "users", "method": "update", "mapping": [
    {"source": "id", "target": "id", "type": "i64", "primary": true}, {"source": "name", "target": "name", "type": "text"}]},
  {"event": "users.create", "table": "users", "method": "insert", "mapping": [
    {"source": "id", "target": "id", "type": "i64", "primary": true}, {"source": "name", "target": "name", "type": "text"}]},
  {"event": "users.read", "table": "users", "method": "insert", "mapping": [
    {"source": "id", "target": "id", "type": "i64", "primary": true}, {"source": "name", "target": "name", "type": "text"}]}
]}"#;

#[test]
fn an_import_of_every_form_that_was_killed_and_repeated_has_every_record_once() {
    const RECORDS: u64 = 30_000;
    for (name, content, flags) in forms(RECORDS) {
        let dir = plain();
        dir.write("rules.json", EVERY_FORM);
        dir.write(name, &content);
        let engine = Engine::start(&dir, &[]);
        let file = path(&dir, name);
        let import = || {
            let mut command = gravity();
            command.args(["import", &file, "--source", "http", "--json", "--url", &engine.url]).args(&flags);
            command
        };
        let stored = || {
            let source = engine.ask(["status", "--json"]).expect(0).json()["sources"][0].clone();
            let count = |name: &str| source[name].as_u64().expect("a count");
            count("received") - count("duplicates")
        };
        let mut kills = 0;
        for after in [1, 9_000, 18_000] {
            let mut child = import().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
            while stored() < after && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            kills += u32::from(child.try_wait().expect("a child").is_none());
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
        assert!(kills > 0, "{name}: at least one import was under way");
        let seen = stored();
        let first = Ended::of(&import().output().expect("the binary runs")).expect(0).json()["files"][0].clone();
        assert_eq!((&first["events"], &first["done"]), (&json!(RECORDS), &json!(true)), "{name}");
        let known = first["duplicates"].as_u64().expect("a count");
        // A batch that was under way when its sender was killed may come in after the look.
        assert!(known >= seen && known <= seen + 1_000 && seen > 0, "{name}: {seen} stored, {known} known");
        // By mistake once more: nothing is added, and the first answers come again.
        let again = Ended::of(&import().output().expect("the binary runs")).expect(0);
        assert!(again.err.contains("30,000 events are in the log, all of them were there before"), "{}", again.err);
        let mut expected = first.clone();
        expected["duplicates"] = json!(RECORDS);
        assert_eq!(again.json()["files"][0], expected, "{name}");
        assert_eq!(ids(&engine), (0..RECORDS).collect::<Vec<_>>(), "{name}");
        let route = || engine.ask(["status", "--json"]).expect(0).json()["routes"][0].clone();
        let route = eventually(route, |route| route["lag_events"] == 0);
        assert_eq!((&route["read"], &route["applied"]), (&json!(RECORDS), &json!(RECORDS)), "{name}: {route}");
        println!("{name}: {kills} kills, {known} of {RECORDS} were there when it was repeated");
        engine.stop();
    }
}

/// The engine itself is killed in the middle, and comes back under its address: the import waits for it and goes on.
#[test]
fn an_import_goes_on_when_the_engine_was_killed_and_is_back() {
    const LINES: u64 = 200_000;
    let dir = plain();
    dir.write("users.jsonl", &lines(0..LINES));
    // Below the ephemeral range, so that no outgoing connection takes it while the engine is away.
    let mut addresses = (9_000 + std::process::id() % 1_000..10_500).map(|port| format!("127.0.0.1:{port}"));
    let address = addresses.find(|address| std::net::TcpListener::bind(address).is_ok()).expect("a free port");
    let engine = Engine::start_at(&dir, &address);
    let mut command = gravity();
    command.args(["import", &path(&dir, "users.jsonl"), "--source", "http", "--json", "--url", &engine.url]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    eventually(|| ids_begun(&engine), |begun| *begun);
    drop(engine);
    assert!(child.try_wait().expect("a child").is_none(), "the import was under way");
    let engine = Engine::start_at(&dir, &address);
    let ended = Ended::of(&child.wait_with_output().expect("ends")).expect(0);
    let report = ended.json()["files"][0].clone();
    assert_eq!((&report["events"], &report["duplicates"]), (&json!(LINES), &json!(0)), "nothing was there before");
    assert_eq!(ids(&engine), (0..LINES).collect::<Vec<_>>());
    engine.stop();
}

#[test]
fn an_interrupted_import_says_where_and_goes_on() {
    const LINES: u64 = 200_000;
    let dir = plain();
    dir.write("users.jsonl", &lines(0..LINES));
    let engine = Engine::start(&dir, &[]);
    let file = path(&dir, "users.jsonl");
    let mut command = gravity();
    command.args(["import", &file, "--source", "http", "--url", &engine.url]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    eventually(|| ids_begun(&engine), |begun| *begun);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs").success());
    let ended = Ended::of(&child.wait_with_output().expect("ends")).expect(1);
    assert!(ended.err.contains("stopped behind") && ended.err.contains("not to its end"), "{}", ended.err);
    engine.ask(["import", &file, "--source", "http"]).expect(0);
    assert_eq!(ids(&engine).len() as u64, LINES);
    engine.stop();
}

fn ids_begun(engine: &Engine) -> bool {
    let status = engine.ask(["status", "--json"]).expect(0).json();
    status["sources"][0]["received"].as_u64().is_some_and(|count| count > 0)
}

#[test]
fn a_line_that_is_no_json_stops_the_import_before_anything_is_sent() {
    let dir = plain();
    dir.write("users.jsonl", &format!("{}\n{{\"event\": \n{}", lines(0..3), lines(3..5)));
    let file = path(&dir, "users.jsonl");
    let engine = Engine::start(&dir, &[]);
    let ended = engine.ask(["import", &file, "--source", "http"]).expect(2);
    assert!(ended.err.contains(&format!("{file}:5:10: ")) && ended.err.contains("nothing was sent"), "{}", ended.err);
    assert!(ids(&engine).is_empty());
    let ended = engine.ask(["import", &file, "--source", "http", "--skip-bad", "--json"]).expect(3);
    let report = ended.json();
    assert_eq!(report["bad"][0]["line"], 5);
    assert_eq!((&report["files"][0]["events"], &report["files"][0]["skipped"]), (&json!(5), &json!(1)));
    assert_eq!(ids(&engine), [0, 1, 2, 3, 4]);
    engine.stop();
}

#[test]
fn what_the_source_refuses_is_shown_with_its_place_in_the_file() {
    let dir = plain();
    dir.write("users.jsonl", &format!("{}{{\"event\": 7, \"payload\": {{}}}}\n{}", lines(0..2), lines(2..4)));
    dir.write("payloads.jsonl", "{\"id\": 10}\n\n{\"id\": 11}\n");
    let engine = Engine::start(&dir, &[]);
    let file = path(&dir, "users.jsonl");
    let ended = engine.ask(["import", &file, "--source", "http"]).expect(2);
    assert!(
        ended.err.contains(&format!("{file}:3:1: ")) && ended.err.contains("decode/bad-event-name"),
        "{}",
        ended.err
    );
    let ended = engine.ask(["import", &file, "--source", "http", "--skip-bad"]).expect(3);
    assert!(ended.err.contains("4 events are in the log, 1 skipped"), "{}", ended.err);
    engine.ask(["import", &path(&dir, "payloads.jsonl"), "--source", "http", "--event", "userCreated"]).expect(0);
    assert_eq!(ids(&engine), [0, 1, 2, 3, 10, 11]);
    let ended = engine.ask(["import", &file, "--source", "nowhere"]).expect(2);
    assert!(ended.err.contains("nowhere"), "{}", ended.err);
    engine.stop();
}

#[test]
fn csv_rows_become_events_with_keys() {
    let dir = plain();
    dir.write("users.csv", "id,name\n1,\"Anne \"\"A\"\", née\nB\"\n2,\n");
    let engine = Engine::start(&dir, &[]);
    let file = path(&dir, "users.csv");
    let ended = engine.ask([
        "import",
        &file,
        "--source",
        "http",
        "--event",
        "userCreated",
        "--key",
        "id",
        "--json-columns",
        "id",
    ]);
    ended.expect(0);
    let exported = engine.ask(["log", "export"]).expect(0);
    let events: Vec<Value> = exported
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line"))
        .filter(|event: &Value| event["event"] == "userCreated")
        .collect();
    assert_eq!(events[0]["payload"], json!({"id": 1, "name": "Anne \"A\", née\nB"}));
    assert_eq!((&events[1]["payload"], &events[1]["key"]), (&json!({"id": 2, "name": null}), &json!("2")));
    engine.stop();
}

#[test]
fn debezium_dumps_are_recognised_line_by_line() {
    let rules = r#"{"rules": [{"event": "users.create", "table": "users", "method": "insert", "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true}, {"source": "name", "target": "name", "type": "text"}]},
        {"event": "users.delete", "table": "users", "method": "delete", "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true}]}]}"#;
    let dir = plain();
    dir.write("rules.json", rules);
    let change = |op: &str, before: &str, after: &str| {
        format!(r#"{{"before":{before},"after":{after},"source":{{"table":"users"}},"op":"{op}","ts_ms":1}}"#)
    };
    let dump = [
        change("c", "null", r#"{"id":1,"name":"Anne"}"#),
        format!(r#"{{"schema":{{"type":"struct"}},"payload":{}}}"#, change("c", "null", r#"{"id":2,"name":"Ben"}"#)),
        change("d", r#"{"id":1}"#, "null"),
    ];
    dir.write("dump.jsonl", &dump.join("\n"));
    let engine = Engine::start(&dir, &[]);
    engine.ask(["import", &path(&dir, "dump.jsonl"), "--source", "http"]).expect(0);
    let applied = || engine.ask(["status", "--json"]).expect(0).json()["routes"][0]["applied"].clone();
    eventually(applied, |count| *count == json!(3));
    engine.stop();
}

#[test]
fn bad_usage_is_refused_before_anything_is_asked() {
    let dir = plain();
    dir.write("a.csv", "id\n1\n");
    dir.write("a.txt", "{}\n");
    let csv = path(&dir, "a.csv");
    let said = |ended: Ended, text: &str| assert!(ended.err.contains(text), "{}", ended.err);
    said(run(["import", &csv, "--source", "http"]).expect(2), "--event");
    said(run(["import", &csv, "--source", "http", "--event", "e", "--key", "x"]).expect(2), "the header has: id");
    said(run(["import", &path(&dir, "a.txt"), "--source", "http"]).expect(2), "--format");
    said(run(["import", "-", "--source", "http", "--key", "id"]).expect(2), "for CSV");
    said(run(["import", "none.jsonl.gz", "--source", "http"]).expect(2), "zcat");
    said(
        run(["import", &path(&dir, "a.txt"), "--source", "http", "--format", "jsonl", "--url", "http://127.0.0.1:1"])
            .expect(1),
        "no engine answers",
    );
}
