//! Changes of the config with the process killed between their steps: another name of a database entry (`"was"`, SEMANTICS 3.5),
//! rules taken in on SIGHUP (6.1). The next start finds what was done and does the rest.

use gravity_conformance::blackbox::command::{Ended, gravity};
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::hook::Hook;
use gravity_conformance::blackbox::tools::sqlite;
use serde_json::{Value, json};

fn configure(folder: &Folder, hook: &Hook, name: &str, was: Option<&str>) {
    let mut database = json!({"type": "sqlite", "path": "views.db", "ddl": "create"});
    if let Some(was) = was {
        database["was"] = json!(was);
    }
    folder.write_json("databases.json", &json!({"databases": {name: database}}));
    folder.write_json(
        "exporter.json",
        &json!({"exporter": {"told": {"type": "restful_api", "url": format!("http://{}/told", hook.address)}}}),
    );
    let mapping = json!([
        {"source": "id", "target": "id", "type": "i64", "primary": true},
        {"source": "name", "target": "name", "type": "text"}]);
    folder.write_json(
        "rules.json",
        &json!({"rules": [
            {"event": "userCreated", "table": "users", "method": "update", "mapping": mapping},
            {"event": "userCreated", "database": name, "exporter": ["told"]}]}),
    );
}

fn post(engine: &Engine, id: &Value) {
    let event = json!({"event": "userCreated", "payload": {"id": id, "name": "a"}});
    assert_eq!(engine.post(&event.to_string()).expect("an answer").0, 200);
}

fn renamed_with_a_kill_at(point: &str) {
    let hook = Hook::start(|_| (String::new(), 204));
    let folder = Folder::new(&[]);
    configure(&folder, &hook, "db1", None);
    let engine = Engine::start(&folder);
    for id in [json!(1), json!(2), json!("x"), json!(3)] {
        post(&engine, &id);
    }
    eventually(|| engine.route("db1"), |route| route["applied"] == 3 && route["parked"] == 1);
    eventually(|| hook.count(), |count| *count == 3);
    engine.stop();

    configure(&folder, &hook, "main", Some("db1"));
    let mut command = gravity();
    command.args(["run", "--listen", "127.0.0.1:0", "-c"]).arg(folder.path());
    let killed = Ended::run(command.env("GRAVITY_FAILPOINTS", format!("{point}=kill")));
    assert_eq!(killed.code, -1, "killed at {point}: {killed:?}");

    let engine = Engine::start(&folder);
    post(&engine, &json!(4));
    let route = eventually(|| engine.route("main"), |route| route["read"] == 5 && route["lag_events"] == 0);
    assert_eq!((&route["applied"], &route["failed"]), (&json!(4), &json!(1)), "{point}: {route}");
    let exporter = eventually(|| engine.exporter("told"), |exporter| exporter["delivered"] == 4);
    assert_eq!(exporter["route"], "main", "{point}");
    let letters = engine.ask(&["dlq", "list", "--json"]).expect(0).json();
    assert_eq!(
        (letters.as_array().map(Vec::len), &letters[0]["route"]),
        (Some(1), &json!("main")),
        "{point}: {letters}"
    );
    assert_identity(&engine.status());
    engine.stop();
    assert_eq!(hook.count(), 4, "{point}: each row was told of once");
    assert_eq!(sqlite(folder.path().join("views.db"), "SELECT group_concat(id) FROM users"), "1,2,3,4");
    let rows = "SELECT group_concat(DISTINCT route) FROM gravity_checkpoints";
    assert_eq!(sqlite(folder.path().join("views.db"), rows), "main", "{point}: nothing is left under the old name");
}

#[test]
fn a_kill_before_the_log_has_the_new_name_changes_nothing() {
    renamed_with_a_kill_at("log.before_sync");
}

#[test]
fn a_kill_after_the_log_has_the_new_name_is_made_up_for() {
    renamed_with_a_kill_at("rename.carried");
}

#[test]
fn a_kill_after_the_database_has_the_new_name_is_made_up_for() {
    renamed_with_a_kill_at("rename.taken_over");
}

#[test]
fn a_kill_after_the_record_of_new_rules_neither_loses_nor_repeats_the_change() {
    let folder = Folder::new(&[]);
    let file = folder.path().join("views.db");
    sqlite(&file, "CREATE TABLE users (id integer PRIMARY KEY, name text, email text)");
    folder.write_json("databases.json", &json!({"databases": {"db1": {"type": "sqlite", "path": "views.db"}}}));
    let rules = |columns: &[&str]| {
        let mut mapping = vec![json!({"source": "id", "target": "id", "primary": true})];
        mapping.extend(columns.iter().map(|column| json!({"source": column, "target": column})));
        folder.write_json(
            "rules.json",
            &json!({"rules": [{"event": "userCreated", "table": "users", "method": "update", "mapping": mapping}]}),
        );
    };
    let post = |engine: &Engine, id: u64| {
        let event = json!({"event": "userCreated", "payload": {"id": id, "name": "a", "email": "b"}});
        assert_eq!(engine.post(&event.to_string()).expect("an answer").0, 200);
    };
    rules(&["name"]);
    let mut engine = Engine::start_with(&folder, &[], &[("GRAVITY_FAILPOINTS", "reload.recorded=kill")]);
    post(&engine, 1);
    eventually(|| engine.route("db1"), |route| route["applied"] == 1);
    rules(&["name", "email"]);
    engine.signal("-HUP");
    assert_eq!(engine.wait(), -1, "{}", engine.said());

    let engine = Engine::start(&folder);
    post(&engine, 2);
    eventually(|| engine.route("db1"), |route| route["applied"] == 2 && route["lag_events"] == 0);
    assert_eq!(
        sqlite(&file, "SELECT * FROM users ORDER BY id"),
        "1|a|\n2|a|b",
        "each event under the rules of its time"
    );
    let tail = engine.ask(&["log", "tail", "--lines", "1000", "--json"]).expect(0);
    let changes = tail.out.lines().filter(|line| line.contains("\"gravity.config_changed\"")).count();
    assert_eq!(changes, 2, "the rules of the start and the change, once each: {}", tail.out);
    engine.stop();
}
