//! What the database is asked to do (O50), counted by the database.

use gravity_conformance::blackbox::engine::Engine;
use gravity_conformance::blackbox::server::Database;
use serde_json::{Value, json};

use crate::target::{ROUTE, config_of, deleted, post, saved, settled, users};

const EVENTS: usize = 10_000;

/// One statement of ours may be two for the trigger: an insert that updates is both.
const COUNTED: &str = "CREATE TABLE users (id bigint PRIMARY KEY, name text, email text); CREATE SEQUENCE asked; \
    CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''asked''); RETURN NULL; END'; \
    CREATE TRIGGER counted BEFORE INSERT OR UPDATE OR DELETE ON users FOR EACH STATEMENT EXECUTE FUNCTION count_it()";

/// Statements for so many events that wait when the route goes on.
fn statements_for(events: &[Value], more_routes: usize) -> Option<u64> {
    let database = Database::create()?;
    database.psql(COUNTED);
    let folder = config_of(&database.entry(), &users());
    let mut databases = json!({ROUTE: database.entry()});
    let mut rules = users();
    for name in ["userSaved", "userDeleted"] {
        rules.push(json!({"event": name, "database": ROUTE}));
    }
    for number in 0..more_routes {
        let name = format!("more{number}");
        databases[&name] = json!({"type": "sqlite", "path": format!("{name}.db"), "ddl": "create"});
        rules.extend(["userSaved", "userDeleted"].map(|event| json!({"event": event, "database": name})));
    }
    let typed = rules.iter().filter(|rule| rule["event"] != "userAdded").cloned().collect::<Vec<_>>();
    folder.write_json("databases.json", &json!({"databases": databases}));
    folder.write_json("rules.json", &json!({"rules": typed}));
    let engine = Engine::start(&folder);
    post(&engine, &[saved(-1, "first")]);
    settled(&engine, 1, 0);
    engine.ask(&["route", "pause", ROUTE]).expect(0);
    let first = engine.status()["log"]["last"].as_u64().expect("a sequence");
    events.chunks(2_000).for_each(|part| post(&engine, part));
    let taken = engine.status()["log"]["last"].as_u64().expect("a sequence") - first;
    // Cursors, types and the pause itself are records as well; an event is one, whatever the number of routes.
    assert!((EVENTS as u64..EVENTS as u64 + 50).contains(&taken), "{taken} records for {EVENTS} events");
    let asked = || -> u64 {
        let count = database.psql("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM asked");
        count.parse().expect("a number")
    };
    let before = asked();
    engine.ask(&["route", "resume", ROUTE]).expect(0);
    settled(&engine, EVENTS + 1, 0);
    let count = asked() - before;
    engine.stop();
    Some(count)
}

#[test]
fn o50_statements_of_ten_thousand_events_are_bounded() {
    let id = |n: usize| (n * 7_919 % 3_000) as i64;
    let updates: Vec<Value> = (0..EVENTS).map(|n| saved(id(n), "x")).collect();
    let Some(few) = statements_for(&updates, 0) else { return };
    assert!(few <= 16, "{few} statements for {EVENTS} updates");
    let Some(beside) = statements_for(&updates, 2) else { return };
    assert!(beside <= 16, "{beside} statements for {EVENTS} updates with two more routes");
    println!("{few} statements for {EVENTS} updates, {beside} with two more routes");
}

/// Peers' trap 2: deletes among the updates do not cut the batch into small pieces.
#[test]
fn o50_trap2_interleaved_deletes_do_not_cut_the_batch() {
    let id = |n: usize| (n * 7_919 % 3_000) as i64;
    let events: Vec<Value> =
        (0..EVENTS).map(|n| if n % 3 == 0 { deleted(id(n / 2)) } else { saved(id(n), "x") }).collect();
    let Some(count) = statements_for(&events, 0) else { return };
    assert!(count <= 32, "{count} statements for {EVENTS} updates and deletes by turns");
    println!("{count} statements for {EVENTS} updates and deletes by turns");
}
