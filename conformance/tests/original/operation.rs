//! Running it: ends and exit codes, reloads, views that come later, tables that were there before, callers and what they may.

use gravity_conformance::blackbox::command::{Ended, gravity};
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::tools::{SqliteSession, curl, sqlite};
use serde_json::json;

use crate::support::{batch, plain, projection, saved, sqlite_entry, users_in};

/// 0 when all is in step, 3 with a dead letter of this run, both with everything applied; 1 where it cannot get in step.
#[test]
fn stop_at_end_ends_in_step_and_tells_dead_letters() {
    let folder = plain();
    let file = folder.path().join("db1.db");
    let start = || {
        let engine = Engine::start(&folder);
        eventually(|| engine.route("db1"), |route| route["state"] == "running");
        engine
    };
    // Taken in while a foreign writer keeps the route from its file; the rest is for the next run.
    let leave = |body: &str| {
        let engine = start();
        let held = SqliteSession::open(&file, "BEGIN IMMEDIATE;");
        assert_eq!(engine.post(body).expect("an answer").0, 200);
        engine.kill();
        held.close();
    };
    let at_end = || {
        let mut command = gravity();
        command.args(["run", "--stop-at-end", "--listen", "127.0.0.1:0", "-c"]).arg(folder.path());
        Ended::run(&mut command)
    };
    leave(&batch(0..100));
    at_end().expect(0);
    assert_eq!(sqlite(&file, "SELECT count(*) FROM users"), "100");
    at_end().expect(0);
    leave(&saved(100).replace("100,", "\"none\","));
    at_end().expect(3);
    at_end().expect(0);

    // A paused route never gets in step: this is said instead of waited for. What it lacks has an age all the same.
    let engine = start();
    engine.ask(&["route", "pause", "db1"]).expect(0);
    eventually(|| engine.route("db1"), |route| route["state"] == "paused");
    assert_eq!(engine.post(&saved(101)).expect("an answer").0, 200);
    eventually(|| engine.route("db1"), |route| route["lag_seconds"].as_f64() > Some(0.2));
    engine.kill();
    let paused = at_end().expect(1);
    assert!(paused.err.contains("db1") && paused.err.contains("paused"), "{}", paused.err);
    let engine = Engine::start(&folder);
    engine.ask(&["route", "resume", "db1"]).expect(0);
    engine.in_step("db1", 102);
    engine.stop();
    at_end().expect(0);
}

/// SIGTERM under way: it ends in order, with 0, and all that was answered is in the view after the next start.
#[test]
fn sigterm_drains() {
    let folder = plain();
    let mut engine = Engine::start(&folder);
    for part in 0..10 {
        assert_eq!(engine.post(&batch(part * 500..(part + 1) * 500)).expect("an answer").0, 200);
    }
    engine.signal("-TERM");
    assert_eq!(engine.wait(), 0, "{}", engine.said());
    let engine = Engine::start(&folder);
    engine.in_step("db1", 5_000);
    assert_eq!(sqlite(folder.path().join("db1.db"), "SELECT count(*) FROM users"), "5000");
    engine.stop();
}

/// SIGHUP takes a valid change whole, and refuses a bad one whole; a view that it adds is filled from the log's beginning.
#[test]
fn sighup_reloads_and_a_later_view_is_back_filled() {
    let folder = plain();
    let mut engine = Engine::start(&folder);
    assert_eq!(engine.post(&batch(0..300)).expect("an answer").0, 200);
    engine.in_step("db1", 300);
    let good = std::fs::read_to_string(folder.path().join("rules.json")).expect("rules");
    folder.write("rules.json", good.replace("\"method\"", "\"metod\""));
    engine.signal("-HUP");
    engine.wait_for("refused");
    assert_eq!(engine.post(&saved(300)).expect("an answer").0, 200);
    engine.in_step("db1", 301);

    let second = json!({"event": "userSaved", "table": "people", "method": "update", "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true},
        {"source": "name", "target": "called", "type": "text"},
    ]});
    let rules = json!([projection("userSaved", "users"), second, {"event": "userSaved", "database": "db1"}]);
    folder.write_json("rules.json", &json!({"rules": rules}));
    engine.signal("-HUP");
    engine.wait_for("new rules are in force");
    assert_eq!(engine.post(&saved(301)).expect("an answer").0, 200);
    let file = folder.path().join("db1.db");
    let tables = || sqlite(&file, "SELECT count(*) FROM sqlite_master WHERE name = 'people'");
    eventually(tables, |count| count == "1");
    eventually(|| sqlite(&file, "SELECT count(*) FROM people"), |count| count == "302");
    assert_eq!(sqlite(&file, "SELECT count(*) FROM users"), "302");
    assert_eq!(sqlite(&file, "SELECT count(*) FROM users u JOIN people p ON u.id = p.id AND u.name = p.called"), "302");
    // Attached: from here on one route writes both.
    eventually(|| engine.status(), |s| s["routes"].as_array().is_some_and(|routes| routes.len() == 1));
    assert_identity(&engine.status());
    engine.stop();
}

/// A table with rows and no checkpoint is not ours: refused, unless it is said.
#[test]
fn existing_rows_are_adopted_only_when_it_is_said() {
    let folder = users_in(&[("db1", sqlite_entry("db1"))]);
    let file = folder.path().join("db1.db");
    sqlite(&file, "CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT); INSERT INTO users VALUES (7, 'before')");
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&saved(8)).expect("an answer").0, 200);
    let route = eventually(|| engine.route("db1"), |route| route["state"] == "stopped");
    assert!(route["error"].as_str().is_some_and(|error| error.contains("existing_rows")), "{route}");
    assert_eq!(sqlite(&file, "SELECT * FROM users"), "7|before");
    engine.stop();
    let entry = json!({"type": "sqlite", "path": "db1.db", "ddl": "create", "existing_rows": "adopt"});
    folder.write_json("databases.json", &json!({"databases": {"db1": entry}}));
    let engine = Engine::start(&folder);
    engine.in_step("db1", 1);
    assert_eq!(sqlite(&file, "SELECT * FROM users ORDER BY id"), "7|before\n8|n8");
    engine.stop();
}

/// 401 without a token, 403 beyond its role, told by `curl`.
#[test]
fn tokens_and_roles_by_curl() {
    let folder = plain();
    folder.write(
        "gravity.toml",
        "[api]\ntokens = [\n  {name = \"see\", role = \"viewer\", token = \"viewer-0123456789\"},\n  \
         {name = \"app\", role = \"ingest\", token = \"ingest-0123456789\"},\n  \
         {name = \"ops\", role = \"operator\", token = \"operator-0123456789\"},\n]\n",
    );
    let engine = Engine::start(&folder);
    let call = |token: &str, method: &str, path: &str, body: &str| {
        let (bearer, url) = (format!("authorization: Bearer {token}"), format!("{}{path}", engine.url));
        let mut args = vec!["-X", method, "-H", "content-type: application/json"];
        if !token.is_empty() {
            args.extend(["-H", bearer.as_str()]);
        }
        if !body.is_empty() {
            args.extend(["-d", body]);
        }
        args.push(&url);
        curl(&args).0
    };
    let event = saved(1);
    let roles = ["", "wrong-0123456789", "viewer-0123456789", "ingest-0123456789", "operator-0123456789"];
    let statuses = |method: &str, path: &str, body: &str| roles.map(|token| call(token, method, path, body));
    assert_eq!(statuses("GET", "/v1/status", ""), [401, 401, 200, 403, 200]);
    assert_eq!(statuses("POST", "/v1/events", &event)[..4], [401, 401, 403, 200]);
    assert_eq!(statuses("POST", "/v1/routes/db1/pause", "")[..4], [401, 401, 403, 403]);
    assert_eq!(call("operator-0123456789", "POST", "/v1/routes/db1/resume", ""), 200);
    assert_eq!(statuses("GET", "/healthz", ""), [200, 200, 200, 200, 200]);
    engine.stop();
}
