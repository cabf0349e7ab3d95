//! The whole chain into MongoDB: events over HTTP, the log, the deck's rules with its db2 as MongoDB, read back with pymongo;
//! the engine is killed again and again while events come.

use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::engine_rig::EngineRig;
use gravity_conformance::view_suite::{MongoPlace, Place, table};
use gravity_engine::status::DeadLetter;
use gravity_rules::DatabaseKind;
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

/// The server alone knows: whether it says so of an insert or of an update, the event is parked and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_meets_a_unique_index_is_parked() {
    let Some(place) = MongoPlace::new().await else { return };
    let rules = json!({"rules": [{"event": "user", "table": "users", "method": "update", "mapping": [
        {"source": "id", "target": "id", "type": "i64", "primary": true},
        {"source": "email", "target": "email", "type": "text"}]}]});
    let engine = EngineRig::new(DatabaseKind::Mongodb, place.store(), rules.to_string()).start().await;
    let user = |id: u64, email: &str| json!({"event": "user", "payload": {"id": id, "email": email}});
    let first = engine.post(&json!([user(1, "a"), user(2, "b")]).to_string()).await;
    engine.in_view(first).await;
    // Made while the route runs: FerretDB tells nobody that an index is sparse, and the route would refuse it at its start.
    let index = json!({"key": {"email": 1}, "name": "email", "unique": true, "sparse": true});
    place.command(json!({"createIndexes": "users", "indexes": [index]}));
    // An update, an insert, one that is fine; and what shares a key with a parked event waits behind it.
    let parked = engine.post(&json!([user(2, "a"), user(3, "b"), user(4, "d")]).to_string()).await;
    engine.in_view(parked).await;
    let last = engine.post(&user(2, "z").to_string()).await;
    engine.in_view(last).await;
    let letters = engine.0.dead_letters(Some("db1")).await.expect("listed");
    let code = |letter: &DeadLetter| if letter.waiting { "it waits".to_owned() } else { letter.code.clone() };
    let letters: Vec<(u64, String)> = letters.iter().map(|letter| (letter.sequence, code(letter))).collect();
    let route = engine.route();
    engine.0.shutdown().await;
    let rows = place.rows("users", &["id", "email"]).await;
    place.remove().await;
    let wanted = [(parked - 2, "11000"), (parked - 1, "11000"), (last, "it waits")];
    let wanted = wanted.map(|(sequence, code)| (sequence, code.to_owned()));
    assert_eq!(letters, wanted, "{route:?}");
    assert_eq!(rows, table(&[&["1", "a"], &["2", "b"], &["4", "d"]]));
}
