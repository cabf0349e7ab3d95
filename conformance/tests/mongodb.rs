//! The whole chain into MongoDB: events over HTTP, the log, the deck's rules with its db2 as MongoDB, read back with pymongo;
//! the engine is killed again and again while events come.

use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::view_suite::MongoPlace;
use serde_json::json;

const ROUNDS: u64 = 5;
const PER_ROUND: u64 = 200;

fn config(place: &MongoPlace) -> Folder {
    let folder = Folder::new(&[]);
    let database = json!({"type": "mongodb", "uri": place.uri, "dbName": place.database, "ddl": "create"});
    folder.write_json("databases.json", &json!({"databases": {"db2": database}}));
    let field = |source: &str, target: &str, word: &str| json!({"source": source, "target": target, "type": word});
    let key = json!({"source": "id", "target": "id", "type": "i64", "primary": true});
    folder.write_json(
        "rules.json",
        &json!({"rules": [
            {"event": "userCreated", "table": "users", "method": "update", "mapping": [
                key, field("name", "col_name", "text"), field("email", "col_email", "text")]},
            {"event": "userDeleted", "table": "users", "method": "delete", "mapping": [key]}
        ]}),
    );
    folder
}

#[test]
fn events_become_documents_once_through_kills() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let Some(place) = runtime.block_on(MongoPlace::new()) else { return };
    let folder = config(&place);
    let mut engine = Engine::start(&folder);
    let mut sent = 0;
    for round in 0..ROUNDS {
        for number in 0..PER_ROUND {
            let id = number;
            let body = if number % 10 == 9 {
                json!({"event": "userDeleted", "payload": {"id": id}})
            } else {
                json!({"event": "userCreated", "payload": {"id": id, "name": format!("n{round}"), "email": "$ne"}})
            };
            let (status, answer) = engine.post(&body.to_string()).expect("an answer");
            assert_eq!(status, 200, "{answer}");
            sent += 1;
        }
        if round + 1 < ROUNDS {
            engine.kill();
            engine = Engine::start(&folder);
        }
    }
    engine.in_step("db2", sent);
    let status = engine.status();
    assert_identity(&status);
    assert_eq!(status["routes"][0]["applied"], json!(sent), "{status}");
    let rows = place.documents("users", &["_id", "id", "col_name", "col_email"], false);
    assert_eq!(rows.len() as u64, PER_ROUND - PER_ROUND / 10);
    let newest = format!("n{}", ROUNDS - 1);
    for row in &rows {
        assert_eq!((&row[0], row[2].as_deref(), row[3].as_deref()), (&row[1], Some(newest.as_str()), Some("$ne")));
    }
    assert!(place.documents("gravity_journal", &["_id"], true).is_empty(), "no journal is left");
    engine.stop();
    println!("{sent} events, {} kills, {} documents, 0 lost, 0 doubled", ROUNDS - 1, rows.len());
    runtime.block_on(place.remove());
}
