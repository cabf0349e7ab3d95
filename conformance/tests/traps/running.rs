//! What happens to a database, a process and its clock while the engine runs.

use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::view_suite::Spec;
use serde_json::{Value, json};

use crate::target::{ROUTE, Target, USERS, event, post, saved, settled, users};

fn added(id: i64) -> Value {
    event("userAdded", &json!({"id": id, "name": format!("n{id}")}))
}

/// Rows are there and the process dies, before or after its commit: the redo meets them, and so do the producer's repeats. An
/// insert is no error for that, and no second row.
pub fn trap6_inserts_sent_again_after_a_crash(target: &Target) {
    let folder = target.config(&users());
    let (mut next, mut acknowledged) = (0, Vec::new());
    for point in ["view.before_commit=kill@3", "view.after_commit=kill@3"] {
        let mut engine = Engine::start_with(&folder, &[], &[("GRAVITY_FAILPOINTS", point)]);
        loop {
            let ids: Vec<i64> = (next..next + 10).collect();
            next += 10;
            let body = Value::from(ids.iter().map(|id| added(*id)).collect::<Vec<_>>()).to_string();
            match engine.post(&body) {
                Some((200, _)) => acknowledged.extend(ids),
                // Perhaps stored, perhaps not: the answer went with the process.
                _ => break,
            }
            assert!(next < 20_000, "{point} was never passed");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(engine.wait(), -1, "{point}");
    }
    let engine = Engine::start(&folder);
    let again: Vec<Value> = acknowledged.iter().map(|id| added(*id)).collect();
    post(&engine, &again);
    let read = acknowledged.len() as u64 * 2;
    let route = eventually(|| engine.route(ROUTE), |r| r["lag_events"] == 0 && r["read"].as_u64() >= Some(read));
    assert_identity(&engine.status());
    assert_eq!((&route["parked"], &route["applied"]), (&json!(0), &route["read"]), "{route}");
    let rows = target.rows("users", &["id", "name"]);
    let (sent, kept) = (next as usize, acknowledged.len());
    assert!(rows.len() >= kept && rows.len() <= sent, "{} rows of {kept} to {sent}", rows.len());
    for id in &acknowledged {
        assert!(rows.binary_search(&format!("{id} n{id}")).is_ok(), "{id} was acknowledged");
    }
    engine.stop();
}

/// A column gets a name, loses its own, a table goes: the route stops and says what it misses, nothing parks, and it goes on by
/// itself once it is there again.
pub fn trap13_what_a_dba_takes_away_stops_the_route_and_comes_back(target: &Target) {
    let columns: Vec<(&str, &str, bool)> = USERS.iter().map(|(name, word)| (*name, *word, *name == "id")).collect();
    let spec = Spec { table: "users", columns: &columns, key: &["id"], unique: &[] };
    target.make(&spec);
    let folder = target.config_of_dba(&users());
    let engine = Engine::start(&folder);
    let full = |id: i64| event("userSaved", &json!({"id": id, "name": "n", "email": "e"}));
    let stopped = |what: &str| {
        let route = eventually(|| engine.route(ROUTE), |route| route["state"] == "stopped");
        assert!(route["error"].as_str().is_some_and(|error| error.contains(what)), "{what} is named: {route}");
        assert_eq!((&route["parked"], route["lag_events"].as_u64() > Some(0)), (&json!(0), true), "{route}");
        assert!(engine.get("/readyz").1.contains(ROUTE), "readiness names the route");
    };
    post(&engine, &[full(1)]);
    settled(&engine, 1, 0);
    let mut read = 1;
    if !target.is_mongodb() {
        target.dba("ALTER TABLE users ADD COLUMN note VARCHAR(20)");
        post(&engine, &[full(2)]);
        settled(&engine, 2, 0);
        target.dba("ALTER TABLE users RENAME COLUMN email TO mail");
        post(&engine, &[full(3)]);
        stopped("email");
        target.dba("ALTER TABLE users RENAME COLUMN mail TO email");
        read = 3;
        settled(&engine, 3, 0);
        assert_eq!(target.rows("users", &["id", "email"]), ["1 e", "2 e", "3 e"]);
    }
    target.drop_table("users");
    post(&engine, &[full(4)]);
    stopped("users");
    target.make(&spec);
    let route = settled(&engine, read + 1, 0);
    assert_eq!((&route["state"], &route["error"]), (&json!("running"), &Value::Null), "{route}");
    assert_eq!(target.rows("users", &["id", "email"]), ["4 e"], "the table is the DBA's: what it held is gone with it");
    engine.stop();
}

/// A table that the engine made is dropped: it is not made anew and empty behind a checkpoint that says otherwise.
pub fn trap13_a_dropped_table_is_not_made_anew(target: &Target) {
    let folder = target.config(&users());
    let engine = Engine::start(&folder);
    post(&engine, &[saved(1, "a")]);
    settled(&engine, 1, 0);
    target.drop_table("users");
    let stopped = |engine: &Engine| {
        let route = eventually(|| engine.route(ROUTE), |route| route["state"] == "stopped");
        let said = route["error"].as_str().unwrap_or_default().to_owned();
        assert!(said.contains("users") && said.contains("was there before"), "{route}");
    };
    post(&engine, &[saved(2, "b")]);
    eventually(|| engine.route(ROUTE), |r| r["error"].as_str().is_some_and(|error| error.contains("was there before")));
    stopped(&engine);
    engine.stop();
    // A restart does not make it either.
    let engine = Engine::start(&folder);
    stopped(&engine);
    // As the page of the error says: without its row it is a new view, and is filled from the log's beginning.
    target.forget_view("users");
    eventually(|| engine.status(), |s| s["routes"].as_array().is_some_and(|r| r.len() == 1 && r[0]["error"].is_null()));
    let rows = || target.rows_if_there("users", &["id", "name"]);
    eventually(rows, |rows| *rows == ["1 a", "2 b"]);
    post(&engine, &[saved(3, "c")]);
    eventually(rows, |rows| *rows == ["1 a", "2 b", "3 c"]);
    assert_identity(&engine.status());
    engine.stop();
}

/// Away while events come, and away while it rests: the status says so at once, with an error and a lag that grows, intake goes on,
/// and the route is in step by itself when the database is back.
pub fn trap16_a_route_that_stands_still_says_why(target: &Target) {
    let (folder, proxy) = match target.config_behind_proxy(&users()) {
        Some((folder, proxy)) => (folder, Some(proxy)),
        None => (target.config(&users()), None),
    };
    let engine = Engine::start(&folder);
    post(&engine, &[saved(1, "a")]);
    settled(&engine, 1, 0);
    let locked = target.lock();
    if let Some(proxy) = &proxy {
        proxy.down();
    }
    post(&engine, &[saved(2, "b")]);
    let shown = eventually(|| engine.route(ROUTE), |r| r["error"].is_string() && r["lag_seconds"].as_f64() > Some(0.0));
    assert_eq!((&shown["state"], &shown["parked"]), (&json!("degraded"), &json!(0)), "{shown}");
    assert!(shown["lag_events"].as_u64() > Some(0), "{shown}");
    post(&engine, &[saved(3, "c")]);
    drop(locked);
    if let Some(proxy) = &proxy {
        proxy.up();
    }
    let back = settled(&engine, 3, 0);
    assert_eq!((&back["state"], &back["error"]), (&json!("running"), &Value::Null), "{back}");
    // Cut while nothing is under way: the next event finds out, and nothing is lost or doubled.
    if let Some(proxy) = &proxy {
        proxy.down();
        proxy.up();
    }
    post(&engine, &[saved(4, "d"), saved(1, "e")]);
    settled(&engine, 5, 0);
    assert_eq!(target.rows("users", &["id", "name"]), ["1 e", "2 b", "3 c", "4 d"]);
    engine.stop();
}

/// The clock goes back by a day, at a start and in the middle of a run: order, ids that were seen, dead letters and what follows
/// are as without it; only what is shown as a time follows the clock.
pub fn trap23_a_clock_that_was_set_back(target: &Target) {
    let folder = target.config(&users());
    let named =
        |id: &str, row: i64, name: &str| json!({"event": "userSaved", "id": id, "payload": {"id": row, "name": name}});
    let duplicates = |engine: &Engine, events: &[Value]| {
        let (status, answer) = engine.post(&Value::from(events).to_string()).expect("an answer");
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(&answer).expect("JSON")["duplicates"].clone()
    };
    let mut read = 0;
    for (round, clock) in ["", "clock.back=sabotage", "clock.back=sabotage@9", ""].into_iter().enumerate() {
        let engine = Engine::start_with(&folder, &[], &[("GRAVITY_FAILPOINTS", clock)]);
        let own = format!("r{round}");
        assert_eq!(duplicates(&engine, &[named(&own, 1, &own), named("same", 2, "first")]), u64::from(round > 0));
        read += if round == 0 { 2 } else { 1 };
        // Of the key of each round's own: one dead letter, and one that waits behind it.
        let key = 10 + round as i64;
        post(&engine, &[event("userSaved", &json!({"id": key, "name": 7})), saved(key, "waits")]);
        read += 2;
        let route = settled(&engine, read, 2 * (round as u64 + 1));
        assert!(route["lag_seconds"].as_f64().is_some_and(|lag| (0.0..60.0).contains(&lag)), "{route}");
        assert_eq!(
            target.rows("users", &["id", "name"]),
            [format!("1 {own}"), "2 first".to_owned()],
            "log order rules"
        );
        engine.stop();
    }
}

/// The database has no room: that is no event's fault. The route waits and says so, nothing parks, and it goes on by itself. The
/// refusal is what the server says when its disk is full, raised by a trigger; SQLite's disk is really full.
pub fn trap24_no_room_in_the_database_parks_nothing(target: &Target) {
    let (make, drop) = match target.entry("none")["type"].as_str() {
        Some("postgres") => (
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE EXCEPTION ''no space left on device'' USING ERRCODE = ''53100''; END'; \
             CREATE TRIGGER no_room BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION no_room()",
            "DROP TRIGGER no_room ON users",
        ),
        Some("mysql") => (
            "CREATE TRIGGER no_room BEFORE INSERT ON users FOR EACH ROW \
             SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1021, MESSAGE_TEXT = 'Disk full'",
            "DROP TRIGGER no_room",
        ),
        // A file's disk can be really full.
        Some("sqlite") => return crate::process::full_disk_under_a_file(),
        _ => {
            println!("skipped: no way to fill the disk of a server that others use");
            return;
        }
    };
    let folder = target.config(&users());
    let engine = Engine::start(&folder);
    post(&engine, &[saved(1, "a")]);
    settled(&engine, 1, 0);
    target.dba(make);
    post(&engine, &[saved(2, "b"), saved(3, "c")]);
    let full = eventually(|| engine.route(ROUTE), |route| route["error"].is_string());
    assert_eq!((&full["state"], &full["parked"]), (&json!("degraded"), &json!(0)), "{full}");
    post(&engine, &[saved(4, "d")]);
    target.dba(drop);
    let back = settled(&engine, 4, 0);
    assert_eq!((&back["state"], &back["error"]), (&json!("running"), &Value::Null), "{back}");
    assert_eq!(target.rows("users", &["id", "name"]), ["1 a", "2 b", "3 c", "4 d"]);
    engine.stop();
}
