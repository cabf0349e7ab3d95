//! Every way in into every kind of database: the deck's event published by the source's own client, its row read by the
//! database's own client, the engine ended in between by SIGTERM and by SIGKILL, and nothing lost, doubled or unaccounted for.

use std::time::Instant;

use gravity_conformance::blackbox::door::Door;
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::server::root;
use serde_json::{Value, json};

use crate::store::Store;

/// What is published, and the rows behind it.
const CREATED: &str =
    r#"{"event": "userCreated", "payload": {"id": 1, "name": "Fred Chien", "email": "fred@brobridge.com"}}"#;
const CREATED_ROWS: &str = "1|Fred Chien|fred@brobridge.com";
/// The deck's `update` changes what the event carries and creates what is missing.
const CHANGED: [&str; 2] = [
    r#"{"event": "userCreated", "payload": {"id": 1, "name": "Fred C."}}"#,
    r#"{"event": "userCreated", "payload": {"id": 2, "name": "Stacy", "email": "stacy@brobridge.com"}}"#,
];
const CHANGED_ROWS: &str = "1|Fred C.|fred@brobridge.com\n2|Stacy|stacy@brobridge.com";
const DELETED: &str = r#"{"event": "userDeleted", "payload": {"id": 2}}"#;
const DELETED_ROWS: &str = "1|Fred C.|fred@brobridge.com";

/// The deck's projection as it stands, and a rule of the deck's form that deletes.
fn config(door: &Door, store: &Store) -> Folder {
    let folder = Folder::new(&[]);
    let deck = root().join("deploy/examples/deck/rules/1.json");
    folder.write("rules/1.json", std::fs::read(&deck).unwrap_or_else(|error| panic!("{}: {error}", deck.display())));
    let delete = json!({"event": "userDeleted", "table": "users", "method": "delete",
        "mapping": [{"source": "id", "target": "id", "primary": true}]});
    folder.write_json("rules/2.json", &json!({"rules": [delete]}));
    folder.write_json("databases.json", &json!({"databases": {"db1": store.entry()}}));
    folder.write_json("sources.json", &json!({"sources": {"deck": door.source()}}));
    folder
}

/// Waits for the rows, and for the sum of what happened to `sent` events.
#[track_caller]
fn settled(engine: &Engine, store: &Store, sent: u64, rows: &str) {
    let whole = |status: &Value| {
        let route = &status["routes"][0];
        let source = &status["sources"][0];
        let stored = source["received"].as_u64().zip(source["duplicates"].as_u64()).map(|(r, d)| r - d);
        route["lag_events"] == 0 && route["read"] == sent && stored == Some(sent)
    };
    let status = eventually(|| engine.status(), whole);
    assert_identity(&status);
    assert_eq!(status["routes"][0]["applied"], json!(sent), "{status}");
    assert_eq!(store.rows(), rows);
}

fn play(name: &str, door: fn() -> Option<Door>, store: fn() -> Option<Store>) {
    let Some(door) = door() else { return };
    let Some(store) = store() else { return };
    let begun = Instant::now();
    let folder = config(&door, &store);
    let engine = Engine::start(&folder);
    let publish = |engine: &str, event: &str| door.publish(engine, None, &[], Some(event));
    publish(&engine.url, CREATED);
    settled(&engine, &store, 1, CREATED_ROWS);
    engine.stop();
    // What a broker is given while the engine is away is taken in by the next one, which is killed over it.
    let away = if door.keeps() { CHANGED.as_slice() } else { &[] };
    away.iter().for_each(|event| publish("", event));
    let engine = Engine::start(&folder);
    CHANGED.iter().skip(away.len()).for_each(|event| publish(&engine.url, event));
    engine.kill();
    let engine = Engine::start(&folder);
    settled(&engine, &store, 3, CHANGED_ROWS);
    publish(&engine.url, DELETED);
    settled(&engine, &store, 4, DELETED_ROWS);
    engine.stop();
    println!("{name}: 4 events, 1 stop, 1 kill, 0 lost, 0 doubled, in {:.1} s", begun.elapsed().as_secs_f64());
}

macro_rules! cells {
    ($($name:ident: $door:ident, $store:ident;)*) => {
        $(
            #[test]
            fn $name() {
                play(stringify!($name), Door::$door, Store::$store);
            }
        )*
    };
}

cells! {
    kcat_to_psql: kafka, postgres;
    kcat_to_mariadb: kafka, mariadb;
    kcat_to_sqlite3: kafka, sqlite;
    kcat_to_pymongo: kafka, mongodb;
    nats_to_psql: nats, postgres;
    nats_to_mariadb: nats, mariadb;
    nats_to_sqlite3: nats, sqlite;
    nats_to_pymongo: nats, mongodb;
    amqp_publish_to_psql: rabbitmq, postgres;
    amqp_publish_to_mariadb: rabbitmq, mariadb;
    amqp_publish_to_sqlite3: rabbitmq, sqlite;
    amqp_publish_to_pymongo: rabbitmq, mongodb;
    curl_to_psql: http, postgres;
    curl_to_mariadb: http, mariadb;
    curl_to_sqlite3: http, sqlite;
    curl_to_pymongo: http, mongodb;
}
