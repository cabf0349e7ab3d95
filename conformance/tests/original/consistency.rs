//! What is in the log, the views and the messages after kills, restarts and slow databases.

use std::collections::BTreeMap;
use std::time::Duration;

use gravity_conformance::blackbox::broker::create_topic;
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::{Folder, copy};
use gravity_conformance::blackbox::hook::Hook;
use gravity_conformance::blackbox::proxy::Proxy;
use gravity_conformance::blackbox::server::{Database, unique};
use gravity_conformance::blackbox::tools::{SqliteSession, kcat_read, psql, sqlite};
use serde_json::{Value, json};

use crate::support::{batch, plain, projection, saved, sqlite_entry, users_in};

/// Three routes at 0, 500 and 900 events are killed and started again 100 times: each goes on from its own checkpoint.
#[test]
fn o5_three_routes_go_on_from_their_own_checkpoints() {
    let names = ["a", "b", "c"];
    let folder = users_in(&names.map(|name| (name, sqlite_entry(name))));
    let count = |name: &str| sqlite(folder.path().join(format!("{name}.db")), "SELECT count(*) FROM users");
    let mut engine = Engine::start(&folder);
    for name in names {
        eventually(|| engine.route(name), |route| route["state"] == "running");
    }
    engine.ask(&["route", "pause", "a"]).expect(0);
    assert_eq!(engine.post(&batch(0..500)).expect("an answer").0, 200);
    engine.in_step("b", 500);
    engine.ask(&["route", "pause", "b"]).expect(0);
    assert_eq!(engine.post(&batch(500..900)).expect("an answer").0, 200);
    engine.in_step("c", 900);
    assert_eq!(names.map(count), ["0", "500", "900"]);
    // A foreign writer holds each file while the engine starts and is killed, so that no route can catch up in between.
    let held = names.map(|name| SqliteSession::open(folder.path().join(format!("{name}.db")), "BEGIN IMMEDIATE;"));
    for _ in 0..100 {
        engine.kill();
        engine = Engine::start(&folder);
    }
    drop(held);
    for name in names {
        engine.ask(&["route", "resume", name]).expect(0);
        engine.in_step(name, 900);
    }
    assert_eq!(names.map(count), ["900", "900", "900"]);
    assert_identity(&engine.status());
    engine.stop();
}

/// kill -9 right after a 2xx: the event is there, in the log and in the view.
#[test]
fn o11_what_was_answered_is_there_after_kill_9() {
    let folder = plain();
    let mut last = 0;
    for id in 1..=20 {
        let engine = Engine::start(&folder);
        let (status, answer) = engine.post(&saved(id)).expect("an answer");
        engine.kill();
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let sequence = answer["first"].as_u64().expect("a sequence");
        assert!(sequence > last, "{answer}");
        last = sequence;
    }
    let engine = Engine::start(&folder);
    engine.in_step("db1", 20);
    let found = sqlite(folder.path().join("db1.db"), "SELECT id FROM users ORDER BY id");
    assert_eq!(found, (1..=20).map(|id| id.to_string()).collect::<Vec<_>>().join("\n"));
    engine.stop();
}

/// Rules, routes, databases and exporters that leave the config delete no event and no table.
#[test]
fn o17_what_leaves_the_config_deletes_nothing() {
    let hook = Hook::start(|_| (String::new(), 204));
    let folder = users_in(&[("db1", sqlite_entry("db1")), ("db2", sqlite_entry("db2"))]);
    let url = format!("http://{}/", hook.address);
    folder.write_json("exporter.json", &json!({"exporter": {"hook": {"type": "restful_api", "url": url}}}));
    let users = projection("userSaved", "users");
    let orders = projection("orderSaved", "orders");
    let routed = |event: &str, name: &str| json!({"event": event, "database": name});
    let told = json!({"event": "userSaved", "database": "db1", "exporter": ["hook"]});
    let all = [&users, &orders, &told, &routed("userSaved", "db2"), &routed("orderSaved", "db1")].map(Value::clone);
    folder.write_json("rules.json", &json!({"rules": all}));
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&batch(1..11)).expect("an answer").0, 200);
    let order = saved(1).replace("userSaved", "orderSaved");
    assert_eq!(engine.post(&order).expect("an answer").0, 200);
    for name in ["db1", "db2"] {
        engine.in_step(name, 11);
    }
    eventually(|| hook.count(), |count| *count == 10);
    let events = |engine: &Engine| {
        let lines = engine.ask(&["log", "export"]).expect(0).out;
        let of = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["event"].clone();
        lines.lines().map(of).filter(|event| event == "userSaved" || event == "orderSaved").count()
    };
    let before = events(&engine);
    assert_eq!(before, 11);
    engine.stop();

    folder.write_json(
        "databases.json",
        &json!({"databases": {"db1": {"type": "sqlite", "path": "db1.db", "ddl": "create"}}}),
    );
    folder.write_json("exporter.json", &json!({"exporter": {}}));
    folder.write_json("rules.json", &json!({"rules": [users]}));
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&saved(11)).expect("an answer").0, 200);
    engine.in_step("db1", 12);
    assert_eq!(events(&engine), before + 1);
    engine.stop();
    let count = |file: &str, table: &str| sqlite(folder.path().join(file), &format!("SELECT count(*) FROM {table}"));
    assert_eq!([count("db1.db", "users"), count("db1.db", "orders"), count("db2.db", "users")], ["11", "1", "10"]);
    assert_eq!(hook.count(), 10);
}

/// A user of any characters signs in, by a password of any characters (what a server that asks makes of it, the view suite shows).
#[test]
fn o34_credentials_of_any_characters_connect() {
    let Some(database) = Database::create() else { return };
    let (role, password) = (format!("{} @:/?#%&ü'", unique("role")), "p@:/?#%& ü\"'\\ ${env:X}");
    database.psql(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{}'", password.replace('\'', "''")));
    database.psql(&format!(
        "GRANT ALL ON SCHEMA public TO \"{role}\"; GRANT CREATE ON DATABASE {} TO \"{role}\"",
        database.name
    ));
    let mut entry = database.entry();
    (entry["username"], entry["password"]) = (json!(role), json!(password.replace("${", "$${")));
    let folder = users_in(&[("db1", entry)]);
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&saved(1)).expect("an answer").0, 200);
    engine.in_step("db1", 1);
    let owner = database.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'users'");
    assert_eq!(owner, role, "it was this role that signed in");
    assert_eq!(database.psql("SELECT * FROM users"), "1|n1");
    engine.stop();
    database
        .psql(&format!("REASSIGN OWNED BY \"{role}\" TO CURRENT_USER; DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\""));
}

/// The local data is lost: the view's own checkpoint rules, and a log that does not know it is refused, not written over.
#[test]
fn o38_a_lost_data_directory_does_not_overwrite_a_view() {
    let folder = plain();
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&batch(1..101)).expect("an answer").0, 200);
    engine.in_step("db1", 100);
    engine.kill();
    std::fs::remove_dir_all(folder.path().join("data")).expect("removed");
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&saved(1).replace("n1", "later")).expect("an answer").0, 200);
    let route = eventually(|| engine.route("db1"), |route| route["state"] == "stopped");
    assert!(route["error"].as_str().is_some_and(|error| error.contains("log")), "{route}");
    assert_eq!(sqlite(folder.path().join("db1.db"), "SELECT count(*), max(name = 'later') FROM users"), "100|0");
    engine.stop();
}

/// A subscriber reads the row for every message while the view is slowed: it is always there, at that value.
#[test]
fn o42_a_subscriber_always_finds_the_row() {
    let Some(database) = Database::create() else { return };
    let url = database.url.clone();
    let hook = Hook::start(move |body| {
        let told: Value = serde_json::from_str(body).unwrap_or_default();
        let data = if told["data"].is_object() { &told["data"] } else { &told };
        let row = psql(&url, &format!("SELECT name FROM users WHERE id = {}", data["id"]));
        (format!("{} {row}", data["name"].as_str().unwrap_or_default()), 204)
    });
    let folder = users_in(&[("db1", database.entry())]);
    let to = format!("http://{}/", hook.address);
    folder.write_json("exporter.json", &json!({"exporter": {"hook": {"type": "restful_api", "url": to}}}));
    let told = json!({"event": "userSaved", "database": "db1", "exporter": ["hook"]});
    folder.write_json("rules.json", &json!({"rules": [projection("userSaved", "users"), told]}));
    let engine = Engine::start(&folder);
    eventually(|| engine.route("db1"), |route| route["state"] == "running");
    // Each commit takes its time: a trigger that sleeps when the transaction ends.
    database.psql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.002); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT OR UPDATE ON users DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    const MESSAGES: u64 = 120;
    for id in 0..MESSAGES {
        assert_eq!(engine.post(&saved(id)).expect("an answer").0, 200);
    }
    let told = eventually(|| hook.told(), |told| told.len() as u64 >= MESSAGES);
    for one in &told {
        let (said, row) = one.saw.split_once(' ').expect("two words");
        assert_eq!(said, row, "{}", one.body);
    }
    engine.stop();
    println!("{} messages, each row there", told.len());
}

/// A place that is gone is not retried for ever and holds back nobody else.
#[test]
fn o44_a_404_endpoint_holds_back_nobody_else() {
    let (gone, fine) = (Hook::start(|_| (String::new(), 404)), Hook::start(|_| (String::new(), 204)));
    let folder = plain();
    let url = |hook: &Hook| format!("http://{}/", hook.address);
    folder.write_json(
        "exporter.json",
        &json!({"exporter": {
            "gone": {"type": "restful_api", "url": url(&gone), "on_refused": "park"},
            "fine": {"type": "restful_api", "url": url(&fine)},
        }}),
    );
    let told = json!({"event": "userSaved", "database": "db1", "exporter": ["gone", "fine"]});
    folder.write_json("rules.json", &json!({"rules": [projection("userSaved", "users"), told]}));
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&batch(0..50)).expect("an answer").0, 200);
    eventually(|| fine.count(), |count| *count == 50);
    let seen = eventually(|| engine.exporter("gone"), |e| e["parked"] == 50);
    assert_eq!(seen["delivered"], 0, "{seen}");
    let asked = gone.count();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(gone.count(), asked, "what is parked is not sent again by itself");
    engine.stop();
}

/// On 12 partitions each key's messages stand in one partition, in order, and no id stands there twice.
#[test]
fn o45_order_holds_per_key_on_twelve_partitions() {
    let Some(hosts) = gravity_conformance::blackbox::kafka() else { return };
    let topic = unique("told");
    create_topic(&hosts, &topic, 12, &[]);
    let folder = plain();
    let (host, port) = hosts.rsplit_once(':').expect("HOST:PORT");
    let port: u16 = port.parse().expect("a port");
    folder.write_json(
        "exporter.json",
        &json!({"exporter": {"topic": {"type": "kafka", "host": host, "port": port, "topic": topic}}}),
    );
    let told = json!({"event": "userSaved", "database": "db1", "exporter": ["topic"]});
    folder.write_json("rules.json", &json!({"rules": [projection("userSaved", "users"), told]}));
    let mut engine = Engine::start(&folder);
    const KEYS: u64 = 40;
    for round in 0..25_u64 {
        let events: Vec<String> = (0..KEYS)
            .map(|key| {
                format!(r#"{{"event": "userSaved", "key": "k{key}", "payload": {{"id": {key}, "name": "{round}"}}}}"#)
            })
            .collect();
        assert_eq!(engine.post(&format!("[{}]", events.join(","))).expect("an answer").0, 200);
        if round == 12 {
            engine.kill();
            engine = Engine::start(&folder);
        }
    }
    eventually(
        || engine.exporter("topic"),
        |e| e["lag_events"] == 0 && e["cursor"].as_u64().is_some_and(|c| c >= 25 * KEYS),
    );
    engine.stop();
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let mut ids = std::collections::BTreeSet::new();
    for line in kcat_read(&hosts, &topic, "%p|%k|%h|%s\n") {
        let parts: Vec<&str> = line.splitn(4, '|').collect();
        let place = places.entry(parts[1].to_owned()).or_insert_with(|| parts[0].to_owned());
        assert_eq!(place, parts[0], "{line}");
        let id = parts[2].split(',').find(|header| header.starts_with("ce_id=")).expect("an id").to_owned();
        // The same id again is what a consumer leaves out.
        if ids.insert(id) {
            let data: Value = serde_json::from_str(parts[3]).expect("JSON");
            let round = data["name"].as_str().and_then(|name| name.parse().ok()).expect("a round");
            seen.entry(parts[1].to_owned()).or_default().push(round);
        }
    }
    assert_eq!(seen.len() as u64, KEYS);
    for (key, rounds) in seen {
        assert_eq!(rounds, (0..25).collect::<Vec<u64>>(), "{key}");
    }
    assert!(places.values().collect::<std::collections::BTreeSet<_>>().len() > 6, "{places:?}");
}

/// A copied data directory that starts elsewhere is stopped at the view; the first engine is not harmed.
#[test]
fn o48_a_copied_data_directory_is_stopped_at_the_view() {
    let folder = plain();
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&batch(1..11)).expect("an answer").0, 200);
    engine.in_step("db1", 10);
    engine.stop();
    let other = Folder::new(&[]);
    copy(&folder.path().join("data"), &other.path().join("data"));
    other.write("rules.json", std::fs::read(folder.path().join("rules.json")).expect("rules"));
    let entry = json!({"type": "sqlite", "path": folder.at("db1.db"), "ddl": "create"});
    other.write_json("databases.json", &json!({"databases": {"db1": entry}}));

    let first = Engine::start(&folder);
    assert_eq!(first.post(&saved(11)).expect("an answer").0, 200);
    first.in_step("db1", 11);
    let second = Engine::start(&other);
    assert_eq!(second.post(&saved(12).replace("n12", "copy")).expect("an answer").0, 200);
    let route = eventually(|| second.route("db1"), |route| route["state"] == "stopped");
    assert!(route["error"].as_str().is_some_and(|error| error.contains("another copy")), "{route}");
    assert_eq!(first.post(&saved(13)).expect("an answer").0, 200);
    first.in_step("db1", 12);
    assert_eq!(sqlite(folder.path().join("db1.db"), "SELECT count(*), max(name = 'copy') FROM users"), "12|0");
    first.stop();
    second.stop();
}

/// Database away: lag in events and seconds rises and returns to 0, readiness names the route, the other route goes on.
#[test]
fn o54_trap16_lag_rises_and_returns_and_readiness_names_the_route() {
    let Some(database) = Database::create() else { return };
    let proxy = Proxy::start(&format!("{}:{}", database.host, database.port));
    let mut entry = database.entry();
    (entry["host"], entry["port"]) = (json!("127.0.0.1"), json!(proxy.address.port()));
    let folder = users_in(&[("far", entry), ("near", sqlite_entry("near"))]);
    let engine = Engine::start(&folder);
    assert_eq!(engine.post(&batch(0..10)).expect("an answer").0, 200);
    engine.in_step("far", 10);
    proxy.down();
    assert_eq!(engine.post(&batch(10..30)).expect("an answer").0, 200);
    engine.in_step("near", 30);
    let down = eventually(
        || engine.route("far"),
        |r| {
            // In sequences: control records that stand between the events count too.
            r["lag_events"].as_u64() >= Some(20) && r["lag_seconds"].as_f64() > Some(1.5)
        },
    );
    assert!(down["error"].is_string() && down["state"] == "degraded", "{down}");
    let (status, body) = engine.get("/readyz");
    assert!(status == 200 && body.contains("far") && !body.contains("near"), "{status} {body}");
    let metrics = engine.get("/metrics").1;
    assert!(metrics.lines().any(|line| line.contains("lag") && line.contains("far")), "{metrics}");
    proxy.up();
    let back = engine.in_step("far", 30);
    assert_eq!((&back["lag_seconds"], &back["error"], &back["state"]), (&json!(0.0), &Value::Null, &json!("running")));
    assert!(!engine.get("/readyz").1.contains("far"));
    assert_eq!(database.psql("SELECT count(*) FROM users"), "30");
    engine.stop();
}
