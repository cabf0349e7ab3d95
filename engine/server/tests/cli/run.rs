//! A running engine: publish, look, dead letters, signals, exit codes, what is left behind.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{DATABASES, Dir, Ended, Engine, RULES, eventually, gravity, http, plain, run};

fn route(engine: &Engine) -> Value {
    engine.ask(["status", "--json"]).expect(0).json()["routes"][0].clone()
}

#[test]
fn send_status_dead_letters_and_the_log_of_a_stopped_engine() {
    let dir = plain();
    let engine = Engine::start(&dir, &[]);
    let sent = engine.ask(["send", "userCreated", r#"{"id": 1, "name": "Fred"}"#, "--json"]).expect(0).json();
    assert_eq!(sent["first"], sent["last"]);
    engine.ask(["send", "userCreated", r#"{"id": "one", "big": 9007199254740993.10}"#, "--key", "k"]).expect(0);
    engine.ask(["send", "nobodyCares", "null"]).expect(0);
    let seen = eventually(|| route(&engine), |r| r["read"] == 3);
    assert_eq!(
        [&seen["applied"], &seen["unmatched"], &seen["parked"], &seen["failed"]],
        [&json!(1), &json!(1), &json!(1), &json!(1)]
    );

    let letters = engine.ask(["dlq", "list", "--json"]).expect(0).json();
    let letter = letters[0].clone();
    for key in ["route", "sequence", "stage", "code", "error", "key", "event", "waiting"] {
        assert!(!letter[key].is_null(), "{key}: {letter}");
    }
    assert!(run(["explain", letter["code"].as_str().expect("a code")]).expect(0).out.len() > 40);
    let sequence = letter["sequence"].to_string();
    let whole = engine.ask(["dlq", "show", &sequence, "--json"]).expect(0);
    assert!(whole.out.contains("9007199254740993.10"), "digits are kept: {}", whole.out);
    let tried = engine.ask(["dlq", "retry", "--json"]).expect(0).json();
    assert_eq!(tried["parked_again"], json!([letter["sequence"]]), "exit code 0 although it parks again");
    let exported = engine.ask(["dlq", "export"]).expect(0);
    assert!(exported.out.contains("9007199254740993.10"));
    let skipped = engine.ask(["dlq", "skip", "--route", "db1", &sequence, "--json"]).expect(0).json();
    assert_eq!(skipped["skipped"], json!([letter["sequence"]]));
    eventually(|| route(&engine), |r| r["skipped"] == 1 && r["parked"] == 0);
    engine.ask(["dlq", "skip", "--route", "db1", &sequence]).expect(2);

    let page = engine.ask(["status"]).expect(0).out;
    for part in ["ROUTE", "BALANCE", "db1", "ok", "web", "http"] {
        assert!(page.contains(part) || part == "web", "{part}: {page}");
    }
    assert!(!page.contains('\x1b'), "no colours in a pipe");
    assert_eq!(engine.stop(), 0);

    let data = dir.path().join("data").display().to_string();
    let stat = run(["log", "stat", "--data", &data, "--json"]).expect(0).json();
    let last = stat["last"].as_u64().expect("a sequence");
    assert!(last >= 6, "{stat}");
    let tail = run(["log", "tail", "--lines", "3", "--data", &data, "--json"]).expect(0).out;
    assert_eq!(tail.lines().count(), 3, "{tail}");
    let one = run(["log", "get", &sequence, "--data", &data, "--json"]).expect(0);
    assert!(one.out.contains("9007199254740993.10"));
    run(["log", "get", "999999", "--data", &data]).expect(2);
    let verified = run(["log", "verify", "--data", &data, "--json"]).expect(0).json();
    assert_eq!((verified["events"].as_u64(), &verified["bad"]), (Some(last), &json!([])));
    let part = run(["log", "verify", "--from", "2", "--to", "4", "--data", &data, "--json"]).expect(0).json();
    assert!(part["events"].as_u64().is_some_and(|events| (3..=last).contains(&events)), "{part}");
    let exported = run(["log", "export", "--from", "2", "--to", "4", "--data", &data]).expect(0).out;
    let sequences: Vec<u64> = exported
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("JSON")["sequence"].as_u64().expect("a number"))
        .collect();
    assert_eq!(sequences, [2, 3, 4]);
}

#[test]
fn pause_holds_back_and_resume_goes_on() {
    let dir = plain();
    let engine = Engine::start(&dir, &[]);
    engine.ask(["route", "pause", "db1"]).expect(0);
    eventually(|| route(&engine), |r| r["state"] == "paused");
    engine.ask(["send", "userCreated", r#"{"id": 1}"#]).expect(0);
    assert_eq!(route(&engine)["applied"], 0);
    engine.ask(["route", "resume", "db1"]).expect(0);
    eventually(|| route(&engine), |r| r["applied"] == 1 && r["state"] == "running");
    let unknown = engine.ask(["route", "pause", "nothing"]).expect(2);
    assert!(unknown.err.contains("db1"), "known names are told: {}", unknown.err);
}

#[test]
fn o48_a_second_engine_on_the_same_directory_is_refused() {
    let dir = plain();
    let engine = Engine::start(&dir, &[]);
    let data = dir.path().join("data").display().to_string();
    let second = run(["run", "-c", &dir.text(), "--listen", "127.0.0.1:0"]).expect(4);
    assert!(second.err.contains(&engine.pid().to_string()), "{}", second.err);
    assert_eq!(engine.stop(), 0);
    run(["log", "stat", "--data", &data]).expect(0);
}

#[test]
fn t26_the_data_directory_is_for_its_owner_alone() {
    let dir = plain();
    assert_eq!(Engine::start(&dir, &[]).stop(), 0);
    for name in ["data", "views.db"] {
        let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

#[test]
fn stop_at_end_tells_dead_letters_by_its_exit_code() {
    let dir = plain();
    let engine = Engine::start(&dir, &[]);
    engine.ask(["send", "userCreated", r#"{"id": 1, "name": "a"}"#]).expect(0);
    eventually(|| route(&engine), |r| r["applied"] == 1);
    assert_eq!(engine.stop(), 0);
    let at_end = || {
        Ended::of(
            &gravity()
                .args(["run", "--stop-at-end", "--listen", "127.0.0.1:0", "-c"])
                .arg(dir.path())
                .output()
                .expect("runs"),
        )
    };
    at_end().expect(0);

    // A bad event that came while the route was held back parks only in the next run.
    let engine = Engine::start(&dir, &[]);
    engine.ask(["route", "pause", "db1"]).expect(0);
    eventually(|| route(&engine), |r| r["state"] == "paused");
    engine.ask(["send", "userCreated", r#"{"id": "x"}"#]).expect(0);
    engine.ask(["route", "resume", "db1"]).expect(0);
    eventually(|| route(&engine), |r| r["parked"] == 1);
    assert_eq!(engine.stop(), 0);
    at_end().expect(0);
}

#[test]
fn what_is_added_later_begins_at_from() {
    let dir = plain();
    let engine = Engine::start(&dir, &[]);
    let mut sent = Vec::new();
    for id in 1..=3 {
        let answer =
            engine.ask(["send", "userCreated", &format!(r#"{{"id": {id}, "name": "a"}}"#), "--json"]).expect(0);
        sent.push(answer.json()["last"].to_string());
    }
    eventually(|| route(&engine), |r| r["applied"] == 3);
    assert_eq!(engine.stop(), 0);

    let file = r#"{"type": "sqlite", "ddl": "create", "path""#;
    dir.write(
        "databases.json",
        &format!(r#"{{"databases": {{"db1": {file}: "views.db"}}, "db2": {file}: "more.db"}}}}}}"#),
    );
    let routings = r#"]}, {"event": "userCreated", "database": "db1"}, {"event": "userCreated", "database": "db2"} ]}"#;
    dir.write("rules.json", &RULES.replace("]}\n]}", routings));
    let at_end = |from: &str| {
        let mut command = gravity();
        command.args(["run", "--stop-at-end", "--listen", "127.0.0.1:0", "--from", from, "-c"]).arg(dir.path());
        Ended::of(&command.output().expect("runs"))
    };
    assert!(at_end("0").expect(2).err.contains("--from"));
    let beyond = at_end("999").expect(2).err;
    assert!(beyond.contains("nothing can begin at sequence 999: the log ends at"), "{beyond}");
    assert!(!dir.path().join("more.db").exists(), "nothing was begun");
    at_end(&sent[1]).expect(0);
    let engine = Engine::start(&dir, &["--from", "1"]);
    let routes = eventually(
        || engine.ask(["status", "--json"]).expect(0).json()["routes"].clone(),
        |routes| routes.as_array().is_some_and(|all| all.len() == 2 && all.iter().all(|r| r["state"] == "running")),
    );
    let read = |name: &str| {
        routes.as_array().and_then(|all| all.iter().find(|r| r["name"] == name)).map(|r| r["read"].clone())
    };
    assert_eq!((read("db1"), read("db2")), (Some(json!(3)), Some(json!(2))), "what has a position goes on from there");
    assert_eq!(engine.stop(), 0);
}

#[test]
fn readiness_and_health() {
    let dir = plain();
    let engine = Engine::start(&dir, &[]);
    assert_eq!(http(&engine.url, "GET", "/healthz", &[], "").0, 200);
    let (status, body) = http(&engine.url, "GET", "/readyz", &[], "");
    assert_eq!((status, body.contains("\"ready\":true")), (200, true), "{body}");
    let (status, body) = http(
        &engine.url,
        "POST",
        "/v1/events",
        &[("content-type", "application/json"), ("idempotency-key", "k1")],
        r#"{"event":"userCreated","payload":{"id":1}}"#,
    );
    assert_eq!(status, 200, "{body}");
    let again = http(
        &engine.url,
        "POST",
        "/v1/events",
        &[("content-type", "application/json"), ("idempotency-key", "k1")],
        r#"{"event":"userCreated","payload":{"id":1}}"#,
    );
    let (first, again): (Value, Value) =
        (serde_json::from_str(&body).expect("JSON"), serde_json::from_str(&again.1).expect("JSON"));
    assert_eq!((&first["first"], &first["last"]), (&again["first"], &again["last"]), "a repeat gets the first answer");
    let other = http(
        &engine.url,
        "POST",
        "/v1/events",
        &[("content-type", "application/json"), ("idempotency-key", "k1")],
        r#"{"event":"userCreated","payload":{"id":2}}"#,
    );
    assert_eq!(other.0, 422, "{}", other.1);
    // A key in any language is a key; two keys are none.
    let post = |headers: &[(&str, &str)]| {
        let json = [&[("content-type", "application/json")], headers].concat();
        http(&engine.url, "POST", "/v1/events", &json, r#"{"event":"userCreated","payload":{"id":3}}"#)
    };
    let key = ("idempotency-key", "schlüssel");
    assert_eq!(post(&[key]), post(&[key]), "the same answer");
    let (status, body) = post(&[key, ("idempotency-key", "k2")]);
    assert_eq!((status, body.contains("stands twice")), (400, true), "{body}");
}

/// SIGHUP takes a valid change forward and refuses an invalid one whole.
#[test]
fn sighup_takes_all_or_nothing() {
    let dir = plain();
    let mut engine = Engine::start(&dir, &[]);
    dir.write("rules.json", &RULES.replace("\"method\"", "\"metod\""));
    engine.signal("-HUP");
    engine.wait_for("refused as a whole");
    engine.ask(["send", "userCreated", r#"{"id": 1}"#]).expect(0);
    eventually(|| route(&engine), |r| r["applied"] == 1);
    dir.write("rules.json", &RULES.replace("userCreated", "userMade"));
    engine.signal("-HUP");
    engine.wait_for("new rules are in force");
    engine.ask(["send", "userMade", r#"{"id": 2}"#]).expect(0);
    engine.ask(["send", "userCreated", r#"{"id": 3}"#]).expect(0);
    let seen = eventually(|| route(&engine), |r| r["read"] == 3);
    assert_eq!((&seen["applied"], &seen["unmatched"]), (&json!(2), &json!(1)));
    engine.signal("-HUP");
    engine.wait_for("the rules are those in force");
    assert_eq!(engine.stop(), 0);
}

/// A place that is not asked.
const PLACE: &str = r#""host": "127.0.0.1", "port": 1, "dbName": "d", "username": "u", "password": "p""#;

/// An address that changed takes effect at once, without a new start; here to a place that has nothing yet.
#[test]
fn sighup_moves_a_database_at_once() {
    let dir = plain();
    let mut engine = Engine::start(&dir, &[]);
    engine.ask(["send", "userCreated", r#"{"id": 1}"#]).expect(0);
    eventually(|| route(&engine), |r| r["applied"] == 1);
    let path = dir.path().join("databases.json");
    let databases = std::fs::read_to_string(&path).expect("databases");
    assert!(databases.contains("views.db"), "{databases}");
    dir.write("databases.json", &databases.replace("views.db", "moved.db"));
    engine.signal("-HUP");
    engine.wait_for("new connections");
    engine.ask(["send", "userCreated", r#"{"id": 2}"#]).expect(0);
    eventually(|| route(&engine), |r| r["applied"] == 2 && r["lag_events"] == 0);
    assert!(dir.path().join("moved.db").exists());
    dir.write("databases.json", &databases.replace("sqlite", "postgres").replace("\"path\": \"views.db\"", PLACE));
    engine.signal("-HUP");
    engine.wait_for("give it another name");
    assert_eq!(engine.stop(), 0);
}

/// O53, T8: a secret in config, token and environment is in nothing that the process writes.
#[test]
fn o53_no_secret_is_said_or_stored() {
    let databases = r#"{"databases": {"db1": {"type": "sqlite", "path": "views.db", "ddl": "create"},
        "pg": {"type": "postgres", "host": "127.0.0.1", "port": 1, "dbName": "d", "username": "u", "password": "CANARY-1"}}}"#;
    let rules = RULES
        .replace("\"table\"", "\"database\": \"db1\", \"table\"")
        .replace("]}\n]}", "]},\n  {\"event\": \"userCreated\", \"database\": \"pg\"}]}");
    let exporter = r#"{"exporter": {"k": {"type": "kafka", "host": "127.0.0.1", "port": 1, "topic": "t", "username": "u", "password": "CANARY-2"}}}"#;
    let dir = Dir::new(&[
        ("databases.json", databases),
        ("rules.json", &rules.replace("\"database\": \"pg\"", "\"database\": \"pg\", \"exporter\": [\"k\"]")),
        ("exporter.json", exporter),
    ]);
    let token = "CANARY-3-0123456789";
    let mut engine = Engine::start_with(
        &dir,
        &["--logging-level", "trace", "--api-tokens", "[{name = \"ops\", role = \"admin\", token = \"${env:OPS}\"}]"],
        &[("OPS", token)],
    );
    let ask = |args: &[&str]| {
        Ended::of(
            &gravity().args(args).args(["--url", &engine.url]).env("GRAVITY_TOKEN", token).output().expect("runs"),
        )
    };
    ask(&["send", "userCreated", r#"{"id": 1}"#]).expect(0);
    let status = eventually(
        || ask(&["status", "--json"]).expect(0),
        |s| s.json()["routes"].as_array().expect("routes").iter().any(|r| r["error"].is_string()),
    );
    let mut all = status.out;
    all += &ask(&["status"]).expect(0).out;
    all += &http(&engine.url, "GET", "/metrics", &[("authorization", &format!("Bearer {token}"))], "").1;
    all += &http(&engine.url, "GET", "/readyz", &[], "").1;
    all += &run(["config", "show", "-c", &dir.text()]).out;
    all += &ask(&["log", "export"]).expect(0).out;
    engine.signal("-TERM");
    engine.wait();
    all += &engine.said();
    for path in walk(&dir.path().join("data")).into_iter().chain([dir.path().join("views.db")]) {
        all += &String::from_utf8_lossy(&std::fs::read(&path).expect("readable"));
    }
    // The warning about the literal passwords must be there, the passwords not.
    assert!(engine.said().contains("config/literal-secret"));
    assert!(!all.contains("CANARY"), "{}", all.lines().find(|line| line.contains("CANARY")).unwrap_or_default());
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(walk(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn an_occupied_port_is_an_error_before_anything_is_made() {
    let dir = plain();
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("an address").to_string();
    let ended = run(["run", "-c", &dir.text(), "--listen", &address]).expect(1);
    assert!(ended.err.contains(&address), "{}", ended.err);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn json_messages_are_one_object_a_line() {
    let dir = Dir::new(&[("databases.json", DATABASES), ("rules.json", RULES)]);
    let ended = run(["run", "--stop-at-end", "--listen", "127.0.0.1:0", "--logging-format", "json", "-c", &dir.text()])
        .expect(0);
    assert_eq!(ended.out, "");
    for line in ended.err.lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(message["level"].is_string(), "{line}");
    }
    assert!(ended.err.contains("\"log_id\""), "{}", ended.err);
}

#[test]
fn parts_that_are_not_built_are_refused_by_name() {
    let dir = plain();
    dir.write("gravity.toml", "[twist]\nlisten = \"127.0.0.1:45555\"\n");
    run(["check", "-c", &dir.text()]).expect(0);
    let ended = run(["run", "-c", &dir.text(), "--listen", "127.0.0.1:0"]).expect(2);
    assert!(ended.err.contains("error[config/not-built]") && ended.err.contains("twist.listen"), "{}", ended.err);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_dead_database_holds_neither_readiness_nor_the_end() {
    // The route's database is away, and the log holds events for it: nothing keeps the drain.
    let databases = r#"{"databases": {"db1": {"type": "postgres", "host": "127.0.0.1", "port": 1, "dbName": "d", "username": "u"}}}"#;
    let dir = Dir::new(&[("databases.json", databases), ("rules.json", RULES)]);
    let engine = Engine::start(&dir, &[]);
    engine.ask(["send", "userCreated", r#"{"id": 1}"#]).expect(0);
    let status = eventually(|| route(&engine), |r| r["error"].is_string());
    assert_eq!(status["lag_events"].as_u64().map(|lag| lag > 0), Some(true), "{status}");
    assert_eq!(http(&engine.url, "GET", "/readyz", &[], "").0, 200, "a dead database is no reason to be unready");
    assert!(http(&engine.url, "GET", "/readyz", &[], "").1.contains("route db1"));
    assert_eq!(engine.stop(), 0, "a dead database does not hold the end");
}

#[test]
fn watching_and_following_go_on_until_a_signal() {
    let dir = plain();
    let engine = Engine::start(&dir, &[]);
    for args in [vec!["status", "--watch", "--json"], vec!["log", "tail", "--follow", "--json"]] {
        use std::io::{BufRead, BufReader};
        let mut child = gravity()
            .args(&args)
            .args(["--url", &engine.url])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        engine.ask(["send", "userCreated", r#"{"id": 7}"#]).expect(0);
        for _ in 0..2 {
            let line = lines.next().expect("a line").expect("text");
            assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
        }
        assert!(
            std::process::Command::new("kill")
                .args(["-INT", &child.id().to_string()])
                .status()
                .expect("kill runs")
                .success()
        );
        assert_eq!(child.wait().expect("a child").code(), Some(0), "{args:?}");
    }
}

#[test]
fn sources_ids_and_keys_of_send() {
    let dir = plain();
    dir.write("sources.json", r#"{"sources": {"a": {"type": "http"}, "b": {"type": "http"}}}"#);
    let engine = Engine::start(&dir, &[]);
    let unnamed = engine.ask(["send", "userCreated", r#"{"id": 1}"#]).expect(2);
    assert!(unnamed.err.contains("/v1/events/a"), "{}", unnamed.err);
    let first = engine
        .ask(["send", "userCreated", r#"{"id": 1}"#, "--source", "b", "--id", "x", "--key", "k", "--json"])
        .expect(0)
        .json();
    let again = engine
        .ask(["send", "userCreated", r#"{"id": 1}"#, "--source", "b", "--id", "x", "--key", "k", "--json"])
        .expect(0)
        .json();
    assert_eq!((&again["first"], &again["duplicates"]), (&Value::Null, &json!(1)), "an id dedupes");
    let event = engine.ask(["log", "get", &first["first"].to_string(), "--json"]).expect(0).json();
    assert_eq!((&event["source"], &event["id"], &event["key"]), (&json!("b"), &json!("x"), &json!("k")));
    let refused = engine.ask(["route", "resume", "db1", "--active-rules"]).expect(4);
    assert!(refused.err.contains("not stopped"), "{}", refused.err);
}
